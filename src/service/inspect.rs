//! What the inspector finds out: who holds, who waits, and whether a wait can ever end.
//!
//! A wait that begins is looked at for a circle, for the lock being in the waiter's own hands, and for an ancestor of it
//! that holds a scope. When, and on which thread, is said in `inspector`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Service;
use super::api::Access;
use super::handles::HandleKind;
use super::record::Role;
use crate::adapters::Clock;
use crate::adapters::processes::{self, OpenFile};
use crate::engine::{Command, Engine, Grant, Hold, Party, Taker};
use crate::types::{GrantId, HandleId, LockName, ProcessId, Refusal, SessionName, Tick, Unique};
use crate::view::nodes::Node;

/// How far up descriptors may have been inherited from.
const KIN_MAX: usize = 64;

/// Something has a holder that nobody has identified.
#[derive(Clone, Debug)]
pub(super) enum Fresh {
    /// What was granted through this handle.
    Handle(HandleId),
    /// What was made as a directory entry of this name, or outlives the handle it was taken through.
    Lock(LockName),
    /// What passed from a process that is gone to another one.
    Grant(GrantId),
}

impl Fresh {
    /// Whether it is known by this handle.
    pub(super) fn is_of(&self, handle: HandleId) -> bool {
        matches!(self, Self::Handle(own) if *own == handle)
    }

    fn visit(&self, engine: &Engine, mut see: impl FnMut(&Grant)) {
        match self {
            Self::Handle(handle) => engine.grants_of(*handle).for_each(see),
            Self::Lock(lock) => engine.holders(lock.as_str()).for_each(|holder| see(holder.grant)),
            Self::Grant(id) => engine.grant(*id).into_iter().for_each(&mut see),
        }
    }
}

/// Those that are not known among what is meant, each once, however often its lock is meant.
fn unknown_among(fresh: &[Fresh], engine: &Engine, is_unknown: impl Fn(&Grant) -> bool) -> BTreeMap<GrantId, Party> {
    let mut unknown = BTreeMap::new();
    for fresh in fresh {
        fresh.visit(engine, |grant| {
            if is_unknown(grant) {
                unknown.entry(grant.id()).or_insert_with(|| grant.party.clone());
            }
        });
    }
    unknown
}

impl Service {
    /// Finds out who the holders are that nobody has identified, their sessions and operations included.
    ///
    /// That reads memory of other processes, so only the inspector's thread does it: such a page could lie on our mount.
    pub(super) fn identify_holders(&self) {
        // They stay in the list until they are known: a reader that comes meanwhile must see that somebody is not.
        let (unknown, count) = self.unit(Role::Inspector, || self.bury_keepers());
        // A process is asked once, and what it said is kept once, however many locks it has taken since.
        let mut known: BTreeMap<Option<ProcessId>, Said> = BTreeMap::new();
        for (id, party) in unknown {
            self.heartbeat.go_on_with_piece();
            let found = self.who_has(id, party).map(|found| {
                let said = known.entry(found.process()).or_insert_with(|| Said::by(found.pid()));
                found.map(|party| said.told(party))
            });
            self.tell_identity(id, found);
        }
        // Others only ever add to its end.
        self.state().unidentified.drain(..count);
    }

    /// Pins the processes of holders that nobody has identified: what rules about descent need, and safe anywhere.
    pub(super) fn pin_holders(&self) {
        let unknown = {
            let state = self.state();
            unknown_among(&state.unidentified, &state.engine, is_unpinned)
        };
        for (id, party) in unknown {
            let found = self.who_has(id, party);
            self.tell_identity(id, found);
        }
    }

    /// Tells the engine of keepers that are gone, so that each lease shows the one that keeps it now. Returns who is
    /// not known then, and how much of the list of the unidentified that is.
    fn bury_keepers(&self) -> (BTreeMap<GrantId, Party>, usize) {
        let mut state = self.state();
        let count = state.unidentified.len();
        let mut keepers: BTreeSet<ProcessId> = BTreeSet::new();
        for id in unknown_among(&state.unidentified, &state.engine, is_stranger).keys() {
            if let Some(Hold::Lease(lease)) = state.engine.grant(*id).map(|grant| &grant.hold) {
                keepers.extend(&lease.keepers);
            }
        }
        let now = Clock::now();
        self.report_ended(&mut state, now, keepers.into_iter().collect());
        let unknown = unknown_among(&state.unidentified, &state.engine, is_stranger);
        self.finish(state, now);
        (unknown, count)
    }

    fn tell_identity(&self, id: GrantId, found: Option<Found>) {
        self.unit(Role::Inspector, || self.note_identity(id, found));
    }

    fn note_identity(&self, id: GrantId, found: Option<Found>) {
        let mut state = self.state();
        let now = Clock::now();
        let named: Vec<ProcessId> = found.iter().filter_map(Found::process).collect();
        // Identifying what is gone already does nothing.
        let _ = match found {
            Some(Found::Taker(party)) => state.command(now, Command::IdentifyGrant(id, party)),
            Some(Found::Successor(party)) => state.command(now, Command::OwnedBy(id, party)),
            None => state.command(now, Command::TakerGone(id)),
        };
        self.report_ended(&mut state, now, named);
        self.finish(state, now);
    }

    /// A thread's process, pinned; `None` when it is gone.
    fn pin_party(&self, mut party: Party) -> Option<Party> {
        let pinned = self.processes.pin(party.tid)?;
        party.pid = pinned.pid;
        party.process = Some(pinned.id);
        party.solo = processes::is_single_threaded(pinned.pid);
        Some(party)
    }

    /// The same of a thread that was there when a lock was granted; `None` also when another one has its number by now,
    /// as may be after a time in which nobody looked.
    fn pin_holder(&self, party: Party, since: Tick) -> Option<Party> {
        let tid = party.tid;
        let pinned = self.pin_party(party)?;
        self.processes.was_there(tid, since).then_some(pinned)
    }

    /// Who has a lock: the keeper of a lease; of another one who took it, and when that one is gone, as flock(1) is in
    /// `exec 9<>x; flock 9`, who opened the descriptor.
    fn who_has(&self, id: GrantId, party: Party) -> Option<Found> {
        let (keeper, taker, session, opener, since) = {
            let state = self.state();
            let grant = state.engine.grant(id)?;
            let handle = grant.owner.handle().and_then(|handle| state.handles.get(handle));
            let opener = match handle.map(|handle| &handle.kind) {
                Some(HandleKind::Lock(open)) => Some(open.tid),
                _ => None,
            };
            let declared = grant.extra().and_then(|extra| extra.text.declared.as_ref());
            let session = declared.and_then(|declared| declared.session.clone());
            (grant.keeper(), grant.taker, session, opener, grant.since)
        };
        if let Some(keeper) = keeper {
            let pid = self.processes.pid_of(keeper)?;
            let solo = processes::is_single_threaded(pid);
            if party.process == Some(keeper) {
                return Some(Found::Taker(Party { pid, solo, ..party }));
            }
            return Some(Found::Successor(Party {
                tid: pid,
                pid,
                uid: party.uid,
                process: Some(keeper),
                session,
                op: None,
                solo,
            }));
        }
        let mut found = None;
        if taker == Taker::There {
            found = self.pin_holder(party.clone(), since).map(Found::Taker);
        }
        found.or_else(|| {
            let tid = opener?;
            let uid = party.uid;
            let opener = Party {
                tid,
                uid,
                session,
                ..Party::default()
            };
            self.pin_holder(opener, since).map(Found::Successor)
        })
    }

    /// Who a thread belongs to, its session and what it does; `None` when it is gone.
    fn identify(&self, party: Party) -> Option<Party> {
        self.pin_party(party).map(|party| Said::by(party.pid).told(party))
    }

    pub(super) fn inspect_waiter(&self, request: Unique) {
        let Some(party) = self.state().engine.requester(request).cloned() else {
            return;
        };
        let was_known = party.pid != 0;
        let Some(party) = self.identify(party) else { return };
        self.identify_holders();
        let (pid, tid, solo) = (party.pid, party.tid, party.solo);
        let lineage = self.processes.lineage(tid);
        let kin = lineage.clone();
        if !was_known {
            self.unit(Role::Inspector, || self.note_waiter(request, party, lineage));
        }
        if self.has_it_itself(request, pid, &kin) || (solo && self.is_in_circle(request)) {
            self.unit(Role::Inspector, || {
                let (mut state, now) = (self.state(), Clock::now());
                let _ = state.command(now, Command::Deny(request, Refusal::Deadlock));
                self.finish(state, now);
            });
        }
    }

    /// Tells everybody who waits; done once for each wait, also when a later life of the daemon looks at it again.
    fn note_waiter(&self, request: Unique, party: Party, lineage: Vec<ProcessId>) {
        let (mut state, now) = (self.state(), Clock::now());
        let identified = state.command(now, Command::IdentifyRequest(request, party));
        debug_assert!(identified.is_ok(), "identifying is never refused");
        if state.engine.has_scope_line(request) {
            // A promotion is never refused either; a request that is gone is left alone.
            let _ = state.command(now, Command::Promote { request, lineage });
        }
        state.announce(now, request);
        self.finish(state, now);
    }

    /// Whether the waiter's own descriptor table has the handle that holds the lock.
    ///
    /// A descriptor comes from an open of its own or from an ancestor, but it outlives that one, and a socket may have
    /// handed it over: so it is looked for whoever the holder is.
    fn has_it_itself(&self, request: Unique, pid: u32, kin: &[ProcessId]) -> bool {
        let held: Vec<(HandleId, LockName, bool)> = {
            let state = self.state();
            let mut held = Vec::new();
            for grant in state.engine.holders_before(request) {
                let is_kin =
                    grant.taker != Taker::There || grant.process().is_none_or(|process| kin.contains(&process));
                if !state.engine.lives_by_descriptor(grant.id()) {
                    continue;
                }
                if let Some(handle) = grant.owner.handle() {
                    let locks = state.engine.grant_locks(grant.id());
                    held.extend(locks.map(|lock| (handle, lock.clone(), is_kin)));
                }
            }
            held
        };
        if held.is_empty() {
            return false;
        }
        let files = processes::open_files(pid, &self.mountpoint);
        !files.is_empty()
            && held
                .into_iter()
                .any(|(handle, lock, is_kin)| self.has_handle(pid, &files, handle, &lock, is_kin))
    }

    /// Whether one of these descriptors is that handle: there must be more open descriptions of its kind than can be
    /// other handles: of a holder in the waiter's family those that the family opened or somebody who is gone, else all.
    /// In doubt it is not.
    fn has_handle(&self, pid: u32, files: &[OpenFile], handle: HandleId, lock: &LockName, is_kin: bool) -> bool {
        let Some((access, others)) = self.handles_like(handle, lock) else {
            return false;
        };
        let is_like = |file: &&OpenFile| {
            let inodes = [Node::Lock(lock.clone()).ino(), Node::Flock(lock.clone()).ino()];
            let transaction = access.is_none() && file.path.ends_with("acquire");
            let same = access.is_some_and(|access| access_of(file.flags) == access)
                && file.ino.is_some_and(|ino| inodes.contains(&ino));
            transaction || same
        };
        let alike: Vec<&OpenFile> = files.iter().filter(is_like).collect();
        let lineage = self.processes.family(pid, KIN_MAX);
        let possible = others
            .iter()
            .filter(|&&tid| {
                !is_kin
                    || !self.processes.is_there(tid)
                    || lineage.iter().any(|pid| self.processes.has_thread(*pid, tid))
            })
            .count();
        processes::distinct_files(pid, &alike) > possible
    }

    /// The access of a handle (`None` for a transaction) and the threads that opened the other handles of its kind.
    fn handles_like(&self, handle: HandleId, lock: &LockName) -> Option<(Option<Access>, Vec<u32>)> {
        let state = self.state();
        let access = match &state.handles.get(handle)?.kind {
            HandleKind::Lock(open) => Some(open.access),
            HandleKind::Transaction(_) => None,
            _ => return None,
        };
        let others = state
            .handles
            .iter()
            .filter(|(id, _)| *id != handle)
            .filter_map(|(_, open)| match (&open.kind, access) {
                (HandleKind::Lock(open), Some(access)) if open.name == *lock && open.access == access => Some(open.tid),
                (HandleKind::Transaction(transaction), None) => Some(transaction.tid),
                _ => None,
            });
        Some((access, others.collect()))
    }

    /// Whether the request closes a circle whose members really have what they hold.
    fn is_in_circle(&self, request: Unique) -> bool {
        let now = Clock::now();
        let members: Vec<(ProcessId, LockName)> = {
            let state = self.state();
            let Some(circle) = state.engine.circle(request, now) else {
                return false;
            };
            let by_descriptor = circle.into_iter().filter(|id| state.engine.lives_by_descriptor(*id));
            by_descriptor
                .filter_map(|id| {
                    let process = state.engine.grant(id)?.process()?;
                    Some((process, state.engine.grant_locks(id).next()?.clone()))
                })
                .collect()
        };
        members.into_iter().all(|(process, lock)| {
            let Some(pid) = self.processes.pid_of(process) else {
                return false;
            };
            let inodes = [Node::Lock(lock.clone()).ino(), Node::Flock(lock).ino()];
            let files = processes::open_files(pid, &self.mountpoint);
            files
                .iter()
                .any(|file| file.path.ends_with("acquire") || file.ino.is_some_and(|ino| inodes.contains(&ino)))
        })
    }
}

/// What a process says of itself.
#[derive(Debug)]
struct Said {
    session: Option<SessionName>,
    op: Option<Arc<str>>,
}

impl Said {
    fn by(pid: u32) -> Self {
        Self {
            session: processes::session_of(pid),
            op: processes::operation_of(pid).map(Arc::from),
        }
    }

    /// Adds it to what is known of a party; what was said at the request counts more.
    fn told(&self, mut party: Party) -> Party {
        party.session = party.session.or_else(|| self.session.clone());
        party.op = party.op.or_else(|| self.op.clone());
        party
    }
}

/// Who has a grant.
#[derive(Debug)]
enum Found {
    /// The one that took it.
    Taker(Party),
    /// Another one in its place.
    Successor(Party),
}

impl Found {
    fn party(&self) -> &Party {
        match self {
            Self::Taker(party) | Self::Successor(party) => party,
        }
    }

    fn process(&self) -> Option<ProcessId> {
        self.party().process
    }

    fn pid(&self) -> u32 {
        self.party().pid
    }

    fn map(self, change: impl FnOnce(Party) -> Party) -> Self {
        match self {
            Self::Taker(party) => Self::Taker(change(party)),
            Self::Successor(party) => Self::Successor(change(party)),
        }
    }
}

/// Whether something is still to be found out about who has a grant.
pub(super) fn is_stranger(grant: &Grant) -> bool {
    let party = &grant.party;
    let is_asked = grant.taker == Taker::There && (party.session.is_none() || party.op.is_none());
    let shows_keeper = grant.keeper().is_none_or(|keeper| party.process == Some(keeper));
    party.tid != 0 && (is_unpinned(grant) || is_asked || !shows_keeper)
}

/// Whether nobody knows the process that has a grant; a lease is its keeper's, which was pinned at the start.
fn is_unpinned(grant: &Grant) -> bool {
    let is_unknown = match grant.taker {
        Taker::There => grant.party.process.is_none(),
        Taker::Passed => true,
        Taker::Gone => false,
    };
    grant.party.tid != 0 && grant.keeper().is_none() && is_unknown
}

/// The access mode in the flags of an open file.
pub(super) fn access_of(flags: i32) -> Access {
    match flags & 0o3 {
        0 => Access::Read,
        1 => Access::Write,
        _ => Access::Both,
    }
}
