//! A mount that answers, as its files: what every subcommand but `mount` and `umount` talks to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::EXIT_NO_DAEMON;
use super::failure::failure;
use super::locks_json::Snapshot;
use super::place::{Place, State};

/// A mount whose daemon answers.
#[derive(Clone, Debug)]
pub struct Mount {
    place: Place,
}

impl Mount {
    /// The mount of the repository of the current directory; fails with [`EXIT_NO_DAEMON`] when no daemon answers.
    pub fn find() -> Result<Self> {
        Self::at(Place::find()?)
    }

    /// The mount at that place; fails with [`EXIT_NO_DAEMON`] when no daemon answers.
    pub fn at(place: Place) -> Result<Self> {
        match place.state() {
            State::Mounted => Ok(Self { place }),
            state => Err(no_daemon(&place, state)),
        }
    }

    /// What is mounted at that place, without a look at whose it is and whether its daemon answers: the first call
    /// finds that out. `None` when nothing is mounted.
    pub fn hoped_for(place: Place) -> Option<Self> {
        place.is_mountpoint().then_some(Self { place })
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A file of the mount.
    pub fn file(&self, path: impl AsRef<Path>) -> PathBuf {
        self.place.mountpoint.join(path)
    }

    /// `metrics/locks.json` as it is.
    pub fn locks_text(&self) -> Result<Vec<u8>> {
        std::fs::read(self.file("metrics/locks.json")).map_err(|error| self.explain_io(error))
    }

    /// Who holds and who waits, now.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::parse(&self.locks_text()?)
    }

    /// Gives an administrative verb to `control`, in one write.
    pub fn control(&self, verb: &str) -> Result<()> {
        let told = OpenOptions::new()
            .write(true)
            .open(self.file("control"))
            .and_then(|mut control| control.write_all(format!("{verb}\n").as_bytes()));
        told.map_err(|error| self.explain_io(error))
    }

    /// Opens the transaction file. No child inherits the descriptor.
    pub fn open_acquire(&self) -> Result<File> {
        let opened = OpenOptions::new().read(true).write(true).open(self.file("acquire"));
        opened.map_err(|error| self.explain_io(error))
    }

    /// The daemon's sentence on its newest refusal of this process.
    pub fn last_error(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.file("last-error")).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// What a failed call on a file of the mount means: that no daemon answers, or what `last-error` says.
    pub fn explain_io(&self, error: io::Error) -> anyhow::Error {
        let state = self.place.state();
        if is_disconnected(&error) || state != State::Mounted {
            return no_daemon(&self.place, state);
        }
        if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
            let at = self.place.mountpoint.display();
            return failure(
                EXIT_NO_DAEMON,
                format!("{at} is read-only here: take locks by `flock {at}/flock/NAME COMMAND`, which only reads"),
            );
        }
        match self.last_error() {
            Some(sentence) => anyhow::anyhow!("{sentence}"),
            None => anyhow::Error::new(error).context(self.place.mountpoint.display().to_string()),
        }
    }
}

/// Whether a call failed because nobody serves the mount (any more).
pub fn is_disconnected(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOTCONN | libc::ECONNABORTED | libc::ENODEV)
    )
}

/// That no daemon answers, or none for us, and what to do.
pub fn no_daemon(place: &Place, state: State) -> anyhow::Error {
    let at = place.mountpoint.display();
    let sentence = match state {
        State::Bare => format!("nothing is mounted at {at}: start with `git lockfs mount`"),
        State::Dead => format!("the daemon of {at} is gone: start it anew with `git lockfs mount`"),
        State::Closed => format!("{at} was mounted by another user, for itself alone: see --allow-other of mount"),
        State::Mute => format!("the daemon of {at} does not answer: end it with `git lockfs umount --force`"),
        State::Mounted => format!("the daemon of {at} was replaced meanwhile: try again"),
    };
    failure(EXIT_NO_DAEMON, sentence)
}
