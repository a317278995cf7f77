//! What the inspector finds out: who holds, who waits, and whether a wait can ever end.
//!
//! A wait that begins is looked at for a circle, for the lock being in the waiter's own hands, and for an ancestor of it
//! that holds a scope. When, and on which thread, is said in `inspector`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Service;
use super::api::Access;
use super::handles::HandleKind;
use crate::adapters::Clock;
use crate::adapters::processes::{self, OpenFile};
use crate::engine::{Command, Party};
use crate::types::{GrantId, HandleId, LockName, ProcessId, Refusal, SessionName, Unique};
use crate::view::nodes::Node;

/// How far up descriptors may have been inherited from.
const KIN_MAX: usize = 64;

/// Something was granted to a holder that nobody has identified.
#[derive(Clone, Debug)]
pub(super) enum Fresh {
    /// Through this handle.
    Handle(HandleId),
    /// As a directory entry of this name.
    Lock(LockName),
}

impl Fresh {
    fn handle(&self) -> Option<HandleId> {
        if let Self::Handle(handle) = self {
            Some(*handle)
        } else {
            None
        }
    }

    fn lock(&self) -> Option<&LockName> {
        if let Self::Lock(lock) = self { Some(lock) } else { None }
    }
}

impl Service {
    /// Finds out who the holders are that nobody has identified, their sessions and operations included.
    ///
    /// That reads memory of other processes, so only the inspector's thread does it: such a page could lie on our mount.
    pub(super) fn identify_holders(&self) {
        // They stay in the list until they are known: a reader that comes meanwhile must see that somebody is not.
        let fresh = self.state().unidentified.clone();
        // A process is asked once, and what it said is kept once, however many locks it has taken since.
        let mut known: BTreeMap<Option<ProcessId>, Said> = BTreeMap::new();
        for (id, party) in self.unknown_parties(&fresh, is_stranger) {
            let found = self.taker_or_opener(id, party).map(|party| {
                let said = known.entry(party.process).or_insert_with(|| Said::by(party.pid));
                said.told(party)
            });
            self.tell_identity(id, found);
        }
        // Others only ever add to its end.
        self.state().unidentified.drain(..fresh.len());
    }

    /// Pins the processes of holders that nobody has identified: what rules about descent need, and safe anywhere.
    pub(super) fn pin_holders(&self) {
        let fresh = self.state().unidentified.clone();
        if fresh.is_empty() {
            return;
        }
        for (id, party) in self.unknown_parties(&fresh, |party| party.process.is_none()) {
            let found = self.taker_or_opener(id, party);
            self.tell_identity(id, found);
        }
    }

    fn unknown_parties(&self, fresh: &[Fresh], is_unknown: impl Fn(&Party) -> bool) -> Vec<(GrantId, Party)> {
        let state = self.state();
        let mut unknown = Vec::new();
        for fresh in fresh {
            let of_handle = fresh
                .handle()
                .into_iter()
                .flat_map(|handle| state.engine.grants_of(handle));
            let of_lock = fresh
                .lock()
                .into_iter()
                .flat_map(|lock| state.engine.holders(lock.as_str()).map(|holder| holder.grant));
            let grants = of_handle
                .chain(of_lock)
                .filter(|grant| grant.party.tid != 0 && !grant.taker_gone);
            unknown.extend(
                grants
                    .filter(|grant| is_unknown(&grant.party))
                    .map(|grant| (grant.id(), grant.party.clone())),
            );
        }
        unknown
    }

    fn tell_identity(&self, id: GrantId, found: Option<Party>) {
        let mut state = self.state();
        let now = Clock::now();
        // Identifying what is gone already does nothing.
        let named: Vec<ProcessId> = found.iter().filter_map(|party| party.process).collect();
        let _ = match found {
            Some(party) => state.command(now, Command::IdentifyGrant(id, party)),
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

    /// Who took a lock; when that one is gone, as flock(1) is in `exec 9<>x; flock 9`, who opened the descriptor.
    fn taker_or_opener(&self, id: GrantId, party: Party) -> Option<Party> {
        let opener = || {
            let state = self.state();
            let handle = state.engine.grant(id)?.owner.handle()?;
            match &state.handles.get(&handle)?.kind {
                HandleKind::Lock(open) => Some(open.tid),
                _ => None,
            }
        };
        let taker = self.pin_party(party.clone());
        taker.or_else(|| opener().and_then(|tid| self.pin_party(Party { tid, ..party })))
    }

    /// Who a thread belongs to, its session and what it does; `None` when it is gone.
    fn identify(&self, party: Party) -> Option<Party> {
        self.pin_party(party).map(|party| Said::by(party.pid).told(party))
    }

    pub(super) fn inspect_waiter(&self, request: Unique) {
        let Some(party) = self.state().engine.requester(request).cloned() else {
            return;
        };
        let Some(party) = self.identify(party) else { return };
        self.identify_holders();
        let (pid, tid, solo) = (party.pid, party.tid, party.solo);
        let lineage = self.processes.lineage(tid);
        let kin = lineage.clone();
        let now = Clock::now();
        let mut state = self.state();
        let identified = state.command(now, Command::IdentifyRequest(request, party));
        debug_assert!(identified.is_ok(), "identifying is never refused");
        if state.engine.has_scope_line(request) {
            // A promotion is never refused either; a request that is gone is left alone.
            let _ = state.command(now, Command::Promote { request, lineage });
        }
        state.announce(now, request);
        self.finish(state, now);
        if self.has_it_itself(request, pid, &kin) || (solo && self.is_in_circle(request)) {
            let mut state = self.state();
            let now = Clock::now();
            let _ = state.command(now, Command::Deny(request, Refusal::Deadlock));
            self.finish(state, now);
        }
    }

    /// Whether the waiter's own descriptor table has the handle that holds the lock.
    ///
    /// A descriptor comes from an open of its own or from an ancestor, so holders who are neither are not looked for.
    fn has_it_itself(&self, request: Unique, pid: u32, kin: &[ProcessId]) -> bool {
        let held: Vec<(HandleId, LockName)> = {
            let state = self.state();
            let mut held = Vec::new();
            for grant in state.engine.holders_before(request) {
                let is_kin = grant.taker_gone || grant.process().is_none_or(|process| kin.contains(&process));
                if !is_kin || !state.engine.lives_by_descriptor(grant.id()) {
                    continue;
                }
                if let Some(handle) = grant.owner.handle() {
                    held.extend(state.engine.grant_locks(grant.id()).map(|lock| (handle, lock.clone())));
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
                .any(|(handle, lock)| self.has_handle(pid, &files, handle, &lock))
    }

    /// Whether one of these descriptors is that handle: there must be more open descriptions of its kind than can be
    /// other handles, opened by the waiter's family or by somebody who is gone. In doubt it is not.
    fn has_handle(&self, pid: u32, files: &[OpenFile], handle: HandleId, lock: &LockName) -> bool {
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
                !self.processes.is_there(tid) || lineage.iter().any(|pid| self.processes.has_thread(*pid, tid))
            })
            .count();
        processes::distinct_files(pid, &alike) > possible
    }

    /// The access of a handle (`None` for a transaction) and the threads that opened the other handles of its kind.
    fn handles_like(&self, handle: HandleId, lock: &LockName) -> Option<(Option<Access>, Vec<u32>)> {
        let state = self.state();
        let access = match &state.handles.get(&handle)?.kind {
            HandleKind::Lock(open) => Some(open.access),
            HandleKind::Transaction(_) => None,
            _ => return None,
        };
        let others = state
            .handles
            .iter()
            .filter(|(id, _)| **id != handle)
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

/// Whether something is still to be found out about a holder.
pub(super) fn is_stranger(party: &Party) -> bool {
    party.process.is_none() || party.session.is_none()
}

/// The access mode in the flags of an open file.
fn access_of(flags: i32) -> Access {
    match flags & 0o3 {
        0 => Access::Read,
        1 => Access::Write,
        _ => Access::Both,
    }
}
