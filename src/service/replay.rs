//! From a journal back to what it describes. Nothing here asks who still lives; that is `restore`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::handles::{Handle, HandleKind, Parked};
use super::record::{Entry, ReplayError, Role, Snapshot, entries};
use super::state::{Due, Out, Phantom, State};
use super::unit::Writer;
use crate::adapters::{Trail, faults};
use crate::engine::{Engine, Grant, Hold, Party, Scratch, ScratchFile, Taker};
use crate::ports::{Log, Replay};
use crate::types::{GrantId, HandleId, LockName, ProcessId, Tick, Unique};
use crate::view::lock_text;
use crate::view::nodes::{Fixed, Node, Nodes};

/// What a former life of the daemon knew.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) life: u64,
    pub(super) engine: Engine,
    pub(super) handles: HashMap<HandleId, Handle>,
    pub(super) next_handle: u64,
    pub(super) parked: HashMap<Unique, Parked>,
    pub(super) pollers: HashMap<u64, HandleId>,
    pub(super) scratch: BTreeMap<LockName, ScratchFile>,
    pub(super) phantoms: Vec<Phantom>,
    pub(super) processes: BTreeMap<ProcessId, Trail>,
    pub(super) next_process: ProcessId,
    /// What each thread was to send last.
    pub(super) sends: [Vec<Out>; Role::COUNT],
    /// Answers to calls that had not come again.
    pub(super) held: HashMap<Unique, Due>,
}

impl Past {
    /// Reads a journal.
    pub(super) fn read(replay: &Replay) -> Result<Self, ReplayError> {
        let mut past = Self::of_snapshot(&replay.snapshot)?;
        for (index, record) in replay.records.iter().enumerate() {
            faults::point("in-replay");
            let malformed = ReplayError::Malformed { record: index + 1 };
            for entry in entries(record).ok_or(malformed)? {
                past.apply(entry);
            }
        }
        Ok(past)
    }

    fn of_snapshot(bytes: &[u8]) -> Result<Self, ReplayError> {
        let snapshot = Snapshot::decode(bytes)?;
        let owned = |(id, handle): (HandleId, Cow<'static, Handle>)| (id, handle.into_owned());
        let mut past = Self {
            life: snapshot.life,
            engine: snapshot.engine.into_owned(),
            handles: snapshot.handles.into_iter().map(owned).collect(),
            next_handle: snapshot.next_handle,
            parked: snapshot
                .parked
                .into_iter()
                .map(|(id, parked)| (id, parked.into_owned()))
                .collect(),
            pollers: snapshot.pollers.into_iter().collect(),
            scratch: snapshot
                .scratch
                .into_iter()
                .map(|(name, file)| (name, file.into_owned()))
                .collect(),
            phantoms: snapshot.phantoms.into_owned(),
            processes: snapshot.processes.into_iter().map(|trail| (trail.id, trail)).collect(),
            next_process: snapshot.next_process,
            sends: Default::default(),
            held: snapshot
                .held
                .into_iter()
                .map(|(id, answer)| (id, answer.into_owned()))
                .collect(),
        };
        for sends in &snapshot.sends {
            for entry in entries(sends).ok_or(ReplayError::Malformed { record: 0 })? {
                past.apply(entry);
            }
        }
        Ok(past)
    }

    fn apply(&mut self, entry: Entry<'static>) {
        match entry {
            Entry::Command(now, command) => {
                // What it answered and what followed is in the entries behind it, and was told to observers.
                let _ = self.engine.handle(now, command.into_owned());
                while self.engine.poll_effect().is_some() {}
            }
            Entry::Handle(id, Some(handle)) => {
                self.next_handle = self.next_handle.max(id.0 + 1);
                self.handles.insert(id, handle.into_owned());
            }
            Entry::Handle(id, None) => {
                self.next_handle = self.next_handle.max(id.0 + 1);
                self.handles.remove(&id);
            }
            Entry::Parked(unique, Some(parked)) => {
                if let Parked::Open { handle, .. } = &*parked {
                    self.next_handle = self.next_handle.max(handle.0 + 1);
                }
                self.parked.insert(unique, parked.into_owned());
            }
            Entry::Parked(unique, None) => {
                self.parked.remove(&unique);
            }
            Entry::Poller(number, Some(handle)) => {
                self.pollers.insert(number, handle);
            }
            Entry::Poller(number, None) => {
                self.pollers.remove(&number);
            }
            Entry::Scratch(name, Some(file)) => {
                self.scratch.insert(name, file.into_owned());
            }
            Entry::Scratch(name, None) => {
                self.scratch.remove(&name);
            }
            Entry::Phantoms(phantoms) => self.phantoms = phantoms.into_owned(),
            Entry::Pinned(trails) => {
                for trail in trails {
                    self.next_process = self.next_process.max(ProcessId(trail.id.0 + 1));
                    self.processes.insert(trail.id, trail);
                }
            }
            Entry::Sends(role, out) => self.sends[role as usize] = out.into_owned(),
            Entry::Held(unique, answer) => {
                let (answer, is_held) = (answer.into_owned(), true);
                self.held.insert(unique, Due { answer, is_held });
            }
            Entry::Taken(unique) => {
                self.held.remove(&unique);
            }
        }
    }

    /// The processes that anything still depends on.
    pub(super) fn processes_in_use(&self) -> Vec<Trail> {
        let mut used = self.engine.processes();
        used.extend(self.scratch.values().filter_map(|file| file.maker));
        let trail = |id: ProcessId| {
            // Of one whose trail was lost nothing is left but its name; it is not found, and counts as ended.
            let (pid, began) = (0, 0);
            self.processes.get(&id).copied().unwrap_or(Trail { id, pid, began })
        };
        used.into_iter().map(trail).collect()
    }

    /// The locks that live by a descriptor and of whose holder the process is not known, or is gone: as it is with what
    /// flock(1) took for a shell. With each the thread that opened the descriptor, or took the lock, and when it was there
    /// for sure.
    pub(super) fn unidentified(&self) -> Vec<(GrantId, Party, Tick)> {
        let is_unknown = |grant: &&Grant| {
            grant.hold == Hold::Descriptor && (grant.party.process.is_none() || grant.taker != Taker::There)
        };
        let party = |grant: &Grant| {
            let handle = grant.owner.handle().and_then(|handle| self.handles.get(&handle));
            let opener = match handle.map(|open| &open.kind) {
                Some(HandleKind::Lock(open)) => Some(open.tid),
                Some(HandleKind::Transaction(transaction)) => Some(transaction.tid),
                _ => None,
            };
            let tid = opener.unwrap_or(grant.party.tid);
            let party = Party {
                tid,
                ..grant.party.clone()
            };
            (grant.id(), party, grant.since)
        };
        self.engine.grants().filter(is_unknown).map(party).collect()
    }

    /// Drops what ended with the connection: its open files and its calls.
    pub(super) fn end_connection(&mut self) {
        self.handles.clear();
        self.parked.clear();
        self.pollers.clear();
        self.phantoms.clear();
        self.sends = Default::default();
        self.held.clear();
    }

    /// The state of the next life.
    pub(super) fn into_state(mut self, log: Box<dyn Log>) -> State {
        let mut state = State::new(self.engine, Writer::new(log, self.life + 1));
        state.scratch = Scratch::restore(self.scratch);
        state.phantoms = self.phantoms;
        state.next_handle = self.next_handle;
        for (unique, parked) in self.parked {
            state.returning.parked.insert(unique);
            state.parked.insert(unique, parked);
        }
        state.returning.answers = self.held;
        for out in self.sends.into_iter().flatten() {
            match out {
                Out::Answer(unique, answer) => {
                    let is_held = false;
                    state.returning.answers.insert(unique, Due { answer, is_held });
                }
                // Told once too often, the kernel only looks again. It polls until a life begins that lasts long
                // enough to tell it; a handle that is not there counts as readable.
                Out::Poll(number) => {
                    self.pollers.entry(number).or_insert(HandleId(u64::MAX));
                }
            }
        }
        for (number, handle) in self.pollers {
            state.pollers.insert(number, handle);
        }
        for (id, handle) in self.handles {
            state.handles.insert(id, handle);
        }
        remember_nodes(&mut state);
        state.handles.forget_changes();
        state.parked.forget_changes();
        state.pollers.forget_changes();
        state
    }
}

/// Fills the table of nodes with what the kernel may know: by name what is in use, and all that is open or about to be.
fn remember_nodes(state: &mut State) {
    let nodes: &mut Nodes = &mut state.nodes;
    for lock in state.engine.locks_in_use() {
        nodes.remember(Node::Lock(lock.clone()));
        nodes.remember(Node::Flock(lock.clone()));
        if let Some((_, files)) = state.engine.directory(lock.as_str()) {
            nodes.remember(Node::LockDirectory(lock.clone()));
            for file in files.keys() {
                nodes.remember(Node::LockDirectoryFile(lock.clone(), file.clone()));
            }
        }
    }
    for (name, _) in state.scratch.iter() {
        nodes.remember(Node::Scratch(name.clone()));
    }
    for (_, handle) in state.handles.iter() {
        nodes.remember_open(handle.node, nodes_of(&handle.kind));
    }
    for (_, parked) in state.parked.iter() {
        if let Parked::Open { node, lock, .. } = parked {
            nodes.remember_open(*node, nodes_of_lock(&lock.name));
        }
    }
}

fn nodes_of_lock(name: &LockName) -> Vec<Node> {
    vec![
        Node::Lock(name.clone()),
        Node::Flock(name.clone()),
        Node::LockLink(name.clone()),
    ]
}

/// What a file may have been opened by.
fn nodes_of(kind: &HandleKind) -> Vec<Node> {
    match kind {
        HandleKind::Lock(open) => nodes_of_lock(&open.name),
        HandleKind::Scratch { name, .. } => vec![Node::Scratch(name.clone())],
        HandleKind::DirectoryFile(open) => vec![Node::LockDirectoryFile(open.lock.clone(), open.file.clone())],
        HandleKind::Text(fixed, _) | HandleKind::Unkept(fixed) => vec![Node::Fixed(*fixed)],
        HandleKind::LockFigure(lock, figure, _) => vec![Node::LockFigure(lock.clone(), *figure)],
        HandleKind::Events(base) => vec![Node::Events(*base)],
        HandleKind::Transaction(_) => vec![Node::Fixed(Fixed::Acquire)],
        HandleKind::Control { .. } => vec![Node::Fixed(Fixed::Control)],
        // The fixed directories are always known, and that of a lock by the lock.
        HandleKind::Listing(_) => Vec::new(),
    }
}

/// Whether a service could go on from this.
pub fn check_replay(replay: &Replay) -> Result<(), ReplayError> {
    Past::read(replay).map(drop)
}

/// The locks that a journal knows of, one line each, for the log when it cannot be gone on from: what can be read of it
/// counts, up to the first record that makes no sense.
pub fn known_locks(replay: &Replay) -> Vec<String> {
    let Ok(mut past) = Past::of_snapshot(&replay.snapshot) else {
        return Vec::new();
    };
    for entry in replay.records.iter().map_while(|record| entries(record)).flatten() {
        past.apply(entry);
    }
    held_by(&past.engine)
}

/// Who holds what, one line each.
pub(super) fn held_by(engine: &Engine) -> Vec<String> {
    let mut held = Vec::new();
    for lock in engine.locks_in_use() {
        for holder in engine.holders(lock.as_str()) {
            let party = &holder.grant.party;
            let session = party.session.as_ref().map(|session| format!(" ({session})"));
            let session = session.unwrap_or_default();
            let hold = lock_text::held(&holder.grant.hold);
            held.push(format!("{lock} held by {}{session} ({hold})", party.pid));
        }
    }
    held
}
