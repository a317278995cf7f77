//! `git lockfs release`: `rm` of a lock, or everything of one session.

use std::fs;
use std::io::{self, ErrorKind};
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::client::Mount;
use super::place::State;
use super::report;
use crate::types::{LockName, SessionName};

/// Release a lock, or all locks of a session
///
/// A lock is released for its holder, its keeper, their descendants, or when they are gone; `break` takes it from
/// others.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Args {
    /// The lock, by its exact name
    #[arg(value_name = "LOCK", value_parser = super::lock_name)]
    lock: Option<LockName>,
    /// Everything that this session holds
    #[arg(long, value_name = "S", value_parser = super::session_name)]
    session: Option<SessionName>,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mount = Mount::find()?;
    if let Some(session) = &args.session {
        mount.control(&format!("release-session {session}"))?;
    }
    if let Some(lock) = &args.lock {
        release(&mount, lock)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes a lock as rm(1) does, and says who has it when that is refused.
pub fn release(mount: &Mount, lock: &LockName) -> Result<()> {
    let path = mount.file("locks").join(lock.as_str());
    // A lock made by mkdir is a directory to its keeper.
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => fs::remove_dir_all(&path),
        other => other,
    };
    removed.map_err(|error| refusal(mount, lock, error)).map(drop)
}

fn refusal(mount: &Mount, lock: &LockName, error: io::Error) -> anyhow::Error {
    let explain = || -> Result<()> {
        match error.kind() {
            ErrorKind::NotFound if mount.place().state() == State::Mounted => bail!("{lock} is not held"),
            ErrorKind::ResourceBusy | ErrorKind::PermissionDenied => {
                let holders = report::holders_of(&mount.snapshot()?, [lock.as_str()]);
                if !holders.is_empty() {
                    bail!("{}; `git lockfs break {lock}` takes it away", holders.join("; "));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    };
    explain().err().unwrap_or_else(|| mount.explain_io(error))
}
