//! A new life of the daemon on the same connection: what it finds, and what it makes good.
//!
//! The kernel kept the connection, every open file and every call that was not answered. It sends those calls again,
//! under their old numbers ([`came_again`](Service::came_again)):
//!
//! 1. A call that was carried out gets the answer that was written with it.
//! 2. A call that waits stands where it stood. One that was granted or refused before it came again gets its answer
//!    when it comes; under its old number the kernel would not know it.
//! 3. Anything else was never begun.
//!
//! A process that ended while nobody watched counts as ended, and as ended of its own will unless the kernel still says
//! otherwise: mkdir(1) may have made a lock for its shell just before, and to pass that on to the shell robs nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::api::Answer;
use super::handles::HandleKind;
use super::inspect::{Fresh, access_of, is_stranger};
use super::record::{Entry, ReplayError, Role, put};
use super::replay::{Past, held_by};
use super::state::Doubt;
use super::{Outside, Service};
use crate::adapters::Clock;
use crate::adapters::processes::{self, OpenFile};
use crate::engine::{Bounds, Command, Engine, Party};
use crate::ports::{Log, Replay};
use crate::types::{HandleId, LockName, ProcessId, Settings, Unique};
use crate::view::nodes::Node;

/// So long a process may take to end that was killed while its call was on its way.
const DOUBT: Duration = Duration::from_secs(1);

/// What a call is that may have come again.
pub(super) enum Again {
    /// It was answered, or is now.
    Answered(Answer),
    /// It waits on.
    Waits,
    /// Nobody knows it.
    New,
}

impl Service {
    /// The next life on the connection that a former one served: with its settings and with all that it had decided.
    ///
    /// Nobody is told of anything before [`Self::start`].
    pub fn replayed(outside: Outside, log: Box<dyn Log>, replay: &Replay) -> Result<Self, ReplayError> {
        let began = Clock::now();
        let mut past = Past::read(replay)?;
        past.engine.renew_tokens(outside.reserved.clone());
        outside.processes.restore(&past.processes_in_use(), past.next_process);
        let service = Self::begin(outside, past.into_state(log));
        service.count_replay(began);
        Ok(service)
    }

    /// The first life on a new connection, after the old one ended while locks were held. Returns also what is kept, a
    /// line each.
    ///
    /// Locks by owner and lease stay as they were. One that lived by a descriptor is kept until the process that had it
    /// is gone; who that is, is looked for now if nobody knew it yet. When nobody can say, it ends like a lease that
    /// nobody keeps, and anybody of the same user may remove it. Of another boot nothing is left: its processes are gone,
    /// and that tokens go on growing is seen to where they are reserved.
    pub fn survived(
        settings: Settings,
        outside: Outside,
        log: Box<dyn Log>,
        replay: &Replay,
    ) -> Result<(Self, Vec<String>), ReplayError> {
        let now = Clock::now();
        let mut past = Past::read(replay)?;
        if !replay.same_boot {
            past.engine = Engine::new(settings, Bounds::default(), outside.reserved.clone());
            past.scratch.clear();
            past.processes.clear();
        } else {
            past.engine.renew_tokens(outside.reserved.clone());
            outside.processes.restore(&past.processes_in_use(), past.next_process);
            let mut gone = BTreeSet::new();
            for (id, party, since) in past.unidentified() {
                if party.tid != 0 && !outside.processes.was_there(party.tid, since) {
                    gone.insert(id);
                } else if let Some(pinned) = outside.processes.pin(party.tid) {
                    let (pid, process) = (pinned.pid, Some(pinned.id));
                    // To say whose it is cannot be refused.
                    let _ = past
                        .engine
                        .handle(now, Command::OwnedBy(id, Party { pid, process, ..party }));
                }
            }
            past.engine.survive(now, settings, &gone);
        }
        past.end_connection();
        let service = Self::begin(outside, past.into_state(log));
        service.unit(Role::Loop, || service.bury_the_gone());
        service.count_replay(now);
        let kept = held_by(&service.state().engine);
        Ok((service, kept))
    }

    /// Makes good what happened while nobody looked. To be called once all threads may run, and before any request is
    /// read.
    pub fn start(&self) {
        self.unit(Role::Loop, || {
            self.bury_the_gone();
            self.look_again();
            let (mut state, now) = (self.state(), Clock::now());
            let wakes: Vec<u64> = state.pollers.iter().map(|(number, _)| number).collect();
            for number in wakes {
                state.wake(number);
            }
            // Time cannot be refused.
            let _ = state.command(now, Command::Advance);
            self.finish(state, now);
        });
    }

    /// Tells the engine of processes that ended while nobody watched.
    fn bury_the_gone(&self) {
        let used: Vec<ProcessId> = {
            let state = self.state();
            let makers = state.scratch.iter().filter_map(|(_, file)| file.maker);
            state.engine.processes().into_iter().chain(makers).collect()
        };
        for process in used {
            if !self.processes.alive(process) {
                self.end_process(process);
            }
        }
    }

    /// Has holders and waiters looked at whom nobody has identified.
    fn look_again(&self) {
        let mut state = self.state();
        let state = &mut *state;
        let strangers = state.engine.grants().filter(|grant| is_stranger(grant));
        state
            .unidentified
            .extend(strangers.map(|grant| Fresh::Grant(grant.id())));
        let waiting: Vec<Unique> = state.engine.waiting().collect();
        for request in waiting {
            self.inspect_wait(state, request);
        }
    }

    /// Whether a call was made to a former life already.
    pub(super) fn came_again(&self, unique: Unique) -> Again {
        let mut state = self.state();
        if let Some(due) = state.returning.answers.remove(&unique) {
            put(&mut state.writer.record, &Entry::Taken(unique));
            return Again::Answered(due.answer);
        }
        if state.returning.parked.remove(&unique) {
            return Again::Waits;
        }
        Again::New
    }

    /// Without a kernel that sends calls again: each call that had no answer has failed (ECONNABORTED), and a close may
    /// have been read and not carried out. So who waited waits no more, and of the open files those are closed that
    /// nobody can have open: there are fewer in the descriptor tables of all processes than we know of, and who opened
    /// them is gone or has fewer. To be called instead of waiting for calls to come again, before any is read.
    pub fn reconcile(&self) {
        self.end_of_resend();
        let tables = processes::open_everywhere(&self.mountpoint);
        let closed = self.closed_meanwhile(&tables);
        self.close_all(Role::Loop, closed);
    }

    /// Looks at open files of which it is not known whether their openers were ever told: where the opener is gone and
    /// nobody has it open, it was killed on the way, and the kernel will never close what it never had.
    pub(super) fn settle_doubts(&self) {
        let doubtful = std::mem::take(&mut self.state().doubtful);
        if doubtful.is_empty() {
            return;
        }
        let now = Clock::now();
        let opener = |handle: HandleId| match self.state().handles.get(handle).map(|open| &open.kind) {
            Some(HandleKind::Lock(open)) => Some(open.tid),
            _ => None,
        };
        let (mut orphans, mut settled, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for doubt in doubtful {
            match opener(doubt.handle) {
                Some(tid) if tid != 0 && !self.processes.was_there(tid, doubt.since) => orphans.push(doubt.handle),
                // It may be about to end, when it was killed a moment ago.
                Some(tid) if tid != 0 && now.mono < doubt.since.after(DOUBT) => {
                    others.push(doubt);
                    continue;
                }
                Some(_) | None => {}
            }
            settled.push(doubt.unique);
        }
        self.state().doubtful.extend(others);
        if settled.is_empty() {
            return;
        }
        let mut closed = Vec::new();
        if !orphans.is_empty() {
            closed = self.closed_meanwhile(&processes::open_everywhere(&self.mountpoint));
            closed.retain(|handle| orphans.contains(handle));
        }
        self.unit(Role::Inspector, || {
            let mut state = self.state();
            for unique in settled {
                state.returning.answers.remove(&unique);
                put(&mut state.writer.record, &Entry::Taken(unique));
            }
            drop(state);
            self.close_all(Role::Inspector, closed);
        });
    }

    fn close_all(&self, role: Role, handles: Vec<HandleId>) {
        self.unit(role, || {
            let (mut state, now) = (self.state(), Clock::now());
            for handle in handles {
                tracing::info!(%handle, "closed: nobody has it open");
                state.close(now, handle);
            }
            self.finish(state, now);
        });
    }

    /// The handles that nobody can have open.
    fn closed_meanwhile(&self, tables: &[(u32, Vec<OpenFile>)]) -> Vec<HandleId> {
        let mut alike: BTreeMap<Alike, Vec<(HandleId, u32)>> = BTreeMap::new();
        for (id, open) in self.state().handles.iter() {
            let opened = match &open.kind {
                HandleKind::Lock(open) => Some((Alike::Lock(open.name.clone(), open.access as u8), open.tid)),
                HandleKind::Transaction(open) => Some((Alike::Transaction, open.tid)),
                _ => None,
            };
            if let Some((kind, tid)) = opened {
                alike.entry(kind).or_default().push((id, tid));
            }
        }
        let mut closed = Vec::new();
        for (kind, handles) in alike {
            let found: Vec<(u32, usize)> = tables
                .iter()
                .map(|(pid, files)| {
                    let files: Vec<&OpenFile> = files.iter().filter(|file| kind.is_of(file)).collect();
                    (*pid, processes::distinct_files(*pid, &files))
                })
                .filter(|(_, count)| *count > 0)
                .collect();
            let there: usize = found.iter().map(|(_, count)| count).sum();
            let mut missing = handles.len().saturating_sub(there);
            let mut of_opener: BTreeMap<u32, usize> = found.into_iter().collect();
            for (id, tid) in handles {
                let opener = of_opener
                    .iter_mut()
                    .find(|(pid, _)| self.processes.has_thread(**pid, tid));
                match opener {
                    Some((_, count)) if *count > 0 => *count -= 1,
                    _ if missing > 0 => {
                        missing -= 1;
                        closed.push(id);
                    }
                    _ => {}
                }
            }
        }
        closed
    }

    /// Every call has come again that will: whoever waited for the others gave up while nobody served it. Their waits
    /// end, and an open that was granted meanwhile and whose answer never left is closed.
    pub(super) fn end_of_resend(&self) {
        if !self.has_returning.swap(false, Ordering::Relaxed) {
            return;
        }
        self.unit(Role::Loop, || {
            let (mut state, now) = (self.state(), Clock::now());
            let gave_up: Vec<Unique> = state.returning.parked.iter().copied().collect();
            for unique in gave_up {
                state.end_wait(now, unique);
            }
            for (unique, due) in std::mem::take(&mut state.returning.answers) {
                if let Answer::Opened(opened) | Answer::Created(_, opened) = due.answer
                    && !due.is_held
                {
                    let (handle, since) = (opened.handle, now.mono);
                    state.doubtful.push(Doubt { unique, handle, since });
                    // It stays written down until this is settled, which another life may have to do.
                    state.returning.answers.insert(unique, due);
                    continue;
                }
                put(&mut state.writer.record, &Entry::Taken(unique));
                if let Answer::Opened(opened) = due.answer {
                    state.close(now, opened.handle);
                }
            }
            self.finish(state, now);
        });
    }
}

/// Open files that nobody outside can tell apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alike {
    /// A lock, in `locks/` or `flock/`, opened in the same access mode.
    Lock(LockName, u8),
    /// `acquire`.
    Transaction,
}

impl Alike {
    fn is_of(&self, file: &OpenFile) -> bool {
        match self {
            Self::Lock(name, access) => {
                let inodes = [Node::Lock(name.clone()).ino(), Node::Flock(name.clone()).ino()];
                access_of(file.flags) as u8 == *access && file.ino.is_some_and(|ino| inodes.contains(&ino))
            }
            Self::Transaction => file.path.ends_with("acquire"),
        }
    }
}
