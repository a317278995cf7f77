//! From the engine's hot road to the fold: a bounded buffer, and who an event was about when that is found out later.

use std::collections::BTreeMap;

use super::record::Record;
use crate::engine::{Event, Happening, Subject, Who};
use crate::types::Tick;

/// How many events wait to be folded at most; more are dropped and counted.
pub const EVENTS_MAX: usize = 65_536;
/// How long an event waits for word of who it was about, in milliseconds.
const IDENTIFYING_MS: i64 = 50;

/// The events since the last look, filled under the driver's mutex.
#[derive(Debug, Default)]
pub struct Intake {
    events: Vec<(Tick, Event)>,
    dropped: u64,
}

/// What was taken from an intake.
#[derive(Debug, Default)]
pub struct Batch {
    /// The events with their time in milliseconds since 1970, oldest first.
    pub events: Vec<(i64, Event)>,
    /// How many did not fit.
    pub dropped: u64,
}

impl Intake {
    /// Keeps an event. True when it is the first since the last look.
    pub fn push(&mut self, at: Tick, event: Event) -> bool {
        if self.events.len() == EVENTS_MAX {
            self.dropped += 1;
            return false;
        }
        self.events.push((at, event));
        self.events.len() == 1
    }

    /// Whether there is nothing to fold.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.dropped == 0
    }

    /// Takes everything out, which is only a swap; `spare` is used for what comes next.
    pub fn swap(&mut self, spare: Vec<(Tick, Event)>) -> (Vec<(Tick, Event)>, u64) {
        (
            std::mem::replace(&mut self.events, spare),
            std::mem::take(&mut self.dropped),
        )
    }
}

/// Holders and waiters are identified a moment after their grant or request; this joins the two.
#[derive(Debug, Default)]
pub struct Joined {
    waiting: Vec<(i64, Event)>,
}

impl Joined {
    /// The records of a batch, and of what waited for it.
    pub fn take(&mut self, batch: Batch, now: i64, all: bool) -> Vec<Record> {
        let mut events = std::mem::take(&mut self.waiting);
        events.extend(batch.events);
        let mut found: BTreeMap<Subject, Who> = BTreeMap::new();
        for (_, event) in &events {
            // The end of a hold tells who held it, too.
            let tells = matches!(event.what, Happening::Identified | Happening::Released { .. });
            if tells && event.who != Who::default() {
                found.insert(event.subject, event.who.clone());
            }
        }
        let old = |at: i64| all || now - at >= IDENTIFYING_MS;
        let ripe = events.iter().position(|(at, _)| !old(*at)).unwrap_or(events.len());
        self.waiting = events.split_off(ripe);
        let mut records = Vec::with_capacity(events.len());
        for (at, mut event) in events {
            if event.who.op.is_none()
                && let Some(who) = found.get(&event.subject)
            {
                event.who = who.clone();
            }
            records.extend(Record::of(event, at));
        }
        records
    }

    /// Whether something waits to be joined.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::engine::Ending;
    use crate::types::{GrantId, LockName, Mode};

    fn event(grant: u64, what: Happening, op: Option<&str>) -> Event {
        Event {
            lock: LockName::parse(b"x.lock").expect("name"),
            mode: Mode::Exclusive,
            who: Who {
                op: op.map(Arc::from),
                ..Who::default()
            },
            subject: Subject::Grant(GrantId(grant)),
            what,
        }
    }

    fn acquired(grant: u64) -> Event {
        event(grant, Happening::Acquired { waited: Duration::ZERO }, None)
    }

    fn ops(records: &[Record]) -> Vec<Option<&str>> {
        records.iter().map(|record| record.op.as_deref()).collect()
    }

    #[test]
    fn an_event_learns_who_it_was_about_from_a_later_one() {
        let mut joined = Joined::default();
        let first = Batch {
            events: vec![(1000, acquired(1)), (1001, acquired(2))],
            dropped: 0,
        };
        assert_eq!(joined.take(first, 1010, false), [], "they may be identified yet");
        let second = Batch {
            events: vec![
                (1012, event(1, Happening::Identified, Some("git merge topic"))),
                (
                    1013,
                    event(
                        2,
                        Happening::Released {
                            held: Duration::ZERO,
                            how: Ending::Released,
                        },
                        None,
                    ),
                ),
            ],
            dropped: 0,
        };
        let records = joined.take(second, 1100, false);
        assert_eq!(ops(&records), [Some("git merge"), None, None]);
        assert!(!joined.is_waiting());
    }

    #[test]
    fn a_reader_gets_everything_at_once() {
        let mut joined = Joined::default();
        let batch = Batch {
            events: vec![(1000, acquired(1))],
            dropped: 0,
        };
        assert_eq!(joined.take(batch, 1000, true).len(), 1);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut intake = Intake::default();
        assert!(intake.push(Tick(0), acquired(0)), "the first wakes the reader");
        for grant in 1..EVENTS_MAX as u64 + 5 {
            assert!(!intake.push(Tick(0), acquired(grant)));
        }
        let (events, dropped) = intake.swap(Vec::new());
        assert_eq!((events.len(), dropped), (EVENTS_MAX, 5));
        assert!(intake.is_empty());
    }
}
