//! The hooks that were there before ours: found, and run in our place.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{AccessFlags, access};

/// In a directory of links: names the directory of hooks whose place it has taken.
pub const PREVIOUS: &str = ".previous";

/// Hooks that are passed on whether they are there or not: a hook manager may write them any day.
pub const ALWAYS_PASSED_ON: &[&str] = &[
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "pre-commit",
    "pre-merge-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "pre-rebase",
    "post-checkout",
    "post-merge",
    "pre-push",
    "pre-receive",
    "update",
    "post-receive",
    "post-update",
    "pre-auto-gc",
    "post-rewrite",
    super::GUARD,
];
/// Hooks that are passed on only when they are there: git behaves otherwise when it finds one, or calls it so often
/// that calling it in vain would be felt.
pub const PASSED_ON_IF_THERE: &[&str] = &[
    "push-to-checkout",
    "proc-receive",
    "post-index-change",
    "fsmonitor-watchman",
    "sendemail-validate",
    "p4-changelist",
    "p4-prepare-changelist",
    "p4-post-changelist",
    "p4-pre-submit",
];

/// Whether git has a hook of that name.
pub fn is_hook(name: &str) -> bool {
    ALWAYS_PASSED_ON.contains(&name) || PASSED_ON_IF_THERE.contains(&name)
}

/// Runs the hook in whose place `called` was, with the same arguments and input, and returns its exit code; 0 when there
/// is none. With no input of its own to give, it becomes that hook.
pub fn run(called: &Path, arguments: &[OsString], input: Option<&[u8]>) -> u8 {
    let Some(hook) = previous(called) else {
        return 0;
    };
    let mut command = Command::new(&hook);
    command.args(arguments);
    let Some(input) = input else {
        let error = command.exec();
        eprintln!("git-lockfs: {}: {error}", hook.display());
        return 1;
    };
    let status = command.stdin(Stdio::piped()).spawn().and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            // A hook need not read what it is told.
            let _ = stdin.write_all(input);
        }
        child.wait()
    });
    match status {
        Ok(status) => {
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
        }
        Err(error) => {
            eprintln!("git-lockfs: {}: {error}", hook.display());
            1
        }
    }
}

/// A relative directory is meant from where git runs hooks, so each worktree has its own.
fn previous(called: &Path) -> Option<PathBuf> {
    let text = std::fs::read(called.parent()?.join(PREVIOUS)).ok()?;
    let hook = Path::new(OsStr::from_bytes(&text)).join(called.file_name()?);
    let hook = std::path::absolute(hook).ok()?;
    access(&hook, AccessFlags::X_OK).is_ok().then_some(hook)
}
