//! What observers are told: facts about locks, as they happen. Nothing decides anything by them.

use std::sync::Arc;
use std::time::Duration;

use super::command::Party;
use crate::types::{GrantId, LockName, Mode, SessionName, Unique};

/// Something that happened to one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The lock.
    pub lock: LockName,
    /// In which mode it was wanted or held.
    pub mode: Mode,
    /// Who did it or asked for it, as far as it was known then.
    pub who: Who,
    /// The grant or request, by which [`Happening::Identified`] names who it is later.
    pub subject: Subject,
    /// What happened.
    pub what: Happening,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// What is held.
    Grant(GrantId),
    /// A request that waits or has waited.
    Request(Unique),
    /// Neither: a call that was refused.
    Call,
}

/// Who an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The process; 0 when it is not known.
    pub pid: u32,
    /// Its session.
    pub session: Option<SessionName>,
    /// What it does; may have arguments when it was said in a request.
    pub op: Option<Arc<str>>,
}

impl Who {
    pub(super) fn of(party: &Party) -> Self {
        Self {
            pid: party.pid,
            session: party.session.clone(),
            op: party.op.clone(),
        }
    }
}

/// The kinds of events, each with what only it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A request began to wait.
    Waited,
    /// A lock was granted after so long a wait.
    Acquired {
        /// Zero when it was granted at once.
        waited: Duration,
    },
    /// It was found out who holds or waits.
    Identified,
    /// A lock ended after so long a hold.
    Released {
        /// Since it was granted.
        held: Duration,
        /// Why it ended.
        how: Ending,
    },
    /// A request gave up at its limit.
    TimedOut {
        /// How long it had waited.
        waited: Duration,
    },
    /// A request was refused because its wait would never have ended.
    Deadlocked {
        /// How long it had waited.
        waited: Duration,
    },
    /// Somebody tried to remove a lock that another holds, or to break it with a token that is not its holder's. The
    /// process of [`Who`] is then the calling thread, which is the same for a program of one thread.
    StealAttempt,
}

/// Why a lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its holder let go.
    Released,
    /// Its owner or keeper is gone.
    Stale,
    /// It was broken or its session was released.
    Broken,
}
