//! The check after a `git commit` that ran under locks: whether it has the files that it was about to have.
//!
//! What it is about to have is what git itself says for the same arguments, whichever they are (paths, `--all`,
//! `--include`, `--amend`, or just what is staged): it is asked once the locks are there, and before any hook runs. What
//! differs afterwards, a hook has added or taken out, or a git that takes no locks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Prepared;
use crate::cli::child::Outcome;
use crate::cli::client::Mount;
use crate::cli::commit::validate::warn;
use crate::cli::taken::Taken;
use crate::scopes::Arguments;

/// With these it is not known before what is going to be committed, or nothing is.
const UNKNOWN_BEFORE: &[&str] = &[
    "-p",
    "--patch",
    "--interactive",
    "--dry-run",
    "--short",
    "--long",
    "--porcelain",
    "-z",
    "--null",
];

/// Paths, from the top of the worktree.
type Paths = BTreeMap<Vec<u8>, ()>;

/// What a commit is about to have.
#[derive(Debug)]
pub struct Declared<'a> {
    program: &'a Path,
    /// git's own options, which say which repository it is about.
    options: &'a [OsString],
    paths: Paths,
}

impl<'a> Declared<'a> {
    /// Asks git; `None` when the command is no commit, or when it cannot be known.
    pub fn before(program: &'a Path, args: &'a [OsString], prepared: &Prepared, taken: &Taken) -> Option<Self> {
        let plan = &prepared.plan;
        let arguments = Arguments::new("commit", &plan.args);
        let is_readable = |word: &String| !word.contains(char::REPLACEMENT_CHARACTER);
        let is_known = plan.command.as_deref() == Some("commit")
            && plan.args.iter().all(is_readable)
            && !UNKNOWN_BEFORE.iter().any(|option| arguments.has(option))
            // What is read from standard input can be read once.
            && arguments.value_of("--pathspec-from-file") != Some("-");
        let options = args.get(..prepared.options).filter(|_| is_known)?;
        let mut command = Command::new(program);
        command
            .args(options)
            .args([
                "-c",
                "status.renames=false",
                "commit",
                "--porcelain",
                "-z",
                "--untracked-files=no",
            ])
            .args(&plan.args);
        taken.dress(&mut command);
        let said = ask(command)?;
        // `XY PATH`, where X is what the commit does to it.
        let entries = said.split(|&byte| byte == 0).filter(|entry| entry.len() > 3);
        let changed = entries.filter(|entry| !matches!(entry[0], b' ' | b'?' | b'!'));
        let paths = changed.map(|entry| (entry[3..].to_vec(), ())).collect();
        Some(Self {
            program,
            options,
            paths,
        })
    }

    /// Compares it with the commit that was made, and warns of a difference.
    pub fn compare(&self, outcome: &Outcome, mount: &Mount) {
        if *outcome != Outcome::Exited(0) {
            return;
        }
        let mut command = Command::new(self.program);
        command.args(self.options).args([
            "diff-tree",
            "--root",
            "-r",
            "-z",
            "--name-only",
            "--no-renames",
            "--no-relative",
            "--ignore-submodules=none",
            "--diff-merges=first-parent",
            "HEAD",
        ]);
        let Some(said) = ask(command) else { return };
        let mut fields = said.split(|&byte| byte == 0);
        let commit = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
        let committed: Paths = fields
            .filter(|path| !path.is_empty())
            .map(|path| (path.to_vec(), ()))
            .collect();
        // A commit without changes has no line of its own.
        if !commit.is_empty() {
            warn(mount, &commit, &self.paths, &committed);
        }
    }
}

fn ask(mut command: Command) -> Option<Vec<u8>> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    // A commit that would be empty is one that git says no to.
    (output.status.success() || output.stdout.is_empty()).then_some(output.stdout)
}
