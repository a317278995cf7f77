//! What is counted though it is no event of the engine: a life that goes on from a journal, and what clients find out.

use std::time::Duration;

use super::Service;
use crate::adapters::Clock;
use crate::metrics::{Kind, Record};
use crate::types::{Mode, Moment};
use crate::view::requests::CommitWarning;

impl Service {
    /// Counts that this life goes on from the journal of another one, which was begun to be read then. What the journal
    /// tells of was counted when it happened.
    pub(in crate::service) fn count_replay(&self, began: Moment) {
        let record = Record {
            pid: std::process::id(),
            span: Clock::now().mono.since(began.mono),
            ..record(Kind::Replay)
        };
        self.recorder.figures.lock().metrics.count(&record);
        self.recorder.log.lock().append(&record);
        // So that it is kept even if nothing else ever happens.
        self.recorder.wake();
    }

    /// Counts a commit that has other files than it was about to have, as its maker has found. Takes the figures, so it
    /// is for the inspector.
    pub(in crate::service) fn count_commit_warning(&self, warning: &CommitWarning) {
        let mut recorded = self.recorder.figures.lock();
        // What happened before has its lines before.
        self.fold(&mut recorded, true);
        recorded.metrics.warned_of_commit();
        self.recorder.log.lock().append(&Record {
            op: Some(warning.to_string().into()),
            ..record(Kind::CommitWarning)
        });
        drop(recorded);
        self.recorder.wake();
    }
}

/// A record of now that is about no lock.
fn record(kind: Kind) -> Record {
    Record {
        at: Clock::wall().as_millisecond(),
        kind,
        lock: None,
        mode: Mode::Exclusive,
        pid: 0,
        session: None,
        op: None,
        span: Duration::ZERO,
    }
}
