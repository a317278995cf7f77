//! A grant: what is held, by whom, and what ends it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::command::{HolderText, Make, Party, Shape, Taking};
use super::table::Slot;
use crate::types::{GrantId, HandleId, LockName, Mode, Moment, ProcessId, Range, Tick, Token};

/// Who a grant never conflicts with: itself, through the same handle or the same lock owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// An open file description.
    Handle(HandleId),
    /// A lock owner of fcntl(2), and the handle it came through.
    Posix {
        /// The kernel's lock owner.
        owner: u64,
        /// The handle.
        handle: HandleId,
    },
    /// A directory entry: no handle.
    Entry,
}

impl Owner {
    pub(super) fn of(taking: &Taking) -> Self {
        match *taking {
            Taking::Open(handle) | Taking::Flock(handle) | Taking::Transaction(handle) => Self::Handle(handle),
            Taking::Posix { owner, handle } => Self::Posix { owner, handle },
            Taking::Make(Make {
                handle: Some(handle), ..
            }) => Self::Handle(handle),
            Taking::Make(Make { handle: None, .. }) => Self::Entry,
        }
    }

    /// Whether locks of the two never conflict.
    pub(super) fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Handle(a), Self::Handle(b)) => a == b,
            (Self::Posix { owner: a, .. }, Self::Posix { owner: b, .. }) => a == b,
            (Self::Handle(a), Self::Posix { handle: b, .. }) | (Self::Posix { handle: b, .. }, Self::Handle(a)) => {
                a == b
            }
            (Self::Entry, _) | (_, Self::Entry) => false,
        }
    }

    /// The handle whose last close concerns the grant.
    pub fn handle(self) -> Option<HandleId> {
        match self {
            Self::Handle(handle) | Self::Posix { handle, .. } => Some(handle),
            Self::Entry => None,
        }
    }
}

/// By which call a lock was taken last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// open(2) for writing.
    Open,
    /// O_EXCL, mkdir, symlink, link, rename.
    Make,
    /// flock(2).
    Flock,
    /// fcntl(2).
    Posix,
    /// `acquire`.
    Transaction,
}

impl Way {
    pub(super) fn of(taking: &Taking) -> Self {
        match taking {
            Taking::Open(_) => Self::Open,
            Taking::Flock(_) => Self::Flock,
            Taking::Posix { .. } => Self::Posix,
            Taking::Transaction(_) => Self::Transaction,
            Taking::Make(_) => Self::Make,
        }
    }
}

/// What a grant lives by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// An open descriptor.
    Descriptor,
    /// The process whose PID was written.
    Process(ProcessId),
    /// A keeper, and then time.
    Lease(Lease),
}

/// A lock that outlives its maker's descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The keeper, then those who keep it if that one exits soon after making it. Empty: time alone counts.
    pub keepers: Vec<ProcessId>,
    /// When it was made.
    pub made: Moment,
    /// When it was made or renewed last, on the clock that counts suspended time.
    pub renewed: Tick,
    /// Whether there ever was a keeper that we could see.
    pub had_keeper: bool,
}

/// What is known of the process that took a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Taker {
    /// It is there, as far as anybody knows.
    There,
    /// It is gone, and who has the lock in its place is still to be found out: who opened the descriptor that flock(1)
    /// was called with, or the next keeper of a lease.
    Passed,
    /// It is gone, and nobody is known to have taken its place.
    Gone,
}

/// Files in a lock that was made by mkdir.
pub type DirFiles = BTreeMap<LockName, Vec<u8>>;

/// What few grants have, kept apart so that the others stay small.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Extra {
    /// The text.
    pub text: HolderText,
    /// A modification time that was set.
    pub mtime: Option<(i64, u32)>,
    /// An inode number taken over from a scratch file.
    pub ino: Option<u64>,
    /// The files of a directory.
    pub files: DirFiles,
}

/// One part of a lock that a grant holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) slot: Slot,
    pub(super) mode: Mode,
    pub(super) range: Range,
}

/// Locks that are held together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grant {
    pub(super) id: GrantId,
    pub(super) parts: Vec<Part>,
    /// The fencing token.
    pub token: Token,
    /// Who it never conflicts with.
    pub owner: Owner,
    /// By which call it was taken.
    pub way: Way,
    /// What it lives by.
    pub hold: Hold,
    /// Who took it, or who has it in that one's place: the owner that its text declared, the keeper of a lease.
    pub party: Party,
    /// The process that made it as a directory entry.
    pub maker: Option<ProcessId>,
    /// Whether `party` is there.
    pub taker: Taker,
    /// When it was granted.
    pub since: Tick,
    /// What it looks like to its keeper.
    pub shape: Shape,
    /// Its first text was refused, so it ends with its handle.
    pub(super) spoiled: bool,
    pub(super) extra: Option<Box<Extra>>,
}

impl Grant {
    /// Its name inside the engine.
    pub fn id(&self) -> GrantId {
        self.id
    }

    /// The process that it lives by, if one is known.
    pub fn process(&self) -> Option<ProcessId> {
        match &self.hold {
            Hold::Process(process) => Some(*process),
            Hold::Lease(lease) => lease.keepers.first().copied(),
            Hold::Descriptor => self.party.process,
        }
    }

    /// The process that keeps it, if it is a lease that one keeps.
    pub fn keeper(&self) -> Option<ProcessId> {
        match &self.hold {
            Hold::Lease(lease) => lease.keepers.first().copied(),
            Hold::Process(_) | Hold::Descriptor => None,
        }
    }

    /// Whether it belongs to a descriptor that another process than its taker may have opened, as in `flock 9`.
    pub fn is_taken_through_descriptor(&self) -> bool {
        self.hold == Hold::Descriptor && matches!(self.way, Way::Flock | Way::Posix)
    }

    /// The rarely used parts.
    pub fn extra(&self) -> Option<&Extra> {
        self.extra.as_deref()
    }

    pub(super) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}
