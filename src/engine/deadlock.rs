//! Circles in the wait-for graph, the order of the lines included.
//!
//! A process that has only one thread and waits can do nothing else, so if it waits, over any number of
//! steps, for what it holds itself, nobody in the circle will ever move. A holder counts only if it is such a
//! process: another thread might let go at any time. A waiter ahead counts always: whatever its process
//! does, the request itself moves only when what it waits for does. The engine finds circles; the driver checks with the
//! kernel's descriptor tables that they are real, and then denies one request.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::acquire::{Request, Want};
use super::grant::Hold;
use super::queue::Place;
use super::table::Slot;
use crate::types::{GrantId, Mode, Moment, Unique};

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edge {
    /// A holder.
    Grant(GrantId),
    /// A waiter ahead.
    Request(Unique),
}

impl Engine {
    /// A circle that this waiting request closes: the grants that form it.
    pub fn circle(&self, id: Unique, now: Moment) -> Option<Vec<GrantId>> {
        let start = self.requests.get(&id)?;
        let goal = start.party.process.filter(|_| start.party.solo)?;
        // Nobody can wait for a process that holds nothing.
        self.grants_by(goal).next()?;
        // How each request was reached: from which, and through which grant.
        let mut reached: BTreeMap<Unique, (Unique, Option<GrantId>)> = BTreeMap::new();
        let mut lines_seen: BTreeMap<Slot, Place> = BTreeMap::new();
        let mut next = vec![id];
        while let Some(from) = next.pop() {
            let Some(request) = self.requests.get(&from) else {
                continue;
            };
            for grant in self.holders_in_the_way(request) {
                let Some(process) = self.grants[&grant].process() else {
                    continue;
                };
                if process == goal {
                    return Some(Self::path(&reached, id, from, grant));
                }
                if let Some(&to) = self.waiting_process.get(&process) {
                    Self::reach(&mut reached, &mut next, id, to, (from, Some(grant)));
                }
            }
            for want in request.wants.iter().filter(|want| !want.front) {
                if !self.is_line_news(request, want, now, &mut lines_seen) {
                    continue;
                }
                for other in self.waiters_ahead(request, want, now) {
                    Self::reach(&mut reached, &mut next, id, other.id, (from, None));
                }
            }
        }
        None
    }

    fn reach(
        reached: &mut BTreeMap<Unique, (Unique, Option<GrantId>)>,
        next: &mut Vec<Unique>,
        start: Unique,
        to: Unique,
        how: (Unique, Option<GrantId>),
    ) {
        if to != start && !reached.contains_key(&to) {
            reached.insert(to, how);
            next.push(to);
        }
    }

    /// Whether someone may stand ahead whom no look at this line has seen: a look on behalf of an exclusive waiter
    /// sees all ahead of it, so a line is walked once and not once a waiter.
    fn is_line_news(&self, request: &Request, want: &Want, now: Moment, seen: &mut BTreeMap<Slot, Place>) -> bool {
        let place = request.place_in(want);
        if seen
            .get(&want.slot)
            .is_some_and(|last| !self.aging().is_ahead(*last, place, now.mono))
        {
            return false;
        }
        if want.mode == Mode::Exclusive && !want.is_ranged() {
            seen.insert(want.slot, place);
        }
        true
    }

    fn path(
        reached: &BTreeMap<Unique, (Unique, Option<GrantId>)>,
        start: Unique,
        mut at: Unique,
        last: GrantId,
    ) -> Vec<GrantId> {
        let mut path = vec![last];
        while at != start
            && let Some(&(from, grant)) = reached.get(&at)
        {
            path.extend(grant);
            at = from;
        }
        path.reverse();
        path
    }

    /// The holders that a request waits for.
    pub(super) fn holders_in_the_way(&self, request: &Request) -> BTreeSet<GrantId> {
        let mut holders = BTreeSet::new();
        for want in &request.wants {
            holders.extend(self.conflicting(request, want).map(|holding| holding.grant));
            if self.is_held_below(want) {
                let below = self.table.descendants(want.slot);
                let below = below.into_iter().flat_map(|slot| &self.table[slot].holders);
                holders.extend(below.map(|holding| holding.grant));
            }
        }
        holders
    }

    /// What a request waits for, holders first, at most `max`: a long line is not drawn in full.
    pub(super) fn edges(&self, request: &Request, now: Moment, max: usize) -> Vec<Edge> {
        let holders = self.holders_in_the_way(request).into_iter().map(Edge::Grant);
        let mut edges: BTreeSet<Edge> = holders.take(max).collect();
        for want in request.wants.iter().filter(|want| !want.front) {
            let room = max - edges.len();
            let ahead = self.waiters_ahead(request, want, now).take(room);
            edges.extend(ahead.map(|other| Edge::Request(other.id)));
        }
        edges.into_iter().collect()
    }

    /// Whether a grant lives by an open descriptor, so that only descriptor tables can tell who has it.
    pub fn lives_by_descriptor(&self, id: GrantId) -> bool {
        self.grants.get(&id).is_some_and(|grant| grant.hold == Hold::Descriptor)
    }
}
