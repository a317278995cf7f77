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

use std::sync::atomic::Ordering;

use super::api::Answer;
use super::inspect::{Fresh, is_stranger};
use super::record::{Entry, ReplayError, Role, put};
use super::replay::Past;
use super::{Outside, Service};
use crate::adapters::Clock;
use crate::engine::Command;
use crate::ports::{Log, Replay};
use crate::types::{ProcessId, Unique};

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
        let mut past = Past::read(replay)?;
        past.engine.renew_tokens(outside.reserved.clone());
        outside.processes.restore(&past.processes_in_use(), past.next_process);
        Ok(Self::begin(outside, past.into_state(log)))
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
                put(&mut state.writer.record, &Entry::Taken(unique));
                if let (Answer::Opened(opened), true) = (due.answer, due.is_held) {
                    state.close(now, opened.handle);
                }
            }
            self.finish(state, now);
        });
    }
}
