//! Which program is git, when we stand before it in PATH; and becoming it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Result;
use nix::unistd::{AccessFlags, access};

use super::super::failure::failure;
use super::super::place;
use super::super::worktree::ask;

/// Exit code when there is no such program, as a shell has it.
const EXIT_NOT_FOUND: u8 = 127;

/// What the names of our programs begin with.
const OURS: &str = "git-lockfs";

/// The first git in PATH that is none of ours.
pub fn real_git() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(&path).ok_or_else(|| failure(EXIT_NOT_FOUND, "there is no git in PATH but this one"))
}

fn find_in(path: &OsStr) -> Option<PathBuf> {
    let identity = |path: &Path| {
        std::fs::metadata(path)
            .ok()
            .map(|meta| (meta.is_file(), meta.dev(), meta.ino()))
    };
    let own = identity("/proc/self/exe".as_ref());
    std::env::split_paths(path).map(|dir| dir.join("git")).find(|git| {
        let found = identity(git);
        let is_ours = || {
            let target = git.canonicalize().unwrap_or_default();
            target
                .file_name()
                .is_some_and(|name| name.as_bytes().starts_with(OURS.as_bytes()))
        };
        found.is_some_and(|(is_file, ..)| is_file)
            && found != own
            && !is_ours()
            && access(git, AccessFlags::X_OK).is_ok()
    })
}

/// PATH as whoever called us has it. Called as `git lockfs` we have it from git, which puts the directory of its own
/// programs before it.
pub fn callers_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match exec_path() {
        Some(own) => without_first(&path, &own),
        None => path,
    }
}

fn exec_path() -> Option<PathBuf> {
    let answer = ask(place::git().arg("--exec-path"), b"").ok()?;
    Some(PathBuf::from(OsStr::from_bytes(answer.trim_ascii_end())))
}

/// A PATH that does not begin with that directory.
fn without_first(path: &OsStr, own: &Path) -> OsString {
    let mut rest = std::env::split_paths(path).peekable();
    let is_own = |first: &PathBuf| matches!((first.canonicalize(), own.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if rest.peek().is_some_and(is_own) {
        rest.next();
    }
    // What was split at its colons can be joined by them.
    std::env::join_paths(rest).unwrap_or_else(|_| path.to_owned())
}

/// Becomes git; returns only when that fails.
pub fn become_git(mut command: Command) -> Result<ExitCode> {
    let error = command.exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound {
        EXIT_NOT_FOUND
    } else {
        126
    };
    Err(failure(
        code,
        format!("{}: {error}", command.get_program().to_string_lossy()),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_directory_of_gits_own_programs_is_not_of_the_callers_path() {
        let (own, other) = (Path::new("/usr/./bin"), "/bin:/usr/bin");
        assert_eq!(without_first("/usr/bin:/bin:/usr/bin".as_ref(), own), other);
        assert_eq!(
            without_first("/nowhere:/usr/bin".as_ref(), own),
            "/nowhere:/usr/bin",
            "only where it is first"
        );
        assert_eq!(without_first("/usr/bin".as_ref(), own), "");
        assert_eq!(without_first("".as_ref(), own), "");
    }

    #[test]
    fn this_program_under_the_name_of_git_is_passed_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for name in ["own", "ours", "plain", "real"] {
            std::fs::create_dir(at(name)).expect("a directory");
        }
        symlink("/proc/self/exe", at("own").join("git")).expect("a link");
        std::fs::copy("/bin/true", at("git-lockfs-shim")).expect("a copy");
        symlink("../git-lockfs-shim", at("ours").join("git")).expect("a link");
        std::fs::write(at("plain").join("git"), "not executable").expect("a file");
        symlink("/bin/true", at("real").join("git")).expect("a link");
        let path = std::env::join_paths(["own", "ours", "missing", "plain", "real"].map(at)).expect("a PATH");
        assert_eq!(find_in(&path), Some(at("real").join("git")));
        assert_eq!(find_in(at("own").as_os_str()), None);
    }
}
