//! Keepers, owners and time: locks that outlive the descriptor they were taken with.
//!
//! A lease is kept by the process that made it. If that one exits within [`MAKER_MOMENT`] and of its own
//! will, as mkdir(1) and lockfile(1) do, the next ancestor keeps it, and so on. Once nobody keeps it,
//! time alone counts, from when it was made or renewed.

use std::time::Duration;

use super::Engine;
use super::command::{Actor, Effect, Party, Reply, Target};
use super::event::{Ending, Event, Happening, Subject, Who};
use super::grant::{Grant, Hold, Lease, Taker, Way};
use crate::types::{GrantId, HandleId, LockName, Moment, ProcessId, Refusal, Tick, Unique};

/// A process that exits so soon after making a lock only made it for its parent.
const MAKER_MOMENT: Duration = Duration::from_secs(2);

impl Engine {
    /// Changes what a grant lives by.
    pub(super) fn set_hold(&mut self, id: GrantId, hold: Hold) {
        let Some(mut grant) = self.grants.remove(&id) else {
            return;
        };
        self.unindex_processes(&grant);
        self.unindex_lease_end(&grant);
        grant.hold = hold;
        self.index_processes(&grant);
        self.index_lease_end(&grant);
        self.grants.insert(id, grant);
    }

    /// Makes a grant a lease from now on; one that is a lease already keeps its keepers.
    pub(super) fn make_lease(&mut self, now: Moment, id: GrantId, keepers: Vec<ProcessId>) {
        let lease = match self.grants.get(&id).map(|grant| &grant.hold) {
            Some(Hold::Lease(lease)) => Lease {
                renewed: now.boot,
                ..lease.clone()
            },
            _ => Lease {
                had_keeper: !keepers.is_empty(),
                keepers,
                made: now,
                renewed: now.boot,
            },
        };
        self.set_hold(id, Hold::Lease(lease));
    }

    pub(super) fn keeper_exited(&mut self, now: Moment, id: GrantId, process: ProcessId, cleanly: bool) {
        let Some(Hold::Lease(lease)) = self.grants.get(&id).map(|grant| &grant.hold) else {
            return;
        };
        let mut lease = lease.clone();
        let was_keeper = lease.keepers.first() == Some(&process);
        lease.keepers.retain(|keeper| *keeper != process);
        let only_made_it = cleanly && now.mono.since(lease.made.mono) <= MAKER_MOMENT;
        if was_keeper && !only_made_it {
            lease.keepers.clear();
        }
        self.set_hold(id, Hold::Lease(lease));
        if self.grants[&id]
            .keeper()
            .is_some_and(|keeper| self.grants[&id].party.process != Some(keeper))
        {
            self.pass(id);
        }
        self.end_leases(now);
    }

    /// Has it found out who has a grant in the place of one that is gone.
    pub(super) fn pass(&mut self, id: GrantId) {
        if let Some(grant) = self.grants.get_mut(&id) {
            grant.taker = Taker::Passed;
            self.effects.push_back(Effect::Passed(id));
        }
    }

    /// Ends leases that nobody keeps and whose time is over.
    pub(super) fn end_leases(&mut self, now: Moment) {
        while let Some(&(end, id)) = self.lease_ends.first()
            && end <= now.boot
        {
            self.revoke(now, id, Ending::Stale);
        }
    }

    /// When a grant ends by time alone.
    fn lease_end(&self, grant: &Grant) -> Option<Tick> {
        match &grant.hold {
            Hold::Lease(lease) if lease.keepers.is_empty() => Some(lease.renewed.after(self.settings.lease)),
            _ => None,
        }
    }

    pub(super) fn index_lease_end(&mut self, grant: &Grant) {
        if let Some(end) = self.lease_end(grant) {
            self.lease_ends.insert((end, grant.id));
        }
    }

    pub(super) fn unindex_lease_end(&mut self, grant: &Grant) {
        if matches!(&grant.hold, Hold::Lease(lease) if lease.keepers.is_empty()) {
            // Its end may have been computed under other settings.
            let end = self.lease_end(grant);
            if !end.is_some_and(|end| self.lease_ends.remove(&(end, grant.id))) {
                self.lease_ends.retain(|(_, id)| *id != grant.id);
            }
        }
    }

    pub(super) fn touch(
        &mut self,
        now: Moment,
        handle: HandleId,
        keepers: Vec<ProcessId>,
        mtime: Option<(i64, u32)>,
    ) -> Result<Reply, Refusal> {
        let Some(id) = self.target(&Target::Handle(handle)) else {
            return Ok(Reply::Done);
        };
        let is_made_by_open = matches!(self.grants[&id].way, Way::Open | Way::Make);
        if is_made_by_open && !matches!(self.grants[&id].hold, Hold::Process(_)) {
            self.make_lease(now, id, keepers);
        }
        self.set_mtime(id, mtime);
        Ok(Reply::Done)
    }

    pub(super) fn renew(
        &mut self,
        now: Moment,
        lock: &LockName,
        actor: &Actor,
        mtime: Option<(i64, u32)>,
    ) -> Result<Reply, Refusal> {
        let (_, ids) = self.movable(lock, actor)?;
        for id in ids {
            if matches!(self.grants[&id].hold, Hold::Lease(_)) {
                self.make_lease(now, id, Vec::new());
            }
            self.set_mtime(id, mtime);
        }
        Ok(Reply::Done)
    }

    /// A time of access alone is kept nowhere.
    fn set_mtime(&mut self, id: GrantId, mtime: Option<(i64, u32)>) {
        if let Some(mtime) = mtime
            && let Some(grant) = self.grants.get_mut(&id)
        {
            grant.extra_mut().mtime = Some(mtime);
        }
    }

    /// The processes whose end concerns a grant.
    fn processes_of(grant: &Grant) -> Vec<ProcessId> {
        let mut processes: Vec<ProcessId> = grant
            .party
            .process
            .filter(|_| grant.taker == Taker::There)
            .into_iter()
            .collect();
        match &grant.hold {
            Hold::Process(process) => processes.push(*process),
            Hold::Lease(lease) => processes.extend(&lease.keepers),
            Hold::Descriptor => {}
        }
        processes
    }

    pub(super) fn index_processes(&mut self, grant: &Grant) {
        for process in Self::processes_of(grant) {
            self.by_process.insert((process, grant.id));
        }
    }

    pub(super) fn unindex_processes(&mut self, grant: &Grant) {
        for process in Self::processes_of(grant) {
            self.by_process.remove(&(process, grant.id));
        }
    }

    pub(super) fn identify_grant(&mut self, id: GrantId, party: Party) -> Result<Reply, Refusal> {
        let Some(mut grant) = self.grants.remove(&id) else {
            return Ok(Reply::Done);
        };
        self.unindex_processes(&grant);
        grant.party = merged(grant.party, party);
        self.index_processes(&grant);
        if let Some(part) = grant.parts.first() {
            self.effects.push_back(Effect::Event(Event {
                lock: self.table[part.slot].name.clone(),
                mode: part.mode,
                who: Who::of(&grant.party),
                subject: Subject::Grant(id),
                what: Happening::Identified,
            }));
        }
        self.grants.insert(id, grant);
        Ok(Reply::Done)
    }

    pub(super) fn owned_by(&mut self, id: GrantId, party: Party) -> Result<Reply, Refusal> {
        let Some(mut grant) = self.grants.remove(&id) else {
            return Ok(Reply::Done);
        };
        self.unindex_processes(&grant);
        grant.party = party;
        grant.taker = Taker::There;
        self.index_processes(&grant);
        self.grants.insert(id, grant);
        Ok(Reply::Done)
    }

    pub(super) fn taker_gone(&mut self, id: GrantId) -> Result<Reply, Refusal> {
        if let Some(grant) = self.grants.get_mut(&id) {
            grant.taker = Taker::Gone;
        }
        Ok(Reply::Done)
    }

    pub(super) fn identify_request(&mut self, id: Unique, party: Party) -> Result<Reply, Refusal> {
        let Some(request) = self.requests.get_mut(&id) else {
            return Ok(Reply::Done);
        };
        request.party = merged(std::mem::take(&mut request.party), party);
        if let Some(process) = request.party.process.filter(|_| request.party.solo) {
            self.waiting_process.insert(process, id);
        }
        if let Some(claim) = request.claims.first() {
            self.effects.push_back(Effect::Event(Event {
                lock: claim.lock.clone(),
                mode: claim.mode,
                who: Who::of(&request.party),
                subject: Subject::Request(id),
                what: Happening::Identified,
            }));
        }
        Ok(Reply::Done)
    }
}

/// What was said at the request counts more than what was found out later.
fn merged(said: Party, found: Party) -> Party {
    Party {
        tid: said.tid,
        uid: said.uid,
        pid: if found.pid == 0 { said.pid } else { found.pid },
        process: found.process.or(said.process),
        session: said.session.or(found.session),
        op: said.op.or(found.op),
        solo: said.solo || found.solo,
    }
}
