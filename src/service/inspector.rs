//! The inspector: a thread for what is slow, and for what can be found out after the fact.
//!
//! A lock is granted to a thread id; who that is, its session and what it does, matters to readers, to rules about
//! descent and to the end of the process, but not to the answer. So the hot road leaves it to this thread, which looks
//! at holders that stay longer than a moment and at every wait that begins (`inspect`). It also answers what shows a
//! holder that is not known yet, carries out the verbs of `control` that read git's configuration or ask for sessions,
//! and reserves tokens.
//!
//! *Invariant:* a call that was handed over is answered, and holders are looked at in time, however much there is to do
//! and whatever goes wrong with one piece of it. That it comes further can be seen from outside, in the heartbeat.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select_biased, unbounded};

use super::api::{Access, Answer, Call, Caller, OpenMode};
use super::control::Before;
use super::inspect::is_stranger;
use super::record::Role;
use super::state::State;
use super::{Context, Service, contained};
use crate::adapters::Clock;
use crate::engine::Command;
use crate::types::{NodeId, Refusal, Tick, Unique};
use crate::view::nodes::{Fixed, Node};
use crate::view::requests::Verb;

/// A holder that let go within this is never looked at.
const MOMENT: Duration = Duration::from_millis(5);
/// How many tokens are left when more are reserved.
const TOKENS_LOW: u64 = 1 << 15;
/// After a failure to reserve tokens it is tried again so much later.
const TOKENS_RETRY: Duration = Duration::from_secs(1);
/// How many calls may wait for the inspector; more are answered with what is known.
const CALLS_MAX: usize = 4096;
/// How many waits may wait to be looked at; those of more are not, which costs only advice.
const WAITS_MAX: usize = 65_536;

/// What the inspector has before it.
pub(super) struct Backlog {
    /// Answered first: somebody looks, and looking never waits for long.
    calls: (Sender<Work>, Receiver<Work>),
    /// In order, so that a look at all waiters comes after those that it is to show.
    waits: (Sender<Work>, Receiver<Work>),
    wake: (Sender<()>, Receiver<()>),
    stopped: AtomicBool,
}

impl Backlog {
    pub(super) fn new() -> Self {
        Self {
            // Their bounds are kept where something is put in: a bounded channel takes all its memory at once.
            calls: unbounded(),
            waits: unbounded(),
            wake: bounded(1),
            stopped: AtomicBool::new(false),
        }
    }

    /// Has the holders looked at that nobody has identified, or tokens reserved.
    pub(super) fn wake(&self) {
        // Full means that it was told already and has not looked yet.
        let _ = self.wake.0.try_send(());
    }

    /// Takes the next piece, or `None` when the time has come or something is to be looked at.
    fn next(&self, due: Option<Duration>) -> Option<Work> {
        let timer = due.map_or_else(never, after);
        select_biased! {
            recv(self.calls.1) -> work => work.ok(),
            recv(timer) -> _ => None,
            recv(self.wake.1) -> _ => None,
            recv(self.waits.1) -> work => work.ok(),
        }
    }
}

/// A piece of work.
#[derive(Debug)]
enum Work {
    /// A wait began.
    Waiter(Unique),
    /// A call to be answered; boxed, as the lists have room for many and hold few.
    Call(Box<Late>),
}

/// A call to be answered, with its caller.
#[derive(Debug)]
struct Late {
    unique: Unique,
    caller: Caller,
    call: LateCall,
}

/// The calls that are answered later: those that show who holds a lock, and slow verbs.
#[derive(Clone, Debug)]
pub(super) enum LateCall {
    Lookup { parent: NodeId, name: Vec<u8> },
    OpenDir { node: NodeId },
    GetAttr { node: NodeId },
    Open { node: NodeId, mode: OpenMode },
    GetXattr { node: NodeId, name: Vec<u8>, room: u32 },
    ListXattr { node: NodeId, room: u32 },
    Verbs { verbs: Vec<Verb>, size: u32 },
}

impl LateCall {
    pub(super) fn node(&self) -> Option<NodeId> {
        match self {
            Self::Lookup { parent: node, .. }
            | Self::OpenDir { node }
            | Self::GetAttr { node }
            | Self::Open { node, .. }
            | Self::GetXattr { node, .. }
            | Self::ListXattr { node, .. } => Some(*node),
            Self::Verbs { .. } => None,
        }
    }

    /// The owned form of a call that shows holders.
    pub(super) fn of(call: &Call<'_>) -> Option<Self> {
        // Nothing else below `metrics/` depends on what the figures know.
        let by_lock = NodeId(Fixed::ByLock as u64);
        match *call {
            Call::Lookup { parent, name } if parent == by_lock => Some(Self::Lookup {
                parent,
                name: name.to_vec(),
            }),
            Call::OpenDir { node } if node == by_lock => Some(Self::OpenDir { node }),
            Call::GetAttr { node } => Some(Self::GetAttr { node }),
            Call::Open { node, mode } if mode.access != Access::Write => Some(Self::Open { node, mode }),
            Call::GetXattr { node, name, room } => Some(Self::GetXattr {
                node,
                name: name.to_vec(),
                room,
            }),
            Call::ListXattr { node, room } => Some(Self::ListXattr { node, room }),
            _ => None,
        }
    }
}

/// What a call shows that is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strangers {
    /// Nothing.
    None,
    /// Who holds a lock.
    Holders,
    /// Who holds and who waits.
    All,
}

impl Service {
    /// Runs until [`Self::stop_inspector`]; the body of the inspector's thread.
    pub fn inspect_forever(&self) {
        let mut due: Option<Tick> = None;
        let mut tokens_due = Tick::default();
        while !self.backlog.stopped.load(Ordering::Acquire) {
            let work = self.backlog.next(due.map(|due| due.since(Clock::now().mono)));
            self.heartbeat.begin_piece();
            let now = Clock::now().mono;
            match work {
                Some(work) => self.carry_out_work(work),
                None => due = due.or_else(|| Some(now.after(MOMENT))),
            }
            if due.is_some_and(|due| due <= now) {
                if tokens_due <= now && self.state().engine.tokens_left() <= TOKENS_LOW && !self.reserve_tokens() {
                    tokens_due = now.after(TOKENS_RETRY);
                }
                if contained("a look at holders", || self.identify_holders()).is_none() {
                    self.state().unidentified.clear();
                }
                contained("a look at open files", || self.settle_doubts());
                due = self.next_look();
            }
            self.heartbeat.end_piece();
        }
    }

    /// When holders are looked at again without being told: while there are some, or tokens are short.
    fn next_look(&self) -> Option<Tick> {
        let mut state = self.state();
        let span = if !state.unidentified.is_empty() || !state.doubtful.is_empty() {
            Some(MOMENT)
        } else if state.engine.tokens_left() <= TOKENS_LOW {
            Some(TOKENS_RETRY)
        } else {
            None
        };
        state.inspector_awake = span.is_some();
        span.map(|span| Clock::now().mono.after(span))
    }

    /// Whether the inspector has something to look at that it has not been told of.
    pub(super) fn should_wake_inspector(state: &State) -> bool {
        let has_something = !state.unidentified.is_empty() || !state.doubtful.is_empty();
        !state.inspector_awake && (has_something || state.engine.tokens_left() <= TOKENS_LOW)
    }

    /// Ends the inspector's thread.
    pub fn stop_inspector(&self) {
        self.backlog.stopped.store(true, Ordering::Release);
        self.backlog.wake();
    }

    /// Has a wait looked at that has begun.
    pub(super) fn inspect_wait(&self, state: &mut State, request: Unique) {
        let waits = &self.backlog.waits.0;
        if waits.len() < WAITS_MAX && waits.send(Work::Waiter(request)).is_ok() {
            state.uninspected += 1;
        } else {
            tracing::warn!("too many waits at once: one is not looked at");
        }
    }

    /// Has a call answered later; false when there is no room for it.
    pub(super) fn hand_over(&self, context: &Context, call: LateCall, shows: Strangers) -> bool {
        let work = Work::Call(Box::new(Late {
            unique: context.unique,
            caller: context.caller,
            call,
        }));
        let (lane, most) = match shows {
            Strangers::All => (&self.backlog.waits.0, WAITS_MAX),
            Strangers::Holders | Strangers::None => (&self.backlog.calls.0, CALLS_MAX),
        };
        lane.len() < most && lane.send(work).is_ok()
    }

    fn carry_out_work(&self, work: Work) {
        match work {
            Work::Waiter(request) => {
                contained("a look at a wait", || self.inspect_waiter(request));
                let mut state = self.state();
                state.uninspected = state.uninspected.saturating_sub(1);
            }
            Work::Call(late) => {
                let Late { unique, caller, call } = *late;
                let answer = contained("a call", || self.carry_out_late(unique, caller, call))
                    .unwrap_or(Some(Answer::Refused(Refusal::Internal)));
                if let Some(answer) = answer {
                    contained("an answer", || self.replies.answer(unique, answer));
                }
            }
        }
    }

    /// Reserves more tokens, and grants what waited for one.
    fn reserve_tokens(&self) -> bool {
        let reserved = self.tokens.lock().reserve_more();
        match reserved {
            Ok(end) => {
                self.unit(Role::Inspector, || {
                    let (mut state, now) = (self.state(), Clock::now());
                    // More tokens are never refused.
                    let _ = state.command(now, Command::ExtendTokens(end));
                    self.finish(state, now);
                });
                true
            }
            Err(error) => {
                tracing::error!("fencing tokens cannot be reserved: {error:#}");
                false
            }
        }
    }

    /// What a call shows of holders and waiters who are not identified yet.
    pub(super) fn strangers_in(&self, call: &LateCall) -> Strangers {
        let mut state = self.state();
        let is_all_known = state.unidentified.is_empty() && state.uninspected == 0;
        let node = call.node().and_then(|node| state.nodes.get(node));
        match node {
            // Figures take a while to compute, whoever they are about.
            Some(node) if node.is_figures() => Strangers::All,
            _ if is_all_known => Strangers::None,
            Some(Node::Fixed(Fixed::LocksJson)) => Strangers::All,
            Some(node) => {
                let mut holders = node
                    .lock()
                    .into_iter()
                    .flat_map(|lock| state.engine.holders(lock.as_str()));
                if holders.any(|holder| is_stranger(holder.grant)) {
                    Strangers::Holders
                } else {
                    Strangers::None
                }
            }
            None => Strangers::None,
        }
    }

    /// Carries out a call once the holders are identified, and git's configuration is read if the call needs that.
    fn carry_out_late(&self, unique: Unique, caller: Caller, call: LateCall) -> Option<Answer> {
        self.identify_holders();
        self.prepare_figures(&call);
        let before = match &call {
            LateCall::Verbs { verbs, .. } => self.prepare_verbs(verbs),
            _ => Before::default(),
        };
        let takes = matches!(call, LateCall::Verbs { .. });
        self.answering(Role::Inspector, unique, takes, || {
            let context = Context {
                unique,
                caller,
                now: Clock::now(),
            };
            let outcome = match call {
                LateCall::Lookup { parent, name } => self.lookup(&context, parent, &name),
                LateCall::OpenDir { node } => self.open_dir(&context, node),
                LateCall::GetAttr { node } => self.get_attr(&context, node),
                LateCall::Open { node, mode } => self.open(&context, node, mode),
                LateCall::GetXattr { node, name, room } => self.get_xattr(&context, node, &name, room),
                LateCall::ListXattr { node, room } => self.list_xattr(&context, node, room),
                LateCall::Verbs { verbs, size } => self
                    .carry_out_all(&context, verbs, before)
                    .map(|()| Some(Answer::Written(size))),
            };
            self.answer_of(&context, outcome)
        })
    }
}
