//! `git lockfs check`: whether an issue is free.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::EXIT_NOT_HAD;
use super::client::Mount;
use super::issue::{Issue, session};
use crate::types::SessionName;

/// Say whether an issue is free, and who has it
///
/// Exits with 0 when it is free or the session has it, with 75 when another one has.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The issue
    #[arg(value_name = "ISSUE", value_parser = Issue::parse)]
    issue: Issue,
    /// Who asks [default: $GIT_LOCKFS_SESSION]
    #[arg(long, value_name = "S", value_parser = super::session_name)]
    session: Option<SessionName>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let session = session(args.session.as_ref())?;
    let mount = Mount::find()?;
    let holder = args.issue.holder(&mount)?;
    let may_go_on = holder.as_ref().is_none_or(|holder| holder.is(session.as_ref()));
    let lock = args.issue.lock();
    let text = match &holder {
        _ if args.json => {
            let of = |holder: &super::issue::Holder| {
                json!({
                    "pid": holder.pid,
                    "session": holder.session.as_ref().map(ToString::to_string),
                    "timestamp": holder.timestamp,
                })
            };
            let report = json!({
                "version": 1,
                "lock": lock.as_str(),
                "free": holder.is_none(),
                "yours": holder.is_some() && may_go_on,
                "holder": holder.as_ref().map(of),
            });
            serde_json::to_string_pretty(&report)?
        }
        None => format!("{lock} is free"),
        Some(holder) => holder.sentence.clone(),
    };
    io::stdout().write_all((text + "\n").as_bytes())?;
    Ok(if may_go_on {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_NOT_HAD)
    })
}
