//! What the journal holds: a snapshot of everything, then one record for each unit of work that changed something.
//!
//! A record is a row of [`Entry`]s: the commands that the engine was given, in order and with their time, then what
//! else became different, then the answers that were decided. Carrying out the same commands gives the same engine, so
//! its changes need not be written; the rest is written as it became. Nodes, refusals and learned hold times are not
//! kept: the first follow from the rest, the others only advise.
//!
//! The form is MessagePack, with structs as arrays and variants by name. So that every later program reads what this one
//! wrote:
//!
//! - A field is added behind the others, with `#[serde(default)]`; none is moved or taken away.
//! - A variant is added anywhere; none is renamed or taken away, and what is in one follows the same rules.
//! - With either, [`VERSION`] grows, so that an earlier program refuses instead of misreading, and a journal of the new
//!   version joins those of `tests/service/journals`.
//!
//! A record says what the engine was told, not what it then did: only a program that does the same with it can go on
//! from it. A planned restart therefore hands over a snapshot alone, and after a crash the same program goes on.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;

use super::api::Answer;
use super::handles::{Handle, Parked};
use super::state::{Due, Out, Phantom};
use crate::adapters::Trail;
use crate::engine::{Command, Engine, ScratchFile};
use crate::types::{HandleId, LockName, Moment, ProcessId, Unique};

/// The version of records and snapshots that this program writes.
pub(super) const VERSION: u16 = 1;

/// Which of our threads does a unit of work. Each sends the answers of one unit before it begins the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Role {
    /// The reader of the kernel's requests.
    Loop,
    /// The one that sleeps until something happens on its own.
    Watcher,
    /// The one for what is slow.
    Inspector,
}

impl Role {
    /// How many there are.
    pub(super) const COUNT: usize = 3;
}

/// One thing that a record says.
#[allow(
    clippy::large_enum_variant,
    reason = "most entries are commands, and each lives only until it is written or applied"
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Entry<'a> {
    /// The engine was given a command.
    Command(Moment, Cow<'a, Command>),
    /// An open file is so now; `None` once it is closed.
    Handle(HandleId, Option<Cow<'a, Handle>>),
    /// A call waits so now; `None` once it does not.
    Parked(Unique, Option<Cow<'a, Parked>>),
    /// The kernel polls this handle under that number; `None` once it does not.
    Poller(u64, Option<HandleId>),
    /// A scratch file is so now; `None` once it is gone.
    Scratch(LockName, Option<Cow<'a, ScratchFile>>),
    /// These names look taken to these threads.
    Phantoms(Cow<'a, [Phantom]>),
    /// These processes were pinned.
    Pinned(Vec<Trail>),
    /// A thread sends this when the record is written, and has sent all that it was to send before.
    Sends(Role, Cow<'a, [Out]>),
    /// An answer to a call that is known from a former life, and is answered when it comes again.
    Held(Unique, Cow<'a, Answer>),
    /// A call came again and took its answer.
    Taken(Unique),
}

/// Everything that a new life goes on from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Snapshot<'a> {
    /// Which life of the daemon wrote it, from 0.
    pub(super) life: u64,
    pub(super) engine: Cow<'a, Engine>,
    pub(super) handles: Vec<(HandleId, Cow<'a, Handle>)>,
    pub(super) next_handle: u64,
    pub(super) parked: Vec<(Unique, Cow<'a, Parked>)>,
    pub(super) pollers: Vec<(u64, HandleId)>,
    pub(super) scratch: Vec<(LockName, Cow<'a, ScratchFile>)>,
    pub(super) phantoms: Cow<'a, [Phantom]>,
    pub(super) processes: Vec<Trail>,
    /// No process that is pinned later gets a lower number.
    pub(super) next_process: ProcessId,
    /// What each thread was to send last, as encoded in [`Entry::Sends`].
    pub(super) sends: [Cow<'a, Bytes>; Role::COUNT],
    /// Answers to calls that had not come again.
    pub(super) held: Vec<(Unique, Cow<'a, Due>)>,
}

/// Why a journal's contents say nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It holds no snapshot: its writer died before it served anybody.
    #[error("the journal was never begun")]
    Empty,
    /// A newer program wrote it.
    #[error(
        "the journal's records have version {found}, and this git-lockfs knows versions up to {VERSION}: use the newer version that wrote it"
    )]
    Newer {
        /// Its version.
        found: u16,
    },
    /// It is whole but makes no sense.
    #[error("record {record} of the journal makes no sense")]
    Malformed {
        /// Which record; 0 is the snapshot.
        record: usize,
    },
}

/// Writes a value behind what the buffer has.
pub(super) fn put<T: Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) {
    // Only sequences of unknown length are refused, and nothing here has one.
    rmp_serde::encode::write(buffer, value).expect("plain data can be written");
}

impl Snapshot<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        put(&mut bytes, self);
        bytes
    }
}

impl Snapshot<'static> {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ReplayError> {
        let (version, rest) = bytes.split_first_chunk().ok_or(ReplayError::Empty)?;
        match u16::from_le_bytes(*version) {
            1..=VERSION => rmp_serde::from_slice(rest).map_err(|_| ReplayError::Malformed { record: 0 }),
            0 => Err(ReplayError::Malformed { record: 0 }),
            found => Err(ReplayError::Newer { found }),
        }
    }
}

/// The entries of a record; `None` where it makes no sense.
pub(super) fn entries(mut record: &[u8]) -> Option<Vec<Entry<'static>>> {
    let mut entries = Vec::new();
    while !record.is_empty() {
        entries.push(rmp_serde::from_read(&mut record).ok()?);
    }
    Some(entries)
}
