//! Everything behind the one mutex, and what follows from the engine's effects.
//!
//! [`State::command`] is the only door to the engine: it hands over the time, reads the effects and turns
//! them into answers for parked calls. Those are sent after the mutex is free ([`State::take_outbox`]).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::api::{Answer, Opened};
use super::handles::{Handle, HandleKind, Parked, Stage};
use super::inspect::Fresh;
use super::kept::Kept;
use super::record::{Entry, put};
use super::refusals::{Refusals, Refused, about_lock, lost_sentence};
use super::unit::Writer;
use crate::engine::{Command, Effect, Engine, Reply, Scratch, Trace, Way};
use crate::metrics::Intake;
use crate::predict::HoldTimes;
use crate::types::{HandleId, LockName, Moment, NodeId, Refusal, Tick, Token, Unique};
use crate::view::nodes::{Node, Nodes};

/// The most open files, all kinds together.
const HANDLES_MAX: usize = 262_144;

/// Something to send once the mutex is free.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Out {
    /// An answer to a parked call.
    Answer(Unique, Answer),
    /// A polled handle changed.
    Poll(u64),
}

/// A name that must look taken to one thread: its CREATE met a lock that was taken after all, and the kernel
/// looks once more before it sends OPEN.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Phantom {
    pub(super) tid: u32,
    pub(super) lock: LockName,
    pub(super) until: Tick,
}

/// Calls of a former life that the kernel sends again.
#[derive(Debug, Default)]
pub(super) struct Returning {
    /// Those that wait and have not come again: until then the kernel would not know an answer.
    pub(super) parked: HashSet<Unique>,
    /// What those get that have their answer.
    pub(super) answers: HashMap<Unique, Due>,
}

/// An open file that a former life granted in this call, whose caller may have been killed before it heard of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    pub(super) unique: Unique,
    pub(super) handle: HandleId,
    /// When it was clear that the call does not come again: its opener was there until a moment before.
    pub(super) since: Tick,
}

/// An answer to a call of a former life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Due {
    pub(super) answer: Answer,
    /// Whether it was held back, so that it cannot have left; of the others that is not known.
    pub(super) is_held: bool,
}

/// What the mutex guards.
#[derive(Debug)]
pub(super) struct State {
    pub(super) engine: Engine,
    pub(super) scratch: Scratch,
    pub(super) nodes: Nodes,
    pub(super) handles: Kept<HandleId, Handle>,
    pub(super) parked: Kept<Unique, Parked>,
    pub(super) phantoms: Vec<Phantom>,
    pub(super) phantoms_changed: bool,
    /// Which handle is polled, by the kernel's number for that.
    pub(super) pollers: Kept<u64, HandleId>,
    pub(super) refusals: Refusals,
    pub(super) hold_times: HoldTimes,
    /// What happened since the recorder looked.
    pub(super) events: Intake,
    /// Whether the recorder is to be told of them.
    pub(super) has_news: bool,
    /// What was granted or passed to holders that are not identified yet.
    pub(super) unidentified: Vec<Fresh>,
    /// Open files of which it is not known whether their openers were told.
    pub(super) doubtful: Vec<Doubt>,
    /// How many waits have begun that the inspector has not looked at.
    pub(super) uninspected: usize,
    /// Who breaks a lock just now and why: what its former holder is told.
    pub(super) breaking: Option<String>,
    /// Whether the inspector looks at `unidentified` without being told.
    pub(super) inspector_awake: bool,
    /// The deadlines that the alarm is set to.
    pub(super) armed: (Option<Tick>, Option<Tick>),
    pub(super) outbox: Vec<Out>,
    pub(super) next_handle: u64,
    pub(super) returning: Returning,
    pub(super) writer: Writer,
}

impl State {
    pub(super) fn new(engine: Engine, writer: Writer) -> Self {
        Self {
            engine,
            scratch: Scratch::default(),
            nodes: Nodes::in_life(writer.life),
            handles: Kept::default(),
            parked: Kept::default(),
            phantoms: Vec::new(),
            phantoms_changed: false,
            pollers: Kept::default(),
            refusals: Refusals::default(),
            hold_times: HoldTimes::default(),
            events: Intake::default(),
            has_news: false,
            unidentified: Vec::new(),
            doubtful: Vec::new(),
            uninspected: 0,
            breaking: None,
            inspector_awake: false,
            armed: (None, None),
            outbox: Vec::new(),
            next_handle: 1,
            returning: Returning::default(),
            writer,
        }
    }

    /// Gives the engine a command and carries out what follows for others. The record gets the command, unless it turns
    /// out that it might as well not have been given.
    pub(super) fn command(&mut self, now: Moment, command: Command) -> Result<Reply, Refusal> {
        let (trace, start) = (command.trace(), self.writer.record.len());
        put(&mut self.writer.record, &Entry::Command(now, Cow::Borrowed(&command)));
        let result = self.engine.handle(now, command);
        let mut is_felt = false;
        while let Some(effect) = self.engine.poll_effect() {
            is_felt = true;
            self.carry_out(now, effect);
        }
        let is_kept = match trace {
            Trace::Always => true,
            Trace::IfDone => is_felt || result.is_ok(),
            Trace::IfFelt => is_felt,
        };
        if !is_kept {
            self.writer.record.truncate(start);
        }
        if !self.pollers.is_empty() {
            self.wake_pollers();
        }
        result
    }

    /// What is to be sent.
    pub(super) fn take_outbox(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.outbox)
    }

    /// Answers a call that was parked. One of a former life is answered when it comes again.
    pub(super) fn send(&mut self, unique: Unique, answer: Answer) {
        if self.returning.parked.remove(&unique) {
            put(&mut self.writer.record, &Entry::Held(unique, Cow::Borrowed(&answer)));
            let is_held = true;
            self.returning.answers.insert(unique, Due { answer, is_held });
        } else {
            self.send_now(unique, answer);
        }
    }

    /// Answers a call that the kernel knows under this number.
    pub(super) fn send_now(&mut self, unique: Unique, answer: Answer) {
        self.outbox.push(Out::Answer(unique, answer));
    }

    fn carry_out(&mut self, now: Moment, effect: Effect) {
        match effect {
            Effect::Granted { request, token } => self.granted(request, token),
            Effect::Refused { request, refusal } => self.refused(now, request, refusal),
            Effect::Lost { handle, lock } => self.lost(handle, &lock),
            Effect::Wanted { handle, request } => self.wanted(now, handle, request),
            Effect::Passed(grant) => self.unidentified.push(Fresh::Grant(grant)),
            Effect::Event(event) => {
                self.hold_times.observe(&event);
                self.has_news |= self.events.push(now.mono, event);
            }
        }
    }

    fn granted(&mut self, request: Unique, token: Token) {
        let Some(parked) = self.parked.remove(request) else {
            return;
        };
        let answer = match parked {
            Parked::Open { node, handle, lock } => {
                self.unidentified.push(Fresh::Handle(handle));
                self.handles.insert(
                    handle,
                    Handle {
                        node,
                        kind: HandleKind::Lock(lock),
                    },
                );
                Answer::Opened(Opened {
                    handle,
                    stream: false,
                    quiet_close: true,
                })
            }
            Parked::Lock { handle, .. } => {
                self.unidentified.push(Fresh::Handle(handle));
                Answer::Done
            }
            Parked::Acquire { handle, size, .. } => {
                self.unidentified.push(Fresh::Handle(handle));
                self.transaction_granted(handle, token, size)
            }
            Parked::Events { .. } => return,
        };
        self.send(request, answer);
    }

    /// The locks of a transaction are held: its first line is the token.
    pub(super) fn transaction_granted(&mut self, handle: HandleId, token: Token, size: u32) -> Answer {
        if let Some(transaction) = self.transaction(handle) {
            transaction.stage = Stage::Granted(token);
            transaction.unread.clear();
            transaction.push_line(&format!("token={token}\n"));
        }
        self.answer_events(handle);
        Answer::Written(size)
    }

    fn refused(&mut self, now: Moment, request: Unique, refusal: Refusal) {
        let Some(parked) = self.parked.remove(request) else {
            return;
        };
        let lock = match &parked {
            Parked::Open { lock, .. } => Some(lock.name.clone()),
            _ => None,
        };
        let refused = match lock {
            Some(lock) => about_lock(&self.engine, &lock, refusal, now),
            None => Refused::new(refusal, wait_ended(refusal)),
        };
        self.refusals.record([parked.tid(), 0], refused.sentence);
        match parked {
            Parked::Open { node, .. } => self.nodes.unpin(node),
            Parked::Acquire { handle, .. } => self.transaction_refused(handle, refusal),
            Parked::Lock { .. } | Parked::Events { .. } => {}
        }
        self.send(request, Answer::Refused(refusal));
    }

    fn lost(&mut self, handle: HandleId, lock: &LockName) {
        tracing::warn!(%lock, %handle, "a handle lost its lock");
        let Some(open) = self.handles.get_mut(handle) else {
            return;
        };
        let sentence = lost_sentence(lock, self.breaking.as_deref());
        match &mut open.kind {
            HandleKind::Lock(open) => open.lost = Some(sentence.into()),
            HandleKind::Transaction(transaction) => {
                transaction.lost = Some(sentence.into());
                self.answer_events(handle);
            }
            _ => {}
        }
    }

    fn wanted(&mut self, now: Moment, handle: HandleId, request: Unique) {
        // The one that has just begun to wait may not be identified yet: its line is written when it is.
        let Some(party) = self
            .engine
            .requester(request)
            .filter(|party| party.pid != 0 || party.tid == 0)
        else {
            return;
        };
        let mode = self.engine.request_claims(request).first().map(|claim| claim.mode);
        let (Some(mode), Some(level)) = (mode, self.engine.request_level(request, now)) else {
            return;
        };
        let line = format!("wanted by={} mode={mode} priority={level}\n", party.pid);
        if let Some(transaction) = self.transaction(handle) {
            transaction.push_line(&line);
            self.answer_events(handle);
        }
    }

    /// Tells the transactions that a waiter is behind, once it is known who it is.
    pub(super) fn announce(&mut self, now: Moment, request: Unique) {
        let holders = self.engine.holders_before(request);
        let transactions = holders.into_iter().filter(|grant| grant.way == Way::Transaction);
        let handles: Vec<HandleId> = transactions.filter_map(|grant| grant.owner.handle()).collect();
        for handle in handles {
            self.wanted(now, handle, request);
        }
        self.wake_pollers();
    }

    /// Answers the reads that wait for a line of this transaction, first come, as far as there is something to say.
    pub(super) fn answer_events(&mut self, handle: HandleId) {
        while let Some(transaction) = self.transaction(handle)
            && (transaction.lost.is_some() || !transaction.unread.is_empty())
            && let Some((unique, size)) = transaction.readers.pop_front()
        {
            let answer = match &transaction.lost {
                Some(sentence) => {
                    let (tid, sentence) = (transaction.tid, sentence.to_string());
                    self.refusals.record([tid, 0], sentence);
                    Answer::Refused(Refusal::Stale)
                }
                None => Answer::Data(transaction.take(size)),
            };
            self.parked.remove(unique);
            self.send(unique, answer);
        }
    }

    /// The request of a transaction was refused: the descriptor is for another one, and who reads beside it hears why.
    fn transaction_refused(&mut self, handle: HandleId, refusal: Refusal) {
        let Some(transaction) = self.transaction(handle) else {
            return;
        };
        transaction.stage = Stage::Idle;
        for (unique, _) in std::mem::take(&mut transaction.readers) {
            self.parked.remove(unique);
            self.send(unique, Answer::Refused(refusal));
        }
    }

    pub(super) fn transaction(&mut self, handle: HandleId) -> Option<&mut super::handles::Transaction> {
        match &mut self.handles.get_mut(handle)?.kind {
            HandleKind::Transaction(transaction) => Some(transaction),
            _ => None,
        }
    }

    /// A lock outlives its handle from now on: its holder is to be identified by the name, as the handle may go.
    pub(super) fn outlives(&mut self, handle: HandleId, lock: &LockName) {
        let known_by = self.unidentified.iter_mut().rfind(|fresh| fresh.is_of(handle));
        match known_by {
            Some(fresh) => *fresh = Fresh::Lock(lock.clone()),
            None => self.unidentified.push(Fresh::Lock(lock.clone())),
        }
    }

    /// Reserves the number of a handle to be.
    pub(super) fn new_handle(&mut self) -> Result<HandleId, Refusal> {
        if self.handles.len() >= HANDLES_MAX {
            return Err(Refusal::TooManyHandles);
        }
        let handle = HandleId(self.next_handle);
        self.next_handle += 1;
        Ok(handle)
    }

    /// Keeps an open file; its node is remembered as long.
    pub(super) fn keep(&mut self, handle: HandleId, node: NodeId, kind: HandleKind) {
        self.nodes.pin(node);
        self.handles.insert(handle, Handle { node, kind });
    }

    /// Whether a name must look taken to this thread; what is over is dropped on the way.
    pub(super) fn is_phantom(&mut self, now: Moment, tid: u32, lock: &LockName) -> bool {
        self.phantoms.retain(|phantom| now.mono < phantom.until);
        self.phantoms
            .iter()
            .any(|phantom| phantom.tid == tid && phantom.lock == *lock)
    }

    /// The lock of a node.
    pub(super) fn lock_of(&mut self, node: NodeId) -> Option<LockName> {
        self.nodes.get(node).as_ref().and_then(Node::lock).cloned()
    }

    /// Ends the wait of a call, as a signal does. One that was answered already is none of our business.
    pub(super) fn end_wait(&mut self, now: Moment, target: Unique) {
        match self.parked.get(target) {
            Some(Parked::Open { .. } | Parked::Lock { .. } | Parked::Acquire { .. }) => {
                // Cancelling is never refused; the answer comes as an effect.
                let _ = self.command(now, Command::Cancel(target));
            }
            Some(&Parked::Events { handle }) => {
                self.parked.remove(target);
                if let Some(transaction) = self.transaction(handle) {
                    transaction.readers.retain(|(reader, _)| *reader != target);
                }
                self.send(target, Answer::Refused(Refusal::Interrupted));
            }
            None => {}
        }
    }

    /// The last close of a handle. It must not fail, and what was granted through the handle goes.
    pub(super) fn close(&mut self, now: Moment, handle: HandleId) {
        let Some(open) = self.handles.remove(handle) else {
            return;
        };
        if !self.pollers.is_empty() {
            let polled = self.pollers.iter().filter(|(_, polled)| **polled == handle);
            let numbers: Vec<u64> = polled.map(|(number, _)| number).collect();
            for number in numbers {
                self.pollers.remove(number);
            }
        }
        if matches!(open.kind, HandleKind::Lock(_) | HandleKind::Transaction(_))
            && let Err(refusal) = self.command(now, Command::Close(handle))
        {
            tracing::error!(?refusal, "the engine refused a close");
        }
        self.nodes.unpin(open.node);
    }

    /// Tells who polls under this number to look again.
    pub(super) fn wake(&mut self, number: u64) {
        self.pollers.remove(number);
        self.outbox.push(Out::Poll(number));
    }

    /// Whether a polled handle is ready to be read.
    pub(super) fn is_readable(&mut self, handle: HandleId) -> bool {
        let Some(open) = self.handles.get(handle) else {
            return true;
        };
        match &open.kind {
            HandleKind::Transaction(transaction) => {
                transaction.lost.is_some() || !transaction.unread.is_empty() || transaction.stage == Stage::Idle
            }
            HandleKind::Lock(lock) if lock.lost.is_some() => true,
            HandleKind::Lock(lock) => {
                let holds = self.engine.grants_of(handle).next().is_some();
                if holds {
                    self.engine.waiter_count(lock.name.as_str()) > 0
                } else {
                    self.engine.could_have(&lock.name, handle)
                }
            }
            _ => true,
        }
    }

    fn wake_pollers(&mut self) {
        let polled: Vec<(u64, HandleId)> = self.pollers.iter().map(|(number, handle)| (number, *handle)).collect();
        for (number, handle) in polled {
            if self.is_readable(handle) {
                self.wake(number);
            }
        }
    }
}

/// The sentence of a wait that ended without its lock being known here.
fn wait_ended(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::TimedOut => "the wait limit passed; see git lockfs status for who holds what you want",
        Refusal::Interrupted => "a signal ended the wait",
        Refusal::Deadlock => "waiting would never end: a circle of waiters; release what you hold first",
        Refusal::Stale => "the lock was taken away",
        _ => "the wait ended without the lock",
    }
}
