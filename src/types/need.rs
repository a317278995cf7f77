//! What a git command needs locked, and the grammar that the table of scopes and `lockfs.scope.COMMAND` share.
//!
//! Words separated by blanks, each `WHAT` or `WHAT:shared` or `WHAT:exclusive` (the default); or `none` alone. A word
//! that is none of the known ones is the exact name of a lock.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{LockName, Mode, NameError};

/// Which table of scopes is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Preset {
    /// What git was seen to lock: commands wait for each other only where they collide.
    #[default]
    Measured,
    /// Few and large scopes: what changes several worktrees at once is alone.
    Coarse,
}

impl Preset {
    /// Parses `measured` or `coarse`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "measured" => Some(Self::Measured),
            "coarse" => Some(Self::Coarse),
            _ => None,
        }
    }
}

/// How many words a scope may have.
const WORDS_MAX: usize = 32;

/// What is to be locked, before it is known where the command runs and with which arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// `worktree`: the index, HEAD and sequencer state of the worktree.
    Worktree,
    /// `branch`: the branch that is checked out; nothing when HEAD is detached.
    Branch,
    /// `branches`: those that the arguments name.
    Branches,
    /// `tags`: those that the arguments name.
    Tags,
    /// `refs`: those that the arguments name in full.
    Refs,
    /// `created`: the branch that an option such as `-b` makes.
    Created,
    /// `claimed`: the branch that is going to be checked out.
    Claimed,
    /// `rebased`: the branch that `rebase` checks out first.
    Rebased,
    /// `notes`: the ref of the notes.
    Notes,
    /// `tracking`: the config file, when a branch is made whose start point is remote-tracking.
    Tracking,
    /// `remote`: the remote-tracking refs of the remote that is talked to.
    Remote,
    /// `remotes`: those of all remotes.
    Remotes,
    /// `pushed`: the remote-tracking refs of what is pushed.
    Pushed,
    /// `worktrees`: the worktree that the arguments name.
    Worktrees,
    /// `registry`: the list of worktrees.
    Registry,
    /// `config`: the configuration of the repository.
    Config,
    /// `maintenance`: exclusive for what packs or removes objects, shared for what writes them.
    Maintenance,
    /// `stash`: refs/stash, which all worktrees share.
    Stash,
    /// `shallow`: where history is cut off.
    Shallow,
    /// `global`: all of the above.
    Global,
    /// The lock of exactly this name.
    Named(LockName),
}

/// The words of the grammar.
const WORDS: &[(&str, What)] = &[
    ("worktree", What::Worktree),
    ("branch", What::Branch),
    ("branches", What::Branches),
    ("tags", What::Tags),
    ("refs", What::Refs),
    ("created", What::Created),
    ("claimed", What::Claimed),
    ("rebased", What::Rebased),
    ("notes", What::Notes),
    ("tracking", What::Tracking),
    ("remote", What::Remote),
    ("remotes", What::Remotes),
    ("pushed", What::Pushed),
    ("worktrees", What::Worktrees),
    ("registry", What::Registry),
    ("config", What::Config),
    ("maintenance", What::Maintenance),
    ("stash", What::Stash),
    ("shallow", What::Shallow),
    ("global", What::Global),
];

/// One thing to be locked, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// What.
    pub what: What,
    /// Shared or exclusive.
    pub mode: Mode,
}

/// Why the text of a scope was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeedError {
    /// Nothing there.
    #[error("a scope is `none`, or words such as worktree, branch, registry:shared, x.lock")]
    Empty,
    /// `none` among others.
    #[error("`none` stands alone")]
    NoneAmongOthers,
    /// More words than any command could need.
    #[error("a scope has at most {WORDS_MAX} words")]
    TooMany,
    /// No word of the grammar.
    #[error("{word:?} is no part of git's state; the name of a lock ends in .lock")]
    Unknown {
        /// The word.
        word: String,
    },
    /// Not the name of a lock either.
    #[error("{word:?} is no lock's name: {error}")]
    Name {
        /// The word.
        word: String,
        /// Why it is no name.
        error: NameError,
    },
}

impl Need {
    /// Parses a scope; no needs mean that nothing is locked.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, NeedError> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words.as_slice() {
            [] => Err(NeedError::Empty),
            ["none"] => Ok(Vec::new()),
            words if words.contains(&"none") => Err(NeedError::NoneAmongOthers),
            words if words.len() > WORDS_MAX => Err(NeedError::TooMany),
            words => words.iter().map(|word| Self::parse(word)).collect(),
        }
    }

    fn parse(word: &str) -> Result<Self, NeedError> {
        let moded = word.rsplit_once(':').map(|(what, mode)| (what, Mode::parse(mode)));
        let (what, mode) = match moded {
            Some((what, Some(mode))) => (what, mode),
            // A lock's name may have a colon itself.
            _ => (word, Mode::Exclusive),
        };
        let what = match WORDS.iter().find(|(known, _)| *known == what) {
            Some((_, what)) => what.clone(),
            // More likely a slip of the pen than the name of a lock.
            None if !what.ends_with(".lock") => return Err(NeedError::Unknown { word: word.to_owned() }),
            None => What::Named(LockName::parse_lock(what.as_bytes()).map_err(|error| NeedError::Name {
                word: word.to_owned(),
                error,
            })?),
        };
        Ok(Self { what, mode })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, WORDS.iter().find(|(_, what)| what == self)) {
            (_, Some((word, _))) => f.write_str(word),
            (Self::Named(name), None) => name.fmt(f),
            (_, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_as_documented() {
        assert_eq!(Need::parse_all("none"), Ok(vec![]));
        let needs = Need::parse_all("  worktree registry:shared\tx:y.lock:shared a:b.lock ").expect("scope");
        let shown: Vec<String> = needs
            .iter()
            .map(|need| format!("{} {}", need.what, need.mode))
            .collect();
        assert_eq!(
            shown,
            [
                "worktree exclusive",
                "registry shared",
                "x:y.lock shared",
                "a:b.lock exclusive"
            ]
        );
    }

    #[test]
    fn what_is_malformed_is_refused_whole() {
        for bad in [
            "",
            " ",
            "none worktree",
            "work-tree",
            "worktree:loud",
            ".x.lock",
            "a,b.lock",
            &"stash ".repeat(33),
        ] {
            assert!(Need::parse_all(bad).is_err(), "{bad:?}");
        }
    }
}
