//! What becomes of locks while a command runs under them: read from the transaction that holds them, when it has
//! something to say.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};

use super::client::{Mount, is_disconnected};
use crate::types::{LockName, Mode};

/// How much is read at once, in bytes: many events.
const EVENTS_BYTES: usize = 4096;

/// A transaction, as who waits for its end sees it.
#[derive(Debug)]
pub struct Watch<'a> {
    /// The open `acquire`.
    pub transaction: &'a File,
    /// Where it is.
    pub mount: &'a Mount,
    /// What it holds.
    pub locks: &'a [(LockName, Mode)],
    /// Whether to tell on standard error who waits for what is held.
    pub verbose: bool,
}

/// What a read has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All is held as before.
    Held,
    /// All is held, and nothing more will be said.
    Ended,
    /// A lock is lost, for this reason.
    Lost(String),
}

impl Watch<'_> {
    /// Reads once; to be called when the descriptor is readable, else it waits.
    pub fn read(&self) -> News {
        let mut events = [0; EVENTS_BYTES];
        let mut transaction = self.transaction;
        match transaction.read(&mut events) {
            Ok(0) => return News::Ended,
            Ok(length) if self.verbose => eprint!("{}", String::from_utf8_lossy(&events[..length])),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_disconnected(&error) => {
                return News::Lost(format!("{}: lost, the daemon is gone", self.names()));
            }
            Err(error) => {
                let said = self.mount.last_error();
                return News::Lost(said.unwrap_or_else(|| format!("{}: lost ({error})", self.names())));
            }
        }
        News::Held
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.locks.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    }
}

impl AsFd for Watch<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transaction.as_fd()
    }
}
