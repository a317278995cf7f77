//! What differs between two trees, or a tree and an index, path by path, as git's raw diffs say it.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cli::worktree::{ask, git};

/// What an index or a tree has at a path; for nothing the mode is 000000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    mode: String,
    object: String,
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was there before.
    pub old: Entry,
    /// What is there after.
    pub new: Entry,
}

/// Paths that differ, from the top of the worktree, in bytes as git has them.
pub type Changes = BTreeMap<Vec<u8>, Change>;

impl Entry {
    /// Whether nothing is there.
    pub fn is_absent(&self) -> bool {
        self.mode.bytes().all(|digit| digit == b'0')
    }

    /// The line that sets `path` to this in `git update-index -z --index-info`.
    pub fn index_info(&self, path: &[u8]) -> Vec<u8> {
        let mode = if self.is_absent() { "0" } else { &self.mode };
        let mut line = format!("{mode} {}\t", self.object).into_bytes();
        line.extend_from_slice(path);
        line.push(0);
        line
    }
}

/// What `new` has other than `old`; both name trees.
pub fn between(old: &str, new: &str) -> Result<Changes> {
    let mut command = git(&["diff-tree", "-r"]);
    raw(&mut command).args([old, new]);
    parse(&ask(&mut command, b"")?)
}

/// What the index, as `command` is told by GIT_INDEX_FILE, has other than the tree, at these pathspecs or everywhere.
pub fn in_index(mut command: Command, tree: &str, paths: &[std::ffi::OsString]) -> Result<Changes> {
    command.args(["diff-index", "--cached"]);
    raw(&mut command).arg(tree).arg("--").args(paths);
    parse(&ask(&mut command, b"")?)
}

fn raw(command: &mut Command) -> &mut Command {
    command.args([
        "--raw",
        "-z",
        "--no-renames",
        "--no-abbrev",
        "--no-relative",
        "--ignore-submodules=none",
    ])
}

/// Reads `:MODE MODE OBJECT OBJECT STATUS\0PATH\0` records.
fn parse(text: &[u8]) -> Result<Changes> {
    let mut fields = text.split(|&byte| byte == 0);
    let mut changes = Changes::new();
    while let Some(head) = fields.next().filter(|head| !head.is_empty()) {
        let path = fields.next().context("git ended a difference before its path")?;
        let head = std::str::from_utf8(head).context("git wrote a difference that is no text")?;
        let words: Vec<&str> = head.trim_start_matches(':').split(' ').collect();
        ensure!(
            words.len() == 5 && head.starts_with(':'),
            "git wrote the difference {head:?}"
        );
        let entry = |mode: usize, object: usize| Entry {
            mode: words[mode].to_owned(),
            object: words[object].to_owned(),
        };
        let change = Change {
            old: entry(0, 2),
            new: entry(1, 3),
        };
        changes.insert(path.to_vec(), change);
    }
    Ok(changes)
}

/// Some changes, for the tests of those who compare them.
#[cfg(test)]
pub fn sample(paths: &[&str]) -> Changes {
    let entry = || Entry {
        mode: "100644".to_owned(),
        object: "abcd".to_owned(),
    };
    let change = |path: &&str| {
        let change = Change {
            old: entry(),
            new: entry(),
        };
        (path.as_bytes().to_vec(), change)
    };
    paths.iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_differences_are_read_with_any_path() {
        let text = b":000000 100644 0000 abcd A\0new \"\xff\n\0:100755 000000 abcd 0000 D\0gone\0";
        let changes = parse(text).expect("as git writes it");
        assert_eq!(changes.len(), 2);
        assert!(changes[&b"gone"[..]].new.is_absent());
        assert_eq!(
            changes[&b"new \"\xff\n"[..]].new.index_info(b"a b"),
            b"100644 abcd\ta b\0".to_vec()
        );
        assert_eq!(
            changes[&b"gone"[..]].new.index_info(b"gone"),
            b"0 0000\tgone\0".to_vec()
        );
        assert!(parse(b"").expect("nothing differs").is_empty());
    }

    #[test]
    fn what_git_never_writes_is_refused() {
        for bad in [&b":1 2 3 4 M"[..], b"1 2 3 4 M\0x\0", b":1 2 3 M\0x\0"] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
