//! One unit of work: a call, or something that happened on its own. It is done whole before the next one begins, and
//! written to the journal before anybody is told of it.
//!
//! 1. **Turns.** A unit takes the mutex of the state several times, with looks at processes in between; the turn keeps
//!    other threads' units out for so long. What is slow (memory of other processes, git) is looked at before the turn
//!    is taken: above all not within it what could wait for a page of our own mount.
//! 2. **The record** is what the unit changed, and the answers that it decided; a unit that changed nothing writes
//!    nothing. Which answers have left is not written: a thread sends those of one unit before it begins the next, so
//!    only its last ones can be missing, and a call that was answered does not come again.
//! 3. **A journal that cannot be written** (a full disk) must not make anything undone. What was decided already stays
//!    in memory, and the answers that give something are held back until a snapshot could be written, which is tried
//!    once a second. Until then whatever takes or changes something is refused with ENOSPC; what gives back is done
//!    and answered, and everything can be read.

use std::borrow::Cow;
use std::cell::Cell;
use std::time::Duration;

use parking_lot::ReentrantMutexGuard;
use serde_bytes::Bytes;

use super::Service;
use super::api::{Answer, Call};
use super::handles::{Handle, HandleKind};
use super::record::{Entry, Role, Snapshot, put};
use super::state::{Out, State};
use crate::adapters::{Clock, faults};
use crate::ports::Log;
use crate::types::{Tick, Unique};

/// How many bytes of records make a snapshot worth its while, at least.
const COMPACT_BYTES: u64 = 2 << 20;
/// The most bytes of records before a snapshot is tried; the journal itself refuses at twice that.
const COMPACT_BYTES_MAX: u64 = 32 << 20;
/// A journal that could not be written is tried again so much later.
const RETRY: Duration = Duration::from_secs(1);
/// The longest rendered text, and the longest listing in entries, that an open file keeps for the next life. Who reads
/// a longer one across a restart is told to open it again (ESTALE).
const RENDERED_BYTES_MAX: usize = 64 << 10;
const LISTING_MAX: usize = 512;

/// The journal, and what is to be written to it next.
#[derive(Debug)]
pub(super) struct Writer {
    log: Box<dyn Log>,
    /// Which life of the daemon this is.
    pub(super) life: u64,
    /// The record of the unit that is being done, as far as it is known.
    pub(super) record: Vec<u8>,
    /// The last [`Entry::Sends`] of each thread.
    sends: [Vec<u8>; Role::COUNT],
    /// When the journal was tried last, if it lacks something.
    behind: Option<Tick>,
    /// The size at which it is compacted.
    compact_at: u64,
}

impl Writer {
    pub(super) fn new(log: Box<dyn Log>, life: u64) -> Self {
        Self {
            log,
            life,
            record: Vec::new(),
            sends: Default::default(),
            behind: None,
            compact_at: COMPACT_BYTES,
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }
}

/// The caller of a unit, if it has one.
struct Own<'a> {
    unique: Unique,
    /// Whether the call takes or changes something.
    takes: bool,
    answer: &'a mut Option<Answer>,
}

/// The right to do a unit; nested ones are part of the outermost.
struct Turn<'a>(ReentrantMutexGuard<'a, Cell<u32>>);

impl Turn<'_> {
    fn is_outermost(&self) -> bool {
        self.0.get() == 1
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Service {
    fn turn(&self) -> Turn<'_> {
        let turn = self.turn.lock();
        turn.set(turn.get() + 1);
        Turn(turn)
    }

    /// Does a unit of work; within another it is a part of that, and of that one's role.
    pub(super) fn unit<T>(&self, role: Role, work: impl FnOnce() -> T) -> T {
        let turn = self.turn();
        let done = work();
        if turn.is_outermost() {
            let out = self.commit(role, None);
            drop(turn);
            self.send(out);
        }
        done
    }

    /// Does a unit of work for a caller; the answer is for it. `None`: it comes later, or there is none.
    pub(super) fn answering(
        &self,
        role: Role,
        unique: Unique,
        takes: bool,
        work: impl FnOnce() -> Option<Answer>,
    ) -> Option<Answer> {
        let turn = self.turn();
        let mut answer = work();
        if turn.is_outermost() {
            let own = Own {
                unique,
                takes,
                answer: &mut answer,
            };
            let out = self.commit(role, Some(own));
            drop(turn);
            self.send(out);
        }
        answer
    }

    fn send(&self, out: Vec<Out>) {
        for out in out {
            match out {
                Out::Answer(unique, answer) => self.replies.answer(unique, answer),
                Out::Poll(poll_handle) => self.replies.wake_poll(poll_handle),
            }
        }
    }

    /// Writes what the unit changed; gives what may leave now.
    fn commit(&self, role: Role, own: Option<Own<'_>>) -> Vec<Out> {
        let mut state = self.state();
        let state = &mut *state;
        let trails = self.processes.take_new_trails();
        if state.writer.is_behind() || !trails.is_empty() || state.has_changed() {
            if !trails.is_empty() {
                put(&mut state.writer.record, &Entry::Pinned(trails));
            }
            state.note_changes();
            self.write_down(state, role, own);
        }
        if state.writer.is_behind() {
            Vec::new()
        } else {
            state.take_outbox()
        }
    }

    fn write_down(&self, state: &mut State, role: Role, own: Option<Own<'_>>) {
        let mut own = own;
        let mut gives = false;
        if let Some(own) = &mut own
            && let Some(answer) = own.answer.take()
        {
            gives = own.takes && !matches!(answer, Answer::Refused(_));
            state.send_now(own.unique, answer);
        }
        if !state.writer.is_behind() {
            state.note_sends(role);
            faults::point("before-journal");
            let written = state.writer.log.append(&state.writer.record);
            faults::point("after-journal");
            if let Err(error) = &written {
                tracing::error!("the journal could not be written: {error}");
            }
            state.writer.record.clear();
            let is_due = state.writer.log.size() >= state.writer.compact_at || faults::is_set("compact-soon");
            if written.is_err() || is_due {
                self.compact(state, written.is_err());
            }
        } else if state
            .writer
            .behind
            .is_some_and(|tried| tried.after(RETRY) <= Clock::now().mono)
        {
            state.note_sends(role);
            self.compact(state, true);
        }
        state.writer.record.clear();
        // The caller's own answer goes back the way it came; while the journal lacks it, only what gives nothing does.
        if let Some(own) = own
            && (!state.writer.is_behind() || !gives)
        {
            *own.answer = state.take_back(own.unique);
        }
    }

    /// Writes a snapshot. When the journal lacks something and this fails too, it stays behind.
    pub(super) fn compact(&self, state: &mut State, is_behind: bool) {
        let snapshot = self.snapshot(state).encode();
        match state.writer.log.compact(&snapshot) {
            Ok(()) => {
                if state.writer.behind.take().is_some() {
                    tracing::info!("the journal can be written again");
                }
                state.writer.compact_at = (snapshot.len() as u64 * 2).clamp(COMPACT_BYTES, COMPACT_BYTES_MAX);
            }
            Err(error) if is_behind => {
                let now = Clock::now().mono;
                if state.writer.behind.replace(now).is_none() {
                    tracing::error!("nothing is granted until the journal can be written again: {error}");
                }
                state.armed.0 = Some(now.after(RETRY));
                self.alarm.arm(state.armed.0, state.armed.1);
            }
            Err(error) => {
                tracing::warn!("the journal could not be compacted: {error}");
                state.writer.compact_at = state.writer.log.size() + COMPACT_BYTES;
            }
        }
    }

    /// Leaves a snapshot to the next life, and lets no unit be done in this one any more: the caller ends the process. If
    /// it cannot be written, the next life goes on from the records, as after a crash.
    pub fn retire(&self) {
        let turn = self.turn();
        let mut state = self.state();
        let is_behind = state.writer.is_behind();
        if is_behind {
            state.note_sends(Role::Watcher);
        }
        self.compact(&mut state, is_behind);
        std::mem::forget(turn);
    }

    fn snapshot<'a>(&self, state: &'a State) -> Snapshot<'a> {
        let handles = state.handles.iter().map(|(id, handle)| (id, kept(handle)));
        let parked = state
            .parked
            .iter()
            .map(|(unique, parked)| (unique, Cow::Borrowed(parked)));
        let scratch = state
            .scratch
            .iter()
            .map(|(name, file)| (name.clone(), Cow::Borrowed(file)));
        let held = state.returning.answers.iter();
        Snapshot {
            life: state.writer.life,
            engine: Cow::Borrowed(&state.engine),
            handles: handles.collect(),
            next_handle: state.next_handle,
            parked: parked.collect(),
            pollers: state.pollers.iter().map(|(number, handle)| (number, *handle)).collect(),
            scratch: scratch.collect(),
            phantoms: Cow::Borrowed(&state.phantoms),
            processes: self.processes.trails(),
            next_process: self.processes.next_id(),
            sends: std::array::from_fn(|role| Cow::Borrowed(Bytes::new(&state.writer.sends[role]))),
            held: held.map(|(unique, answer)| (*unique, Cow::Borrowed(answer))).collect(),
        }
    }
}

impl State {
    /// Whether the unit has something to write.
    fn has_changed(&self) -> bool {
        !self.writer.record.is_empty()
            || self.handles.has_changed()
            || self.parked.has_changed()
            || self.pollers.has_changed()
            || self.scratch.has_changed()
            || self.phantoms_changed
    }

    /// Adds to the record what became of everything but the engine.
    fn note_changes(&mut self) {
        let record = &mut self.writer.record;
        self.handles
            .take_changes(|id, handle| put(record, &Entry::Handle(id, handle.map(kept))));
        self.parked
            .take_changes(|unique, parked| put(record, &Entry::Parked(unique, parked.map(Cow::Borrowed))));
        self.pollers
            .take_changes(|number, handle| put(record, &Entry::Poller(number, handle.copied())));
        self.scratch
            .take_changes(|name, file| put(record, &Entry::Scratch(name, file.map(Cow::Borrowed))));
        if std::mem::take(&mut self.phantoms_changed) {
            put(record, &Entry::Phantoms(Cow::Borrowed(&self.phantoms)));
        }
    }

    /// Adds to the record what is to be sent once it is written.
    fn note_sends(&mut self, role: Role) {
        if self.outbox.is_empty() {
            return;
        }
        let start = self.writer.record.len();
        put(
            &mut self.writer.record,
            &Entry::Sends(role, Cow::Borrowed(&self.outbox)),
        );
        let sends = &mut self.writer.sends[role as usize];
        sends.clear();
        sends.extend_from_slice(&self.writer.record[start..]);
    }

    /// Takes the caller's own answer out of what is to be sent; it was put there last.
    fn take_back(&mut self, unique: Unique) -> Option<Answer> {
        match self.outbox.pop()? {
            Out::Answer(to, answer) if to == unique => Some(answer),
            other => {
                self.outbox.push(other);
                None
            }
        }
    }
}

/// An open file as the next life gets it.
fn kept(handle: &Handle) -> Cow<'_, Handle> {
    let is_kept = match &handle.kind {
        HandleKind::Text(_, text) => text.len() <= RENDERED_BYTES_MAX,
        HandleKind::Listing(entries) => entries.len() <= LISTING_MAX,
        _ => true,
    };
    if is_kept {
        return Cow::Borrowed(handle);
    }
    let kind = match &handle.kind {
        HandleKind::Text(fixed, _) => HandleKind::Unkept(*fixed),
        _ => HandleKind::Unkept(crate::view::nodes::Fixed::Locks),
    };
    Cow::Owned(Handle {
        node: handle.node,
        kind,
    })
}

/// Whether a call takes or changes something, so that it is refused while the journal cannot be written.
pub(super) fn takes(call: &Call<'_>) -> bool {
    match call {
        Call::Open { mode, .. } => mode.access != super::api::Access::Read,
        Call::SetLock { mode, .. } => mode.is_some(),
        Call::Create { .. }
        | Call::Mkdir { .. }
        | Call::Symlink { .. }
        | Call::Link { .. }
        | Call::Rename { .. }
        | Call::Write { .. }
        | Call::SetAttr { .. } => true,
        _ => false,
    }
}
