//! `git lockfs restart`, as the supervisor sees it: a connection to a socket in the state directory asks for it, and what
//! is read from there is the notice of how it went.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::estate::Estate;
use super::super::failure::failure;
use super::super::notice::Notice;
use super::super::place::Place;

/// How long the next program may take to look at the journal.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// Where a restart is asked for.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
}

impl Door {
    /// Opens it, in place of that of a supervisor that has died.
    pub fn open(place: &Place) -> io::Result<Self> {
        let (_directory, path) = door(place)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// Somebody who has knocked.
    pub fn next(&self) -> Option<File> {
        let (stream, _) = self.listener.accept().ok()?;
        Some(OwnedFd::from(stream).into())
    }
}

/// Readable once somebody knocks.
impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Asks the supervisor of that repository for a restart; the notice comes over this.
pub fn knock(place: &Place) -> io::Result<File> {
    let (_directory, path) = door(place)?;
    Ok(OwnedFd::from(UnixStream::connect(path)?).into())
}

/// The socket, by a path that is short however long that of the repository is: an address takes 108 bytes (unix(7)).
fn door(place: &Place) -> io::Result<(File, PathBuf)> {
    let directory = File::open(&place.state_dir)?;
    let path = format!("/proc/self/fd/{}/restart", directory.as_raw_fd());
    Ok((directory, path.into()))
}

/// Whether the program that lies where this one was started from can go on from the journal; else, why not.
pub fn check(estate: &Estate) -> Result<()> {
    let program = estate.launcher.program.display();
    let (ours, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let mut child = estate
        .examiner(&theirs)?
        // What it says goes through the pipe, and belongs to who asked.
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{program} could not be started"))?;
    drop(theirs);
    let timeout = PollTimeout::try_from(CHECK_LIMIT).unwrap_or(PollTimeout::MAX);
    let has_told = poll(&mut [PollFd::new(ours.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0);
    let notice = if has_told { Notice::read(ours.into())? } else { None };
    // It has done what it was to do; if it has ended, that is as well.
    let _ = child.kill();
    let _ = child.wait();
    match notice {
        Some(notice) => notice.into_result(),
        None => Err(failure(
            1,
            format!("{program} does not say that it can go on from here: it is another program, or too old for that"),
        )),
    }
}

/// Puts the program that lies at its place in that of this process, to keep the same worker. Returns only if that fails.
pub fn become_latest(estate: &Estate, worker: u32) -> Result<std::convert::Infallible> {
    use std::os::unix::process::CommandExt;
    Err(estate.successor(worker)?.exec().into())
}
