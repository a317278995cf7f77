//! rm, rmdir, touch: what ends or renews a lock by name.

use super::api::{Answer, Change, Stamp};
use super::lookup::{bad_name, stale};
use super::refusals::{Refused, about_lock};
use super::{Context, Outcome, Service};
use crate::adapters::Clock;
use crate::engine::{Command, FileChange, Hold, Way};
use crate::types::{HandleId, LockName, NodeId, Refusal};
use crate::view::nodes::{Fixed, Node};

impl Service {
    pub(super) fn unlink(&self, context: &Context, parent: NodeId, name: &[u8]) -> Outcome {
        let directory = self.state().nodes.get(parent).ok_or_else(stale)?;
        let name = LockName::parse(name).map_err(|error| bad_name(name, error))?;
        match directory {
            Node::Fixed(Fixed::Locks) if name.is_scratch() => {
                let removed = self.state().scratch.remove(name.as_str(), context.caller.uid);
                removed.map_err(|refusal| Refused::new(refusal, format!("{name}: no scratch file of yours")))?;
            }
            Node::Fixed(Fixed::Locks) => self.remove_lock(context, &name)?,
            Node::Fixed(Fixed::Flock) => match self.remove_lock(context, &name) {
                // There a free name exists, so its removal is no error and changes nothing.
                Err(refused) if refused.refusal == Refusal::Absent => {}
                other => other?,
            },
            Node::LockDirectory(lock) => self.change_file(context, &lock, name, FileChange::Remove)?,
            _ => return Err(Refused::new(Refusal::NotYours, "the fixed files stay")),
        }
        Ok(Some(Answer::Done))
    }

    pub(super) fn remove_lock(&self, context: &Context, lock: &LockName) -> Result<(), Refused> {
        self.bury(context, lock);
        let actor = self.actor(context);
        let lock_name = lock.clone();
        self.carry_out_on(context, lock, Command::Remove { lock: lock_name, actor })
    }

    /// Whether the caller may remove a lock; asked before what only makes sense with it.
    pub(super) fn check_removable(&self, context: &Context, lock: &LockName) -> Result<(), Refused> {
        let actor = self.actor(context);
        let state = self.state();
        let may = state.engine.may_remove(lock, &actor);
        may.map_err(|refusal| about_lock(&state.engine, lock, refusal, context.now))
    }

    pub(super) fn rmdir(&self, context: &Context, parent: NodeId, name: &[u8]) -> Outcome {
        let directory = self.state().nodes.get(parent).ok_or_else(stale)?;
        if directory != Node::Fixed(Fixed::Locks) {
            return Err(Refused::new(Refusal::NotYours, "the fixed directories stay"));
        }
        let lock = LockName::parse(name).map_err(|error| bad_name(name, error))?;
        let has_files = self
            .state()
            .engine
            .directory(lock.as_str())
            .is_some_and(|(_, files)| !files.is_empty());
        if has_files {
            return Err(Refused::new(
                Refusal::NotEmpty,
                format!("{lock}: it has files; rm -r removes them and releases the lock"),
            ));
        }
        self.remove_lock(context, &lock)?;
        Ok(Some(Answer::Done))
    }

    pub(super) fn set_attr(&self, context: &Context, id: NodeId, change: Change) -> Outcome {
        let node = self.state().nodes.get(id).ok_or_else(stale)?;
        let changes_owner = change
            .uid
            .is_some_and(|uid| uid != context.caller.uid && context.caller.uid != 0)
            || change
                .gid
                .is_some_and(|gid| gid != context.caller.gid && context.caller.uid != 0);
        if changes_owner {
            return Err(Refused::new(Refusal::NotYours, "locks belong to who takes them"));
        }
        match &node {
            Node::Lock(lock) | Node::Flock(lock) | Node::LockDirectory(lock)
                if change.mtime.or(change.atime).is_some() =>
            {
                self.touch(context, lock, change.mtime.map(seconds))?;
            }
            Node::Scratch(name) if change.size == Some(0) => self.state().scratch.truncate(name.as_str()),
            Node::LockDirectoryFile(lock, file) if change.size == Some(0) => {
                self.change_file(context, lock, file.clone(), FileChange::Truncate)?;
            }
            _ => {}
        }
        let mut state = self.state();
        Ok(Some(Answer::Attr(self.attr(&mut state, context, &node))))
    }

    /// utimensat(2). By one who holds the lock through a descriptor of its own it makes a lease, for that is what
    /// touch(1) sends (the kernel does not say whether it came by descriptor or by name); by others it renews.
    fn touch(&self, context: &Context, lock: &LockName, mtime: Option<(i64, u32)>) -> Result<(), Refused> {
        self.bury(context, lock);
        let actor = self.actor(context);
        let own = self.opened_by(context, lock);
        let keepers = if own.is_some() {
            self.keepers(context)
        } else {
            Vec::new()
        };
        let named = keepers.clone();
        let command = match own {
            Some(handle) => Command::Touch { handle, keepers, mtime },
            // Nobody holds it: the caller has an idle handle, or races with the holder's end. Nothing to renew.
            None if self.state().engine.holders(lock.as_str()).next().is_none() => return Ok(()),
            None => Command::Renew {
                lock: lock.clone(),
                actor,
                mtime,
            },
        };
        self.carry_out_on(context, lock, command)?;
        let mut state = self.state();
        if let Some(handle) = own {
            state.outlives(handle, lock);
        }
        self.report_ended(&mut state, context.now, named);
        self.finish(state, context.now);
        Ok(())
    }

    /// The handle through which the caller itself took a lock by open.
    fn opened_by(&self, context: &Context, lock: &LockName) -> Option<HandleId> {
        let state = self.state();
        let own = state
            .engine
            .holders(lock.as_str())
            .map(|holder| holder.grant)
            .find(|grant| {
                grant.way == Way::Open && grant.hold == Hold::Descriptor && grant.party.tid == context.caller.tid
            });
        own.filter(|_| context.caller.tid != 0)?.owner.handle()
    }
}

fn seconds(stamp: Stamp) -> (i64, u32) {
    match stamp {
        Stamp::At(seconds, nanoseconds) => (seconds, nanoseconds),
        Stamp::Now => {
            let wall = Clock::wall();
            (
                wall.as_second(),
                u32::try_from(wall.subsec_nanosecond()).unwrap_or_default(),
            )
        }
    }
}
