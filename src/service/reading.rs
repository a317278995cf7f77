//! read(2) and extended attributes.

use super::api::Answer;
use super::handles::HandleKind;
use super::lookup::stale;
use super::refusals::Refused;
use super::{Context, Outcome, Service};
use crate::types::{HandleId, NodeId, Refusal};
use crate::view::{help, lock_text};

impl Service {
    pub(super) fn read(&self, context: &Context, handle: HandleId, offset: u64, size: u32) -> Outcome {
        let mut state = self.state();
        let Some(open) = state.handles.get(handle) else {
            return Err(Refused::new(Refusal::BadHandle, ""));
        };
        let data = match &open.kind {
            HandleKind::Lock(open) => {
                open.check_kept()?;
                piece(&open.text, offset, size)
            }
            HandleKind::Text(_, text) | HandleKind::LockFigure(_, _, text) => piece(text, offset, size),
            HandleKind::Events(base) => self.recorder.read_events(open.node, *base, offset, size)?,
            HandleKind::Scratch { name, .. } => {
                let file = state.scratch.get(context.now.mono, name.as_str()).ok_or_else(stale)?;
                piece(&file.data, offset, size)
            }
            HandleKind::DirectoryFile(open) => {
                let (_, files) = state.engine.directory(open.lock.as_str()).ok_or_else(stale)?;
                piece(files.get(&open.file).ok_or_else(stale)?, offset, size)
            }
            &HandleKind::Control { read } => {
                let data = piece(help::CONTROL.as_bytes(), read as u64, size);
                if let Some(open) = state.handles.get_mut(handle) {
                    let read = read + data.len();
                    open.kind = HandleKind::Control { read };
                }
                data
            }
            HandleKind::Transaction(_) => return Self::read_events(&mut state, context, handle, size),
            HandleKind::Listing(_) => return Err(Refused::new(Refusal::IsDirectory, "")),
            HandleKind::Unkept(_) => return Err(stale()),
        };
        Ok(Some(Answer::Data(data)))
    }

    fn attributes(&self, context: &Context, node: NodeId) -> Result<Vec<(String, String)>, Refused> {
        let mut state = self.state();
        let Some(lock) = state.lock_of(node) else {
            return Ok(Vec::new());
        };
        Ok(lock_text::attributes(&state.engine, &lock, self.now(context.now)))
    }

    pub(super) fn get_xattr(&self, context: &Context, node: NodeId, name: &[u8], room: u32) -> Outcome {
        if !name.starts_with(lock_text::XATTR_PREFIX.as_bytes()) {
            return Err(Refused::new(Refusal::NoAttribute, ""));
        }
        let found = self
            .attributes(context, node)?
            .into_iter()
            .find(|(key, _)| key.as_bytes() == name);
        let (_, value) = found.ok_or_else(|| Refused::new(Refusal::NoAttribute, ""))?;
        Ok(Some(Answer::value(value.into_bytes(), room)))
    }

    pub(super) fn list_xattr(&self, context: &Context, node: NodeId, room: u32) -> Outcome {
        let mut names = Vec::new();
        for (key, _) in self.attributes(context, node)? {
            names.extend_from_slice(key.as_bytes());
            names.push(0);
        }
        Ok(Some(Answer::value(names, room)))
    }
}

/// What of a text a read at that offset gets.
fn piece(text: &[u8], offset: u64, size: u32) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    let end = start.saturating_add(size as usize).min(text.len());
    text[start..end].to_vec()
}
