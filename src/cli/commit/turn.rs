//! What a captured commit comes to when its turn is there: others may have committed since the call, and staged.
//!
//! Two indexes are made: the one to commit from, which is HEAD and what was captured, and the worktree's next one, which
//! also has what others have staged. Where nobody has staged anything they are the same, and one serves for both: that
//! is the usual case, and each git that it saves is one that others need not wait for.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use anyhow::Result;

use super::capture::{Capture, lines, tree_of};
use super::changes::{self, Changes, Entry};
use super::index::PrivateIndex;
use crate::cli::failure::failure;
use crate::cli::worktree::{Head, Worktree, ask, git};

/// A captured commit at its turn.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Where it is.
    pub worktree: &'a Worktree,
    capture: &'a Capture,
    /// Where HEAD is now.
    pub head: Head,
    /// What the commit is to change, without what others have committed meanwhile in the same words.
    pub declared: Changes,
    /// What the worktree's index has other than HEAD.
    staged: Changes,
}

/// The worktree's next index.
#[derive(Debug)]
pub struct Next {
    /// The index.
    pub index: PrivateIndex,
    /// Whether it has nothing but HEAD and the commit.
    pub is_plain: bool,
}

impl<'a> Turn<'a> {
    /// Compares what was captured with what there is now; refuses when a file of ours would take back theirs.
    pub fn begin(worktree: &'a Worktree, capture: &'a Capture, head: Head) -> Result<Self> {
        let index = PrivateIndex::copy(worktree, "index-next")?;
        let staged = changes::in_index(index.git(&[]), &tree_of(&head)?, &[])?;
        let mut this = Self {
            worktree,
            capture,
            head,
            declared: capture.declared.clone(),
            staged,
        };
        if this.head != capture.head {
            this.follow()?;
        }
        Ok(this)
    }

    /// Others have committed since the call.
    fn follow(&mut self) -> Result<()> {
        let moved = changes::between(&tree_of(&self.capture.head)?, &tree_of(&self.head)?)?;
        let mut doubtful: Vec<OsString> = Vec::new();
        for (path, theirs) in &moved {
            let Some(ours) = self.declared.get(path) else { continue };
            if ours.new == theirs.new {
                self.declared.remove(path);
            } else {
                doubtful.push(OsString::from_vec(path.clone()));
            }
        }
        if doubtful.is_empty() {
            Ok(())
        } else {
            self.check_newer(&doubtful)
        }
    }

    /// The index to commit from, beside the worktree's next one.
    pub fn index(&self, next: &Next) -> Result<PrivateIndex> {
        if next.is_plain {
            return next.index.copy_as(self.worktree, "index");
        }
        let index = PrivateIndex::copy(self.worktree, "index")?;
        index.read_tree(self.head.commit.as_deref())?;
        index.set(&lines(&self.declared))?;
        Ok(index)
    }

    /// The worktree's index as it belongs to a commit with these changes. What somebody has staged since the call stays
    /// as it is.
    pub fn next(&self, changes: &Changes) -> Result<Next> {
        let is_in_step = |path: &Vec<u8>, entry: &Entry| changes.get(path).is_some_and(|change| change.new == *entry);
        let before = if self.staged.iter().all(|(path, change)| is_in_step(path, &change.new)) {
            // Nothing is staged that we would have to know the age of.
            Changes::new()
        } else {
            self.capture.staged()?
        };
        let mut repair = Vec::new();
        let mut is_plain = self
            .staged
            .keys()
            .all(|path| changes.contains_key(path) || before.contains_key(path));
        for path in changes
            .keys()
            .chain(before.keys().filter(|path| !changes.contains_key(*path)))
        {
            let wanted = changes.get(path).map(|change| &change.new);
            match (self.staged.get(path), wanted) {
                // It has what HEAD has.
                (None, wanted) => repair.extend(wanted.into_iter().flat_map(|entry| entry.index_info(path))),
                (Some(now), Some(wanted)) if now.new == *wanted => {}
                (Some(now), wanted) if self.capture.was(&before, path, &now.new) => {
                    repair.extend(wanted.unwrap_or(&now.old).index_info(path));
                }
                (Some(_), _) => is_plain = false,
            }
        }
        let index = PrivateIndex::copy(self.worktree, "index-next")?;
        index.set(&repair)?;
        Ok(Next { index, is_plain })
    }

    /// Has git look at the files that the commit changes, for an index that git itself does not write once more.
    pub fn refresh(&self, next: &Next, changes: &Changes) {
        let present = changes.iter().filter(|(_, change)| !change.new.is_absent());
        let paths: Vec<u8> = present
            .flat_map(|(path, _)| [path.as_slice(), b"\0"].concat())
            .collect();
        next.index.refresh(self.worktree, &paths);
    }

    /// Others have committed other content of these files. Ours may follow when it was written on top of theirs: the
    /// index has what they committed, and the file what we captured. Anything else would revert somebody's work.
    fn check_newer(&self, paths: &[OsString]) -> Result<()> {
        let in_place = |command: &mut Command| {
            command
                .env("GIT_LITERAL_PATHSPECS", "1")
                .current_dir(&self.worktree.top);
        };
        let mut theirs = git::<&str>(&[]);
        in_place(&mut theirs);
        let unlike_theirs = changes::in_index(theirs, &tree_of(&self.head)?, paths)?;
        let index = PrivateIndex::copy(self.worktree, "index")?;
        index.read_tree(self.head.commit.as_deref())?;
        index.set(&lines(&self.declared))?;
        // What git knows of files that were touched and not changed is out of date, and would count as a change.
        let mut refresh = index.git(&["update-index", "-q", "--refresh"]);
        in_place(&mut refresh);
        let _ = ask(&mut refresh, b"");
        let mut ours = index.git(&["diff-files", "--name-only", "-z", "--"]);
        in_place(&mut ours);
        let unlike_ours = ask(ours.args(paths), b"")?;
        if unlike_theirs.is_empty() && unlike_ours.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
        let commit = self.head.commit.as_deref().unwrap_or("nothing");
        let sentence = format!(
            "others have committed {} since you asked (HEAD is {commit}), and what you have would take that back: look \
             at the files, and commit again",
            names.join(", ")
        );
        Err(failure(1, sentence))
    }
}
