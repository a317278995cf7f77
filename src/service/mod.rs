//! The driver: one mutex around the engine, one order of events, answers sent outside the mutex.
//!
//! [`Service::call`] is what a front uses. What happens on its own (deadlines, exits of processes, the
//! inspection of waiters) comes in through [`Service::attend_deadline`], [`Service::attend_exit`] and the inspector's
//! thread. It knows the tree (`view`) and the outside (`adapters`), and nothing of the wire format.
//!
//! Slow work (reading /proc, starting git) is done before the mutex is taken or on the inspector's thread,
//! never while the engine is held.

pub mod api;

mod attend;
mod control;
mod handles;
mod inspect;
mod inspector;
mod kept;
mod locking;
mod lookup;
mod making;
mod metrics;
mod opening;
mod pictures;
mod polling;
mod reading;
mod record;
mod refusals;
mod removing;
mod replay;
mod restore;
mod state;
mod transactions;
mod unit;
mod writing;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard, ReentrantMutex};

use api::{Answer, Call, Caller, Files, Replies};
use inspector::{Backlog, LateCall, Strangers};
use metrics::Recorder;
use pictures::Gallery;
pub use record::ReplayError;
use record::Role;
use refusals::{Refused, about_lock};
pub use replay::{check_replay, known_locks};
use restore::Again;
use state::State;
use unit::Writer;

use crate::adapters::{Alarm, Clock, Confinement, Heartbeat, History, HistoryError, Processes, Tokens, WallTime};
use crate::engine::{Actor, Bounds, Command, Engine, FileChange, Party};
use crate::metrics::Alert;
use crate::ports::Log;
use crate::types::{LockName, Moment, ProcessId, Refusal, Settings, Text, Token, Unique};
use crate::view::Now;
use crate::view::locks_json::ServedBy;

/// What the service needs from outside.
pub struct Outside {
    /// The registry of processes.
    pub processes: Arc<Processes>,
    /// Sets the timers of whoever calls [`Service::attend_deadline`].
    pub alarm: Alarm,
    /// How confined the daemon itself is.
    pub confinement: Confinement,
    /// Where fencing tokens outlive a crash.
    pub tokens: Tokens,
    /// The tokens that are reserved already.
    pub reserved: std::ops::Range<Token>,
    /// Where the figures outlive the daemon, or why they do not.
    pub history: Result<History, HistoryError>,
    /// Where answers to parked calls go.
    pub replies: Arc<dyn Replies>,
    /// Reads the configuration again.
    pub reload: Box<dyn Fn() -> Result<Settings, String> + Send + Sync>,
    /// Tells the user of alerts that have begun or ended.
    pub tell_alerts: Box<dyn Fn(Vec<Alert>) + Send + Sync>,
    /// Where the tree is mounted, to recognise our files in descriptor tables.
    pub mountpoint: PathBuf,
    /// The user who mounted.
    pub owner: (u32, u32),
    /// Whether other users may look and lock.
    pub others_allowed: bool,
    /// The processes that serve the mount, now.
    pub served_by: Box<dyn Fn() -> ServedBy + Send + Sync>,
    /// Where the inspector shows that it comes further.
    pub heartbeat: Arc<Heartbeat>,
}

/// The driver.
pub struct Service {
    /// Held for a whole unit of work, how deep; see `unit`.
    turn: ReentrantMutex<Cell<u32>>,
    state: Mutex<State>,
    /// Whether calls of a former life may still come again.
    has_returning: AtomicBool,
    processes: Arc<Processes>,
    alarm: Alarm,
    confinement: Confinement,
    tokens: Mutex<Tokens>,
    replies: Arc<dyn Replies>,
    reload: Box<dyn Fn() -> Result<Settings, String> + Send + Sync>,
    tell_alerts: Box<dyn Fn(Vec<Alert>) + Send + Sync>,
    mountpoint: PathBuf,
    owner: (u32, u32),
    others_allowed: bool,
    served_by: Box<dyn Fn() -> ServedBy + Send + Sync>,
    heartbeat: Arc<Heartbeat>,
    wall: WallTime,
    backlog: Backlog,
    recorder: Recorder,
    gallery: Gallery,
}

/// One call as it is carried out.
#[derive(Clone, Copy, Debug)]
struct Context {
    unique: Unique,
    caller: Caller,
    now: Moment,
}

/// What a call comes to: an answer now, `None` when it is parked, or a refusal with its sentence.
type Outcome = Result<Option<Answer>, Refused>;

impl Service {
    /// A service with nothing held; the log is begun with that.
    pub fn new(settings: Settings, outside: Outside, log: Box<dyn Log>) -> Self {
        let engine = Engine::new(settings, Bounds::default(), outside.reserved.clone());
        Self::begin(outside, State::new(engine, Writer::new(log, 0)))
    }

    /// Puts everything together and writes down what it begins with.
    fn begin(outside: Outside, state: State) -> Self {
        let has_returning = !state.returning.parked.is_empty() || !state.returning.answers.is_empty();
        let service = Self {
            turn: ReentrantMutex::new(Cell::new(0)),
            state: Mutex::new(state),
            has_returning: AtomicBool::new(has_returning),
            processes: outside.processes,
            alarm: outside.alarm,
            confinement: outside.confinement,
            tokens: Mutex::new(outside.tokens),
            replies: outside.replies,
            reload: outside.reload,
            tell_alerts: outside.tell_alerts,
            mountpoint: outside.mountpoint,
            owner: outside.owner,
            others_allowed: outside.others_allowed,
            served_by: outside.served_by,
            heartbeat: outside.heartbeat,
            wall: WallTime::new(),
            backlog: Backlog::new(),
            recorder: Recorder::new(outside.history),
            gallery: Gallery::new(),
        };
        service.compact(&mut service.state(), true);
        service
    }

    fn dispatch(&self, context: &Context, call: Call<'_>) -> Outcome {
        match call {
            Call::Lookup { parent, name } => self.lookup(context, parent, name),
            // Told before, and without a turn: it changes nothing that is kept.
            Call::Forget { .. } => Ok(None),
            Call::GetAttr { node } => self.get_attr(context, node),
            Call::SetAttr { node, change, .. } => self.set_attr(context, node, change),
            Call::ReadLink { .. } => Err(Refused::new(
                Refusal::Malformed,
                "a lock made by ln -s is no link to follow",
            )),
            Call::Symlink { parent, name, target } => self.symlink(context, parent, name, target),
            Call::Mkdir { parent, name } => self.mkdir(context, parent, name),
            Call::Unlink { parent, name } => self.unlink(context, parent, name),
            Call::Rmdir { parent, name } => self.rmdir(context, parent, name),
            Call::Rename {
                parent,
                name,
                new_parent,
                new_name,
            } => self.rename(context, parent, name, new_parent, new_name),
            Call::Link { node, parent, name } => self.link(context, node, parent, name),
            Call::Open { node, mode } => self.open(context, node, mode),
            Call::Create { parent, name, mode } => self.create(context, parent, name, mode),
            Call::Read { handle, offset, size } => self.read(context, handle, offset, size),
            Call::Write { handle, offset, data } => self.write(context, handle, offset, data),
            Call::Flush { handle, owner } => self.flush(context, handle, owner),
            Call::Release { handle } | Call::ReleaseDir { handle } => self.release(context, handle),
            Call::OpenDir { node } => self.open_dir(context, node),
            Call::ReadDir { handle, offset } => self.read_dir(handle, offset),
            Call::GetXattr { node, name, room } => self.get_xattr(context, node, name, room),
            Call::ListXattr { node, room } => self.list_xattr(context, node, room),
            Call::GetLock {
                handle,
                owner,
                mode,
                range,
                ..
            } => self.get_lock(handle, owner, mode, range),
            Call::SetLock {
                handle,
                style,
                mode,
                range,
                wait,
                ..
            } => self.set_lock(context, handle, style, mode, range, wait),
            Call::Poll { handle, notify, events } => self.poll(handle, notify, events),
            Call::Interrupt { target } => self.interrupt(context, target),
        }
    }

    /// Takes the mutex.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Sets the alarm if something is due earlier, and wakes the inspector if there is something for it. What was decided
    /// leaves when the unit is done.
    fn finish(&self, mut state: MutexGuard<'_, State>, now: Moment) {
        let due = state.engine.next_deadline(now);
        let earlier =
            |new: Option<crate::types::Tick>, old: Option<_>| new.is_some_and(|new| old.is_none_or(|old| new < old));
        if earlier(due.0, state.armed.0) || earlier(due.1, state.armed.1) {
            state.armed = due;
            // Under the mutex, else a thread that was overtaken would set the alarm to what it saw.
            self.alarm.arm(due.0, due.1);
        }
        if Self::should_wake_inspector(&state) {
            state.inspector_awake = true;
            self.backlog.wake();
        }
        if std::mem::take(&mut state.has_news) {
            self.recorder.wake();
        }
    }

    /// Carries out a command about a lock, or says why not.
    fn carry_out_on(&self, context: &Context, lock: &LockName, command: Command) -> Result<(), Refused> {
        let mut state = self.state();
        let result = state.command(context.now, command);
        let result = result
            .map(|_| ())
            .map_err(|refusal| about_lock(&state.engine, lock, refusal, context.now));
        self.finish(state, context.now);
        result
    }

    /// Changes a file in a lock made by mkdir, if the caller may.
    fn change_file(
        &self,
        context: &Context,
        lock: &LockName,
        file: LockName,
        change: FileChange,
    ) -> Result<(), Refused> {
        let actor = self.actor(context);
        let command = Command::ChangeFile {
            lock: lock.clone(),
            file,
            change,
            actor,
        };
        self.carry_out_on(context, lock, command)
    }

    /// Who calls, as far as that is free to know.
    fn party(&self, context: &Context) -> Party {
        Party {
            tid: context.caller.tid,
            uid: context.caller.uid,
            ..Party::default()
        }
    }

    /// The process that a text declares as owner.
    fn owner_party(&self, context: &Context, owner: ProcessId, pid: u32, text: Option<&Text>) -> Party {
        let session = text.and_then(|text| text.declared.session.clone());
        Party {
            tid: pid,
            pid,
            uid: context.caller.uid,
            process: Some(owner),
            session,
            ..Party::default()
        }
    }

    /// Who calls, for rules that ask about descent.
    fn actor(&self, context: &Context) -> Actor {
        self.pin_holders();
        Actor {
            tid: context.caller.tid,
            uid: context.caller.uid,
            lineage: self.processes.lineage(context.caller.tid),
        }
    }

    /// The moment for renderings.
    fn now(&self, moment: Moment) -> Now {
        let wall_ns = self.wall.at(moment);
        Now { moment, wall_ns }
    }
}

impl Files for Service {
    fn call(&self, unique: Unique, caller: Caller, call: Call<'_>) -> Option<Answer> {
        if self.is_shut_out(&caller, &call) {
            return Some(Answer::Refused(Refusal::Denied));
        }
        if let Call::Forget { node, count } = call {
            self.state().nodes.forget(node, count);
            return None;
        }
        let takes = unit::takes(&call);
        self.answering(Role::Loop, unique, takes, || {
            self.attend_call(unique, caller, call, takes)
        })
    }

    fn all_came_again(&self) {
        contained("the end of a resend", || self.end_of_resend());
    }
}

impl Service {
    fn attend_call(&self, unique: Unique, caller: Caller, call: Call<'_>, takes: bool) -> Option<Answer> {
        if self.has_returning.load(Ordering::Relaxed) {
            match self.came_again(unique) {
                Again::Answered(answer) => return Some(answer),
                Again::Waits => return None,
                Again::New => {}
            }
        }
        // The time is taken within the turn, so that the engine sees it pass in one direction only.
        let context = Context {
            unique,
            caller,
            now: Clock::now(),
        };
        if takes && self.state().writer.is_behind() {
            let sentence = "the journal cannot be written (is the disk full?), so nothing is granted or changed";
            return self.answer_of(&context, Err(Refused::new(Refusal::Full, sentence)));
        }
        if let Some(late) = LateCall::of(&call) {
            let shows = self.strangers_in(&late);
            // Who holds what is about to be shown, and somebody is not identified: the inspector answers, if it can.
            if shows != Strangers::None && self.hand_over(&context, late, shows) {
                return None;
            }
        }
        let outcome = self.dispatch(&context, call);
        self.answer_of(&context, outcome)
    }

    /// Whether a caller may not come in at all. The kernel may let everyone through to us (see `cli::serve`), so this is
    /// the door. What gives something back always passes.
    fn is_shut_out(&self, caller: &Caller, call: &Call<'_>) -> bool {
        let gives_back = matches!(
            call,
            Call::Forget { .. }
                | Call::Flush { .. }
                | Call::Release { .. }
                | Call::ReleaseDir { .. }
                | Call::Interrupt { .. }
        );
        !self.others_allowed && !gives_back && caller.uid != self.owner.0 && caller.uid != 0
    }

    /// The answer that an outcome comes to; a refusal is kept with its sentence.
    fn answer_of(&self, context: &Context, outcome: Outcome) -> Option<Answer> {
        outcome.unwrap_or_else(|refused| {
            self.record(context, &refused);
            Some(Answer::Refused(refused.refusal))
        })
    }

    /// Keeps a refusal for `last-error`, and in the log when it is a mistake.
    fn record(&self, context: &Context, refused: &Refused) {
        if refused.sentence.is_empty() {
            return;
        }
        if refused.is_mistake() {
            tracing::info!(tid = context.caller.tid, refusal = ?refused.refusal, "{}", refused.sentence);
        }
        let parent = self.processes.parent_of_thread(context.caller.tid);
        self.state()
            .refusals
            .record([context.caller.tid, parent], refused.sentence.clone());
    }
}

/// Does one piece of work on a thread that must go on to the next; `None` when it panicked. The mutex is not poisoned,
/// and what was begun is released with the handle that it was begun for.
fn contained<T>(what: &str, work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    if done.is_err() {
        tracing::error!("{what} panicked");
    }
    done.ok()
}
