//! write(2): the text of a lock, scratch files, and requests.

use super::api::{Answer, WRITE_BYTES_MAX};
use super::handles::{DirectoryFile, HandleKind};
use super::inspect::Fresh;
use super::making::parse_text;
use super::refusals::{Refused, about_lock};
use super::state::State;
use super::{Context, Outcome, Service};
use crate::adapters::Pinned;
use crate::engine::{Command, FileChange, Target, TextRule};
use crate::types::{HandleId, LockName, ProcessId, Refusal, TEXT_BYTES_MAX, Text};

/// What a handle writes to.
enum Sink {
    Lock,
    Scratch(LockName, bool),
    DirectoryFile(DirectoryFile),
    Transaction,
    Control,
    Nothing,
}

impl Service {
    pub(super) fn write(&self, context: &Context, handle: HandleId, offset: u64, data: &[u8]) -> Outcome {
        let sink = match self.state().handles.get(handle).map(|open| &open.kind) {
            Some(HandleKind::Lock(_)) => Sink::Lock,
            Some(HandleKind::Scratch { name, append }) => Sink::Scratch(name.clone(), *append),
            Some(HandleKind::DirectoryFile(open)) => Sink::DirectoryFile((**open).clone()),
            Some(HandleKind::Transaction(_)) => Sink::Transaction,
            Some(HandleKind::Control { .. }) => Sink::Control,
            // What is only read.
            Some(_) | None => Sink::Nothing,
        };
        let is_request = matches!(sink, Sink::Transaction | Sink::Control);
        if is_request && data.len() >= WRITE_BYTES_MAX {
            return Err(Refused::new(Refusal::TooLong, "a request is shorter than 124 KiB"));
        }
        match sink {
            Sink::Lock => self.write_text(context, handle, offset, data)?,
            Sink::Scratch(name, append) => self.write_scratch(context, &name, append, offset, data)?,
            Sink::DirectoryFile(open) => self.write_file(context, open, offset, data)?,
            Sink::Transaction => return self.request(context, handle, data),
            Sink::Control => return self.control(context, data),
            Sink::Nothing => return Err(Refused::new(Refusal::BadHandle, "")),
        }
        Ok(Some(Answer::Written(u32::try_from(data.len()).unwrap_or(u32::MAX))))
    }

    fn write_text(&self, context: &Context, handle: HandleId, offset: u64, data: &[u8]) -> Result<(), Refused> {
        let result = self.try_write_text(context, handle, offset, data);
        if let Err(refused) = &result
            && refused.refusal != Refusal::Stale
        {
            let mut state = self.state();
            if let Some(HandleKind::Lock(open)) = state.handles.get_mut(handle).map(|open| &mut open.kind)
                && open.written.is_empty()
            {
                // Spoiling is never refused.
                let _ = state.command(context.now, Command::Spoil(handle));
            }
            self.finish(state, context.now);
        }
        result
    }

    fn try_write_text(&self, context: &Context, handle: HandleId, offset: u64, data: &[u8]) -> Result<(), Refused> {
        let state = self.state();
        let Some(HandleKind::Lock(open)) = state.handles.get(handle).map(|open| &open.kind) else {
            return Err(Refused::new(Refusal::BadHandle, ""));
        };
        let lock = open.name.clone();
        open.check_kept()?;
        let offset = if open.append {
            open.written.len()
        } else {
            usize::try_from(offset).unwrap_or(usize::MAX)
        };
        let mut written = if offset == 0 { Vec::new() } else { open.written.to_vec() };
        let rule = state.engine.text_rule(handle);
        drop(state);
        if written.len() < offset && rule == TextRule::Declaration {
            return Err(Refused::new(
                Refusal::Malformed,
                format!("{lock}: a text is written from its start, without gaps"),
            ));
        }
        crate::engine::write_at(&mut written, offset, data, TEXT_BYTES_MAX).map_err(|refusal| {
            Refused::new(
                refusal,
                format!("{lock}: a lock's text is at most {TEXT_BYTES_MAX} bytes"),
            )
        })?;
        let command = match rule {
            TextRule::Nothing => {
                return Err(Refused::new(
                    Refusal::Malformed,
                    format!("{lock}: this handle holds no lock, so a text has no meaning"),
                ));
            }
            TextRule::Note => Command::Note {
                target: Target::Handle(handle),
                note: written.clone(),
            },
            TextRule::Declaration => {
                let text = parse_text(&lock, &written)?;
                let owner = self.owner_of(context, &lock, &text)?;
                self.declare(context, Target::Handle(handle), &lock, text, owner)?;
                keep_written(&mut self.state(), handle, written);
                return Ok(());
            }
        };
        self.carry_out_on(context, &lock, command)?;
        keep_written(&mut self.state(), handle, written);
        Ok(())
    }

    fn write_scratch(
        &self,
        context: &Context,
        name: &LockName,
        append: bool,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Refused> {
        let mut state = self.state();
        let end = state
            .scratch
            .get(context.now.mono, name.as_str())
            .map_or(0, |file| file.data.len());
        let offset = if append {
            end
        } else {
            usize::try_from(offset).unwrap_or(usize::MAX)
        };
        let written = state.scratch.write(name.as_str(), offset, data);
        written.map_err(|refusal| Refused::new(refusal, format!("{name}: a scratch file is at most 4096 bytes")))
    }

    /// A file in a lock made by mkdir; the one called `pid` counts as the lock's text.
    fn write_file(&self, context: &Context, open: DirectoryFile, offset: u64, data: &[u8]) -> Result<(), Refused> {
        let DirectoryFile { lock, file, append } = open;
        let current = {
            let state = self.state();
            state
                .engine
                .directory(lock.as_str())
                .and_then(|(_, files)| files.get(&file).cloned())
                .unwrap_or_default()
        };
        let offset = if append {
            current.len()
        } else {
            usize::try_from(offset).unwrap_or(usize::MAX)
        };
        let declaration = if file.as_str() == "pid" {
            let mut text = current;
            crate::engine::write_at(&mut text, offset, data, TEXT_BYTES_MAX).map_err(|refusal| {
                Refused::new(
                    refusal,
                    format!("{lock}: a lock's text is at most {TEXT_BYTES_MAX} bytes"),
                )
            })?;
            let text = parse_text(&lock, &text)?;
            let owner = self.owner_of(context, &lock, &text)?;
            Some((text, owner))
        } else {
            None
        };
        let change = FileChange::Write {
            offset,
            data: data.to_vec(),
        };
        self.change_file(context, &lock, file, change)?;
        match declaration {
            Some((text, owner)) => self.declare(context, Target::Name(lock.clone()), &lock, text, owner),
            None => Ok(()),
        }
    }

    /// Declares the owner that a text names, or without one a lease.
    fn declare(
        &self,
        context: &Context,
        target: Target,
        lock: &LockName,
        text: Text,
        owner: Option<Pinned>,
    ) -> Result<(), Refused> {
        let keepers = if owner.is_none() {
            self.keepers(context)
        } else {
            Vec::new()
        };
        let party = owner.map(|owner| self.owner_party(context, owner.id, owner.pid, Some(&text)));
        let mut state = self.state();
        let owner = owner.map(|owner| owner.id);
        let named: Vec<ProcessId> = owner.into_iter().chain(keepers.iter().copied()).collect();
        let mut result = state.command(
            context.now,
            Command::Declare {
                target: target.clone(),
                text,
                owner,
                keepers,
            },
        );
        if let (Ok(_), Some(party), Some(id)) = (&result, party, state.engine.declared_grant(&target)) {
            result = state.command(context.now, Command::OwnedBy(id, party));
        }
        if result.is_ok() {
            match target {
                Target::Handle(handle) => state.outlives(handle, lock),
                Target::Name(name) => state.unidentified.push(Fresh::Lock(name)),
            }
        }
        self.report_ended(&mut state, context.now, named);
        let result = result
            .map(|_| ())
            .map_err(|refusal| about_lock(&state.engine, lock, refusal, context.now));
        self.finish(state, context.now);
        result
    }
}

/// Remembers what was written through a handle so far.
fn keep_written(state: &mut State, handle: HandleId, written: Vec<u8>) {
    if let Some(HandleKind::Lock(open)) = state.handles.get_mut(handle).map(|open| &mut open.kind) {
        open.written = written.into();
    }
}
