//! Why calls were refused: sentences for `last-error` and the log, and what to do next.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::{Engine, Hold};
use crate::types::{LockName, Moment, Refusal};

/// How many refusals are remembered.
const REMEMBERED_MAX: usize = 256;

/// The newest refusals, with the thread that met each and the process that started that: the shell of a `rm`.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    newest_last: VecDeque<([u32; 2], String)>,
}

impl Refusals {
    pub(super) fn record(&mut self, met_by: [u32; 2], sentence: String) {
        if self.newest_last.len() == REMEMBERED_MAX {
            self.newest_last.pop_front();
        }
        self.newest_last.push_back((met_by, sentence));
    }

    /// The newest sentence for a thread that `is_meant` accepts. One that is gone has left its own to its parent: what
    /// `rm` was told is for the shell that ran it.
    pub(super) fn newest(&self, is_meant: impl Fn(u32) -> bool, is_there: impl Fn(u32) -> bool) -> Option<&str> {
        let is_meant = |tid: u32| tid > 1 && is_meant(tid);
        let concerns = |&[tid, parent]: &[u32; 2]| is_meant(tid) || (tid != 0 && is_meant(parent) && !is_there(tid));
        let found = self.newest_last.iter().rev().find(|(met_by, _)| concerns(met_by));
        found.map(|(_, sentence)| sentence.as_str())
    }
}

/// A refusal with its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) sentence: String,
}

impl Refused {
    pub(super) fn new(refusal: Refusal, sentence: impl Into<String>) -> Self {
        Self {
            refusal,
            sentence: sentence.into(),
        }
    }

    /// Whether the log should keep it: mistakes, not contention.
    pub(super) fn is_mistake(&self) -> bool {
        !matches!(
            self.refusal,
            Refusal::Absent
                | Refusal::Taken
                | Refusal::WouldBlock
                | Refusal::Interrupted
                | Refusal::Stale
                | Refusal::NoAttribute
        )
    }
}

/// The sentence of a refusal that concerns a lock.
pub(super) fn about_lock(engine: &Engine, lock: &LockName, refusal: Refusal, now: Moment) -> Refused {
    let holder = holder_sentence(engine, lock, now);
    let sentence = match refusal {
        Refusal::Absent => format!("{lock}: nobody holds it"),
        Refusal::Taken | Refusal::WouldBlock => {
            format!("{lock}: {holder}; to wait for it: git lockfs run -l {lock} -- COMMAND")
        }
        Refusal::TimedOut => {
            format!("{lock}: the wait limit passed; {holder}; a longer wait: git lockfs run -w 5m -l {lock} -- COMMAND")
        }
        Refusal::Interrupted => format!("{lock}: a signal ended the wait; {holder}"),
        Refusal::Deadlock => {
            format!(
                "{lock}: waiting would never end, because this process or a circle of waiters holds it; {holder}; release what you hold first"
            )
        }
        Refusal::HeldByOther => format!("{lock}: {holder}; to take it away: git lockfs break {lock}"),
        Refusal::NotYours => format!("{lock}: it belongs to another user; {holder}"),
        Refusal::Full => format!("{lock}: a table of the daemon is full; see git lockfs status for who holds so much"),
        Refusal::Stale => lost_sentence(lock, None),
        Refusal::Malformed => format!("{lock}: the handle holds no lock that a text could belong to"),
        _ => format!("{lock}: refused"),
    };
    Refused::new(refusal, sentence)
}

/// That a handle has lost its lock; why, if somebody broke it.
pub(super) fn lost_sentence(lock: &LockName, broken: Option<&str>) -> String {
    let why = broken.unwrap_or("broken, or its lease ended");
    format!("{lock}: this handle lost its lock ({why}); open it again")
}

/// Who is in the way, since when and for what.
fn holder_sentence(engine: &Engine, lock: &LockName, now: Moment) -> String {
    if engine.is_drained() {
        return "nothing is granted while drained (echo resume > control ends that)".to_owned();
    }
    let direct = engine.holders(lock.as_str()).next().map(|holder| (lock, holder.grant));
    let found = direct
        .or_else(|| engine.holders_below(lock.as_str()).next())
        .or_else(|| {
            let scope = engine.forbidding_scope(lock)?;
            engine
                .holders(scope.as_str())
                .next()
                .map(|holder| (scope, holder.grant))
        });
    let Some((name, grant)) = found else {
        return match engine.waiter_count(lock.as_str()) {
            0 => "it was taken a moment ago".to_owned(),
            count => format!("{count} wait for it already"),
        };
    };
    let through = if name == lock {
        String::new()
    } else {
        format!(" through {name}")
    };
    let pid = match grant.party.pid {
        0 => "a process that cannot be seen from here".to_owned(),
        pid => format!("PID {pid}"),
    };
    let session = grant
        .party
        .session
        .as_ref()
        .map(|session| format!(" ({session})"))
        .unwrap_or_default();
    let op = grant
        .party
        .op
        .as_deref()
        .map(|op| format!(", {op}"))
        .unwrap_or_default();
    let kind = match grant.hold {
        Hold::Descriptor => "",
        Hold::Process(_) => " as owner",
        Hold::Lease(_) => " by a lease",
    };
    format!(
        "held{through} by {pid}{session}{kind} for {}{op}",
        age(now.mono.since(grant.since))
    )
}

/// An age in its two largest units.
pub(super) fn age(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_refusal_of_the_asker_is_found() {
        let mut refusals = Refusals::default();
        for round in 0..REMEMBERED_MAX + 10 {
            refusals.record([5, 1], format!("old {round}"));
        }
        refusals.record([2, 1], "mine".to_owned());
        refusals.record([0, 0], "unseen".to_owned());
        refusals.record([3, 7], "my child's".to_owned());
        let (here, gone) = (|_| true, |_| false);
        assert_eq!(refusals.newest(|tid| tid == 2, here), Some("mine"));
        assert_eq!(refusals.newest(|tid| tid == 7, gone), Some("my child's"));
        assert_eq!(
            refusals.newest(|tid| tid == 7, here),
            None,
            "a child that lives keeps its own"
        );
        assert_eq!(
            refusals.newest(|tid| tid == 1, gone),
            None,
            "everything descends from PID 1"
        );
        assert_eq!(
            refusals.newest(|tid| tid == 0 || tid == 9, gone),
            None,
            "who cannot be seen has no history"
        );
    }

    #[test]
    fn ages_show_two_units() {
        let ages: Vec<String> = [5, 192, 7500]
            .into_iter()
            .map(|seconds| age(Duration::from_secs(seconds)))
            .collect();
        assert_eq!(ages, ["5s", "3m12s", "2h05m"]);
    }
}
