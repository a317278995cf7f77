//! `git lockfs umount`: ends the daemon, unless somebody would lose a lock by it.
//!
//! Every wait here has a bound: a daemon that hangs is ended by `--force`, and a mount without a daemon is taken off.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::bounded::{LOOK_LIMIT, until, within};
use super::client::{Mount, no_daemon};
use super::daemon::{Running, log_path};
use super::failure::failure;
use super::locks_json::Snapshot;
use super::place::{Place, State};
use super::{EXIT_NO_DAEMON, EXIT_NOT_HAD, report};
use crate::fuse::{Detach, detach};

/// How long a daemon may take to end once it was asked to.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How often new holders are broken before we end the daemon all the same.
const BREAK_ROUNDS_MAX: u32 = 10;

/// Unmount the locks of this repository
///
/// Refuses with exit code 75 while locks are held or waited for, and names who does. If nothing is mounted, says so
/// and succeeds.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Break all locks first; end a daemon that does not answer
    #[arg(short, long)]
    force: bool,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let place = Place::find()?;
    match place.state() {
        State::Bare => {
            if end_daemon(&place, args.force)?.is_none() {
                writeln!(io::stdout(), "not mounted: {}", place.mountpoint.display())?;
            }
        }
        State::Dead => detach(&place.mountpoint, Detach::Lazy)?,
        State::Mute if !args.force => return Err(mute(&place)),
        State::Mute => kill(&place)?,
        State::Mounted => unmount(&place, args.force)?,
        // root may not look into it, but may end it.
        State::Closed => end_daemon(&place, args.force)?.ok_or_else(|| no_daemon(&place, State::Closed))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn unmount(place: &Place, force: bool) -> Result<()> {
    let idle = if force {
        break_all(place)
    } else {
        refuse_if_in_use(place)
    };
    match idle {
        Ok(()) => {}
        // With --force a daemon that hangs while we talk to it is a daemon that hangs.
        Err(_) if force => return kill(place),
        Err(error) => return Err(error),
    }
    if end_daemon(place, force)?.is_none() && place.state() != State::Bare {
        // A mount that we see, of a daemon that we do not (another PID namespace): the kernel tells it.
        let how = if force { Detach::Lazy } else { Detach::Idle };
        detach(&place.mountpoint, how)?;
    }
    let ended = until(END_LIMIT, || match place.state() {
        state @ (State::Bare | State::Dead) => Some(state),
        _ => None,
    });
    match ended {
        Some(State::Bare) => return Ok(()),
        // The daemon took its mount off where it sees it; another mount namespace has a copy.
        Some(_) => {
            let detached = detach(&place.mountpoint, Detach::Lazy);
            return if place.state() == State::Bare {
                Ok(())
            } else {
                Ok(detached?)
            };
        }
        None => {}
    }
    if force {
        return kill(place);
    }
    refuse_if_in_use(place)?;
    bail!(
        "the daemon of {} was asked to end and has not: --force ends it",
        place.mountpoint.display()
    )
}

/// Asks the daemon to end and waits for it; `None` when there is none to ask.
fn end_daemon(place: &Place, force: bool) -> Result<Option<()>> {
    let Some(daemon) = Running::find(place)? else {
        return Ok(None);
    };
    if !daemon
        .signal(libc::SIGTERM)
        .context("the daemon could not be asked to end")?
    {
        return Ok(None);
    }
    let gone = until(END_LIMIT, || match Running::find(place) {
        Ok(None) => Some(()),
        _ => None,
    });
    match gone {
        Some(()) => Ok(Some(())),
        None if force => kill(place).map(Some),
        None if place.state() == State::Closed => Err(failure(
            EXIT_NOT_HAD,
            format!(
                "the daemon goes on, because locks are in use; {} names them, --force breaks them",
                log_path(place).display()
            ),
        )),
        None => {
            refuse_if_in_use(place)?;
            Err(mute(place))
        }
    }
}

/// Ends a daemon that does not listen, and takes the mount off.
fn kill(place: &Place) -> Result<()> {
    let ended = until(END_LIMIT, || match Running::find(place) {
        Ok(None) => Some(Ok(())),
        // A daemon out of sight stays; its mount is taken off all the same.
        Ok(Some(daemon)) if daemon.process().is_none() => None,
        // Again, if one of the two had just started another.
        Ok(Some(daemon)) => daemon.kill().err().map(Err),
        Err(error) => Some(Err(io::Error::other(error))),
    });
    ended.unwrap_or(Ok(())).context("the daemon could not be ended")?;
    match place.state() {
        State::Bare => Ok(()),
        _ => Ok(detach(&place.mountpoint, Detach::Lazy)?),
    }
}

fn mute(place: &Place) -> anyhow::Error {
    failure(
        EXIT_NO_DAEMON,
        format!(
            "the daemon of {} does not answer: --force ends it",
            place.mountpoint.display()
        ),
    )
}

fn snapshot(place: &Place) -> Result<Snapshot> {
    let mount = Mount::at(place.clone())?;
    within(LOOK_LIMIT, move || mount.snapshot()).unwrap_or_else(|| Err(mute(place)))
}

fn refuse_if_in_use(place: &Place) -> Result<()> {
    if place.state() != State::Mounted {
        return Ok(());
    }
    let users = report::in_use(&snapshot(place)?);
    if users.is_empty() {
        return Ok(());
    }
    Err(failure(
        EXIT_NOT_HAD,
        format!(
            "locks are in use, and unmounting would lose them; --force breaks them:\n  {}",
            users.join("\n  ")
        ),
    ))
}

/// Lets nothing new be granted and breaks what is held.
fn break_all(place: &Place) -> Result<()> {
    let mount = Mount::at(place.clone())?;
    tell(place, &mount, "drain".to_owned())?;
    for _ in 0..BREAK_ROUNDS_MAX {
        let snapshot = snapshot(place)?;
        let verbs: Vec<String> = snapshot
            .locks
            .iter()
            .flat_map(|lock| {
                let verb = |token| format!("break {} {token} umount --force", lock.name);
                lock.holders.iter().map(move |holder| verb(holder.token))
            })
            .collect();
        if verbs.is_empty() {
            return Ok(());
        }
        for verb in verbs {
            // One that let go by itself meanwhile is not there to be broken: the next round sees what is left.
            if let Err(error) = tell(place, &mount, verb) {
                eprintln!("git-lockfs: {error:#}");
            }
        }
    }
    bail!("locks are taken faster than they can be broken")
}

fn tell(place: &Place, mount: &Mount, verb: String) -> Result<()> {
    let mount = mount.clone();
    within(LOOK_LIMIT, move || mount.control(&verb)).unwrap_or_else(|| Err(mute(place)))
}
