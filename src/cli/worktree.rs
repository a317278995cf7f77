//! The worktree of the current directory, as git sees it, and git's plumbing in it.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use super::git::real_git;
use super::place::Place;
pub use crate::adapters::Head;

/// A worktree, and git's plumbing in it.
#[derive(Clone, Debug)]
pub struct Worktree {
    /// The repository's places.
    pub place: Place,
    /// Its own git directory: `.git`, or `.git/worktrees/ID`.
    pub git_dir: PathBuf,
    /// Its topmost directory.
    pub top: PathBuf,
    /// Its index.
    pub index: PathBuf,
}

impl Worktree {
    /// Asks git for the worktree of the current directory.
    pub fn find() -> Result<Self> {
        let mut command = git(&["rev-parse", "--path-format=absolute", "--git-common-dir", "--git-dir"]);
        let answer = ask(command.args(["--show-toplevel", "--git-path", "index"]), b"")?;
        let lines: Vec<&[u8]> = answer.trim_ascii_end().split(|&b| b == b'\n').collect();
        let &[common_dir, git_dir, top, index] = lines.as_slice() else {
            bail!("the path of this worktree has a line break, which git's answers cannot carry");
        };
        let path = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
        Ok(Self {
            place: Place::of(path(common_dir)),
            git_dir: path(git_dir),
            top: path(top),
            index: path(index),
        })
    }

    /// Where HEAD is now.
    pub fn head(&self) -> Result<Head> {
        if let Some(head) = Head::read(&self.git_dir, &self.place.common_dir) {
            return Ok(head);
        }
        let line = |args: &[&str]| -> Result<Option<String>> {
            let output = git(args)
                .stderr(Stdio::null())
                .output()
                .context("git could not be started")?;
            let text = String::from_utf8_lossy(output.stdout.trim_ascii_end()).into_owned();
            Ok((output.status.success() && !text.is_empty()).then_some(text))
        };
        let both = line(&["rev-parse", "--quiet", "HEAD^{commit}", "--symbolic-full-name", "HEAD"])?;
        if let Some((commit, name)) = both.as_deref().and_then(|both| both.split_once('\n')) {
            return Ok(Head {
                commit: Some(commit.to_owned()),
                branch: (name != "HEAD").then(|| name.to_owned()),
            });
        }
        Ok(Head {
            commit: None,
            branch: line(&["symbolic-ref", "--quiet", "HEAD"])?,
        })
    }
}

/// git, out of reach of the terminal's Ctrl-C: what was begun under a lock is ended in order.
pub fn git<S: AsRef<OsStr>>(args: &[S]) -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    // Not the one that takes locks, where it stands first in PATH: these run within ours, or need none.
    let program = PROGRAM.get_or_init(|| real_git().unwrap_or_else(|_| PathBuf::from("git")));
    let mut command = Command::new(program);
    command.args(args).env("GIT_OPTIONAL_LOCKS", "0").process_group(0);
    command
}

/// Runs git, gives it `input` and returns what it says; fails with its own words.
pub fn ask(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let stdin = if input.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("git could not be started")?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who reads no further has failed, and says why.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().context("git could not be waited for")?;
    if !output.status.success() {
        match String::from_utf8_lossy(&output.stderr).trim_end() {
            "" => bail!("git failed: {}", output.status),
            words => bail!("{words}"),
        }
    }
    Ok(output.stdout)
}
