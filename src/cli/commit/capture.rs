//! What a commit is going to have, fixed at the moment of the call: before the wait for the lock, in which others go on
//! writing files.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};

use super::changes::{self, Change, Changes, Entry};
use super::index::PrivateIndex;
use crate::cli::failure::failure;
use crate::cli::worktree::{Head, Worktree, ask, git};

/// HEAD and the named paths, at the moment of the call.
#[derive(Debug)]
pub struct Capture {
    /// Where HEAD was.
    pub head: Head,
    /// What the commit is to change: the declared scope.
    pub declared: Changes,
    /// What the worktree's index had at the named paths where that was something else: from what is captured to what
    /// it had.
    staged: Changes,
}

impl Capture {
    /// Stages the paths in an index of our own, with git's rules for paths, filters and ignored files.
    pub fn take(worktree: &Worktree, paths: &[OsString]) -> Result<Self> {
        let head = worktree.head()?;
        let before = PrivateIndex::copy(worktree, "index-before")?;
        let index = PrivateIndex::copy(worktree, "index")?;
        index.read_tree(head.commit.as_deref())?;
        ask(index.git(&["add", "--all", "--"]).args(paths), b"")?;
        let declared = changes::in_index(index.git(&[]), &tree_of(&head)?, &[])?;
        let tree = ask(&mut index.git(&["write-tree"]), b"")?;
        let tree = String::from_utf8(tree).context("git wrote a tree that is no text")?;
        let staged = changes::in_index(before.git(&[]), tree.trim_end(), paths)?;
        Ok(Self { head, declared, staged })
    }

    /// The index to commit from: HEAD as it is now, and what was captured. What others have committed meanwhile in the
    /// same words is left out; refuses when a file of ours would take back theirs.
    pub fn onto(&mut self, worktree: &Worktree, now: &Head) -> Result<PrivateIndex> {
        let index = PrivateIndex::copy(worktree, "index")?;
        index.read_tree(now.commit.as_deref())?;
        index.set(&lines(&self.declared))?;
        if *now == self.head {
            return Ok(index);
        }
        let moved = changes::between(&tree_of(&self.head)?, &tree_of(now)?)?;
        let mut doubtful: Vec<OsString> = Vec::new();
        for (path, theirs) in &moved {
            let Some(ours) = self.declared.get(path) else { continue };
            if ours.new == theirs.new {
                self.declared.remove(path);
            } else {
                doubtful.push(os_path(path));
            }
        }
        if !doubtful.is_empty() {
            check_newer(worktree, &index, now, &doubtful)?;
        }
        self.head = now.clone();
        Ok(index)
    }

    /// The lines that bring a copy of the worktree's index, as it is now, in step with a commit that made `changes` on
    /// the captured HEAD. What somebody has staged since the call stays as it is.
    pub fn repair(&self, next: &PrivateIndex, changes: &Changes) -> Result<Vec<u8>> {
        let differs = changes::in_index(next.git(&[]), &tree_of(&self.head)?, &[])?;
        let mut repair = Vec::new();
        for path in changes
            .keys()
            .chain(self.staged.keys().filter(|path| !changes.contains_key(*path)))
        {
            let wanted = changes.get(path).map(|change| &change.new);
            let line = match differs.get(path) {
                // It has what HEAD had.
                None => wanted.map(|entry| entry.index_info(path)),
                Some(Change { old, new }) if self.was(path, new) => Some(wanted.unwrap_or(old).index_info(path)),
                Some(_) => None,
            };
            repair.extend(line.into_iter().flatten());
        }
        Ok(repair)
    }

    /// Whether the worktree's index had this entry at the moment of the call.
    fn was(&self, path: &[u8], entry: &Entry) -> bool {
        match (self.staged.get(path), self.declared.get(path)) {
            (Some(staged), _) => staged.new == *entry,
            (None, Some(declared)) => declared.new == *entry,
            (None, None) => false,
        }
    }
}

/// Others have committed other content of these files. Ours may follow when it was written on top of theirs: the
/// index has what they committed, and the file what we captured. Anything else would revert somebody's work.
fn check_newer(worktree: &Worktree, index: &PrivateIndex, now: &Head, paths: &[OsString]) -> Result<()> {
    let in_place = |command: &mut Command| {
        command.env("GIT_LITERAL_PATHSPECS", "1").current_dir(&worktree.top);
    };
    let mut theirs = git::<&str>(&[]);
    in_place(&mut theirs);
    let unlike_theirs = changes::in_index(theirs, &tree_of(now)?, paths)?;
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
    let commit = now.commit.as_deref().unwrap_or("nothing");
    let sentence = format!(
        "others have committed {} since you asked (HEAD is {commit}), and what you have would take that back: look \
         at the files, and commit again",
        names.join(", ")
    );
    Err(failure(1, sentence))
}

/// The changes as lines of `--index-info`.
pub fn lines(changes: &Changes) -> Vec<u8> {
    changes
        .iter()
        .flat_map(|(path, change)| change.new.index_info(path))
        .collect()
}

/// The commit, or before the first one the empty tree.
pub fn tree_of(head: &Head) -> Result<String> {
    match &head.commit {
        Some(commit) => Ok(commit.clone()),
        None => {
            let mut command = git(&["hash-object", "-t", "tree", "--stdin"]);
            let tree = ask(&mut command, b"")?;
            Ok(String::from_utf8_lossy(tree.trim_ascii_end()).into_owned())
        }
    }
}

fn os_path(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}
