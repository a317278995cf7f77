//! Scratch files: small files in memory that dotlockfile(1) and lockfile(1) write before they link(2).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{LockName, ProcessId, Refusal, Tick};

/// The largest scratch file, in bytes.
pub const SCRATCH_BYTES_MAX: usize = 4096;
/// How many there are at most.
const SCRATCH_FILES_MAX: usize = 256;
/// How long one lives at most.
const SCRATCH_LIFE: Duration = Duration::from_secs(60);

/// One scratch file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScratchFile {
    /// What was written.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// Who made it, if it can be seen.
    pub maker: Option<ProcessId>,
    /// The user that made it.
    pub uid: u32,
    /// A number that the driver shows as st_ino.
    pub ino: u64,
    /// Whether a lock was linked from it, so that st_nlink is 2.
    pub linked: bool,
    expires: Tick,
}

/// All scratch files.
#[derive(Debug, Default)]
pub struct Scratch {
    files: BTreeMap<LockName, ScratchFile>,
    /// What was made, changed or removed since the changes were taken last; may name one twice.
    changed: Vec<LockName>,
}

impl Scratch {
    /// Makes an empty file; the name must be new.
    pub fn create(
        &mut self,
        now: Tick,
        name: LockName,
        maker: Option<ProcessId>,
        uid: u32,
        ino: u64,
    ) -> Result<(), Refusal> {
        self.expire(now);
        if self.files.contains_key(&name) {
            return Err(Refusal::Taken);
        }
        if self.files.len() >= SCRATCH_FILES_MAX {
            return Err(Refusal::Full);
        }
        let expires = now.after(SCRATCH_LIFE);
        self.changed.push(name.clone());
        self.files.insert(
            name,
            ScratchFile {
                data: Vec::new(),
                maker,
                uid,
                ino,
                linked: false,
                expires,
            },
        );
        Ok(())
    }

    /// The file of that name, unless its time is over.
    pub fn get(&self, now: Tick, name: &str) -> Option<&ScratchFile> {
        self.files.get(name).filter(|file| now < file.expires)
    }

    /// Writes at an offset.
    pub fn write(&mut self, name: &str, offset: usize, data: &[u8]) -> Result<(), Refusal> {
        let file = self.file_mut(name).ok_or(Refusal::Stale)?;
        write_at(&mut file.data, offset, data, SCRATCH_BYTES_MAX)
    }

    /// Empties a file.
    pub fn truncate(&mut self, name: &str) {
        if let Some(file) = self.file_mut(name) {
            file.data.clear();
        }
    }

    /// Notes that a lock was linked from a file.
    pub fn set_linked(&mut self, name: &str) {
        if let Some(file) = self.file_mut(name) {
            file.linked = true;
        }
    }

    /// Removes a file of that user.
    pub fn remove(&mut self, name: &str, uid: u32) -> Result<ScratchFile, Refusal> {
        let file = self.files.get(name).ok_or(Refusal::Absent)?;
        if uid != 0 && uid != file.uid {
            return Err(Refusal::NotYours);
        }
        let (name, file) = self.files.remove_entry(name).ok_or(Refusal::Absent)?;
        self.changed.push(name);
        Ok(file)
    }

    /// Renames a file; the new name must be free.
    pub fn rename(&mut self, name: &str, new: LockName) -> Result<(), Refusal> {
        if self.files.contains_key(&new) {
            return Err(Refusal::Taken);
        }
        let (old, file) = self.files.remove_entry(name).ok_or(Refusal::Absent)?;
        self.changed.extend([old, new.clone()]);
        self.files.insert(new, file);
        Ok(())
    }

    /// Removes the files of a process that is gone.
    pub fn maker_exited(&mut self, process: ProcessId) {
        self.drop_where(|file| file.maker == Some(process));
    }

    /// Removes the files whose time is over.
    pub fn expire(&mut self, now: Tick) {
        self.drop_where(|file| file.expires <= now);
    }

    fn file_mut(&mut self, name: &str) -> Option<&mut ScratchFile> {
        let (key, _) = self.files.get_key_value(name)?;
        self.changed.push(key.clone());
        self.files.get_mut(name)
    }

    fn drop_where(&mut self, is_over: impl Fn(&ScratchFile) -> bool) {
        let changed = &mut self.changed;
        self.files.retain(|name, file| {
            let is_over = is_over(file);
            if is_over {
                changed.push(name.clone());
            }
            !is_over
        });
    }

    /// Whether anything was made, changed or removed since the changes were taken last.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Tells each change once, with what the file is now, and begins anew.
    pub fn take_changes(&mut self, mut tell: impl FnMut(LockName, Option<&ScratchFile>)) {
        self.changed.sort_unstable();
        self.changed.dedup();
        for name in std::mem::take(&mut self.changed) {
            let file = self.files.get(name.as_str());
            tell(name, file);
        }
    }

    /// Puts back what was kept elsewhere, as it was.
    pub fn restore(files: impl IntoIterator<Item = (LockName, ScratchFile)>) -> Self {
        Self {
            files: files.into_iter().collect(),
            changed: Vec::new(),
        }
    }

    /// All files, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&LockName, &ScratchFile)> {
        self.files.iter()
    }
}

/// Writes into a small file in memory; a gap is filled with zeros.
pub fn write_at(file: &mut Vec<u8>, offset: usize, data: &[u8], max: usize) -> Result<(), Refusal> {
    let end = offset
        .checked_add(data.len())
        .filter(|&end| end <= max)
        .ok_or(Refusal::TooLong)?;
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(data);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> LockName {
        LockName::parse(text.as_bytes()).expect("test name")
    }

    #[test]
    fn a_scratch_file_is_gone_with_its_maker_or_after_a_minute() {
        let mut scratch = Scratch::default();
        scratch
            .create(Tick(0), name(".a"), Some(ProcessId(1)), 0, 7)
            .expect("room");
        scratch.create(Tick(0), name(".b"), None, 0, 8).expect("room");
        scratch.maker_exited(ProcessId(1));
        assert!(scratch.get(Tick(0), ".a").is_none());
        assert!(scratch.get(Tick(59_999_999_999), ".b").is_some());
        assert!(scratch.get(Tick(60_000_000_000), ".b").is_none());
    }

    #[test]
    fn the_table_and_each_file_are_bounded() {
        let mut scratch = Scratch::default();
        for index in 0..SCRATCH_FILES_MAX {
            scratch
                .create(Tick(0), name(&format!(".{index}")), None, 0, 0)
                .expect("room");
        }
        assert_eq!(scratch.create(Tick(0), name(".more"), None, 0, 0), Err(Refusal::Full));
        assert_eq!(scratch.create(Tick(0), name(".0"), None, 0, 0), Err(Refusal::Taken));
        assert_eq!(scratch.write(".0", 4090, b"1234567"), Err(Refusal::TooLong));
        assert_eq!(scratch.write(".0", 2, b"x"), Ok(()));
        assert_eq!(
            scratch.get(Tick(0), ".0").map(|file| file.data.clone()),
            Some(b"\0\0x".to_vec())
        );
    }
}
