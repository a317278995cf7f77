//! The crash journal on disk: what the daemon decided, written before anybody was told.
//!
//! It is the file `journal` in the state directory, private to the owner. An append is one write(2) and no fsync: the
//! kernel keeps what was written when the program dies, and a power cut ends every holder too. Difficulties, and what
//! answers them:
//!
//! 1. A crash in an append leaves half a frame at the end: it was never answered, and is cut off when the file is
//!    opened.
//! 2. A damaged byte anywhere else would mean to forget locks that are held. Nothing is guessed: the file is set aside
//!    under another name and the caller is told ([`JournalError::Corrupt`]). The checksums tell the two apart (`format`).
//! 3. A crash in a compaction: the new file is written beside the old one and takes its name when it is whole.
//! 4. A full disk: what was half written is cut off before anything follows it.
//! 5. A file from before the machine started is read, but takes no records: they would count as old next time.
//!
//! Nothing here knows what the records mean. One program at a time has the journal open; the caller sees to that.

mod format;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use self::format::FILE_BYTES_MAX;
pub(super) use self::format::{BootId, Extent, read};
pub use self::format::{FRAME_BYTES_MAX, Fault, JOURNAL_BYTES_MAX, SNAPSHOT_BYTES_MAX, VERSION};
use super::clock::Clock;
use super::faults;
use crate::ports::Log;
pub use crate::ports::Replay;

/// The file's name.
const JOURNAL: &str = "journal";
/// The next file, until it is whole.
const JOURNAL_NEW: &str = "journal.new";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A journal open for appending.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: File,
    boot: BootId,
    extent: Extent,
    /// Bytes that do not count may lie after the end, and must go before others are written there.
    has_rest: bool,
    buffer: Vec<u8>,
}

/// Why a journal cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A newer program wrote it; it was left as it is.
    #[error(
        "{} has version {found}, and this git-lockfs knows versions up to {known}: use the newer version that wrote it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version that can be read.
        known: u16,
    },
    /// It was damaged by something other than a crash. It does not exist under its name any more.
    #[error("{} was damaged at byte {offset} and is kept as {}", path.display(), set_aside.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// Where the file is now.
        set_aside: PathBuf,
        /// What precedes the damage: good to tell people what was known, not to go on from.
        legible: Option<Box<Replay>>,
    },
    /// It was damaged by something other than a crash, and was left as it is.
    #[error("{} is damaged at byte {offset}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
    },
    /// A file could not be read or written.
    #[error("{} cannot be read or written", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Journal {
    /// Starts a journal, in place of any that is there.
    pub fn create(directory: &Path, snapshot: &[u8]) -> Result<Self, JournalError> {
        let boot = this_boot()?;
        let path = directory.join(JOURNAL);
        let begun = Extent::begin(1, boot, snapshot).map_err(io::Error::from);
        let (extent, file) = begun
            .and_then(|(extent, bytes)| Ok((extent, replace(directory, &bytes)?)))
            .map_err(|source| JournalError::File { path, source })?;
        Ok(Self {
            directory: directory.to_owned(),
            file,
            boot,
            extent,
            has_rest: false,
            buffer: Vec::new(),
        })
    }

    /// Opens the journal that is there, to go on after its last whole record, with what it says. `None`: there is none.
    ///
    /// One from before the machine started must be compacted before it takes records.
    pub fn open(directory: &Path) -> Result<Option<(Self, Replay)>, JournalError> {
        Self::open_on(directory, this_boot()?)
    }

    /// What the journal that is there says, for a program that might go on from it later. Changes nothing, and may be
    /// asked while another program writes it. `None`: there is none.
    pub fn examine(directory: &Path) -> Result<Option<Replay>, JournalError> {
        let path = directory.join(JOURNAL);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(JournalError::File { path, source }),
        };
        match read(&bytes, this_boot()?) {
            Err(Fault::Newer { found }) => Err(JournalError::Newer {
                path,
                found,
                known: VERSION,
            }),
            Err(Fault::Damaged { offset, .. }) => Err(JournalError::Damaged { path, offset }),
            Ok((_, replay)) => Ok(Some(replay)),
        }
    }

    /// Gives the journal that is there another name, under which it is kept for people to look at.
    pub fn set_aside(directory: &Path) -> io::Result<PathBuf> {
        set_aside(&directory.join(JOURNAL))
    }

    fn open_on(directory: &Path, boot: BootId) -> Result<Option<(Self, Replay)>, JournalError> {
        let path = directory.join(JOURNAL);
        let (file, read) = match open_and_read(&path, boot) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(JournalError::File { path, source }),
        };
        let (extent, replay) = match read {
            Ok(read) => read,
            Err(Fault::Newer { found }) => {
                let known = VERSION;
                return Err(JournalError::Newer { path, found, known });
            }
            Err(Fault::Damaged { offset, legible }) => {
                let set_aside = match set_aside(&path) {
                    Ok(set_aside) => set_aside,
                    Err(source) => return Err(JournalError::File { path, source }),
                };
                return Err(JournalError::Corrupt {
                    path,
                    offset,
                    set_aside,
                    legible,
                });
            }
        };
        let mut journal = Self {
            directory: directory.to_owned(),
            file,
            boot,
            extent,
            has_rest: true,
            buffer: Vec::new(),
        };
        journal
            .cut_rest()
            .map_err(|source| JournalError::File { path, source })?;
        Ok(Some((journal, replay)))
    }

    /// Cuts off what a failed write left behind.
    fn cut_rest(&mut self) -> io::Result<()> {
        if self.has_rest {
            self.file.set_len(self.extent.end())?;
            self.has_rest = false;
        }
        Ok(())
    }
}

impl Log for Journal {
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.extent.frame(record, &mut self.buffer)?;
        self.cut_rest()?;
        if let Err(error) = self.file.write_all_at(&self.buffer, self.extent.end()) {
            self.has_rest = true;
            // Where this fails too, the next append begins with it.
            let _ = self.cut_rest();
            return Err(error);
        }
        self.extent.grow(self.buffer.len());
        Ok(())
    }

    fn size(&self) -> u64 {
        self.extent.size()
    }

    fn compact(&mut self, snapshot: &[u8]) -> io::Result<()> {
        let (extent, bytes) = self.extent.next(self.boot, snapshot)?;
        self.file = replace(&self.directory, &bytes)?;
        self.extent = extent;
        self.has_rest = false;
        Ok(())
    }
}

/// Writes a whole journal beside the one that is there, then puts it in its place.
fn replace(directory: &Path, bytes: &[u8]) -> io::Result<File> {
    let new = directory.join(JOURNAL_NEW);
    remove_if_there(&new)?;
    let written = write_new(&new, bytes).and_then(|file| {
        faults::point("in-compaction");
        fs::rename(&new, directory.join(JOURNAL))?;
        Ok(file)
    });
    if written.is_err() {
        // The old journal goes on; a rest that cannot be removed now is removed the next time.
        let _ = fs::remove_file(&new);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    // create_new follows no link.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // A umask may have taken away what the owner needs to open it again.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

/// What a journal says, or why it says nothing.
type Reading = Result<(Extent, Replay), Fault>;

fn open_and_read(path: &Path, boot: BootId) -> io::Result<(File, Reading)> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    if meta.len() > FILE_BYTES_MAX {
        let (offset, legible) = (FILE_BYTES_MAX, None);
        return Ok((file, Err(Fault::Damaged { offset, legible })));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let reading = read(&bytes, boot);
    Ok((file, reading))
}

/// Gives the file a name under which nobody looks for a journal.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let seconds = Clock::wall().as_second();
    let mut to = path.with_file_name(format!("{JOURNAL}.damaged-{seconds}"));
    let mut others = 0;
    while fs::symlink_metadata(&to).is_ok() {
        others += 1;
        to = path.with_file_name(format!("{JOURNAL}.damaged-{seconds}-{others}"));
    }
    fs::rename(path, &to)?;
    Ok(to)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn this_boot() -> Result<BootId, JournalError> {
    let path = PathBuf::from(BOOT_ID);
    fs::read_to_string(&path)
        .and_then(|text| {
            BootId::parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not a boot id"))
        })
        .map_err(|source| JournalError::File { path, source })
}
