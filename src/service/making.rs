//! mkdir, symlink, link and rename: locks made as directory entries.

use super::api::Answer;
use super::lookup::{bad_name, stale};
use super::refusals::Refused;
use super::{Context, Outcome, Service};
use crate::adapters::{OwnerError, Pinned};
use crate::engine::{FileChange, Make, Shape, Way};
use crate::types::{LockName, NodeId, Refusal, Text, TextError};
use crate::view::nodes::{Fixed, Node};

/// Where the text of a new lock comes from.
struct Source {
    name: LockName,
    data: Vec<u8>,
    ino: u64,
    is_scratch: bool,
}

impl Service {
    /// The name of a lock that a directory entry is to make.
    fn lock_to_make(&self, parent: NodeId, name: &[u8]) -> Result<LockName, Refused> {
        match self.state().nodes.get(parent).ok_or_else(stale)? {
            Node::Fixed(Fixed::Locks) => LockName::parse_lock(name).map_err(|error| bad_name(name, error)),
            Node::Fixed(Fixed::Flock) => Err(Refused::new(
                Refusal::Taken,
                "in flock/ every name exists; make locks in locks/",
            )),
            Node::LockDirectory(_) => Err(Refused::new(
                Refusal::NotYours,
                "a lock made by mkdir holds small files only",
            )),
            _ => Err(Refused::new(Refusal::Denied, "locks are made in locks/, not here")),
        }
    }

    pub(super) fn mkdir(&self, context: &Context, parent: NodeId, name: &[u8]) -> Outcome {
        let lock = self.lock_to_make(parent, name)?;
        let make = self.make(context, Shape::Directory);
        let mut state = self.take_now(context, &lock, make)?;
        let entry = self.entry(&mut state, context, Node::LockDirectory(lock));
        self.finish(state, context.now);
        Ok(Some(Answer::Entry(entry)))
    }

    pub(super) fn symlink(&self, context: &Context, parent: NodeId, name: &[u8], target: &[u8]) -> Outcome {
        let lock = self.lock_to_make(parent, name)?;
        let make = self.make(context, Shape::Link);
        let make = self.with_text(context, &lock, make, target)?;
        let mut state = self.take_now(context, &lock, make)?;
        let mut entry = self.entry(&mut state, context, Node::LockLink(lock));
        entry.attr.size = target.len() as u64;
        self.finish(state, context.now);
        Ok(Some(Answer::Entry(entry)))
    }

    /// Adds a text to a lock that is to be made, and the owner that it names.
    fn with_text(&self, context: &Context, lock: &LockName, make: Make, text: &[u8]) -> Result<Make, Refused> {
        if text.is_empty() {
            return Ok(make);
        }
        let text = parse_text(lock, text)?;
        let owner = self.owner_of(context, lock, &text)?.map(|pinned| pinned.id);
        Ok(Make {
            text: Some(text),
            owner,
            ..make
        })
    }

    /// The process that a text declares as owner, pinned; none for PID 0.
    pub(super) fn owner_of(&self, context: &Context, lock: &LockName, text: &Text) -> Result<Option<Pinned>, Refused> {
        if text.declared.pid == 0 {
            return Ok(None);
        }
        let pid = text.declared.pid;
        match self.processes.check_owner(context.caller.tid, context.caller.uid, pid) {
            Ok(pinned) => Ok(Some(pinned)),
            Err(OwnerError::NoSuchProcess) => Err(Refused::new(
                Refusal::NoSuchProcess,
                format!("{lock}: there is no live process {pid} that could own it"),
            )),
            Err(OwnerError::NotYours) => Err(Refused::new(
                Refusal::NotYours,
                format!(
                    "{lock}: process {pid} is not yours (another user's, PID 1, or the kernel's), so it cannot own it"
                ),
            )),
            Err(OwnerError::Full) => Err(Refused::new(
                Refusal::TooManyHandles,
                "the daemon watches too many processes",
            )),
        }
    }

    pub(super) fn link(&self, context: &Context, node: NodeId, parent: NodeId, name: &[u8]) -> Outcome {
        let lock = self.lock_to_make(parent, name)?;
        let node = self.state().nodes.get(node).ok_or_else(stale)?;
        let source = self.source(context, &node)?;
        self.make_from(context, &lock, &source)?;
        let mut state = self.state();
        let entry = self.entry(&mut state, context, Node::Lock(lock));
        Ok(Some(Answer::Entry(entry)))
    }

    fn make_from(&self, context: &Context, lock: &LockName, source: &Source) -> Result<(), Refused> {
        let make = Make {
            ino: Some(source.ino),
            ..self.make(context, Shape::File)
        };
        let make = self.with_text(context, lock, make, &source.data)?;
        let mut state = self.take_now(context, lock, make)?;
        if source.is_scratch {
            state.scratch.set_linked(source.name.as_str());
        }
        self.finish(state, context.now);
        Ok(())
    }

    /// A scratch file, or a lock that the caller's own process made with O_EXCL.
    fn source(&self, context: &Context, node: &Node) -> Result<Source, Refused> {
        let process = self.processes.pin(context.caller.tid).map(|pinned| pinned.id);
        let state = self.state();
        match node {
            Node::Scratch(name) => {
                let file = state.scratch.get(context.now.mono, name.as_str()).ok_or_else(stale)?;
                if context.caller.uid != 0 && context.caller.uid != file.uid {
                    return Err(Refused::new(
                        Refusal::NotYours,
                        format!("{name}: another user's scratch file"),
                    ));
                }
                Ok(Source {
                    name: name.clone(),
                    data: file.data.clone(),
                    ino: file.ino,
                    is_scratch: true,
                })
            }
            Node::Lock(lock) => {
                let mut holders = state.engine.holders(lock.as_str());
                let own = holders
                    .find(|holder| holder.grant.way == Way::Make && process.is_some() && holder.grant.maker == process);
                let grant = own.map(|holder| holder.grant).ok_or_else(|| {
                    Refused::new(
                        Refusal::NotYours,
                        format!("{lock}: only the process that made a lock with O_EXCL may link or rename it"),
                    )
                })?;
                let text = grant.extra().map(|extra| &extra.text);
                let declared = text
                    .and_then(|text| text.declared.as_ref())
                    .map(|declared| format!("{declared}\n"));
                let mut data = declared.unwrap_or_default().into_bytes();
                data.extend(text.map(|text| text.note.as_slice()).unwrap_or_default());
                Ok(Source {
                    name: lock.clone(),
                    data,
                    ino: node.ino(),
                    is_scratch: false,
                })
            }
            _ => Err(Refused::new(Refusal::NotYours, "only a scratch file can become a lock")),
        }
    }

    pub(super) fn rename(
        &self,
        context: &Context,
        parent: NodeId,
        name: &[u8],
        new_parent: NodeId,
        new_name: &[u8],
    ) -> Outcome {
        let (from, to) = {
            let mut state = self.state();
            (
                state.nodes.get(parent).ok_or_else(stale)?,
                state.nodes.get(new_parent).ok_or_else(stale)?,
            )
        };
        let source = LockName::parse(name).map_err(|error| bad_name(name, error))?;
        let target = LockName::parse(new_name).map_err(|error| bad_name(new_name, error))?;
        match (from, to) {
            (Node::LockDirectory(a), Node::LockDirectory(b)) if a == b => self
                .change_file(context, &a, source, FileChange::Rename(target))
                .map(|()| Some(Answer::Done)),
            (Node::Fixed(Fixed::Locks), Node::Fixed(Fixed::Locks)) => self.rename_lock(context, source, target),
            _ => Err(Refused::new(
                Refusal::NotYours,
                "a name moves only within its own directory",
            )),
        }
    }

    fn rename_lock(&self, context: &Context, source: LockName, target: LockName) -> Outcome {
        if source.is_scratch() && target.is_scratch() {
            let renamed = self.state().scratch.rename(source.as_str(), target);
            return renamed
                .map(|()| Some(Answer::Done))
                .map_err(|refusal| Refused::new(refusal, "a scratch file of that name exists"));
        }
        if target.is_scratch() {
            return Err(Refused::new(
                Refusal::NotYours,
                format!("{source}: a lock cannot become a scratch file"),
            ));
        }
        let node = if source.is_scratch() {
            Node::Scratch(source.clone())
        } else {
            Node::Lock(source.clone())
        };
        let from = self.source(context, &node)?;
        if !from.is_scratch {
            self.check_removable(context, &source)?;
        }
        self.make_from(context, &target, &from)?;
        if from.is_scratch {
            // It was there a moment ago; if its minute ended since, the lock has its text all the same.
            let _ = self.state().scratch.remove(source.as_str(), context.caller.uid);
        } else {
            self.remove_lock(context, &source)?;
        }
        Ok(Some(Answer::Done))
    }
}

/// Parses a text, or says what is wrong with it.
pub(super) fn parse_text(lock: &LockName, text: &[u8]) -> Result<Text, Refused> {
    Text::parse(text).map_err(|error| {
        let refusal = match error {
            TextError::Malformed => Refusal::Malformed,
            TextError::TooLong => Refusal::TooLong,
        };
        Refused::new(refusal, format!("{lock}: {error}"))
    })
}
