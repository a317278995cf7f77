//! `git lockfs unlock`: an issue, or everything of a session.

use std::process::ExitCode;

use anyhow::Result;

use super::EXIT_NOT_HAD;
use super::client::Mount;
use super::failure::failure;
use super::issue::{Issue, session};
use super::release;
use crate::types::SessionName;

/// Unlock an issue, or everything of a session
///
/// An issue that another session has is left alone: exit code 75.
#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = true, args = ["issue", "session"])]
pub struct Args {
    /// The issue; without it, everything of the session
    #[arg(value_name = "ISSUE", value_parser = Issue::parse)]
    issue: Option<Issue>,
    /// Whose it is [default for an issue: $GIT_LOCKFS_SESSION]
    #[arg(long, value_name = "S", value_parser = super::session_name)]
    session: Option<SessionName>,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mount = Mount::find()?;
    match (&args.issue, &args.session) {
        (None, Some(session)) => mount.control(&format!("release-session {session}"))?,
        (Some(issue), named) => {
            let session = session(named.as_ref())?;
            if let Some(holder) = issue.holder(&mount)?
                && session.is_some()
                && !holder.is(session.as_ref())
            {
                return Err(failure(EXIT_NOT_HAD, holder.sentence));
            }
            release::release(&mount, issue.lock())?;
        }
        (None, None) => {}
    }
    Ok(ExitCode::SUCCESS)
}
