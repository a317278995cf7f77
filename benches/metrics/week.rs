//! Seven days of events: waits, grants and releases of many locks by many operations, from a fixed seed.

use std::sync::Arc;
use std::time::Duration;

use git_lockfs::engine::{Ending, Event, Happening, Subject, Who};
use git_lockfs::types::{GrantId, LockName, Mode, Unique};

/// How many there are.
pub const EVENTS: usize = 1_000_000;
/// The length of a week in milliseconds.
pub const WEEK_MS: i64 = 7 * 24 * 3600 * 1000;

/// A week.
pub struct Busy {
    /// When it begins, in milliseconds since 1970.
    start: i64,
    locks: Vec<LockName>,
    ops: Vec<Arc<str>>,
    /// Durations are up to 2 to the power of so many microseconds.
    octaves: u64,
}

impl Busy {
    /// That of 40 people and programs who share a repository: milliseconds mostly, minutes seldom.
    pub fn usual(end: i64) -> Self {
        Self::new(end, 40, 12, 26)
    }

    /// One with more names than have figures of their own, and durations from a microsecond to months.
    pub fn worst(end: i64) -> Self {
        Self::new(end, 300, 100, 42)
    }

    fn new(end: i64, locks: usize, ops: usize, octaves: u64) -> Self {
        let lock = |number| LockName::parse(format!("ref-refs%2Fheads%2Ftopic-{number}.lock").as_bytes());
        Self {
            start: end - WEEK_MS,
            locks: (0..locks).map(|number| lock(number).expect("a name")).collect(),
            ops: (0..ops).map(|number| format!("git verb-{number}").into()).collect(),
            octaves,
        }
    }

    /// When it begins, in milliseconds since 1970.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// All events with their times, oldest first: a wait, a grant and a release by turns.
    pub fn events(&self) -> impl Iterator<Item = (i64, Event)> {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        (0..EVENTS).map(move |number| {
            let at = self.start + WEEK_MS * number as i64 / EVENTS as i64;
            let round = number / 3;
            let span = Duration::from_micros((next() >> (64 - self.octaves)) >> (next() % self.octaves));
            let what = match number % 3 {
                0 => Happening::Waited,
                1 => Happening::Acquired { waited: span },
                _ => Happening::Released {
                    held: span,
                    how: Ending::Released,
                },
            };
            let subject = match what {
                Happening::Waited => Subject::Request(Unique(round as u64)),
                _ => Subject::Grant(GrantId(round as u64)),
            };
            let event = Event {
                lock: self.locks[round % self.locks.len()].clone(),
                mode: Mode::Exclusive,
                who: Who {
                    pid: 4242,
                    session: None,
                    op: Some(Arc::clone(&self.ops[round % self.ops.len()])),
                },
                subject,
                what,
            };
            (at, event)
        })
    }
}

/// Whether it counts as an acquisition.
pub fn is_acquire(event: &Event) -> bool {
    matches!(event.what, Happening::Acquired { .. })
}
