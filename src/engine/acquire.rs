//! Who may have what: requests, obstacles, grants.
//!
//! One rule decides everything: a request is granted when it conflicts with no holder and with no
//! waiter ahead of it. A claim on a lock also claims every scope above it shared; holders of such a
//! claim are counted in the scope's entry (`intents`), not listed.

use std::collections::BTreeSet;

use super::command::{Acquire, Claim, Effect, Event, Make, Party, Reply, Shape, Taking, Wait};
use super::grant::{Extra, Grant, Hold, Lease, Owner, Part, Way};
use super::places::{Kept, Ticket, TicketState};
use super::queue::{FRONT, Place, Queued};
use super::table::{Holding, Slot};
use super::{Engine, Freed, HolderText};
use crate::types::{GrantId, Mode, Moment, ProcessId, Range, Refusal, Tick, TicketName, Token, Unique};

/// How many waiters are reported to a new holder at most.
const WANTED_AT_GRANT_MAX: usize = 16;

/// One lock that a request needs, its own claims and the scopes above them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) slot: Slot,
    pub(super) mode: Mode,
    pub(super) range: Range,
    /// A scope above a claim.
    pub(super) intent: bool,
    /// Goes ahead of the waiters for that scope.
    front: bool,
}

impl Want {
    fn is_strict(&self) -> bool {
        self.mode == Mode::Exclusive || !self.range.is_whole()
    }

    fn is_ranged(&self) -> bool {
        !self.range.is_whole()
    }
}

/// A request, waiting or about to be decided.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) id: Unique,
    pub(super) claims: Vec<Claim>,
    pub(super) wants: Vec<Want>,
    pub(super) taking: Taking,
    pub(super) party: Party,
    pub(super) place: Place,
    pub(super) wait: Wait,
    pub(super) ticket: Option<TicketName>,
}

impl Request {
    pub(super) fn owner(&self) -> Owner {
        Owner::of(&self.taking)
    }

    fn place_in(&self, want: &Want) -> Place {
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
    /// Nothing is granted while drained.
    Drained,
    /// A holder of that lock.
    Holder(Slot),
    /// A waiter ahead, in the line of that lock; `scope` when only the line of a scope is in the way.
    Line { slot: Slot, scope: bool },
}

impl Engine {
    pub(super) fn acquire(&mut self, now: Moment, acquire: Acquire) -> Result<Reply, Refusal> {
        self.check_room(&acquire)?;
        let kept = self.places.resume(now.mono, &acquire)?;
        let request = self.request(now, acquire, kept);
        if self.is_second_upgrade(&request) {
            self.leave_wants(&request);
            return Err(Refusal::Deadlock);
        }
        if self.obstacle(&request, now).is_none() {
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
        self.enqueue(request);
        Ok(Reply::Waiting)
    }

    fn check_room(&self, acquire: &Acquire) -> Result<(), Refusal> {
        let bounds = &self.bounds;
        let ticket_fits = acquire
            .ticket
            .as_ref()
            .is_none_or(|name| self.places.has_room_for(name, bounds.tickets));
        let fits = acquire.claims.len() <= bounds.claims
            && self.table.len() + acquire.claims.len() <= bounds.locks
            && self.grants.len() < bounds.grants
            && (acquire.wait == Wait::No || self.requests.len() < bounds.waiters)
            && ticket_fits
            && self.tokens_left() > 0;
        let ranges_fit = match acquire.taking {
            Taking::Posix { .. } => acquire.claims.iter().all(|claim| {
                self.table
                    .find(claim.lock.as_str())
                    .is_none_or(|slot| self.table[slot].holders.len() < bounds.ranges)
            }),
            _ => true,
        };
        if acquire.claims.is_empty() {
            Err(Refusal::Malformed)
        } else if fits && ranges_fit {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
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
        };
        if self.is_upgrade(&request) {
            request.place.lane = FRONT;
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
        if lineage.is_empty() {
            return changed;
        }
        for want in request.wants.iter_mut().filter(|want| want.intent && !want.front) {
            if self
                .holders_in_scope(want.slot)
                .any(|process| lineage.contains(&process))
            {
                want.front = true;
                changed = true;
            }
        }
        changed
    }

    /// The processes that hold a scope or a lock below it.
    fn holders_in_scope(&self, slot: Slot) -> impl Iterator<Item = ProcessId> + '_ {
        let slots = std::iter::once(slot).chain(self.table.descendants(slot));
        slots
            .flat_map(|slot| &self.table[slot].holders)
            .filter_map(|holding| self.grants[&holding.grant].process())
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

    /// Whether the request turns a shared lock of its own into an exclusive one.
    fn is_upgrade(&self, request: &Request) -> bool {
        request
            .wants
            .iter()
            .any(|want| want.mode == Mode::Exclusive && self.own_shared(request, want).next().is_some())
    }

    fn own_shared<'a>(&'a self, request: &Request, want: &'a Want) -> impl Iterator<Item = &'a Holding> + 'a {
        let owner = request.owner();
        self.table[want.slot].holders.iter().filter(move |holding| {
            holding.mode == Mode::Shared
                && holding.range.overlaps(want.range)
                && self.grants[&holding.grant].owner.is_same(owner)
        })
    }

    /// Whether another upgrade already waits for what this one holds, while this one wants what that one holds.
    fn is_second_upgrade(&self, request: &Request) -> bool {
        if request.place.lane != FRONT {
            return false;
        }
        request
            .wants
            .iter()
            .filter(|want| want.mode == Mode::Exclusive)
            .any(|want| {
                let entry = &self.table[want.slot];
                let waiters = entry
                    .queue
                    .in_order(self.aging(), Moment::default())
                    .filter(|waiter| waiter.place.lane == FRONT);
                waiters
                    .filter_map(|waiter| self.requests.get(&waiter.request))
                    .any(|other| {
                        let theirs = other
                            .wants
                            .iter()
                            .find(|theirs| theirs.slot == want.slot && theirs.mode == Mode::Exclusive);
                        theirs.is_some_and(|theirs| {
                            !other.owner().is_same(request.owner())
                                && self
                                    .own_shared(request, want)
                                    .any(|held| held.range.overlaps(theirs.range))
                                && self
                                    .own_shared(other, theirs)
                                    .any(|held| held.range.overlaps(want.range))
                        })
                    })
            })
    }

    /// The first reason why the request cannot be granted now.
    pub(super) fn obstacle(&self, request: &Request, now: Moment) -> Option<Obstacle> {
        if self.drained {
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
            .filter_map(|waiter| self.requests.get(&waiter.request))
            .filter(move |other| {
                let theirs = other.wants.iter().find(|theirs| theirs.slot == want.slot);
                theirs.is_some_and(|theirs| {
                    theirs.mode.conflicts(want.mode)
                        && theirs.range.overlaps(want.range)
                        && !other.owner().is_same(request.owner())
                })
            })
    }

    fn enqueue(&mut self, request: Request) {
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
        for claim in &request.claims {
            self.effects.push_back(Effect::Event(Event::Waited {
                lock: claim.lock.clone(),
            }));
        }
        self.requests.insert(request.id, request);
    }

    /// Puts a request into the lines of all that it wants.
    fn queue(&mut self, request: &Request) {
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

    fn unqueue(&mut self, request: &Request) {
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

    /// Takes a waiting request out of everything; its locks may help others now.
    pub(super) fn take_request(&mut self, id: Unique) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        self.unqueue(&request);
        if let Some(limit) = request.limit() {
            self.limits.remove(&(limit, id));
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
        if refusal == Refusal::TimedOut {
            for claim in &request.claims {
                self.effects.push_back(Effect::Event(Event::TimedOut {
                    lock: claim.lock.clone(),
                }));
            }
        }
        self.effects.push_back(Effect::Refused { request: id, refusal });
        Ok(Reply::Done)
    }

    fn keep_ticket(&mut self, now: Moment, request: &Request) {
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

    fn leave_wants(&mut self, request: &Request) {
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
        for id in candidates {
            if self
                .requests
                .get(&id)
                .is_some_and(|request| self.obstacle(request, now).is_none())
            {
                let request = self.take_request(id).expect("it was there a line ago");
                if let Some(ticket) = &request.ticket {
                    self.places.remove_ticket(ticket);
                }
                let token = self.install(now, request);
                self.effects.push_back(Effect::Granted { request: id, token });
                // The next in line may be the same owner, who never conflicts with itself.
                self.dirty.push((slot, Freed::Any));
            }
        }
    }

    /// Makes the request a holder of all that it wants.
    fn install(&mut self, now: Moment, request: Request) -> Token {
        let waited = now.mono.since(request.place.since);
        for claim in &request.claims {
            self.effects.push_back(Effect::Event(Event::Acquired {
                lock: claim.lock.clone(),
                waited,
            }));
        }
        match request.taking {
            Taking::Flock(_) => {
                if let Some(token) = self.convert(now, &request) {
                    return token;
                }
            }
            Taking::Posix { .. } => return self.install_range(now, request),
            Taking::Open(_) | Taking::Transaction(_) | Taking::Make(_) => {}
        }
        let token = self.new_token();
        self.insert_grant(now, request, token);
        token
    }

    /// Changes the mode of a lock that the handle of a flock(2) already holds.
    fn convert(&mut self, now: Moment, request: &Request) -> Option<Token> {
        let want = request.wants.first()?;
        let id = self.own_grant(want.slot, request.owner())?;
        let mode_before = self.table[want.slot]
            .holders
            .iter()
            .find(|holding| holding.grant == id)?
            .mode;
        let token = if want.mode == Mode::Exclusive && mode_before == Mode::Shared {
            Some(self.new_token())
        } else {
            None
        };
        self.set_hold(id, Hold::Descriptor);
        let grant = self.grants.get_mut(&id)?;
        grant.way = Way::Flock;
        grant.spoiled = false;
        if let Some(token) = token {
            grant.token = token;
            grant.since = now.mono;
        }
        let token = grant.token;
        for part in grant.parts.iter_mut().filter(|part| part.slot == want.slot) {
            part.mode = want.mode;
        }
        for holding in self.table[want.slot]
            .holders
            .iter_mut()
            .filter(|holding| holding.grant == id)
        {
            holding.mode = want.mode;
        }
        self.dirty.push((want.slot, Freed::Any));
        Some(token)
    }

    /// The grant that a handle itself (not a lock owner of fcntl) holds on a lock.
    pub(super) fn own_grant(&self, slot: Slot, owner: Owner) -> Option<GrantId> {
        let holding = self.table[slot]
            .holders
            .iter()
            .find(|holding| self.grants[&holding.grant].owner == owner)?;
        Some(holding.grant)
    }

    /// Sets a byte range: what the same owner held there gives way, neighbours of the same mode join.
    fn install_range(&mut self, now: Moment, mut request: Request) -> Token {
        let owner = request.owner();
        if let Owner::Posix { owner: key, handle } = owner {
            let want = request.wants[0];
            self.cut_ranges(now, want.slot, key, want.range);
            // What the handle took by open becomes a descriptor lock, as with flock.
            if let Some(id) = self.own_grant(want.slot, Owner::Handle(handle)) {
                self.set_hold(id, Hold::Descriptor);
            }
            let joined = self.join_ranges(want.slot, key, want.mode, want.range);
            request.wants[0].range = joined;
        }
        let token = self.new_token();
        self.insert_grant(now, request, token);
        token
    }

    fn insert_grant(&mut self, now: Moment, request: Request, token: Token) {
        let own = |want: &&Want| !want.intent;
        let parts = request.wants.iter().filter(own).map(|want| Part {
            slot: want.slot,
            mode: want.mode,
            range: want.range,
        });
        let parts: Vec<Part> = parts.collect();
        let (owner, way) = (request.owner(), Way::of(&request.taking));
        let mut grant = Grant {
            id: GrantId(self.next_grant),
            parts,
            token,
            owner,
            way,
            hold: Hold::Descriptor,
            party: request.party,
            maker: None,
            taker_gone: false,
            since: now.mono,
            shape: Shape::File,
            spoiled: false,
            extra: None,
        };
        self.next_grant += 1;
        if let Taking::Make(make) = request.taking {
            Self::apply_make(&mut grant, now, make);
        }
        self.link_grant(grant);
    }

    fn apply_make(grant: &mut Grant, now: Moment, make: Make) {
        grant.shape = make.shape;
        grant.maker = make.keepers.first().copied();
        grant.hold = match make.owner {
            Some(process) => Hold::Process(process),
            None => {
                let had_keeper = !make.keepers.is_empty();
                Hold::Lease(Lease {
                    keepers: make.keepers,
                    made: now,
                    renewed: now.boot,
                    had_keeper,
                })
            }
        };
        if make.text.is_some() || make.ino.is_some() {
            let text = make.text.map_or_else(HolderText::default, |text| HolderText {
                declared: Some(text.declared),
                note: text.note,
            });
            grant.extra = Some(Box::new(Extra {
                text,
                ino: make.ino,
                ..Extra::default()
            }));
        }
    }

    /// Enters a grant into every index.
    pub(super) fn link_grant(&mut self, grant: Grant) {
        let id = grant.id;
        for part in &grant.parts {
            self.table[part.slot].holders.push(Holding {
                grant: id,
                mode: part.mode,
                range: part.range,
            });
            let mut above = self.table[part.slot].parent;
            while let Some(slot) = above {
                self.table[slot].intents += 1;
                above = self.table[slot].parent;
            }
            self.touched.push(part.slot);
        }
        if let Some(handle) = grant.owner.handle() {
            self.by_handle.entry(handle).or_default().push(id);
        }
        self.index_processes(&grant);
        self.index_lease_end(&grant);
        let tell = if grant.way == Way::Transaction {
            grant.owner.handle()
        } else {
            None
        };
        if let Some(handle) = tell {
            for part in &grant.parts {
                let waiters = self.table[part.slot].queue.in_order(self.aging(), Moment::default());
                for waiter in waiters.take(WANTED_AT_GRANT_MAX) {
                    self.effects.push_back(Effect::Wanted {
                        handle,
                        request: waiter.request,
                    });
                }
            }
        }
        self.grants.insert(id, grant);
    }
}
