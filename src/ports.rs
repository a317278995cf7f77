//! What the service needs from the outside and must be able to replace, as traits with plain data both ways.
//!
//! An adapter implements them twice: on the machine, and in memory with faults for the simulation. Nothing here does
//! I/O, and nothing knows what the bytes mean.

use std::fmt;
use std::io;

/// Where the service writes down what it decided, before anybody is told.
///
/// A log is a snapshot and the records appended since. What was appended survives the death of the program, however it
/// dies; it need not survive a power cut, which ends every holder too.
pub trait Log: fmt::Debug + Send {
    /// Adds a record: all of it or, after an error, nothing.
    ///
    /// It is written when this returns. What belongs together goes into one record, for a crash keeps each record whole
    /// or not at all. A refusal for another reason than the disk is a [`LogRefusal`] inside the error.
    fn append(&mut self, record: &[u8]) -> io::Result<()>;

    /// The bytes that records take since the last snapshot: the measure of when to compact.
    fn size(&self) -> u64;

    /// Replaces everything by a snapshot, in one step: a crash leaves the old log or the new one, whole. After an
    /// error the old one goes on.
    fn compact(&mut self, snapshot: &[u8]) -> io::Result<()>;
}

/// What a log still knows after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Whether the machine has not been started anew since: else every process that is named here is gone.
    pub same_boot: bool,
    /// The last snapshot.
    pub snapshot: Vec<u8>,
    /// What was appended to it, in order.
    pub records: Vec<Vec<u8>>,
}

/// Why a log takes no more, though the disk would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogRefusal {
    /// The record is longer than any may be.
    #[error("a record of {bytes} bytes is longer than the journal takes ({bytes_max})")]
    RecordTooLong {
        /// Its length.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The snapshot is longer than any may be.
    #[error("a snapshot of {bytes} bytes is longer than the journal takes ({bytes_max})")]
    SnapshotTooLong {
        /// Its length.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// It should have been compacted long ago.
    #[error("the journal has grown to its bound of {bytes_max} bytes and must be compacted first")]
    Full {
        /// The bound.
        bytes_max: u64,
    },
    /// It was written before the machine started: what is added now would count as old at the next replay.
    #[error("the journal is from before the machine started and must be compacted first")]
    OtherBoot,
}

impl From<LogRefusal> for io::Error {
    fn from(refusal: LogRefusal) -> Self {
        let kind = match refusal {
            LogRefusal::RecordTooLong { .. } | LogRefusal::SnapshotTooLong { .. } => io::ErrorKind::InvalidInput,
            LogRefusal::Full { .. } => io::ErrorKind::FileTooLarge,
            LogRefusal::OtherBoot => io::ErrorKind::Other,
        };
        Self::new(kind, refusal)
    }
}
