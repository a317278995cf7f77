//! Every way a lock ends: the last close, an unlock, `rm`, the end of a process, `break`, a session's end.

use super::command::{Actor, Effect, Reply, Target};
use super::event::{Ending, Event, Happening, Subject, Who};
use super::grant::{Grant, Hold, Owner, Part, Taker, Way};
use super::table::Slot;
use super::{Engine, Freed};
use crate::types::{
    GrantId, HandleId, LockName, Mode, Moment, ProcessId, Range, Refusal, SessionName, Text, TicketName, Token,
};

impl Engine {
    pub(super) fn unflock(&mut self, now: Moment, lock: &LockName, handle: HandleId) -> Result<Reply, Refusal> {
        let Some(slot) = self.table.find(lock.as_str()) else {
            return Ok(Reply::Done);
        };
        if let Some(id) = self.own_grant(slot, Owner::Handle(handle)) {
            self.release(now, id, Ending::Released);
        }
        Ok(Reply::Done)
    }

    pub(super) fn unlock_range(
        &mut self,
        now: Moment,
        lock: &LockName,
        owner: u64,
        handle: HandleId,
        range: Range,
    ) -> Result<Reply, Refusal> {
        let Some(slot) = self.table.find(lock.as_str()) else {
            return Ok(Reply::Done);
        };
        let splits = |id: &GrantId| {
            let part = self.grants[id].parts.first();
            part.is_some_and(|part| part.range.without(range).iter().flatten().count() == 2)
        };
        if self.ranges_of(slot, owner).iter().any(splits) && !self.has_room_for_range(lock) {
            return Err(Refusal::Full);
        }
        self.cut_ranges(now, slot, owner, range);
        if range.is_whole()
            && let Some(id) = self.own_grant(slot, Owner::Handle(handle))
            && self.grants[&id].way != Way::Flock
        {
            // An unlock of everything through the handle that took the lock by open ends that too.
            self.release(now, id, Ending::Released);
        }
        Ok(Reply::Done)
    }

    pub(super) fn flush(&mut self, now: Moment, lock: &LockName, owner: u64) -> Result<Reply, Refusal> {
        if let Some(slot) = self.table.find(lock.as_str()) {
            self.cut_ranges(now, slot, owner, Range::WHOLE);
        }
        Ok(Reply::Done)
    }

    pub(super) fn close(&mut self, now: Moment, handle: HandleId) -> Result<Reply, Refusal> {
        for id in self.grants_through(handle).collect::<Vec<_>>() {
            self.by_handle.remove(&(handle, id));
            let Some(grant) = self.grants.get(&id) else { continue };
            if grant.hold == Hold::Descriptor || grant.spoiled {
                self.release(now, id, Ending::Released);
            }
        }
        Ok(Reply::Done)
    }

    /// Takes a range away from what a lock owner of fcntl(2) holds on a lock.
    pub(super) fn cut_ranges(&mut self, now: Moment, slot: Slot, owner: u64, range: Range) {
        for id in self.ranges_of(slot, owner) {
            let grant = &self.grants[&id];
            let Some(&part) = grant.parts.first() else { continue };
            if !part.range.overlaps(range) {
                continue;
            }
            let pieces: Vec<Range> = part.range.without(range).into_iter().flatten().collect();
            let template = grant.clone();
            let ending = if pieces.is_empty() {
                Some(Ending::Released)
            } else {
                None
            };
            self.unlink(now, id, ending);
            for piece in pieces {
                self.insert_piece(&template, Part { range: piece, ..part });
            }
        }
    }

    /// Joins a range with what the same owner holds in the same mode beside it; those grants go.
    pub(super) fn join_ranges(&mut self, slot: Slot, owner: u64, mode: Mode, range: Range) -> Range {
        let mut joined = range;
        for id in self.ranges_of(slot, owner) {
            let Some(&part) = self.grants[&id].parts.first() else {
                continue;
            };
            if part.mode == mode
                && let Some(union) = joined.joined(part.range)
            {
                joined = union;
                self.unlink(Moment::default(), id, None);
            }
        }
        joined
    }

    fn insert_piece(&mut self, template: &Grant, part: Part) {
        let mut grant = template.clone();
        grant.id = GrantId(self.next_grant);
        self.next_grant += 1;
        grant.parts = vec![part];
        self.link_grant(grant);
    }

    /// The grants of a lock owner on a lock, by their first byte.
    fn ranges_of(&self, slot: Slot, owner: u64) -> Vec<GrantId> {
        let mut holdings: Vec<_> = self.table[slot].holders.iter().collect();
        holdings.sort_by_key(|holding| holding.range.start());
        let is_owners = |id: &GrantId| matches!(self.grants[id].owner, Owner::Posix { owner: key, .. } if key == owner);
        holdings
            .into_iter()
            .map(|holding| holding.grant)
            .filter(is_owners)
            .collect()
    }

    /// Ends a grant with all its locks.
    pub(super) fn release(&mut self, now: Moment, id: GrantId, ending: Ending) {
        self.unlink(now, id, Some(ending));
    }

    /// Takes a grant out of every index; with an ending, observers are told.
    fn unlink(&mut self, now: Moment, id: GrantId, ending: Option<Ending>) {
        let Some(grant) = self.grants.remove(&id) else { return };
        for part in &grant.parts {
            self.drop_part(now, &grant, *part, ending);
        }
        if let Some(handle) = grant.owner.handle() {
            self.by_handle.remove(&(handle, id));
        }
        self.unindex_processes(&grant);
        self.unindex_lease_end(&grant);
    }

    fn drop_part(&mut self, now: Moment, grant: &Grant, part: Part, ending: Option<Ending>) {
        self.table[part.slot]
            .holders
            .retain(|holding| holding.grant != grant.id);
        self.dirty.push((
            part.slot,
            if part.mode == Mode::Exclusive {
                Freed::Any
            } else {
                Freed::Shared
            },
        ));
        self.touched.push(part.slot);
        let mut above = self.table[part.slot].parent;
        while let Some(slot) = above {
            self.table[slot].intents -= 1;
            self.dirty.push((slot, Freed::Shared));
            above = self.table[slot].parent;
        }
        if let Some(how) = ending {
            let lock = self.table[part.slot].name.clone();
            self.effects.push_back(Effect::Event(Event {
                lock,
                mode: part.mode,
                who: Who::of(&grant.party),
                subject: Subject::Grant(grant.id),
                what: Happening::Released {
                    held: now.mono.since(grant.since),
                    how,
                },
            }));
        }
    }

    /// Takes one lock out of a grant, and the grant with it if that was its last.
    fn release_part(&mut self, now: Moment, id: GrantId, slot: Slot, ending: Ending) {
        let Some(grant) = self.grants.get(&id) else { return };
        if grant.parts.iter().all(|part| part.slot == slot) {
            return self.release(now, id, ending);
        }
        let mut grant = self.grants.remove(&id).expect("it was there a line ago");
        let (gone, kept): (Vec<Part>, Vec<Part>) = grant.parts.iter().partition(|part| part.slot == slot);
        grant.parts = kept;
        for part in gone {
            self.drop_part(now, &grant, part, Some(ending));
        }
        self.grants.insert(id, grant);
    }

    /// Reports that a handle no longer holds a lock, if it is still open.
    fn report_loss(&mut self, id: GrantId, slot: Slot) {
        let Some(handle) = self.grants.get(&id).and_then(|grant| grant.owner.handle()) else {
            return;
        };
        if self.grants_through(handle).next().is_some() {
            let lock = self.table[slot].name.clone();
            self.effects.push_back(Effect::Lost { handle, lock });
        }
    }

    /// Ends a grant that its holder may still believe in.
    pub(super) fn revoke(&mut self, now: Moment, id: GrantId, ending: Ending) {
        let slots: Vec<Slot> = self
            .grants
            .get(&id)
            .map(|grant| grant.parts.iter().map(|part| part.slot).collect())
            .unwrap_or_default();
        for slot in slots {
            self.report_loss(id, slot);
        }
        self.release(now, id, ending);
    }

    pub(super) fn remove(&mut self, now: Moment, lock: &LockName, actor: &Actor) -> Result<Reply, Refusal> {
        let (slot, ids) = self
            .movable(lock, actor)
            .inspect_err(|refusal| self.tell_of_attempt(lock, actor.tid, *refusal))?;
        for &id in &ids {
            self.release_part(now, id, slot, Ending::Released);
        }
        Ok(Reply::Released(ids.len()))
    }

    /// Tells observers that a thread was kept from ending somebody else's lock.
    fn tell_of_attempt(&mut self, lock: &LockName, tid: u32, refusal: Refusal) {
        if matches!(refusal, Refusal::HeldByOther | Refusal::NotYours) {
            self.effects.push_back(Effect::Event(Event {
                lock: lock.clone(),
                mode: Mode::Exclusive,
                who: Who {
                    pid: tid,
                    ..Who::default()
                },
                subject: Subject::Call,
                what: Happening::StealAttempt,
            }));
        }
    }

    /// The grants on a lock that an actor may remove or renew; a refusal when there are none.
    pub(super) fn movable(&self, lock: &LockName, actor: &Actor) -> Result<(Slot, Vec<GrantId>), Refusal> {
        let slot = self.table.find(lock.as_str()).ok_or(Refusal::Absent)?;
        let entry = &self.table[slot];
        if entry.holders.is_empty() {
            return Err(if entry.intents > 0 || !entry.queue.is_empty() {
                Refusal::HeldByOther
            } else {
                Refusal::Absent
            });
        }
        let (mut ids, mut refusal) = (Vec::new(), Refusal::HeldByOther);
        for holding in &entry.holders {
            match self.may_move(&self.grants[&holding.grant], actor) {
                Ok(()) if !ids.contains(&holding.grant) => ids.push(holding.grant),
                Ok(()) => {}
                Err(why) => refusal = why,
            }
        }
        if ids.is_empty() { Err(refusal) } else { Ok((slot, ids)) }
    }

    fn may_move(&self, grant: &Grant, actor: &Actor) -> Result<(), Refusal> {
        if actor.uid != 0 && actor.uid != grant.party.uid {
            return Err(Refusal::NotYours);
        }
        let is_related = grant.process().is_some_and(|process| actor.lineage.contains(&process))
            || grant
                .party
                .process
                .is_some_and(|process| actor.lineage.contains(&process));
        let holder_is_gone = match &grant.hold {
            // What flock(1) took through somebody's descriptor outlives flock(1): that somebody may well be there.
            Hold::Descriptor => grant.taker == Taker::Gone && !grant.is_taken_through_descriptor(),
            Hold::Lease(lease) => lease.had_keeper && lease.keepers.is_empty(),
            Hold::Process(_) => false,
        };
        // Both beyond what we can see: a container's own lock, for all that we know.
        let are_unseen = grant.party.tid == 0 && actor.tid == 0;
        if is_related || holder_is_gone || are_unseen {
            Ok(())
        } else {
            Err(Refusal::HeldByOther)
        }
    }

    pub(super) fn break_lock(&mut self, now: Moment, lock: &LockName, token: Token) -> Result<Reply, Refusal> {
        let slot = self.table.find(lock.as_str()).ok_or(Refusal::Absent)?;
        let holders = &self.table[slot].holders;
        if holders.is_empty() {
            return Err(Refusal::Absent);
        }
        let meant: Vec<GrantId> = holders
            .iter()
            .map(|holding| holding.grant)
            .filter(|id| self.grants[id].token == token)
            .collect();
        if meant.is_empty() {
            self.tell_of_attempt(lock, 0, Refusal::HeldByOther);
            return Err(Refusal::HeldByOther);
        }
        for id in &meant {
            self.report_loss(*id, slot);
            self.release_part(now, *id, slot, Ending::Broken);
        }
        Ok(Reply::Released(meant.len()))
    }

    pub(super) fn release_session(&mut self, now: Moment, session: &SessionName) -> Reply {
        let is_theirs = |grant: &Grant| grant.party.session.as_ref() == Some(session);
        let ids: Vec<GrantId> = self
            .grants
            .values()
            .filter(|grant| is_theirs(grant))
            .map(|grant| grant.id)
            .collect();
        for &id in &ids {
            self.revoke(now, id, Ending::Broken);
        }
        let absent = self
            .places
            .tickets()
            .filter(|(_, ticket)| ticket.session.as_ref() == Some(session));
        let absent: Vec<TicketName> = absent.map(|(name, _)| name.clone()).collect();
        for name in absent {
            // Present tickets end with their wait; the session's waits go on.
            if self.ticket_request(&name).is_none() {
                self.places.remove_ticket(&name);
            }
        }
        Reply::Released(ids.len())
    }

    pub(super) fn withdraw(&mut self, now: Moment, name: &TicketName) -> Result<Reply, Refusal> {
        let request = self.ticket_request(name);
        self.places.remove_ticket(name).ok_or(Refusal::Absent)?;
        if let Some(id) = request {
            self.cancel(now, id, Refusal::TimedOut)?;
            self.places.remove_ticket(name);
        }
        Ok(Reply::Done)
    }

    pub(super) fn exited(&mut self, now: Moment, process: ProcessId, cleanly: bool) -> Result<Reply, Refusal> {
        for id in self.grants_by(process).collect::<Vec<_>>() {
            self.by_process.remove(&(process, id));
            let Some(grant) = self.grants.get_mut(&id) else {
                continue;
            };
            let is_taker = grant.party.process == Some(process);
            if is_taker {
                grant.taker = Taker::Gone;
            }
            match &grant.hold {
                Hold::Process(owner) if *owner == process => self.revoke(now, id, Ending::Stale),
                Hold::Lease(_) => self.keeper_exited(now, id, process, cleanly),
                Hold::Descriptor if is_taker && grant.is_taken_through_descriptor() => self.pass(id),
                Hold::Process(_) | Hold::Descriptor => {}
            }
        }
        self.waiting_process.remove(&process);
        Ok(Reply::Done)
    }

    /// The grant that a text or a touch is about.
    pub(super) fn target(&self, target: &Target) -> Option<GrantId> {
        match target {
            Target::Handle(handle) => {
                let mut ids = self.grants_through(*handle);
                ids.find(|id| self.grants[id].owner == Owner::Handle(*handle))
                    .or_else(|| self.grants_through(*handle).next())
            }
            Target::Name(lock) => {
                let slot = self.table.find(lock.as_str())?;
                let made = |id: &GrantId| self.grants[id].way == Way::Make;
                self.table[slot].holders.iter().map(|holding| holding.grant).find(made)
            }
        }
    }

    pub(super) fn declare(
        &mut self,
        now: Moment,
        target: Target,
        text: Text,
        owner: Option<ProcessId>,
        keepers: Vec<ProcessId>,
    ) -> Result<Reply, Refusal> {
        let id = self.target(&target).ok_or(Refusal::Malformed)?;
        let grant = &self.grants[&id];
        if matches!(grant.way, Way::Flock | Way::Posix | Way::Transaction) {
            return Err(Refusal::Malformed);
        }
        match owner {
            Some(process) => self.set_hold(id, Hold::Process(process)),
            None => self.make_lease(now, id, keepers),
        }
        let grant = self.grants.get_mut(&id).expect("it was there a line ago");
        if text.declared.session.is_some() {
            grant.party.session.clone_from(&text.declared.session);
        }
        grant.extra_mut().text = super::HolderText {
            declared: Some(text.declared),
            note: text.note,
        };
        Ok(Reply::Done)
    }

    pub(super) fn note(&mut self, target: Target, note: Vec<u8>) -> Result<Reply, Refusal> {
        let id = self.target(&target).ok_or(Refusal::Malformed)?;
        let grant = self.grants.get_mut(&id).expect("targets exist");
        grant.extra_mut().text.note = note;
        Ok(Reply::Done)
    }

    pub(super) fn spoil(&mut self, handle: HandleId) -> Result<Reply, Refusal> {
        if let Some(id) = self.target(&Target::Handle(handle)) {
            self.grants.get_mut(&id).expect("targets exist").spoiled = true;
        }
        Ok(Reply::Done)
    }
}
