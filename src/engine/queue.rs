//! The line in front of one lock: who is ahead of whom, with aging.
//!
//! Order is by effective priority, then arrival. Within one base level the earlier arrival always has
//! at least the higher effective level, so each level is a lane in arrival order and only the heads of
//! lanes are ever compared. Shared and exclusive waiters have lanes of their own: a shared waiter is
//! only ever behind an exclusive one, so a look at the head of those lanes answers for all of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Range as MapRange;
use std::iter::Peekable;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{Moment, Priority, Tick, Unique};

/// The lane of those who go ahead of everyone: upgrades, and descendants of a scope's holder.
pub(super) const FRONT: u8 = 11;

/// A place in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Base priority, or [`FRONT`].
    pub(super) lane: u8,
    /// The order of arrival over all locks.
    pub(super) arrival: u64,
    /// When the wait began.
    pub(super) since: Tick,
}

/// How waiting raises a level; constant while the settings are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aging(pub(super) Duration);

impl Aging {
    /// The effective level at `now`.
    pub(super) fn level(self, place: Place, now: Tick) -> u8 {
        if place.lane == FRONT {
            return FRONT;
        }
        let steps = now.since(place.since).as_nanos() / self.0.as_nanos().max(1);
        let top = Priority::MAX.level();
        top.min(place.lane.saturating_add(u8::try_from(steps).unwrap_or(top)))
    }

    /// Whether `a` stands ahead of `b` at `now`.
    pub(super) fn is_ahead(self, a: Place, b: Place, now: Tick) -> bool {
        let (level_a, level_b) = (self.level(a, now), self.level(b, now));
        level_a > level_b || (level_a == level_b && a.arrival < b.arrival)
    }

    /// When this place rises next; `None` at the top.
    pub(super) fn next_rise(self, place: Place, now: Tick) -> Option<Tick> {
        if self.level(place, now) >= Priority::MAX.level() {
            return None;
        }
        let steps = now.since(place.since).as_nanos() / self.0.as_nanos().max(1) + 1;
        Some(
            place
                .since
                .after(Duration::from_nanos((steps * self.0.as_nanos()) as u64)),
        )
    }
}

type Lanes = BTreeMap<(u8, u64), (Unique, Tick)>;

/// A waiter as the queue knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) request: Unique,
    pub(super) place: Place,
    /// Whether it waits for the whole lock exclusively, or for a part of it in any mode.
    pub(super) strict: bool,
}

/// The waiters of one lock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Queue {
    /// Exclusive waiters, and all that wait for a range.
    strict: Lanes,
    /// Shared waiters for the whole lock.
    shared: Lanes,
    /// How many of `strict` wait for a range only.
    pub(super) ranged: u32,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.strict.is_empty() && self.shared.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.strict.len() + self.shared.len()
    }

    pub(super) fn has_strict(&self) -> bool {
        !self.strict.is_empty()
    }

    pub(super) fn insert(&mut self, waiter: Queued, ranged: bool) {
        let lanes = if waiter.strict {
            &mut self.strict
        } else {
            &mut self.shared
        };
        lanes.insert(
            (waiter.place.lane, waiter.place.arrival),
            (waiter.request, waiter.place.since),
        );
        self.ranged += u32::from(ranged);
    }

    pub(super) fn remove(&mut self, place: Place, strict: bool, ranged: bool) {
        let lanes = if strict { &mut self.strict } else { &mut self.shared };
        let removed = lanes.remove(&(place.lane, place.arrival));
        debug_assert!(removed.is_some(), "a waiter leaves the line it stands in");
        self.ranged -= u32::from(ranged);
    }

    /// Whether any waiter, or with `strict_only` any strict waiter, stands ahead of `place`.
    pub(super) fn anyone_ahead(&self, place: Place, strict_only: bool, aging: Aging, now: Moment) -> bool {
        let ahead_in = |lanes: &Lanes| heads(lanes).any(|head| aging.is_ahead(head, place, now.mono));
        ahead_in(&self.strict) || (!strict_only && ahead_in(&self.shared))
    }

    /// All waiters in order at `now`.
    pub(super) fn in_order(&self, aging: Aging, now: Moment) -> InOrder<'_> {
        let mut lanes = Vec::new();
        for (map, strict) in [(&self.strict, true), (&self.shared, false)] {
            for head in heads(map) {
                lanes.push((strict, map.range((head.lane, 0)..=(head.lane, u64::MAX)).peekable()));
            }
        }
        InOrder { lanes, aging, now }
    }

    /// The waiters in the lane ahead of all levels.
    pub(super) fn front(&self) -> impl Iterator<Item = Unique> + '_ {
        let strict = self.strict.range((FRONT, 0)..);
        strict.chain(self.shared.range((FRONT, 0)..)).map(|(_, &(id, _))| id)
    }

    /// Whether waiting alone can change the order: several base levels stand in this line.
    pub(super) fn can_reorder(&self) -> bool {
        let mut levels = heads(&self.strict)
            .chain(heads(&self.shared))
            .map(|head| head.lane)
            .filter(|&lane| lane != FRONT);
        let Some(first) = levels.next() else { return false };
        levels.any(|level| level != first)
    }
}

/// The first waiter of each lane.
fn heads(lanes: &Lanes) -> impl Iterator<Item = Place> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        let (&(lane, arrival), &(_, since)) = lanes.range((from, 0)..).next()?;
        from = lane + 1;
        Some(Place { lane, arrival, since })
    })
}

type Lane<'a> = (bool, Peekable<MapRange<'a, (u8, u64), (Unique, Tick)>>);

/// Waiters in order; see [`Queue::in_order`].
pub(super) struct InOrder<'a> {
    lanes: Vec<Lane<'a>>,
    aging: Aging,
    now: Moment,
}

impl Iterator for InOrder<'_> {
    type Item = Queued;

    fn next(&mut self) -> Option<Queued> {
        let mut best: Option<(usize, Queued)> = None;
        for (index, (strict, lane)) in self.lanes.iter_mut().enumerate() {
            let Some(&(&(level, arrival), &(request, since))) = lane.peek() else {
                continue;
            };
            let queued = Queued {
                request,
                place: Place {
                    lane: level,
                    arrival,
                    since,
                },
                strict: *strict,
            };
            if best.is_none_or(|(_, first)| self.aging.is_ahead(queued.place, first.place, self.now.mono)) {
                best = Some((index, queued));
            }
        }
        let (index, queued) = best?;
        self.lanes[index].1.next();
        Some(queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGING: Aging = Aging(Duration::from_secs(2));

    fn queue(waiters: &[(u8, u64, u64)]) -> Queue {
        let mut queue = Queue::default();
        for &(lane, arrival, since_ms) in waiters {
            let place = Place {
                lane,
                arrival,
                since: Moment::at_millis(since_ms).mono,
            };
            queue.insert(
                Queued {
                    request: Unique(arrival),
                    place,
                    strict: arrival % 2 == 0,
                },
                false,
            );
        }
        queue
    }

    fn order(queue: &Queue, now_ms: u64) -> Vec<u64> {
        queue
            .in_order(AGING, Moment::at_millis(now_ms))
            .map(|waiter| waiter.request.0)
            .collect()
    }

    #[test]
    fn priority_goes_before_arrival_and_waiting_raises_it() {
        let queue = queue(&[(5, 0, 0), (10, 1, 1000), (5, 2, 1500), (FRONT, 3, 9000)]);
        assert_eq!(order(&queue, 9000), [3, 1, 0, 2]);
        assert_eq!(
            order(&queue, 10_000),
            [3, 0, 1, 2],
            "after 10 s the first has risen to 10 and came earlier"
        );
    }

    #[test]
    fn only_mixed_lines_can_reorder_and_only_until_all_are_at_the_top() {
        assert!(!queue(&[(5, 0, 0), (5, 1, 10), (FRONT, 2, 20)]).can_reorder());
        let mixed = queue(&[(9, 0, 0), (10, 1, 10)]);
        assert!(mixed.can_reorder());
        let place = heads(&mixed.strict)
            .chain(heads(&mixed.shared))
            .find(|head| head.lane == 9)
            .expect("inserted");
        let rise = |millis| AGING.next_rise(place, Moment::at_millis(millis).mono);
        assert_eq!(rise(1), Some(Moment::at_millis(2000).mono));
        assert_eq!(rise(2000), None);
    }
}
