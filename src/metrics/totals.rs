//! What was counted since the daemon started: the counters of `metrics.prom`, which only ever grow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::cell::OTHERS;
use super::record::Record;
use super::series::Counts;

/// The upper bounds of the buckets of waits and holds, in microseconds.
pub const BOUNDS_MICROS: [u64; 13] = [
    100,
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];
/// How many locks have counters of their own; those of more are kept together.
const LOCKS_MAX: usize = 100;

/// Durations by bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// How many lie in each bucket, the last being above all bounds.
    pub counts: [u64; BOUNDS_MICROS.len() + 1],
    /// Their sum.
    pub total: Duration,
}

impl Steps {
    fn record(&mut self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_MICROS.partition_point(|bound| *bound < micros)] += 1;
        self.total += span;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The counters of one lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockTotals {
    /// How often what happened.
    pub counts: Counts,
    /// The sum of its waits.
    pub waited: Duration,
    /// The sum of its holds.
    pub held: Duration,
}

/// All counters.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// How often what happened.
    pub counts: Counts,
    /// Waits of requests that were granted or gave up.
    pub wait: Steps,
    /// Holds that have ended.
    pub hold: Steps,
    /// By lock.
    pub locks: BTreeMap<Arc<str>, LockTotals>,
    /// Commits with other files than they were about to have, as far as their makers said so.
    pub commit_warnings: u64,
    /// Events that came faster than they could be folded.
    pub dropped: u64,
    /// When that happened last, in milliseconds since 1970.
    pub dropped_at: Option<i64>,
}

impl Totals {
    /// Counts one record.
    pub fn count(&mut self, record: &Record) {
        self.counts.count(record.kind);
        let (waited, held) = (record.kind.is_end_of_wait(), record.kind.is_end_of_hold());
        if waited {
            self.wait.record(record.span);
        }
        if held {
            self.hold.record(record.span);
        }
        let Some(lock) = record.lock.as_ref().map(|lock| lock.as_str()) else {
            return;
        };
        let name = if self.locks.contains_key(lock) || self.locks.len() < LOCKS_MAX {
            lock
        } else {
            OTHERS
        };
        if !self.locks.contains_key(name) {
            self.locks.insert(Arc::from(name), LockTotals::default());
        }
        let totals = self.locks.get_mut(name).expect("it was put there a line ago");
        totals.counts.count(record.kind);
        totals.waited += if waited { record.span } else { Duration::ZERO };
        totals.held += if held { record.span } else { Duration::ZERO };
    }

    /// Counts events that were dropped.
    pub fn dropped(&mut self, count: u64, now: i64) {
        self.dropped += count;
        self.dropped_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Kind;
    use super::*;
    use crate::types::{LockName, Mode};

    #[test]
    fn locks_beyond_the_bound_are_counted_together() {
        let mut totals = Totals::default();
        for number in 0..LOCKS_MAX + 50 {
            totals.count(&Record {
                at: 0,
                kind: Kind::Acquire,
                lock: LockName::parse(format!("{number}.lock").as_bytes()).ok(),
                mode: Mode::Exclusive,
                pid: 1,
                session: None,
                op: None,
                span: Duration::from_micros(7),
            });
        }
        assert_eq!(totals.locks.len(), LOCKS_MAX + 1);
        assert_eq!(totals.locks[OTHERS].counts.acquires, 50);
        assert_eq!(totals.counts.acquires, LOCKS_MAX as u64 + 50);
    }
}
