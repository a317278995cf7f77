//! One line of history: what an event comes to, with its time on the wall and the operation's name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Ending, Event, Happening};
use crate::types::{LockName, Mode, SessionName, name_of_told};

/// What kind of event it was: the column `metric_type` of the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A lock was granted; the duration is the wait.
    Acquire,
    /// A holder let go; the duration is the hold.
    Release,
    /// A request began to wait; no duration yet.
    Wait,
    /// A request gave up at its limit; the duration is the wait.
    Timeout,
    /// A lock was released because its owner or keeper was gone; the duration is the hold.
    Stale,
    /// A request was refused because its wait would never have ended; the duration is the wait.
    Deadlock,
    /// A lock was taken away by `break` or `release-session`; the duration is the hold.
    Break,
    /// Somebody was kept from ending a lock that another holds.
    StealAttempt,
    /// A worker went on from the journal of one before it; the duration is what reading that took.
    Replay,
    /// A commit has other files than it was about to have; there is no lock and no duration.
    CommitWarning,
}

impl Kind {
    /// The word in the event log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Release => "release",
            Self::Wait => "wait",
            Self::Timeout => "timeout",
            Self::Stale => "stale",
            Self::Deadlock => "deadlock",
            Self::Break => "break",
            Self::StealAttempt => "steal-attempt",
            Self::Replay => "replay",
            Self::CommitWarning => "git_commit_validation_warning",
        }
    }

    /// Whether the duration is the wait of a request that has come to its end.
    pub fn is_end_of_wait(self) -> bool {
        matches!(self, Self::Acquire | Self::Timeout | Self::Deadlock)
    }

    /// Whether the duration is how long a lock was held.
    pub fn is_end_of_hold(self) -> bool {
        matches!(self, Self::Release | Self::Stale | Self::Break)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One line of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it happened, in milliseconds since 1970.
    pub at: i64,
    /// What happened.
    pub kind: Kind,
    /// To which lock; `None` when it is about the daemon.
    pub lock: Option<LockName>,
    /// In which mode.
    pub mode: Mode,
    /// The process; 0 when it is not known.
    pub pid: u32,
    /// Its session, as far as known.
    pub session: Option<SessionName>,
    /// `git VERB` or the name of a program; `None` when it is not known.
    pub op: Option<Arc<str>>,
    /// The wait or the hold.
    pub span: Duration,
}

impl Record {
    /// The record of an event; `None` for one that only tells who another was about.
    pub fn of(event: Event, at: i64) -> Option<Self> {
        let (kind, span) = match event.what {
            Happening::Identified => return None,
            Happening::Waited => (Kind::Wait, Duration::ZERO),
            Happening::Acquired { waited } => (Kind::Acquire, waited),
            Happening::Released { held, how } => {
                let kind = match how {
                    Ending::Released => Kind::Release,
                    Ending::Stale => Kind::Stale,
                    Ending::Broken => Kind::Break,
                };
                (kind, held)
            }
            Happening::TimedOut { waited } => (Kind::Timeout, waited),
            Happening::Deadlocked { waited } => (Kind::Deadlock, waited),
            Happening::StealAttempt => (Kind::StealAttempt, Duration::ZERO),
        };
        let op = event.who.op.as_deref().and_then(name_of_told).map(Arc::from);
        Some(Self {
            at,
            kind,
            lock: Some(event.lock),
            mode: event.mode,
            pid: event.who.pid,
            session: event.who.session,
            op,
            span,
        })
    }
}
