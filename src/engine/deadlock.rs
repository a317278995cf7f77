//! Circles in the wait-for graph, the order of the lines included.
//!
//! A process that has only one thread and waits can do nothing else, so if it waits, over any number of
//! steps, for what it holds itself, nobody in the circle will ever move. Only such processes are nodes:
//! another thread might let go at any time. The engine finds circles; the driver checks with the
//! kernel's descriptor tables that they are real, and then denies one request.

use std::collections::BTreeSet;

use super::Engine;
use super::acquire::Request;
use super::grant::Hold;
use crate::types::{GrantId, Moment, ProcessId, Unique};

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
        let process = start.party.process.filter(|_| start.party.solo)?;
        let mut seen = BTreeSet::new();
        let mut path = Vec::new();
        self.search(start, process, now, &mut seen, &mut path).then_some(path)
    }

    fn search(
        &self,
        request: &Request,
        goal: ProcessId,
        now: Moment,
        seen: &mut BTreeSet<Unique>,
        path: &mut Vec<GrantId>,
    ) -> bool {
        if !seen.insert(request.id) {
            return false;
        }
        for edge in self.edges(request, now) {
            let (process, grant) = match edge {
                Edge::Grant(id) => (self.grants[&id].process(), Some(id)),
                Edge::Request(id) => (
                    self.requests[&id]
                        .party
                        .process
                        .filter(|_| self.requests[&id].party.solo),
                    None,
                ),
            };
            let Some(process) = process else { continue };
            path.extend(grant);
            let next = match edge {
                Edge::Grant(_) => self.waiting_process.get(&process),
                Edge::Request(ref id) => Some(id),
            };
            let is_circle = (process == goal && grant.is_some())
                || next
                    .and_then(|id| self.requests.get(id))
                    .is_some_and(|next| self.search(next, goal, now, seen, path));
            if is_circle {
                return true;
            }
            if grant.is_some() {
                path.pop();
            }
        }
        false
    }

    /// Everything that a request waits for.
    pub(super) fn edges(&self, request: &Request, now: Moment) -> Vec<Edge> {
        let mut edges = BTreeSet::new();
        for want in &request.wants {
            edges.extend(
                self.conflicting(request, want)
                    .map(|holding| Edge::Grant(holding.grant)),
            );
            if self.is_held_below(want) {
                let below = self.table.descendants(want.slot);
                let holders = below.into_iter().flat_map(|slot| &self.table[slot].holders);
                edges.extend(holders.map(|holding| Edge::Grant(holding.grant)));
            }
            edges.extend(
                self.waiters_ahead(request, want, now)
                    .map(|other| Edge::Request(other.id)),
            );
        }
        edges.into_iter().collect()
    }

    /// Whether a grant lives by an open descriptor, so that only descriptor tables can tell who has it.
    pub fn lives_by_descriptor(&self, id: GrantId) -> bool {
        self.grants.get(&id).is_some_and(|grant| grant.hold == Hold::Descriptor)
    }
}
