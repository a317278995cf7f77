//! open(2): takes a lock, waits for it, or gives a handle that holds nothing.

use std::time::Duration;

use super::api::{Access, Answer, OpenMode, Opened};
use super::handles::{DirectoryFile, Handle, HandleKind, LockHandle, Parked, Transaction};
use super::inspect::Fresh;
use super::lookup::{bad_name, new_handle, stale};
use super::refusals::{Refused, about_lock};
use super::state::{Phantom, State};
use super::{Context, Outcome, Service};
use crate::adapters::processes;
use crate::engine::{Acquire, Availability, Claim, Command, FileChange, Make, Party, Reply, Shape, Taking, Wait};
use crate::types::{HandleId, LockName, Mode, NameError, NodeId, Priority, ProcessId, Refusal};
use crate::view::lock_text;
use crate::view::nodes::{Fixed, Node};

/// How long a name looks taken to a thread whose CREATE met a taken lock: until its OPEN, at most so long.
const PHANTOM_LIFE: Duration = Duration::from_secs(1);

/// The ancestors that may keep a lease, at most.
pub(super) const KEEPERS_MAX: usize = 32;

impl Service {
    pub(super) fn open(&self, context: &Context, id: NodeId, mode: OpenMode) -> Outcome {
        let node = self.state().nodes.get(id).ok_or_else(stale)?;
        match node {
            Node::Fixed(fixed) if fixed.is_figures() => self.open_figures(context, id, &node, mode),
            Node::Lock(lock) if mode.access == Access::Write => self.open_lock(context, id, lock, mode),
            Node::Lock(lock) | Node::Flock(lock) | Node::LockLink(lock) => self.open_handle(context, id, lock, mode),
            Node::Scratch(name) => self.open_scratch(context, id, name, mode),
            Node::LockDirectoryFile(lock, file) => self.open_directory_file(context, id, lock, file, mode),
            Node::Fixed(fixed) => self.open_fixed(context, id, fixed, mode),
            Node::Events(_) | Node::LockFigure(..) => self.open_figures(context, id, &node, mode),
            Node::LockDirectory(_) | Node::LockFigures(_) => Err(Refused::new(Refusal::IsDirectory, "")),
        }
    }

    fn open_scratch(&self, context: &Context, id: NodeId, name: LockName, mode: OpenMode) -> Outcome {
        let mut state = self.state();
        if state.scratch.get(context.now.mono, name.as_str()).is_none() {
            return Err(stale());
        }
        if mode.truncate {
            state.scratch.truncate(name.as_str());
        }
        let kind = HandleKind::Scratch {
            name,
            append: mode.append,
        };
        self.opened(&mut state, id, kind, true)
    }

    fn open_directory_file(
        &self,
        context: &Context,
        id: NodeId,
        lock: LockName,
        file: LockName,
        mode: OpenMode,
    ) -> Outcome {
        if mode.truncate {
            self.change_file(context, &lock, file.clone(), FileChange::Truncate)?;
        }
        let open = DirectoryFile {
            lock,
            file,
            append: mode.append,
        };
        self.opened(&mut self.state(), id, HandleKind::DirectoryFile(Box::new(open)), true)
    }

    /// Keeps a handle and tells the kernel of it.
    pub(super) fn opened(&self, state: &mut State, node: NodeId, kind: HandleKind, quiet_close: bool) -> Outcome {
        let handle = new_handle(state)?;
        let stream = matches!(kind, HandleKind::Transaction(_) | HandleKind::Control { .. });
        state.keep(handle, node, kind);
        Ok(Some(Answer::Opened(Opened {
            handle,
            stream,
            quiet_close,
        })))
    }

    /// A handle that holds nothing yet; flock(2) and fcntl(2) work on it.
    fn open_handle(&self, context: &Context, id: NodeId, lock: LockName, mode: OpenMode) -> Outcome {
        let mut handle = LockHandle::new(lock, context.caller.tid, mode.access, mode.append);
        let mut state = self.state();
        if mode.access != Access::Write {
            handle.text = lock_text::render(&state.engine, &handle.name, self.now(context.now)).into();
        }
        self.opened(&mut state, id, HandleKind::Lock(Box::new(handle)), false)
    }

    /// Takes a lock by opening it: waits, or with O_NONBLOCK does not.
    fn open_lock(&self, context: &Context, id: NodeId, lock: LockName, mode: OpenMode) -> Outcome {
        self.bury(context, &lock);
        let mut state = self.state();
        let is_free = state.engine.availability(&lock, &[]) == Availability::Free;
        let phantoms = state.phantoms.len();
        state
            .phantoms
            .retain(|phantom| phantom.tid != context.caller.tid || phantom.lock != lock);
        state.phantoms_changed |= state.phantoms.len() != phantoms;
        let handle = new_handle(&mut state)?;
        let wait = if mode.nonblock {
            Wait::No
        } else {
            self.wait_until(&state, context, &lock)
        };
        // nice(1) matters only in a line.
        let priority = if is_free {
            Priority::MAX
        } else {
            Priority::from_nice(processes::nice_of(context.caller.tid))
        };
        let lineage = if is_free || !mode.nonblock {
            Vec::new()
        } else {
            drop(state);
            let lineage = self.actor(context).lineage;
            state = self.state();
            lineage
        };
        let acquire = Acquire {
            id: context.unique,
            claims: vec![Claim::whole(lock.clone(), Mode::Exclusive)],
            taking: Taking::Open(handle),
            party: self.party(context),
            priority,
            wait,
            ticket: None,
            lineage,
        };
        let open = Box::new(LockHandle::new(lock, context.caller.tid, mode.access, mode.append));
        let outcome = match state.command(context.now, Command::Acquire(acquire)) {
            Ok(Reply::Waiting) => {
                state.nodes.pin(id);
                state.parked.insert(
                    context.unique,
                    Parked::Open {
                        node: id,
                        handle,
                        lock: open,
                    },
                );
                self.inspect_wait(&mut state, context.unique);
                Ok(None)
            }
            Ok(_) => {
                state.unidentified.push(Fresh::Handle(handle));
                state.keep(handle, id, HandleKind::Lock(open));
                Ok(Some(Answer::Opened(Opened {
                    handle,
                    stream: false,
                    quiet_close: true,
                })))
            }
            Err(refusal) => Err(about_lock(&state.engine, &open.name, refusal, context.now)),
        };
        self.finish(state, context.now);
        outcome
    }

    /// When a wait for a lock ends.
    pub(super) fn wait_until(&self, state: &State, context: &Context, lock: &LockName) -> Wait {
        match state.engine.settings().wait_limit([lock.as_str()]) {
            Some(limit) => Wait::Until(context.now.mono.after(limit)),
            None => Wait::Forever,
        }
    }

    fn open_fixed(&self, context: &Context, id: NodeId, fixed: Fixed, mode: OpenMode) -> Outcome {
        let writes = mode.access != Access::Read;
        match fixed {
            Fixed::Acquire if mode.access == Access::Both => self.opened(
                &mut self.state(),
                id,
                HandleKind::Transaction(Box::new(Transaction::new(context.caller.tid))),
                true,
            ),
            Fixed::Acquire if writes => Err(Refused::new(
                Refusal::Malformed,
                "acquire: open it for reading and writing and keep the descriptor (exec 9<> acquire), or it holds nothing",
            )),
            Fixed::Control if writes => self.opened(&mut self.state(), id, HandleKind::Control { read: 0 }, true),
            _ if writes => Err(Refused::new(Refusal::Denied, "that file is only read")),
            _ => {
                let mut state = self.state();
                let text = self.fixed_text(&mut state, fixed, context, self.now(context.now));
                self.opened(&mut state, id, HandleKind::Text(fixed, text), true)
            }
        }
    }

    pub(super) fn create(&self, context: &Context, parent: NodeId, name: &[u8], mode: OpenMode) -> Outcome {
        let directory = self.state().nodes.get(parent).ok_or_else(stale)?;
        match directory {
            Node::Fixed(Fixed::Locks) => {
                let lock = LockName::parse(name).map_err(|error| bad_name(name, error))?;
                match (lock.is_scratch(), mode.exclusive) {
                    (true, true) => self.create_scratch(context, lock, mode),
                    (true, false) => Err(bad_name(name, NameError::Scratch)),
                    (false, true) => self.create_lease(context, lock, mode),
                    (false, false) if mode.access == Access::Write => self.create_lock(context, lock, mode),
                    (false, false) => self.create_handle(context, lock, mode),
                }
            }
            Node::Fixed(Fixed::Flock) => {
                // Every valid name exists there, so only a name that is not valid comes here.
                let error = LockName::parse_lock(name).err().unwrap_or(NameError::Scratch);
                Err(bad_name(name, error))
            }
            Node::LockDirectory(lock) => self.create_directory_file(context, lock, name, mode),
            _ => Err(Refused::new(Refusal::Denied, "locks are made in locks/, not here")),
        }
    }

    fn create_scratch(&self, context: &Context, name: LockName, mode: OpenMode) -> Outcome {
        let maker = self.processes.pin(context.caller.tid).map(|pinned| pinned.id);
        let mut state = self.state();
        let node = Node::Scratch(name.clone());
        let made = state
            .scratch
            .create(context.now.mono, name.clone(), maker, context.caller.uid, node.ino());
        made.map_err(|refusal| {
            Refused::new(
                refusal,
                format!("{name}: a scratch file of that name, or too many of them"),
            )
        })?;
        let kind = HandleKind::Scratch {
            name,
            append: mode.append,
        };
        self.created(&mut state, context, node, kind, true)
    }

    fn create_directory_file(&self, context: &Context, lock: LockName, name: &[u8], mode: OpenMode) -> Outcome {
        let file = LockName::parse(name).map_err(|error| bad_name(name, error))?;
        match self.change_file(context, &lock, file.clone(), FileChange::Create) {
            Err(refused) if refused.refusal == Refusal::Full => {
                return Err(Refused::new(
                    Refusal::Full,
                    format!("{lock}: a lock made by mkdir has room for 16 small files"),
                ));
            }
            Err(refused) if refused.refusal != Refusal::Taken || mode.exclusive => return Err(refused),
            _ => {}
        }
        let open = DirectoryFile {
            lock: lock.clone(),
            file: file.clone(),
            append: mode.append,
        };
        let kind = HandleKind::DirectoryFile(Box::new(open));
        self.created(
            &mut self.state(),
            context,
            Node::LockDirectoryFile(lock, file),
            kind,
            true,
        )
    }

    /// An open for reading, or both, of a free name: a handle, no lock.
    fn create_handle(&self, context: &Context, lock: LockName, mode: OpenMode) -> Outcome {
        let handle = LockHandle::new(lock.clone(), context.caller.tid, mode.access, mode.append);
        let mut state = self.state();
        self.created(
            &mut state,
            context,
            Node::Lock(lock),
            HandleKind::Lock(Box::new(handle)),
            false,
        )
    }

    fn created(
        &self,
        state: &mut State,
        context: &Context,
        node: Node,
        kind: HandleKind,
        quiet_close: bool,
    ) -> Outcome {
        let handle = new_handle(state)?;
        let entry = self.entry(state, context, node);
        state.keep(handle, entry.node, kind);
        Ok(Some(Answer::Created(
            entry,
            Opened {
                handle,
                stream: false,
                quiet_close,
            },
        )))
    }

    /// An open for writing of a name that was free a moment ago. It must not wait here, for the kernel holds the
    /// directory: a lock that is taken after all sends the kernel back to look, and then to [`Self::open_lock`].
    fn create_lock(&self, context: &Context, lock: LockName, mode: OpenMode) -> Outcome {
        let mut state = self.state();
        let handle = new_handle(&mut state)?;
        let acquire = Acquire {
            id: context.unique,
            claims: vec![Claim::whole(lock.clone(), Mode::Exclusive)],
            taking: Taking::Open(handle),
            party: self.party(context),
            priority: Priority::MAX,
            wait: Wait::No,
            ticket: None,
            lineage: Vec::new(),
        };
        let outcome = match state.command(context.now, Command::Acquire(acquire)) {
            Ok(_) => {
                state.unidentified.push(Fresh::Handle(handle));
                let open = LockHandle::new(lock.clone(), context.caller.tid, mode.access, mode.append);
                let entry = self.new_lock_entry(&mut state, context, lock, handle, open);
                Ok(Some(Answer::Created(
                    entry,
                    Opened {
                        handle,
                        stream: false,
                        quiet_close: true,
                    },
                )))
            }
            Err(Refusal::WouldBlock) if !mode.nonblock => {
                let until = context.now.mono.after(PHANTOM_LIFE);
                state.phantoms_changed = true;
                state.phantoms.push(Phantom {
                    tid: context.caller.tid,
                    lock,
                    until,
                });
                Err(stale())
            }
            Err(refusal) => Err(about_lock(&state.engine, &lock, refusal, context.now)),
        };
        self.finish(state, context.now);
        outcome
    }

    fn new_lock_entry(
        &self,
        state: &mut State,
        context: &Context,
        lock: LockName,
        handle: HandleId,
        open: LockHandle,
    ) -> super::api::Entry {
        let entry = self.entry(state, context, Node::Lock(lock));
        state.nodes.pin(entry.node);
        state.handles.insert(
            handle,
            Handle {
                node: entry.node,
                kind: HandleKind::Lock(Box::new(open)),
            },
        );
        entry
    }

    /// O_CREAT|O_EXCL: now or never, and it outlives the descriptor.
    fn create_lease(&self, context: &Context, lock: LockName, mode: OpenMode) -> Outcome {
        let handle = new_handle(&mut self.state())?;
        let make = Make {
            handle: Some(handle),
            ..self.make(context, Shape::File)
        };
        let mut state = self.take_now(context, &lock, make)?;
        let open = LockHandle::new(lock.clone(), context.caller.tid, mode.access, mode.append);
        let entry = self.new_lock_entry(&mut state, context, lock, handle, open);
        self.finish(state, context.now);
        Ok(Some(Answer::Created(
            entry,
            Opened {
                handle,
                stream: false,
                quiet_close: true,
            },
        )))
    }

    /// A directory entry's lock, kept by the caller and its ancestors.
    pub(super) fn make(&self, context: &Context, shape: Shape) -> Make {
        let keepers = self.keepers(context);
        Make {
            handle: None,
            keepers,
            shape,
            text: None,
            owner: None,
            ino: None,
        }
    }

    pub(super) fn keepers(&self, context: &Context) -> Vec<ProcessId> {
        self.processes
            .ancestors(context.caller.tid, KEEPERS_MAX)
            .into_iter()
            .map(|pinned| pinned.id)
            .collect()
    }

    /// Takes a lock as a directory entry, now or never.
    pub(super) fn take_now(
        &self,
        context: &Context,
        lock: &LockName,
        make: Make,
    ) -> Result<parking_lot::MutexGuard<'_, State>, Refused> {
        self.bury(context, lock);
        let party = match make
            .owner
            .and_then(|owner| Some((owner, self.processes.pid_of(owner)?)))
        {
            Some((owner, pid)) => self.owner_party(context, owner, pid, make.text.as_ref()),
            None => {
                let pinned = self.processes.pin(context.caller.tid);
                let (pid, process) = pinned.map_or((0, None), |pinned| (pinned.pid, Some(pinned.id)));
                Party {
                    pid,
                    process,
                    ..self.party(context)
                }
            }
        };
        let lineage = match self.state().engine.availability(lock, &[]) {
            Availability::BehindScope => self.actor(context).lineage,
            Availability::Free | Availability::Taken => Vec::new(),
        };
        let named: Vec<ProcessId> = make.owner.into_iter().chain(make.keepers.iter().copied()).collect();
        let acquire = Acquire {
            id: context.unique,
            claims: vec![Claim::whole(lock.clone(), Mode::Exclusive)],
            taking: Taking::Make(make),
            party,
            priority: Priority::MAX,
            wait: Wait::No,
            ticket: None,
            lineage,
        };
        let mut state = self.state();
        match state.command(context.now, Command::Acquire(acquire)) {
            Ok(_) => {
                state.unidentified.push(Fresh::Lock(lock.clone()));
                self.report_ended(&mut state, context.now, named);
                Ok(state)
            }
            Err(refusal) => {
                let refusal = if refusal == Refusal::WouldBlock {
                    Refusal::Taken
                } else {
                    refusal
                };
                let refused = about_lock(&state.engine, lock, refusal, context.now);
                self.finish(state, context.now);
                Err(refused)
            }
        }
    }
}
