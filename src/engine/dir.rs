//! The small files in a lock that was made by mkdir(2).

use serde::{Deserialize, Serialize};

use super::command::{Actor, Reply};
use super::scratch::write_at;
use super::{Engine, Shape};
use crate::types::{GrantId, LockName, Refusal, TEXT_BYTES_MAX};

/// What happens to a file in a directory lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileChange {
    /// An empty file is made; it must not exist.
    Create,
    /// Bytes are written at an offset.
    Write {
        /// Where.
        offset: usize,
        /// What.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// The file is emptied.
    Truncate,
    /// The file is removed.
    Remove,
    /// The file gets another name in the same directory, replacing what is there.
    Rename(LockName),
}

impl Engine {
    pub(super) fn change_file(
        &mut self,
        lock: &LockName,
        file: &LockName,
        change: FileChange,
        actor: &Actor,
    ) -> Result<Reply, Refusal> {
        self.movable(lock, actor)?;
        let id = self.directory_grant(lock).ok_or(Refusal::Absent)?;
        let files_max = self.bounds.dir_files;
        let files = &mut self
            .grants
            .get_mut(&id)
            .expect("directories have grants")
            .extra_mut()
            .files;
        match change {
            FileChange::Create if files.contains_key(file) => return Err(Refusal::Taken),
            FileChange::Create if files.len() >= files_max => return Err(Refusal::Full),
            FileChange::Create => {
                files.insert(file.clone(), Vec::new());
            }
            FileChange::Write { offset, data } => {
                let contents = files.get_mut(file).ok_or(Refusal::Stale)?;
                write_at(contents, offset, &data, TEXT_BYTES_MAX)?;
            }
            FileChange::Truncate => files.get_mut(file).ok_or(Refusal::Stale)?.clear(),
            FileChange::Remove => {
                files.remove(file).ok_or(Refusal::Absent)?;
            }
            FileChange::Rename(new) => {
                let contents = files.remove(file).ok_or(Refusal::Absent)?;
                files.insert(new, contents);
            }
        }
        Ok(Reply::Done)
    }

    fn directory_grant(&self, lock: &LockName) -> Option<GrantId> {
        self.holders(lock.as_str())
            .find(|holder| holder.grant.shape == Shape::Directory)
            .map(|holder| holder.grant.id())
    }
}
