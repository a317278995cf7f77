//! flock(2), fcntl(2), close(2), and the signals that end a wait.

use super::api::{Answer, Conflict, LockStyle};
use super::handles::{HandleKind, Parked};
use super::inspect::Fresh;
use super::refusals::{Refused, about_lock};
use super::{Context, Outcome, Service};
use crate::adapters::processes;
use crate::engine::{Acquire, Claim, Command, Owner, Reply, Taking, Wait};
use crate::types::{HandleId, LockName, Mode, Priority, Range, Refusal, Unique};

impl Service {
    /// The lock behind a handle that flock(2) or fcntl(2) was called on.
    fn lock_behind(&self, handle: HandleId) -> Result<LockName, Refused> {
        let state = self.state();
        match state.handles.get(handle).map(|open| &open.kind) {
            Some(HandleKind::Lock(open)) => open.check_kept().map(|()| open.name.clone()),
            Some(_) => Err(Refused::new(
                Refusal::Malformed,
                "only files in locks/ and flock/ can be locked",
            )),
            None => Err(Refused::new(Refusal::BadHandle, "")),
        }
    }

    pub(super) fn set_lock(
        &self,
        context: &Context,
        handle: HandleId,
        style: LockStyle,
        mode: Option<Mode>,
        range: Range,
        wait: bool,
    ) -> Outcome {
        let lock = self.lock_behind(handle)?;
        let Some(mode) = mode else {
            return self.unlock(context, lock, handle, style, range);
        };
        self.bury(context, &lock);
        let taking = match style {
            LockStyle::Flock => Taking::Flock(handle),
            LockStyle::Posix(owner) => Taking::Posix { owner, handle },
        };
        let priority = if wait {
            Priority::from_nice(processes::nice_of(context.caller.tid))
        } else {
            Priority::MAX
        };
        let acquire = Acquire {
            id: context.unique,
            claims: vec![Claim {
                lock: lock.clone(),
                mode,
                range,
            }],
            taking,
            party: self.party(context),
            priority,
            wait: if wait { Wait::Forever } else { Wait::No },
            ticket: None,
            lineage: Vec::new(),
        };
        let mut state = self.state();
        let mut result = state.command(context.now, Command::Acquire(acquire.clone()));
        if result == Err(Refusal::WouldBlock) && state.engine.forbidding_scope(&lock).is_some() {
            // Perhaps only the line of a scope is in the way, and an ancestor of the caller holds a part of it.
            drop(state);
            let lineage = self.actor(context).lineage;
            state = self.state();
            result = state.command(context.now, Command::Acquire(Acquire { lineage, ..acquire }));
        }
        let outcome = match result {
            Ok(Reply::Waiting) => {
                state.parked.insert(
                    context.unique,
                    Parked::Lock {
                        handle,
                        tid: context.caller.tid,
                    },
                );
                self.inspect_wait(&mut state, context.unique);
                Ok(None)
            }
            Ok(_) => {
                state.unidentified.push(Fresh::Handle(handle));
                Ok(Some(Answer::Done))
            }
            Err(refusal) => Err(about_lock(&state.engine, &lock, refusal, context.now)),
        };
        self.finish(state, context.now);
        outcome
    }

    fn unlock(&self, context: &Context, lock: LockName, handle: HandleId, style: LockStyle, range: Range) -> Outcome {
        let command = match style {
            LockStyle::Flock => Command::Unflock { lock, handle },
            LockStyle::Posix(owner) => Command::Unlock {
                lock,
                owner,
                handle,
                range,
            },
        };
        self.let_go(context, command);
        Ok(Some(Answer::Done))
    }

    /// A command that gives something back; nobody may refuse that.
    fn let_go(&self, context: &Context, command: Command) {
        let mut state = self.state();
        if let Err(refusal) = state.command(context.now, command) {
            tracing::error!(?refusal, "the engine refused to take something back");
        }
        self.finish(state, context.now);
    }

    pub(super) fn get_lock(&self, handle: HandleId, owner: u64, mode: Mode, range: Range) -> Outcome {
        self.pin_holders();
        let state = self.state();
        let Some(HandleKind::Lock(open)) = state.handles.get(handle).map(|open| &open.kind) else {
            return Err(Refused::new(
                Refusal::Malformed,
                "only files in locks/ and flock/ can be locked",
            ));
        };
        let conflict = state
            .engine
            .range_conflict(open.name.as_str(), Owner::Posix { owner, handle }, mode, range);
        let conflict = conflict.map(|holder| Conflict {
            mode: holder.mode,
            range: holder.range,
            pid: holder.grant.party.pid,
        });
        Ok(Some(Answer::Conflict(conflict)))
    }

    pub(super) fn flush(&self, context: &Context, handle: HandleId, owner: u64) -> Outcome {
        let lock = match self.state().handles.get(handle).map(|open| &open.kind) {
            Some(HandleKind::Lock(open)) => open.name.clone(),
            _ => return Ok(Some(Answer::Done)),
        };
        self.let_go(context, Command::Flush { lock, owner });
        Ok(Some(Answer::Done))
    }

    /// The last close.
    pub(super) fn release(&self, context: &Context, handle: HandleId) -> Outcome {
        let mut state = self.state();
        state.close(context.now, handle);
        self.finish(state, context.now);
        Ok(Some(Answer::Done))
    }

    /// A signal for a call that waits.
    pub(super) fn interrupt(&self, context: &Context, target: Unique) -> Outcome {
        let mut state = self.state();
        state.end_wait(context.now, target);
        self.finish(state, context.now);
        Ok(None)
    }
}
