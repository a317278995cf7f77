//! `git lockfs restart`: another worker, for an upgrade of the program, with nothing lost.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::EXIT_NO_DAEMON;
use super::bounded::until;
use super::client::{Mount, no_daemon};
use super::failure::failure;
use super::notice::Notice;
use super::place::{Place, State};
use super::supervisor::knock;

/// How long a supervisor may take until it listens.
const KNOCK_LIMIT: Duration = Duration::from_secs(5);
/// How long a restart may take.
const RESTART_LIMIT: Duration = Duration::from_secs(30);

/// Have the daemon go on with the program that is installed now
///
/// Locks, waiters and tickets stay as they are; calls that are made meanwhile wait for a moment. Returns when the mount
/// answers again. Refused, with the daemon left as it is, when that program cannot go on from the journal.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Carries out the subcommand.
pub fn run(_: &Args) -> Result<ExitCode> {
    let place = Place::find()?;
    if let state @ (State::Bare | State::Dead | State::Closed) = place.state() {
        return Err(no_daemon(&place, state));
    }
    // A supervisor that has just been replaced, or is being, does not answer yet.
    let asked = until(KNOCK_LIMIT, || match ask(&place) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(Err(error)),
        Err(_) => None,
        Ok(notice) => notice.map(Ok),
    });
    let at = place.mountpoint.display();
    let notice = asked
        .transpose()
        .with_context(|| format!("the daemon of {at} belongs to another user"))?;
    let silence = || format!("the supervisor of {at} does not answer: see `git lockfs doctor`");
    let notice = notice.ok_or_else(|| failure(EXIT_NO_DAEMON, silence()))?;
    notice.into_result().context("not restarted")?;
    Mount::at(place)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks once; `None` when the supervisor ended before it said how it went.
fn ask(place: &Place) -> io::Result<Option<Notice>> {
    let answer = knock(place)?;
    let timeout = PollTimeout::try_from(RESTART_LIMIT).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(answer.as_fd(), PollFlags::POLLIN)], timeout)? {
        0 => Ok(None),
        _ => Notice::read(answer),
    }
}
