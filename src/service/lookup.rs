//! Names: what exists now, for whom, and how it looks. Nothing here waits or takes a lock.

use std::time::Duration;

use super::api::{Answer, Attr, DirEntry, Entry, Kind};
use super::handles::HandleKind;
use super::refusals::Refused;
use super::state::State;
use super::{Context, Outcome, Service};
use crate::engine::{Availability, Command, Hold, Shape, Taker};
use crate::types::{HandleId, LockName, Moment, NameError, NodeId, ProcessId, Refusal};
use crate::view::nodes::{Figure, Fixed, Node};
use crate::view::{Now, dashboard, help, lock_text, locks_json};

/// `last-error` is for its reader, the parent and the grandparent of it.
const FAMILY: usize = 3;

/// How long the kernel may keep what never changes.
const STATIC_TTL: Duration = Duration::from_secs(3600);

/// The refusal of a name that no lock can have.
pub(super) fn bad_name(name: &[u8], error: NameError) -> Refused {
    let refusal = if matches!(error, NameError::TooLong { .. }) {
        Refusal::NameTooLong
    } else {
        Refusal::Malformed
    };
    Refused::new(refusal, format!("{:?}: {error}", String::from_utf8_lossy(name)))
}

/// Nothing of that name: no sentence, for looking is no mistake.
pub(super) fn absent() -> Refused {
    Refused::new(Refusal::Absent, "")
}

/// A node that the table dropped: the kernel looks the name up again.
pub(super) fn stale() -> Refused {
    Refused::new(Refusal::Stale, "")
}

impl Service {
    pub(super) fn lookup(&self, context: &Context, parent: NodeId, name: &[u8]) -> Outcome {
        let directory = self.state().nodes.get(parent).ok_or_else(stale)?;
        let node = match directory {
            Node::Fixed(Fixed::Locks) => self.lookup_lock(context, name)?,
            Node::Fixed(Fixed::Flock) => match LockName::parse_lock(name) {
                Ok(lock) => Node::Flock(lock),
                Err(NameError::Scratch) => return Err(absent()),
                Err(error) => return Err(bad_name(name, error)),
            },
            Node::Fixed(Fixed::ByLock) => self.lookup_figures(name)?,
            Node::Fixed(fixed) => match fixed.child(name).ok_or_else(absent)? {
                Fixed::EventsCsv => Node::Events(self.recorder.events_base()),
                child => Node::Fixed(child),
            },
            Node::LockFigures(lock) => Node::LockFigure(lock, Figure::named(name).ok_or_else(absent)?),
            Node::LockDirectory(lock) => {
                let file = LockName::parse(name).map_err(|error| bad_name(name, error))?;
                let state = self.state();
                let (_, files) = state.engine.directory(lock.as_str()).ok_or_else(absent)?;
                if !files.contains_key(&file) {
                    return Err(absent());
                }
                Node::LockDirectoryFile(lock, file)
            }
            _ => return Err(Refused::new(Refusal::NotDirectory, "")),
        };
        let mut state = self.state();
        Ok(Some(Answer::Entry(self.entry(&mut state, context, node))))
    }

    fn lookup_lock(&self, context: &Context, name: &[u8]) -> Result<Node, Refused> {
        let lock = LockName::parse(name).map_err(|error| bad_name(name, error))?;
        if lock.is_scratch() {
            let exists = self.state().scratch.get(context.now.mono, lock.as_str()).is_some();
            return if exists { Ok(Node::Scratch(lock)) } else { Err(absent()) };
        }
        let state = self.state();
        let available = state.engine.availability(&lock, &[]);
        if available == Availability::Free {
            // The common case, and the only one on the road of an uncontended lock.
            let mut state = state;
            let phantom = !state.phantoms.is_empty() && state.is_phantom(context.now, context.caller.tid, &lock);
            return if phantom { Ok(Node::Lock(lock)) } else { Err(absent()) };
        }
        drop(state);
        self.lookup_taken(context, lock)
    }

    fn lookup_taken(&self, context: &Context, lock: LockName) -> Result<Node, Refused> {
        self.bury(context, &lock);
        if self.is_directory_for(context, &lock) {
            return Ok(Node::LockDirectory(lock));
        }
        let mut state = self.state();
        let mut available = state.engine.availability(&lock, &[]);
        if available == Availability::BehindScope {
            drop(state);
            let lineage = self.actor(context).lineage;
            state = self.state();
            available = state.engine.availability(&lock, &lineage);
        }
        let exists = available != Availability::Free || state.is_phantom(context.now, context.caller.tid, &lock);
        if exists { Ok(Node::Lock(lock)) } else { Err(absent()) }
    }

    /// Whether a lock made by mkdir is a directory to this caller: to its keeper's family, and to all once that is gone.
    pub(super) fn is_directory_for(&self, context: &Context, lock: &LockName) -> bool {
        if self.state().engine.directory(lock.as_str()).is_none() {
            return false;
        }
        let actor = self.actor(context);
        self.state().engine.may_remove(lock, &actor).is_ok()
    }

    /// Tells the engine of holders that are dead but not reported yet, so that no dead owner is ever in the way.
    pub(super) fn bury(&self, context: &Context, lock: &LockName) {
        let mut state = self.state();
        let holders = state.engine.holders(lock.as_str()).map(|holder| holder.grant);
        let scope = state.engine.forbidding_scope(lock);
        let above = scope
            .into_iter()
            .flat_map(|scope| state.engine.holders(scope.as_str()))
            .map(|holder| holder.grant);
        let living_by = holders
            .chain(above)
            .filter(|grant| match grant.hold {
                Hold::Descriptor => grant.taker == Taker::There && grant.is_taken_through_descriptor(),
                Hold::Process(_) | Hold::Lease(_) => true,
            })
            .filter_map(|grant| grant.process());
        let living_by: Vec<ProcessId> = living_by.collect();
        self.report_ended(&mut state, context.now, living_by);
        self.finish(state, context.now);
    }

    /// Tells the engine of those among some processes that have ended. Also to be done with processes that it has just
    /// been told of for the first time: if one ended before that, nobody will tell of it again.
    pub(super) fn report_ended(&self, state: &mut State, now: Moment, processes: Vec<ProcessId>) {
        for process in processes {
            if !self.processes.alive(process) {
                let cleanly = self.exited_cleanly(process);
                // An exit cannot be refused.
                let _ = state.command(now, Command::Exited { process, cleanly });
            }
        }
    }

    pub(super) fn get_attr(&self, context: &Context, id: NodeId) -> Outcome {
        let node = self.state().nodes.get(id).ok_or_else(stale)?;
        // Outside the mutex, as computing them takes a while.
        let opened = self.gallery.opened_size(id);
        let figures = opened.or_else(|| self.figures_size(context, id, &node));
        let mut state = self.state();
        let mut attr = self.attr(&mut state, context, &node);
        attr.size = figures.unwrap_or(attr.size);
        Ok(Some(Answer::Attr(attr)))
    }

    /// Tells the kernel of a node. The size of a lock's text is left out: nothing is kept of these attributes, so the
    /// kernel asks again before anybody sees them, and rendering would be most of the work of taking a lock.
    pub(super) fn entry(&self, state: &mut State, context: &Context, node: Node) -> Entry {
        let attr = self.attr_but_size(state, context, &node);
        Entry {
            node: state.nodes.looked_up(node),
            attr,
        }
    }

    pub(super) fn attr(&self, state: &mut State, context: &Context, node: &Node) -> Attr {
        let mut attr = self.attr_but_size(state, context, node);
        if let Node::Lock(lock) | Node::Flock(lock) = node {
            attr.size = lock_text::render(&state.engine, lock, self.now(context.now)).len() as u64;
        }
        attr
    }

    fn attr_but_size(&self, state: &mut State, context: &Context, node: &Node) -> Attr {
        let now = self.now(context.now);
        let mut attr = Attr {
            ino: node.ino(),
            kind: Kind::File,
            perm: 0o644,
            nlink: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            size: 0,
            mtime: seconds_and_nanos(now.wall_ns),
            ttl: Duration::ZERO,
        };
        match node {
            Node::Fixed(fixed) => self.fixed_attr(state, *fixed, context, now, &mut attr),
            Node::LockFigures(_) => {
                attr.kind = Kind::Directory;
                attr.perm = 0o755;
                attr.nlink = 2;
            }
            Node::Events(_) | Node::LockFigure(..) => attr.perm = 0o444,
            Node::Lock(lock) | Node::Flock(lock) | Node::LockDirectory(lock) | Node::LockLink(lock) => {
                lock_attr(state, lock, node, now, &mut attr);
            }
            Node::LockDirectoryFile(lock, file) => {
                let files = state.engine.directory(lock.as_str()).map(|(_, files)| files);
                attr.size = files
                    .and_then(|files| files.get(file))
                    .map_or(0, |data| data.len() as u64);
            }
            Node::Scratch(name) => {
                if let Some(file) = state.scratch.get(now.moment.mono, name.as_str()) {
                    attr.size = file.data.len() as u64;
                    attr.uid = file.uid;
                    attr.ino = file.ino;
                    attr.nlink = if file.linked { 2 } else { 1 };
                }
            }
        }
        attr
    }

    fn fixed_attr(&self, state: &mut State, fixed: Fixed, context: &Context, now: Now, attr: &mut Attr) {
        if fixed.is_directory() {
            attr.kind = Kind::Directory;
            attr.perm = 0o755;
            attr.nlink = 2;
            // stat(2) of the mountpoint must fail once nobody serves it any more, so its attributes are not kept.
            attr.ttl = if fixed == Fixed::Root {
                Duration::ZERO
            } else {
                STATIC_TTL
            };
            return;
        }
        if !fixed.is_fresh() {
            attr.ttl = STATIC_TTL;
        }
        attr.perm = match fixed {
            Fixed::Acquire => 0o666,
            Fixed::Control => 0o600,
            _ => 0o444,
        };
        attr.size = self.fixed_text(state, fixed, context, now).len() as u64;
    }

    /// What a fixed file reads, rendered now.
    pub(super) fn fixed_text(&self, state: &mut State, fixed: Fixed, context: &Context, now: Now) -> Vec<u8> {
        match fixed {
            Fixed::Readme => help::README.as_bytes().to_vec(),
            Fixed::Acquire => help::ACQUIRE.as_bytes().to_vec(),
            Fixed::Control => help::CONTROL.as_bytes().to_vec(),
            Fixed::Dashboard => dashboard::page().as_bytes().to_vec(),
            Fixed::LocksJson => locks_json::render(&state.engine, &state.hold_times, (self.served_by)(), now),
            Fixed::LastError => self.last_error(state, context),
            // The figures are rendered outside the mutex, see `metrics`.
            _ => Vec::new(),
        }
    }

    /// The newest refusal of the reader, its parent or its grandparent.
    fn last_error(&self, state: &State, context: &Context) -> Vec<u8> {
        let family = self.processes.family(context.caller.tid, FAMILY);
        let is_meant = |tid: u32| family.iter().any(|pid| self.processes.has_thread(*pid, tid));
        state
            .refusals
            .newest(is_meant, |tid| self.processes.is_there(tid))
            .map(|sentence| format!("{sentence}\n").into_bytes())
            .unwrap_or_default()
    }

    pub(super) fn open_dir(&self, context: &Context, id: NodeId) -> Outcome {
        let node = self.state().nodes.get(id).ok_or_else(stale)?;
        let listed = match node {
            Node::Fixed(Fixed::ByLock) => self.locks_with_figures(),
            _ => Vec::new(),
        };
        let mut state = self.state();
        let mut entries: Vec<DirEntry> = [".", ".."]
            .into_iter()
            .map(|name| DirEntry {
                ino: node.ino(),
                kind: Kind::Directory,
                name: name.to_owned(),
            })
            .collect();
        let file = |node: Node, name: &LockName| DirEntry {
            ino: node.ino(),
            kind: Kind::File,
            name: name.to_string(),
        };
        match &node {
            Node::Fixed(Fixed::Locks) => {
                entries.extend(
                    state
                        .engine
                        .locks_in_use()
                        .map(|lock| file(Node::Lock(lock.clone()), lock)),
                );
                let scratch = state
                    .scratch
                    .iter()
                    .filter(|(name, _)| state.scratch.get(context.now.mono, name.as_str()).is_some());
                entries.extend(scratch.map(|(name, _)| file(Node::Scratch(name.clone()), name)));
            }
            Node::Fixed(Fixed::Flock) => {
                entries.extend(
                    state
                        .engine
                        .locks_in_use()
                        .map(|lock| file(Node::Flock(lock.clone()), lock)),
                );
            }
            Node::Fixed(Fixed::ByLock) => entries.extend(listed.into_iter().filter_map(|name| {
                let lock = LockName::parse_lock(name.as_bytes()).ok()?;
                Some(DirEntry {
                    ino: Node::LockFigures(lock).ino(),
                    kind: Kind::Directory,
                    name,
                })
            })),
            Node::LockFigures(lock) => entries.extend(Figure::ALL.into_iter().map(|figure| DirEntry {
                ino: Node::LockFigure(lock.clone(), figure).ino(),
                kind: Kind::File,
                name: figure.name().to_owned(),
            })),
            Node::Fixed(fixed) => entries.extend(fixed.children().filter_map(|child| {
                let kind = if child.is_directory() {
                    Kind::Directory
                } else {
                    Kind::File
                };
                child.place().map(|(_, name)| DirEntry {
                    ino: child as u64,
                    kind,
                    name: name.to_owned(),
                })
            })),
            Node::LockDirectory(lock) => {
                let files = state
                    .engine
                    .directory(lock.as_str())
                    .map(|(_, files)| files.keys().cloned().collect());
                let files: Vec<LockName> = files.unwrap_or_default();
                entries.extend(
                    files
                        .iter()
                        .map(|name| file(Node::LockDirectoryFile(lock.clone(), name.clone()), name)),
                );
            }
            _ => return Err(Refused::new(Refusal::NotDirectory, "")),
        }
        let handle = new_handle(&mut state)?;
        state.keep(handle, id, HandleKind::Listing(entries));
        Ok(Some(Answer::Opened(super::api::Opened {
            handle,
            stream: false,
            quiet_close: true,
        })))
    }

    pub(super) fn read_dir(&self, handle: HandleId, offset: u64) -> Outcome {
        let state = self.state();
        let entries = match state.handles.get(handle).map(|open| &open.kind) {
            Some(HandleKind::Listing(entries)) => entries,
            Some(HandleKind::Unkept(_)) => return Err(stale()),
            _ => return Err(Refused::new(Refusal::BadHandle, "")),
        };
        let rest = entries
            .get(usize::try_from(offset).unwrap_or(usize::MAX)..)
            .unwrap_or_default();
        Ok(Some(Answer::Entries {
            offset,
            entries: rest.to_vec(),
        }))
    }
}

/// A handle, or the refusal with its sentence.
pub(super) fn new_handle(state: &mut State) -> Result<HandleId, Refused> {
    state
        .new_handle()
        .map_err(|refusal| Refused::new(refusal, "too many files are open below the mountpoint"))
}

/// A time in nanoseconds since 1970, as stat(2) has it.
fn seconds_and_nanos(wall_ns: i64) -> (i64, u32) {
    const SECOND: i64 = 1_000_000_000;
    (wall_ns.div_euclid(SECOND), wall_ns.rem_euclid(SECOND) as u32)
}

fn lock_attr(state: &State, lock: &LockName, node: &Node, now: Now, attr: &mut Attr) {
    let newest = state
        .engine
        .holders(lock.as_str())
        .max_by_key(|holder| holder.grant.token);
    if let Some(holder) = newest {
        let grant = holder.grant;
        attr.uid = grant.party.uid;
        attr.mtime = seconds_and_nanos(now.wall_ns_at(grant.since));
        if let Some(extra) = grant.extra() {
            attr.mtime = extra.mtime.unwrap_or(attr.mtime);
            if let (Some(ino), Node::Lock(_)) = (extra.ino, node) {
                attr.ino = ino;
                let is_linked = state.scratch.iter().any(|(_, file)| file.ino == ino && file.linked);
                attr.nlink = if is_linked { 2 } else { 1 };
            }
        }
    }
    match node {
        Node::LockDirectory(_) => {
            attr.kind = Kind::Directory;
            attr.perm = 0o755;
            attr.nlink = 2;
        }
        Node::LockLink(_) => {
            attr.kind = Kind::Link;
            attr.perm = 0o777;
            let is_link = newest.is_some_and(|holder| holder.grant.shape == Shape::Link);
            attr.size = if is_link { 1 } else { 0 };
        }
        _ => {}
    }
}
