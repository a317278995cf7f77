//! Open files, and calls that wait: plain records, so that a journal could keep them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::api::{Access, DirEntry};
use super::refusals::Refused;
use crate::types::{HandleId, LockName, NodeId, Refusal, Token, Unique};
use crate::view::nodes::{Figure, Fixed};

/// An open file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Handle {
    pub(super) node: NodeId,
    pub(super) kind: HandleKind,
}

/// What was opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum HandleKind {
    /// A lock, in `locks/` or `flock/`.
    Lock(Box<LockHandle>),
    /// A scratch file; the name it was opened under.
    Scratch { name: LockName, append: bool },
    /// A file in a lock made by mkdir.
    DirectoryFile(Box<DirectoryFile>),
    /// Text of a fixed file that was rendered at the open.
    Text(Fixed, #[serde(with = "serde_bytes")] Vec<u8>),
    /// A file in `metrics/by-lock/NAME/`, rendered at the open.
    LockFigure(LockName, Figure, #[serde(with = "serde_bytes")] Vec<u8>),
    /// `metrics/events.csv`, from this offset on.
    Events(u64),
    /// A listing that was taken at the open.
    Listing(Vec<DirEntry>),
    /// `acquire`.
    Transaction(Box<Transaction>),
    /// `control`, for writing; what has been read of its help.
    Control { read: usize },
    /// A text or a listing of a former life that was too long to be kept.
    Unkept(Fixed),
}

/// An open file in a lock made by mkdir.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DirectoryFile {
    pub(super) lock: LockName,
    pub(super) file: LockName,
    pub(super) append: bool,
}

/// An open lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LockHandle {
    pub(super) name: LockName,
    /// The thread that opened it.
    pub(super) tid: u32,
    pub(super) access: Access,
    pub(super) append: bool,
    /// Why the lock was taken away from this handle, once it was.
    pub(super) lost: Option<Box<str>>,
    /// What was written through it so far.
    #[serde(with = "serde_bytes")]
    pub(super) written: Box<[u8]>,
    /// The lock's text at the open, for reading.
    #[serde(with = "serde_bytes")]
    pub(super) text: Box<[u8]>,
}

impl LockHandle {
    pub(super) fn new(name: LockName, tid: u32, access: Access, append: bool) -> Self {
        Self {
            name,
            tid,
            access,
            append,
            lost: None,
            written: Box::default(),
            text: Box::default(),
        }
    }

    /// Refuses when the lock was taken away from this handle.
    pub(super) fn check_kept(&self) -> Result<(), Refused> {
        check_kept(self.lost.as_deref())
    }
}

fn check_kept(lost: Option<&str>) -> Result<(), Refused> {
    lost.map_or(Ok(()), |sentence| Err(Refused::new(Refusal::Stale, sentence)))
}

/// The state of an open `acquire`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Transaction {
    /// The thread that opened it.
    pub(super) tid: u32,
    pub(super) stage: Stage,
    /// Lines that were not read yet.
    pub(super) unread: VecDeque<u8>,
    /// Reads that wait for a line, first come, and how much each takes.
    pub(super) readers: VecDeque<(Unique, u32)>,
    /// What has been read of the help, before any request.
    pub(super) help_read: usize,
    /// Why a lock of it was taken away, once it was.
    pub(super) lost: Option<Box<str>>,
}

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// No request, or one that was refused.
    Idle,
    /// The request waits.
    Waiting,
    /// All is held.
    Granted(Token),
}

/// The most that waits to be read from one transaction, in bytes; older events are dropped first.
const UNREAD_BYTES_MAX: usize = 4096;

impl Transaction {
    pub(super) fn new(tid: u32) -> Self {
        Self {
            tid,
            stage: Stage::Idle,
            unread: VecDeque::new(),
            readers: VecDeque::new(),
            help_read: 0,
            lost: None,
        }
    }

    /// Refuses when a lock of it was taken away.
    pub(super) fn check_kept(&self) -> Result<(), Refused> {
        check_kept(self.lost.as_deref())
    }

    /// Adds a line for the reader.
    pub(super) fn push_line(&mut self, line: &str) {
        while !self.unread.is_empty() && self.unread.len() + line.len() > UNREAD_BYTES_MAX {
            let end = self
                .unread
                .iter()
                .position(|&byte| byte == b'\n')
                .map_or(self.unread.len(), |at| at + 1);
            self.unread.drain(..end);
        }
        self.unread.extend(line.bytes());
    }

    /// Takes what a read gets: one line, or as much of it as fits.
    pub(super) fn take(&mut self, size: u32) -> Vec<u8> {
        let line = self
            .unread
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(self.unread.len(), |end| end + 1);
        let count = line.min(size as usize);
        self.unread.drain(..count).collect()
    }
}

/// A call that waits for its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Parked {
    /// open(2) for writing.
    Open {
        node: NodeId,
        handle: HandleId,
        lock: Box<LockHandle>,
    },
    /// flock(2), F_SETLKW.
    Lock { handle: HandleId, tid: u32 },
    /// A request written to `acquire`.
    Acquire { handle: HandleId, tid: u32, size: u32 },
    /// A read of `acquire` for events.
    Events { handle: HandleId },
}

impl Parked {
    /// Who waits.
    pub(super) fn tid(&self) -> u32 {
        match self {
            Self::Open { lock, .. } => lock.tid,
            Self::Lock { tid, .. } | Self::Acquire { tid, .. } => *tid,
            Self::Events { .. } => 0,
        }
    }
}
