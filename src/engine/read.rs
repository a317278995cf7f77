//! What a reader sees: nothing here changes anything.

use std::collections::BTreeSet;

use super::Engine;
use super::acquire::{Obstacle, Request};
use super::deadlock::Edge;
use super::grant::{DirFiles, Grant, Hold, Owner, Way};
use super::places::{Ticket, TicketState};
use super::queue::{FRONT, Place};
use super::table::{Entry, Slot};
use crate::types::{
    GrantId, HandleId, LockName, Mode, Moment, Priority, ProcessId, Range, Refusal, Settings, Tick, TicketName, Unique,
};

/// Whether an exclusive lock could be had now, by someone who holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// At once.
    Free,
    /// Only waiters for a scope are in the way: a descendant of a holder there goes ahead of them.
    BehindScope,
    /// Not now.
    Taken,
}

/// What a text written through a handle means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextRule {
    /// It declares who holds the lock.
    Declaration,
    /// It is a note: the lock belongs to flock, fcntl or a transaction.
    Note,
    /// The handle holds nothing.
    Nothing,
}

/// One holder of a lock.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The grant behind it.
    pub grant: &'a Grant,
    /// Its mode on this lock.
    pub mode: Mode,
    /// Its bytes of this lock.
    pub range: Range,
}

/// One waiter for a lock.
#[derive(Clone, Copy, Debug)]
pub struct Waiter<'a> {
    request: &'a Request,
    /// Its mode on this lock.
    pub mode: Mode,
    /// Its effective level now; 11 is ahead of all.
    pub level: u8,
}

impl<'a> Waiter<'a> {
    /// The request.
    pub fn id(&self) -> Unique {
        self.request.id
    }

    /// Who waits.
    pub fn party(&self) -> &'a super::Party {
        &self.request.party
    }

    /// The priority it came with.
    pub fn priority(&self) -> u8 {
        self.request.place.lane.min(Priority::MAX.level())
    }

    /// Since when.
    pub fn since(&self) -> Tick {
        self.request.place.since
    }

    /// Until when; `None` is for ever.
    pub fn limit(&self) -> Option<Tick> {
        self.request.limit()
    }

    /// The ticket that keeps its place.
    pub fn ticket(&self) -> Option<&'a TicketName> {
        self.request.ticket.as_ref()
    }

    /// Every lock it waits for together.
    pub fn locks(&self) -> impl Iterator<Item = &'a LockName> {
        self.request.claims.iter().map(|claim| &claim.lock)
    }
}

/// What a waiting request waits for.
#[derive(Clone, Copy, Debug)]
pub enum Blocker<'a> {
    /// A holder.
    Holder(&'a Grant),
    /// A waiter ahead, by its request.
    Waiter(Unique, &'a super::Party),
}

impl Engine {
    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether `drain` is in force.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// Whether nothing is held and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.grants.is_empty() && self.requests.is_empty()
    }

    /// Whether a newcomer could have the whole lock exclusively now; a name exists while this is not [`Availability::Free`].
    pub fn availability(&self, lock: &LockName, lineage: &[ProcessId]) -> Availability {
        if self.drained {
            return Availability::Taken;
        }
        let own = self.table.find(lock.as_str());
        if let Some(entry) = own.map(|slot| &self.table[slot])
            && (!entry.holders.is_empty() || entry.intents > 0 || !entry.queue.is_empty())
        {
            return Availability::Taken;
        }
        let mut availability = Availability::Free;
        for slot in self.scopes_of(lock) {
            let entry = &self.table[slot];
            if entry.holders.iter().any(|holding| holding.mode == Mode::Exclusive) {
                return Availability::Taken;
            }
            if entry.queue.has_strict() && !self.holds_in_scope(slot, lineage) {
                availability = Availability::BehindScope;
            }
        }
        availability
    }

    /// The scopes above a lock that are in use, nearest first; also when the lock itself is not.
    fn scopes_of(&self, lock: &LockName) -> Vec<Slot> {
        if let Some(slot) = self.table.find(lock.as_str()) {
            return self.table.ancestors(slot).collect();
        }
        let mut above = self.settings.parent_of(lock.as_str());
        while let Some(name) = above {
            if let Some(slot) = self.table.find(name.as_str()) {
                return std::iter::once(slot).chain(self.table.ancestors(slot)).collect();
            }
            above = self.settings.parent_of(name.as_str());
        }
        Vec::new()
    }

    /// Whether one of these processes holds a scope or a lock below it.
    pub(super) fn holds_in_scope(&self, slot: Slot, lineage: &[ProcessId]) -> bool {
        let mut grants = lineage
            .iter()
            .flat_map(|&process| self.grants_by(process).map(move |id| (process, &self.grants[&id])));
        grants.any(|(process, grant)| {
            let is_inside = |lock: Slot| lock == slot || self.table.ancestors(lock).any(|above| above == slot);
            grant.process() == Some(process) && grant.parts.iter().any(|part| is_inside(part.slot))
        })
    }

    /// The scope whose holder or line forbids a lock that nobody holds.
    pub fn forbidding_scope(&self, lock: &LockName) -> Option<&LockName> {
        let forbids = |entry: &Entry| {
            entry.holders.iter().any(|holding| holding.mode == Mode::Exclusive) || entry.queue.has_strict()
        };
        self.scopes_of(lock)
            .into_iter()
            .find(|&slot| forbids(&self.table[slot]))
            .map(|slot| &self.table[slot].name)
    }

    /// Whether any lock below this one is held.
    pub fn is_lock_held_below(&self, lock: &str) -> bool {
        self.table.find(lock).is_some_and(|slot| self.table[slot].intents > 0)
    }

    /// Who holds a lock.
    pub fn holders(&self, lock: &str) -> impl Iterator<Item = Holder<'_>> {
        let holdings = self
            .table
            .find(lock)
            .map(|slot| self.table[slot].holders.as_slice())
            .unwrap_or_default();
        holdings.iter().map(|holding| Holder {
            grant: &self.grants[&holding.grant],
            mode: holding.mode,
            range: holding.range,
        })
    }

    /// Who holds locks below a scope.
    pub fn holders_below(&self, lock: &str) -> impl Iterator<Item = (&LockName, &Grant)> {
        let below = self
            .table
            .find(lock)
            .map(|slot| self.table.descendants(slot))
            .unwrap_or_default();
        below.into_iter().flat_map(|slot| {
            let entry = &self.table[slot];
            entry
                .holders
                .iter()
                .map(|holding| (&entry.name, &*self.grants[&holding.grant]))
        })
    }

    /// How many wait for a lock itself, not for one below it.
    pub fn waiter_count(&self, lock: &str) -> usize {
        let Some(slot) = self.table.find(lock) else { return 0 };
        let entry = &self.table[slot];
        if entry.children.is_empty() {
            return entry.queue.len();
        }
        let in_order = entry.queue.in_order(self.aging(), Moment::default());
        in_order.filter(|queued| self.waits_for(queued.request, entry)).count()
    }

    fn has_line(&self, lock: &str) -> bool {
        self.table
            .find(lock)
            .is_some_and(|slot| !self.table[slot].queue.is_empty())
    }

    /// Who waits for a lock itself (not only for one below it), in order.
    pub fn waiters(&self, lock: &str, now: Moment) -> Vec<Waiter<'_>> {
        let Some(slot) = self.table.find(lock) else {
            return Vec::new();
        };
        let in_order = self.table[slot].queue.in_order(self.aging(), now);
        let waiter = |place: Place, request: Unique| {
            let request = self.requests.get(&request)?;
            let want = request.wants.iter().find(|want| want.slot == slot && !want.intent)?;
            Some(Waiter {
                request,
                mode: want.mode,
                level: self.aging().level(place, now.mono),
            })
        };
        in_order
            .filter_map(|queued| waiter(queued.place, queued.request))
            .collect()
    }

    /// The names of all locks that are held or waited for themselves.
    pub fn locks_in_use(&self) -> impl Iterator<Item = &LockName> {
        self.table
            .iter()
            .map(|(_, entry)| entry)
            .filter(|entry| !entry.holders.is_empty() || !entry.queue.is_empty())
            .filter(|entry| {
                let waits_itself = || {
                    entry
                        .queue
                        .in_order(self.aging(), Moment::default())
                        .any(|queued| self.waits_for(queued.request, entry))
                };
                !entry.holders.is_empty() || waits_itself()
            })
            .map(|entry| &entry.name)
    }

    fn waits_for(&self, request: Unique, entry: &Entry) -> bool {
        self.requests
            .get(&request)
            .is_some_and(|request| request.claims.iter().any(|claim| claim.lock == entry.name))
    }

    /// How many requests wait.
    pub fn requests_len(&self) -> usize {
        self.requests.len()
    }

    /// How many locks are in use, scopes included.
    pub fn locks_len(&self) -> usize {
        self.table.len()
    }

    /// All tickets.
    pub fn tickets(&self) -> impl Iterator<Item = (&TicketName, &Ticket)> {
        self.places.tickets()
    }

    /// The request that waits under a ticket.
    pub(super) fn ticket_request(&self, name: &TicketName) -> Option<Unique> {
        match self.places.ticket(name)?.state {
            TicketState::Present(id) => Some(id),
            TicketState::Absent { .. } => None,
        }
    }

    /// What a waiting request waits for, holders first, at most `max`.
    pub fn blockers(&self, id: Unique, now: Moment, max: usize) -> Vec<Blocker<'_>> {
        let Some(request) = self.requests.get(&id) else {
            return Vec::new();
        };
        let blocker = |edge| match edge {
            Edge::Grant(grant) => Blocker::Holder(&self.grants[&grant]),
            Edge::Request(other) => Blocker::Waiter(other, &self.requests[&other].party),
        };
        self.edges(request, now, max).into_iter().map(blocker).collect()
    }

    /// The holders that a waiting request waits for, waiters ahead of it left out.
    pub fn holders_before(&self, id: Unique) -> Vec<&Grant> {
        let Some(request) = self.requests.get(&id) else {
            return Vec::new();
        };
        self.holders_in_the_way(request)
            .iter()
            .map(|grant| &*self.grants[grant])
            .collect()
    }

    /// A waiting request's party.
    pub fn requester(&self, id: Unique) -> Option<&super::Party> {
        self.requests.get(&id).map(|request| &request.party)
    }

    /// The locks a waiting request asks for, and in which mode.
    pub fn request_claims(&self, id: Unique) -> &[super::Claim] {
        self.requests
            .get(&id)
            .map(|request| request.claims.as_slice())
            .unwrap_or_default()
    }

    /// The priority of a waiting request now.
    pub fn request_level(&self, id: Unique, now: Moment) -> Option<u8> {
        self.requests
            .get(&id)
            .map(|request| self.aging().level(request.place, now.mono).min(FRONT - 1))
    }

    /// Whether a waiting request needs a scope that others wait for alone, so that a promotion could help it.
    pub fn has_scope_line(&self, id: Unique) -> bool {
        let wants = self
            .requests
            .get(&id)
            .map(|request| request.wants.as_slice())
            .unwrap_or_default();
        wants
            .iter()
            .any(|want| want.intent && self.table[want.slot].queue.has_strict())
    }

    /// Whether only the line of a scope keeps a waiting request from being granted.
    pub fn waits_behind_scope(&self, id: Unique, now: Moment) -> bool {
        let obstacle = self.requests.get(&id).and_then(|request| self.obstacle(request, now));
        matches!(obstacle, Some(Obstacle::Line { scope: true, .. }))
    }

    /// A grant.
    pub fn grant(&self, id: GrantId) -> Option<&Grant> {
        self.grants.get(&id).map(|grant| &**grant)
    }

    /// The names of the locks that a grant holds.
    pub fn grant_locks(&self, id: GrantId) -> impl Iterator<Item = &LockName> {
        let parts = self
            .grants
            .get(&id)
            .map(|grant| grant.parts.as_slice())
            .unwrap_or_default();
        parts.iter().map(|part| &self.table[part.slot].name)
    }

    /// Every process that anything here still depends on.
    pub fn processes(&self) -> BTreeSet<ProcessId> {
        let of_grants = self.grants.values().flat_map(|grant| {
            let keepers = match &grant.hold {
                Hold::Lease(lease) => lease.keepers.as_slice(),
                Hold::Process(_) | Hold::Descriptor => &[],
            };
            keepers
                .iter()
                .copied()
                .chain(grant.process())
                .chain(grant.maker)
                .chain(grant.party.process)
        });
        let of_requests = self.requests.values().filter_map(|request| request.party.process);
        of_grants.chain(of_requests).collect()
    }

    /// Every request that waits.
    pub fn waiting(&self) -> impl Iterator<Item = Unique> + '_ {
        self.requests.keys().copied()
    }

    /// All grants, oldest first.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.values().map(|grant| &**grant)
    }

    /// What was granted through a handle.
    pub fn grants_of(&self, handle: HandleId) -> impl Iterator<Item = &Grant> {
        self.grants_through(handle).map(|id| &*self.grants[&id])
    }

    /// The grant that a declaration for this target belongs to.
    pub fn declared_grant(&self, target: &super::Target) -> Option<GrantId> {
        self.target(target)
    }

    /// What a text written through a handle means.
    pub fn text_rule(&self, handle: HandleId) -> TextRule {
        let own = self
            .grants_of(handle)
            .find(|grant| grant.owner == Owner::Handle(handle));
        match own.or_else(|| self.grants_of(handle).next()).map(|grant| grant.way) {
            Some(Way::Open | Way::Make) => TextRule::Declaration,
            Some(Way::Flock | Way::Posix | Way::Transaction) => TextRule::Note,
            None => TextRule::Nothing,
        }
    }

    /// The directory that a lock made by mkdir is.
    pub fn directory(&self, lock: &str) -> Option<(&Grant, &DirFiles)> {
        static NO_FILES: DirFiles = DirFiles::new();
        let holder = self
            .holders(lock)
            .find(|holder| holder.grant.shape == super::Shape::Directory)?;
        Some((
            holder.grant,
            holder.grant.extra().map_or(&NO_FILES, |extra| &extra.files),
        ))
    }

    /// A lock in the way of a byte range (F_GETLK).
    pub fn range_conflict(&self, lock: &str, owner: Owner, mode: Mode, range: Range) -> Option<Holder<'_>> {
        self.holders(lock).find(|holder| {
            holder.mode.conflicts(mode) && holder.range.overlaps(range) && !holder.grant.owner.is_same(owner)
        })
    }

    /// Whether an exclusive lock through this handle could be had now (poll).
    pub fn could_have(&self, lock: &LockName, handle: HandleId) -> bool {
        match self.availability(lock, &[]) {
            Availability::Free => true,
            Availability::BehindScope => false,
            Availability::Taken => {
                let idle_line = !self.has_line(lock.as_str()) && !self.is_lock_held_below(lock.as_str());
                let mut holders = self.holders(lock.as_str()).peekable();
                !self.drained
                    && idle_line
                    && holders.peek().is_some()
                    && holders.all(|holder| holder.grant.owner.is_same(Owner::Handle(handle)))
            }
        }
    }

    /// Whether an actor may remove or renew a lock.
    pub fn may_remove(&self, lock: &LockName, actor: &super::Actor) -> Result<(), Refusal> {
        self.movable(lock, actor).map(|_| ())
    }
}
