//! Who may have what: requests and what is in their way.
//!
//! One rule decides everything: a request is granted when it conflicts with no holder and with no
//! waiter ahead of it. A claim on a lock also claims every scope above it shared; holders of such a
//! claim are counted in the scope's entry (`intents`), not listed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::{Acquire, Claim, Party, Reply, Taking, Wait};
use super::event::Happening;
use super::grant::Owner;
use super::places::Kept;
use super::queue::{FRONT, Place};
use super::table::{Holding, Slot};
use super::{Engine, Freed};
use crate::types::{LockName, Mode, Moment, ProcessId, Range, Refusal, Tick, TicketName, Unique};

/// One lock that a request needs, its own claims and the scopes above them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Want {
    pub(super) slot: Slot,
    pub(super) mode: Mode,
    pub(super) range: Range,
    /// A scope above a claim.
    pub(super) intent: bool,
    /// Goes ahead of the waiters for that scope.
    pub(super) front: bool,
}

impl Want {
    pub(super) fn is_strict(&self) -> bool {
        self.mode == Mode::Exclusive || !self.range.is_whole()
    }

    pub(super) fn is_ranged(&self) -> bool {
        !self.range.is_whole()
    }
}

/// A request, waiting or about to be decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) id: Unique,
    pub(super) claims: Vec<Claim>,
    pub(super) wants: Vec<Want>,
    pub(super) taking: Taking,
    pub(super) party: Party,
    pub(super) place: Place,
    pub(super) wait: Wait,
    pub(super) ticket: Option<TicketName>,
    /// When waiting raises it next.
    pub(super) rises: Option<Tick>,
}

impl Request {
    pub(super) fn owner(&self) -> Owner {
        Owner::of(&self.taking)
    }

    pub(super) fn place_in(&self, want: &Want) -> Place {
        if want.front {
            Place {
                lane: FRONT,
                ..self.place
            }
        } else {
            self.place
        }
    }

    pub(super) fn limit(&self) -> Option<Tick> {
        match self.wait {
            Wait::Until(tick) => Some(tick),
            Wait::No | Wait::Forever => None,
        }
    }
}

/// Why a request cannot be granted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Nothing is granted while drained, or without a token reserved for it.
    Drained,
    /// A holder of that lock.
    Holder(Slot),
    /// A waiter ahead, in the line of that lock; `scope` when only the line of a scope is in the way.
    Line { slot: Slot, scope: bool },
}

impl Engine {
    pub(super) fn acquire(&mut self, now: Moment, mut acquire: Acquire) -> Result<Reply, Refusal> {
        self.check_form(&mut acquire)?;
        self.check_room(&acquire)?;
        let kept = self.places.resume(now.mono, &acquire)?;
        let request = self.request(now, acquire, kept);
        if self.is_held_already(&request) || self.obstacle(&request, now).is_none() {
            if let Some(ticket) = &request.ticket {
                self.places.remove_ticket(ticket);
            }
            return Ok(Reply::Granted(self.install(now, request)));
        }
        if request.wait == Wait::No {
            self.keep_ticket(now, &request);
            self.leave_wants(&request);
            return Err(Refusal::WouldBlock);
        }
        if self.is_second_upgrade(&request) {
            self.keep_ticket(now, &request);
            self.leave_wants(&request);
            let waited = Duration::ZERO;
            self.tell_of(&request, Happening::Deadlocked { waited });
            return Err(Refusal::Deadlock);
        }
        self.enqueue(now, request);
        Ok(Reply::Waiting)
    }

    fn check_form(&self, acquire: &mut Acquire) -> Result<(), Refusal> {
        // One order of the names, so that a ticket is resumed in whatever order they are written.
        acquire.claims.sort_unstable();
        let is_twice = acquire.claims.windows(2).any(|pair| pair[0].lock == pair[1].lock);
        if acquire.claims.is_empty() || is_twice {
            Err(Refusal::Malformed)
        } else {
            Ok(())
        }
    }

    fn check_room(&self, acquire: &Acquire) -> Result<(), Refusal> {
        let bounds = &self.bounds;
        let ticket_fits = acquire
            .ticket
            .as_ref()
            .is_none_or(|name| self.places.has_room_for(name, bounds.tickets));
        let ranges_fit = match acquire.taking {
            Taking::Posix { .. } => acquire.claims.iter().all(|claim| self.has_room_for_range(&claim.lock)),
            _ => true,
        };
        let fits = acquire.claims.len() <= bounds.claims
            && self.table.has_room_for(&acquire.claims, &self.settings, bounds.locks)
            && self.grants.len() < bounds.grants
            && (acquire.wait == Wait::No || self.requests.len() < bounds.waiters)
            && ticket_fits
            && ranges_fit
            && self.tokens_left() > 0;
        if fits { Ok(()) } else { Err(Refusal::Full) }
    }

    /// Whether one more byte range of a lock can be held.
    pub(super) fn has_room_for_range(&self, lock: &LockName) -> bool {
        let held = self
            .table
            .find(lock.as_str())
            .map_or(0, |slot| self.table[slot].holders.len());
        held < self.bounds.ranges && self.grants.len() < self.bounds.grants
    }

    fn request(&mut self, now: Moment, acquire: Acquire, kept: Option<Kept>) -> Request {
        let wants = self.wants(&acquire.claims);
        let mut place = Place {
            lane: acquire.priority.level(),
            arrival: self.next_arrival,
            since: now.mono,
        };
        let mut wait = acquire.wait;
        match kept {
            Some(kept) => {
                place = Place {
                    arrival: kept.arrival,
                    since: kept.since,
                    ..place
                };
                wait = kept.wait.unwrap_or(wait);
            }
            None => self.next_arrival += 1,
        }
        let mut request = Request {
            id: acquire.id,
            claims: acquire.claims,
            wants,
            taking: acquire.taking,
            party: acquire.party,
            place,
            wait,
            ticket: acquire.ticket,
            rises: None,
        };
        if self.extends_own(&request) {
            request.place.lane = FRONT;
            request.wants.iter_mut().for_each(|want| want.front = want.intent);
        }
        self.mark_front(&mut request, &acquire.lineage);
        request
    }

    fn wants(&mut self, claims: &[Claim]) -> Vec<Want> {
        let mut wants: Vec<Want> = Vec::with_capacity(claims.len() * 2);
        for claim in claims {
            let slot = self.table.enter(&claim.lock, &self.settings);
            wants.push(Want {
                slot,
                mode: claim.mode,
                range: claim.range,
                intent: false,
                front: false,
            });
        }
        for index in 0..claims.len() {
            let mut above = self.table[wants[index].slot].parent;
            while let Some(slot) = above {
                if !wants.iter().any(|want| want.slot == slot) {
                    wants.push(Want {
                        slot,
                        mode: Mode::Shared,
                        range: Range::WHOLE,
                        intent: true,
                        front: false,
                    });
                }
                above = self.table[slot].parent;
            }
        }
        wants
    }

    /// Marks the scopes that `lineage` already holds: there the request goes ahead of the waiters.
    fn mark_front(&self, request: &mut Request, lineage: &[ProcessId]) -> bool {
        let mut changed = false;
        for want in request.wants.iter_mut().filter(|want| want.intent && !want.front) {
            want.front = self.holds_in_scope(want.slot, lineage);
            changed |= want.front;
        }
        changed
    }

    pub(super) fn promote(&mut self, id: Unique, lineage: &[ProcessId]) -> Result<Reply, Refusal> {
        let Some(mut request) = self.requests.remove(&id) else {
            return Ok(Reply::Done);
        };
        self.unqueue(&request);
        if self.mark_front(&mut request, lineage) {
            self.dirty
                .extend(request.wants.iter().map(|want| (want.slot, Freed::Any)));
        }
        self.queue(&request);
        self.requests.insert(id, request);
        Ok(Reply::Done)
    }

    /// Whether the request's owner already holds a part of what it asks for: an upgrade, a downgrade, more ranges.
    ///
    /// Whoever stands in line there waits for that owner, so the request stands ahead of them, and the scopes
    /// above are its own already.
    fn extends_own(&self, request: &Request) -> bool {
        let mut own_wants = request.wants.iter().filter(|want| !want.intent);
        own_wants.any(|want| self.own_holdings(request.owner(), want.slot).next().is_some())
    }

    fn own_holdings(&self, owner: Owner, slot: Slot) -> impl Iterator<Item = &Holding> {
        let holders = self.table[slot].holders.iter();
        holders.filter(move |holding| self.grants[&holding.grant].owner.is_same(owner))
    }

    /// Whether the owner holds all of it already, at least as strictly: such a request takes nothing new.
    fn is_held_already(&self, request: &Request) -> bool {
        let is_covered = |want: &Want| {
            let mut missing = vec![want.range];
            for held in self.own_holdings(request.owner(), want.slot) {
                if held.mode >= want.mode {
                    missing = missing
                        .iter()
                        .flat_map(|range| range.without(held.range))
                        .flatten()
                        .collect();
                }
            }
            missing.is_empty() && self.conflicting(request, want).next().is_none()
        };
        request.place.lane == FRONT && request.wants.iter().filter(|want| !want.intent).all(is_covered)
    }

    /// Whether someone who stands ahead in the same way waits for what this owner holds, and this one wants what
    /// that one holds: of two upgraders the second must not wait.
    fn is_second_upgrade(&self, request: &Request) -> bool {
        let owner = request.owner();
        let is_held_against = |holder: Owner, want: &Want| {
            self.own_holdings(holder, want.slot)
                .any(|held| held.mode.conflicts(want.mode) && held.range.overlaps(want.range))
        };
        let closes_circle = |want: &Want| {
            let others = self.table[want.slot]
                .queue
                .front()
                .filter_map(|id| self.requests.get(&id));
            others.filter(|other| !other.owner().is_same(owner)).any(|other| {
                let theirs = other
                    .wants
                    .iter()
                    .find(|theirs| theirs.slot == want.slot && !theirs.intent);
                theirs.is_some_and(|theirs| is_held_against(owner, theirs) && is_held_against(other.owner(), want))
            })
        };
        request.place.lane == FRONT && request.wants.iter().filter(|want| !want.intent).any(closes_circle)
    }

    /// The first reason why the request cannot be granted now.
    pub(super) fn obstacle(&self, request: &Request, now: Moment) -> Option<Obstacle> {
        if self.drained || self.tokens_left() == 0 {
            return Some(Obstacle::Drained);
        }
        let mut line = None;
        for want in &request.wants {
            if self.conflicting(request, want).next().is_some() || self.is_held_below(want) {
                return Some(Obstacle::Holder(want.slot));
            }
            if self.is_behind(request, want, now) {
                let is_worse = matches!(line, None | Some(Obstacle::Line { scope: true, .. }));
                line = if is_worse {
                    Some(Obstacle::Line {
                        slot: want.slot,
                        scope: want.intent,
                    })
                } else {
                    line
                };
            }
        }
        line
    }

    /// The holders that a want conflicts with.
    pub(super) fn conflicting<'a>(
        &'a self,
        request: &Request,
        want: &'a Want,
    ) -> impl Iterator<Item = &'a Holding> + 'a {
        let owner = request.owner();
        self.table[want.slot].holders.iter().filter(move |holding| {
            holding.mode.conflicts(want.mode)
                && holding.range.overlaps(want.range)
                && !self.grants[&holding.grant].owner.is_same(owner)
        })
    }

    pub(super) fn is_held_below(&self, want: &Want) -> bool {
        want.mode == Mode::Exclusive && self.table[want.slot].intents > 0
    }

    fn is_behind(&self, request: &Request, want: &Want, now: Moment) -> bool {
        let queue = &self.table[want.slot].queue;
        if queue.is_empty() || want.front {
            return false;
        }
        let place = request.place_in(want);
        if queue.ranged == 0 && !want.is_ranged() {
            return queue.anyone_ahead(place, want.mode == Mode::Shared, self.aging(), now);
        }
        self.waiters_ahead(request, want, now).next().is_some()
    }

    /// The conflicting waiters ahead of a want, in order.
    pub(super) fn waiters_ahead<'a>(
        &'a self,
        request: &'a Request,
        want: &'a Want,
        now: Moment,
    ) -> impl Iterator<Item = &'a Request> + 'a {
        let place = request.place_in(want);
        let in_order = self.table[want.slot].queue.in_order(self.aging(), now);
        let ahead = in_order.take_while(move |waiter| {
            waiter.request != request.id && self.aging().is_ahead(waiter.place, place, now.mono)
        });
        ahead
            .filter_map(|waiter| self.requests.get(&waiter.request).map(|other| &**other))
            .filter(move |other| {
                let theirs = other.wants.iter().find(|theirs| theirs.slot == want.slot);
                // Waits of one owner for ranges do not stand in each other's way; for the whole lock there is one line.
                theirs.is_some_and(|theirs| {
                    let is_own = (want.is_ranged() || theirs.is_ranged()) && other.owner().is_same(request.owner());
                    theirs.mode.conflicts(want.mode) && theirs.range.overlaps(want.range) && !is_own
                })
            })
    }
}
