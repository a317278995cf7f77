//! What a commit is going to have, fixed at the moment of the call: before the wait for the lock, in which others go on
//! writing files.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::Result;

use super::changes::{self, Change, Changes, Entry};
use super::index::PrivateIndex;
use crate::cli::worktree::{Head, Worktree, ask, git};

/// HEAD and the named paths, at the moment of the call.
#[derive(Debug)]
pub struct Capture {
    /// Where HEAD was.
    pub head: Head,
    /// What the commit is to change: the declared scope.
    pub declared: Changes,
    /// The worktree's index as it was.
    before: PrivateIndex,
    paths: Vec<OsString>,
}

impl Capture {
    /// Stages the paths in an index of our own, with git's rules for paths, filters and ignored files.
    pub fn take(worktree: &Worktree, paths: &[OsString]) -> Result<Self> {
        let head = worktree.head()?;
        let before = PrivateIndex::copy(worktree, "index-before")?;
        let index = before.copy_as(worktree, "index")?;
        index.read_tree(head.commit.as_deref())?;
        ask(index.git(&["add", "--all", "--"]).args(paths), b"")?;
        let declared = changes::in_index(index.git(&[]), &tree_of(&head)?, &[])?;
        Ok(Self {
            head,
            declared,
            before,
            paths: paths.to_vec(),
        })
    }

    /// What the worktree's index had at the named paths where that was something else: from what is captured to what
    /// it had.
    pub fn staged(&self) -> Result<Changes> {
        let staged = changes::in_index(self.before.git(&[]), &tree_of(&self.head)?, &self.paths)?;
        let both: BTreeMap<&Vec<u8>, &Change> = self.declared.iter().chain(&staged).collect();
        let mut other = Changes::new();
        for (path, change) in both {
            // Where one of the two has nothing, it is as HEAD.
            let entry = |changes: &Changes| changes.get(path).map_or(&change.old, |change| &change.new).clone();
            let (old, new) = (entry(&self.declared), entry(&staged));
            if old != new {
                other.insert(path.clone(), Change { old, new });
            }
        }
        Ok(other)
    }

    /// Whether the worktree's index had this entry at the moment of the call, where it had `staged`.
    pub fn was(&self, staged: &Changes, path: &[u8], entry: &Entry) -> bool {
        match (staged.get(path), self.declared.get(path)) {
            (Some(staged), _) => staged.new == *entry,
            (None, Some(declared)) => declared.new == *entry,
            (None, None) => false,
        }
    }
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
