//! Indexes: private ones beside that of the worktree, and git's own lock on the latter.
//!
//! The worktree's index is replaced as git does it: the next one is written whole into `index.lock` and renamed. As
//! long as that file is there, no git changes the index; when we die in between, it stays, git refuses to go on
//! without a person, and what it has is the index as it belongs to the commit.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cli::EXIT_NOT_HAD;
use crate::cli::bounded::until;
use crate::cli::failure::failure;
use crate::cli::report;
use crate::cli::worktree::{Worktree, ask, git};

/// How long another git may hold `index.lock` before we give up: a git that runs needs milliseconds.
const INDEX_LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// An index of our own, in the git directory of the worktree; removed when this goes.
#[derive(Debug)]
pub struct PrivateIndex {
    path: PathBuf,
}

impl PrivateIndex {
    /// A copy of the worktree's index as it is, with all that git knows of its files; empty when there is none yet.
    pub fn copy(worktree: &Worktree, what: &str) -> Result<Self> {
        Self::copy_of(&worktree.index, worktree, what)
    }

    /// The same of this one.
    pub fn copy_as(&self, worktree: &Worktree, what: &str) -> Result<Self> {
        Self::copy_of(&self.path, worktree, what)
    }

    fn copy_of(from: &Path, worktree: &Worktree, what: &str) -> Result<Self> {
        let path = worktree.git_dir.join(format!("lockfs-{what}-{}", std::process::id()));
        let this = Self { path };
        match copy_with_time(from, &this.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(this),
            copied => {
                copied.with_context(|| format!("{} could not be copied", from.display()))?;
                Ok(this)
            }
        }
    }

    /// git on this index.
    pub fn git(&self, args: &[&str]) -> Command {
        let mut command = git(args);
        self.apply(&mut command);
        command
    }

    /// Lets a command see this index instead of the worktree's.
    pub fn apply(&self, command: &mut Command) {
        command.env("GIT_INDEX_FILE", &self.path);
    }

    /// Makes it the index of a tree, or empty. What is known of files that are the same stays known.
    pub fn read_tree(&self, tree: Option<&str>) -> Result<()> {
        let mut command = match tree {
            Some(tree) => self.git(&["read-tree", "--reset", tree]),
            None => self.git(&["read-tree", "--empty"]),
        };
        ask(&mut command, b"").map(drop)
    }

    /// Sets entries, given as lines of `--index-info`.
    pub fn set(&self, lines: &[u8]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        ask(&mut self.git(&["update-index", "-z", "--index-info"]), lines).map(drop)
    }

    /// Looks at these files again, so that the next `git status` need not; paths from the top, each with a NUL.
    pub fn refresh(&self, worktree: &Worktree, paths: &[u8]) {
        if !paths.is_empty() {
            let mut command = self.git(&["add", "--refresh", "--pathspec-from-file=-", "--pathspec-file-nul"]);
            command.env("GIT_LITERAL_PATHSPECS", "1").current_dir(&worktree.top);
            // Only saves work: a file that is gone again is no reason to fail.
            let _ = ask(&mut command, paths);
        }
    }
}

impl Drop for PrivateIndex {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let mut lock = OsString::from(&self.path);
        lock.push(".lock");
        let _ = fs::remove_file(lock);
    }
}

/// git's lock on the index of a worktree, ours as long as this value lives.
#[derive(Debug)]
pub struct IndexLock<'a> {
    worktree: &'a Worktree,
    path: PathBuf,
}

impl<'a> IndexLock<'a> {
    /// Takes it, and waits for gits that do not know of us.
    pub fn take(worktree: &'a Worktree) -> Result<Self> {
        let mut path = OsString::from(&worktree.index);
        path.push(".lock");
        let path = PathBuf::from(path);
        let opened = until(INDEX_LOCK_WAIT_MAX, || {
            match File::options().write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => None,
                other => Some(other),
            }
        });
        match opened {
            Some(opened) => opened.with_context(|| path.display().to_string())?,
            None => return Err(still_there(&path)),
        };
        Ok(Self { worktree, path })
    }

    /// Writes the next index into the lock; it is not in force yet.
    pub fn fill(&self, next: PrivateIndex) -> Result<()> {
        fs::rename(&next.path, &self.path).with_context(|| self.path.display().to_string())
    }

    /// Makes what was written the index, and lets go of the lock.
    pub fn publish(self) -> Result<()> {
        let done = fs::rename(&self.path, &self.worktree.index).with_context(|| self.path.display().to_string());
        if done.is_ok() {
            std::mem::forget(self);
        }
        done
    }

    /// Leaves the lock where it is, so that git refuses to go on with an index that does not belong to its HEAD.
    pub fn leave(self) -> PathBuf {
        let path = self.path.clone();
        std::mem::forget(self);
        path
    }
}

impl Drop for IndexLock<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The time is part of an index: a file that is not older than it may have changed since git looked, and git reads it
/// again. A copy with a newer time would hide that change.
fn copy_with_time(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    let meta = from.metadata()?;
    let mut to = File::create(to)?;
    io::copy(&mut from, &mut to)?;
    to.set_permissions(meta.permissions())?;
    to.set_modified(meta.modified()?)
}

fn still_there(path: &Path) -> anyhow::Error {
    let sentence = format!(
        "another git has held {} for {}: wait for it to end; when none is running, remove that file",
        path.display(),
        report::span(INDEX_LOCK_WAIT_MAX)
    );
    failure(EXIT_NOT_HAD, sentence)
}
