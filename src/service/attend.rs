//! What happens on its own: time passes, processes end, the daemon is asked to go.

use super::record::Role;
use super::replay::held_by;
use super::{Service, contained};
use crate::adapters::{Clock, ExitKind};
use crate::engine::Command;
use crate::types::ProcessId;

impl Service {
    /// A deadline has come.
    pub fn attend_deadline(&self) {
        contained("a deadline", || self.unit(Role::Watcher, || self.pass_time()));
    }

    /// A pinned process has ended.
    pub fn attend_exit(&self, process: ProcessId) {
        contained("the end of a process", || {
            self.unit(Role::Watcher, || self.end_process(process))
        });
    }

    fn pass_time(&self) {
        let now = Clock::now();
        let mut state = self.state();
        // Time cannot be refused.
        let _ = state.command(now, Command::Advance);
        state.scratch.expire(now.mono);
        state.armed = (None, None);
        self.finish(state, now);
    }

    pub(super) fn end_process(&self, process: ProcessId) {
        let cleanly = self.exited_cleanly(process);
        let now = Clock::now();
        let mut state = self.state();
        let _ = state.command(now, Command::Exited { process, cleanly });
        state.scratch.maker_exited(process);
        self.finish(state, now);
        self.processes.forget(process);
    }

    /// Whether a process ended of its own will; what cannot be known counts as that.
    pub(super) fn exited_cleanly(&self, process: ProcessId) -> bool {
        self.processes.exit_kind(process) != ExitKind::Signalled
    }

    /// Closes the shop if nothing is held and nobody waits; else says who holds what.
    pub fn close_if_idle(&self) -> Result<(), Vec<String>> {
        self.unit(Role::Watcher, || self.try_close())
    }

    fn try_close(&self) -> Result<(), Vec<String>> {
        self.pin_holders();
        let now = Clock::now();
        let mut state = self.state();
        if state.engine.is_idle() {
            let _ = state.command(now, Command::Drain(true));
            self.finish(state, now);
            return Ok(());
        }
        Err(held_by(&state.engine))
    }

    /// What was held when the mount ended under us.
    pub fn held_locks(&self) -> Vec<String> {
        self.state().engine.locks_in_use().map(ToString::to_string).collect()
    }
}
