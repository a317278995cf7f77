//! `git lockfs lock`: a lease on an issue, for a session.

use std::fs::{File, FileTimes, OpenOptions};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result};

use super::EXIT_NOT_HAD;
use super::client::Mount;
use super::failure::failure;
use super::issue::{Issue, needed_session};
use crate::types::SessionName;

/// Lock an issue for a session, now or not at all
///
/// It is kept for the caller: until `unlock`, or for some minutes (lockfs.lease) after the caller has ended. The same
/// session may ask again, which renews it. Exits with 75 when another session has it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The issue; its lock is ISSUE.lock
    #[arg(value_name = "ISSUE", value_parser = Issue::parse)]
    issue: Issue,
    /// Whose it is [default: $GIT_LOCKFS_SESSION]
    #[arg(long, value_name = "S", value_parser = super::session_name)]
    session: Option<SessionName>,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let session = needed_session(args.session.as_ref())?;
    let mount = Mount::find()?;
    let path = args.issue.file(&mount);
    let opened = OpenOptions::new().write(true).create_new(true).open(&path);
    match opened {
        Ok(file) => declare(file, &session).map_err(|error| mount.explain_io(error))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => renew(&mount, args, &session)?,
        Err(error) => return Err(mount.explain_io(error)),
    }
    Ok(ExitCode::SUCCESS)
}

/// No PID makes it a lease, whose keeper is whoever called us.
fn declare(mut file: File, session: &SessionName) -> std::io::Result<()> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    file.write_all(format!("0:{session}:{}\n", now.as_secs()).as_bytes())
}

fn renew(mount: &Mount, args: &Args, session: &SessionName) -> Result<()> {
    let Some(holder) = args.issue.holder(mount)? else {
        return Err(failure(
            EXIT_NOT_HAD,
            format!("{} has just changed hands: try again", args.issue.lock()),
        ));
    };
    if !holder.is(Some(session)) {
        return Err(failure(EXIT_NOT_HAD, holder.sentence));
    }
    // Opened for reading, it takes nothing; the time set is what touch(1) sets.
    let file = File::open(args.issue.file(mount)).context("the lock is gone")?;
    match file.set_times(FileTimes::new().set_modified(SystemTime::now())) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {
            let sentence = format!("{}; its session runs elsewhere", holder.sentence);
            Err(failure(EXIT_NOT_HAD, sentence))
        }
        other => other.map_err(|error| mount.explain_io(error)),
    }
}
