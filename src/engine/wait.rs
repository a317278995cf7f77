//! Waiting: into the lines, out of them, and what to look at again when something changed.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::acquire::Request;
use super::command::{Effect, Reply};
use super::event::{Event, Happening, Subject, Who};
use super::grant::Way;
use super::places::{Kept, Ticket, TicketState};
use super::queue::Queued;
use super::table::Slot;
use super::{Engine, Freed};
use crate::types::{GrantId, Moment, Refusal, Unique};

impl Engine {
    pub(super) fn enqueue(&mut self, now: Moment, mut request: Request) {
        request.rises = self.aging().next_rise(request.place, now.mono);
        self.rises.extend(request.rises.map(|tick| (tick, request.id)));
        if let Some(limit) = request.limit() {
            self.limits.insert((limit, request.id));
        }
        if let Some(name) = &request.ticket {
            let state = TicketState::Present(request.id);
            let ticket = Ticket {
                claims: request.claims.clone(),
                session: request.party.session.clone(),
                state,
            };
            self.places.set_ticket(name.clone(), ticket, request.place.arrival);
        }
        if let Some(process) = request.party.process.filter(|_| request.party.solo) {
            self.waiting_process.insert(process, request.id);
        }
        self.queue(&request);
        self.tell_holders(&request);
        self.tell_of(&request, Happening::Waited);
        self.requests.insert(request.id, Box::new(request));
    }

    /// Puts a request into the lines of all that it wants.
    pub(super) fn queue(&mut self, request: &Request) {
        for want in &request.wants {
            let waiter = Queued {
                request: request.id,
                place: request.place_in(want),
                strict: want.is_strict(),
            };
            let queue = &mut self.table[want.slot].queue;
            queue.insert(waiter, want.is_ranged());
            if queue.can_reorder() {
                self.mixed.insert(want.slot);
            }
        }
    }

    pub(super) fn unqueue(&mut self, request: &Request) {
        for want in &request.wants {
            let queue = &mut self.table[want.slot].queue;
            queue.remove(request.place_in(want), want.is_strict(), want.is_ranged());
            if !queue.can_reorder() {
                self.mixed.remove(&want.slot);
            }
        }
    }

    /// Tells the transactions in the way that someone waits for what they hold.
    fn tell_holders(&mut self, request: &Request) {
        let mut told = BTreeSet::new();
        for want in &request.wants {
            let own: Vec<GrantId> = self.conflicting(request, want).map(|holding| holding.grant).collect();
            let below = if self.is_held_below(want) {
                self.table.descendants(want.slot)
            } else {
                Vec::new()
            };
            let below = below
                .into_iter()
                .flat_map(|slot| self.table[slot].holders.iter().map(|holding| holding.grant));
            told.extend(own.into_iter().chain(below));
        }
        for grant in told {
            let grant = &self.grants[&grant];
            if let (Way::Transaction, Some(handle)) = (grant.way, grant.owner.handle()) {
                self.effects.push_back(Effect::Wanted {
                    handle,
                    request: request.id,
                });
            }
        }
    }

    /// Tells observers what happened to a request, for each of its locks.
    pub(super) fn tell_of(&mut self, request: &Request, what: Happening) {
        for claim in &request.claims {
            self.effects.push_back(Effect::Event(Event {
                lock: claim.lock.clone(),
                mode: claim.mode,
                who: Who::of(&request.party),
                subject: Subject::Request(request.id),
                what,
            }));
        }
    }

    /// Takes a waiting request out of everything; its locks may help others now.
    pub(super) fn take_request(&mut self, id: Unique) -> Option<Request> {
        let request = *self.requests.remove(&id)?;
        self.unqueue(&request);
        if let Some(limit) = request.limit() {
            self.limits.remove(&(limit, id));
        }
        if let Some(tick) = request.rises {
            self.rises.remove(&(tick, id));
        }
        if let Some(process) = request.party.process
            && self.waiting_process.get(&process) == Some(&id)
        {
            self.waiting_process.remove(&process);
        }
        for want in &request.wants {
            self.dirty
                .push((want.slot, if want.is_strict() { Freed::Any } else { Freed::Shared }));
            self.touched.push(want.slot);
        }
        Some(request)
    }

    pub(super) fn cancel(&mut self, now: Moment, id: Unique, refusal: Refusal) -> Result<Reply, Refusal> {
        let Some(request) = self.take_request(id) else {
            return Ok(Reply::Done);
        };
        if request.ticket.is_some() {
            self.keep_ticket(now, &request);
        } else if refusal == Refusal::Interrupted {
            let kept = Kept {
                arrival: request.place.arrival,
                since: request.place.since,
                wait: Some(request.wait),
            };
            let way = Way::of(&request.taking);
            let bound = self.bounds.waiters;
            self.places
                .keep_interrupted(now.mono, request.party.tid, way, request.claims.clone(), kept, bound);
        }
        let waited = now.mono.since(request.place.since);
        match refusal {
            Refusal::TimedOut => self.tell_of(&request, Happening::TimedOut { waited }),
            Refusal::Deadlock => self.tell_of(&request, Happening::Deadlocked { waited }),
            _ => {}
        }
        self.effects.push_back(Effect::Refused { request: id, refusal });
        Ok(Reply::Done)
    }

    pub(super) fn keep_ticket(&mut self, now: Moment, request: &Request) {
        let Some(name) = &request.ticket else { return };
        let expires = now.mono.after(self.settings.ticket_grace);
        let state = TicketState::Absent {
            since: request.place.since,
            expires,
        };
        let ticket = Ticket {
            claims: request.claims.clone(),
            session: request.party.session.clone(),
            state,
        };
        self.places.set_ticket(name.clone(), ticket, request.place.arrival);
    }

    pub(super) fn leave_wants(&mut self, request: &Request) {
        self.touched.extend(request.wants.iter().map(|want| want.slot));
    }

    /// Grants whatever can be granted in the locks that changed, then drops the entries of free ones.
    pub(super) fn settle(&mut self, now: Moment) {
        while let Some((slot, freed)) = self.dirty.pop() {
            self.scan(slot, freed, now);
        }
        while let Some(slot) = self.touched.pop() {
            self.table.leave(slot);
        }
    }

    fn scan(&mut self, slot: Slot, freed: Freed, now: Moment) {
        let queue = &self.table[slot].queue;
        if self.drained || queue.is_empty() || (freed == Freed::Shared && !queue.has_strict()) {
            return;
        }
        let mut candidates = Vec::new();
        for waiter in queue.in_order(self.aging(), now) {
            if queue.ranged == 0 && freed == Freed::Shared && !waiter.strict {
                return;
            }
            candidates.push(waiter.request);
            if queue.ranged == 0 && waiter.strict {
                break;
            }
        }
        // In the line of a scope a descendant of its holder stands in front. Waits of one owner for one lock below it are
        // granted in the order of that lock all the same, for the later one decides which mode it ends with.
        let aging = self.aging();
        candidates.sort_by_key(|id| {
            let place = self.requests.get(id).map(|request| request.place);
            place.map(|place| (Reverse(aging.level(place, now.mono)), place.arrival))
        });
        for id in candidates {
            if self.grant_if_free(now, id) {
                // The next in line may be the same owner, who never conflicts with itself.
                self.dirty.push((slot, Freed::Any));
            }
        }
    }

    /// Grants a waiting request if nothing is in its way any more.
    fn grant_if_free(&mut self, now: Moment, id: Unique) -> bool {
        let Some(request) = self.requests.get(&id) else {
            return false;
        };
        if self.obstacle(request, now).is_some() {
            return false;
        }
        let request = self.take_request(id).expect("it was there a line ago");
        if let Some(ticket) = &request.ticket {
            self.places.remove_ticket(ticket);
        }
        let token = self.install(now, request);
        self.effects.push_back(Effect::Granted { request: id, token });
        true
    }

    /// Lets waiters rise whose time has come. Rising helps nobody but the one who rises, so only it is looked at;
    /// what its grant means for others, `settle` finds.
    pub(super) fn raise(&mut self, now: Moment) {
        let aging = self.aging();
        let mut risen = Vec::new();
        while let Some(&(tick, id)) = self.rises.first()
            && tick <= now.mono
        {
            self.rises.pop_first();
            risen.push(id);
            if let Some(request) = self.requests.get_mut(&id) {
                request.rises = aging.next_rise(request.place, now.mono);
                self.rises.extend(request.rises.map(|tick| (tick, id)));
            }
        }
        for id in risen {
            if self.grant_if_free(now, id) {
                self.settle(now);
            }
        }
    }

    /// Computes anew when waiters rise: another span raises them now.
    pub(super) fn reckon_rises(&mut self, now: Moment) {
        let aging = self.aging();
        self.rises.clear();
        for request in self.requests.values_mut() {
            request.rises = aging.next_rise(request.place, now.mono);
            self.rises.extend(request.rises.map(|tick| (tick, request.id)));
        }
    }
}
