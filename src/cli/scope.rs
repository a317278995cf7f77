//! `git lockfs scope`: which locks a git command would take here.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;

use super::git::Prepared;
use crate::types::{LockName, Mode};

/// Print which locks a git command needs
///
/// One lock a line, with its mode; `none` when it needs none.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    /// What follows `git`
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    args: Vec<OsString>,
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    command: Option<&'a str>,
    locks: Vec<Lock<'a>>,
}

#[derive(Serialize)]
struct Lock<'a> {
    name: &'a str,
    mode: String,
}

impl<'a> Lock<'a> {
    fn of((name, mode): &'a (LockName, Mode)) -> Self {
        Self {
            name: name.as_str(),
            mode: mode.to_string(),
        }
    }
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let prepared = Prepared::find(&args.args)?;
    if prepared.repository.is_none() && !args.args[0].to_string_lossy().starts_with('-') {
        bail!("no repository is here, and what a command locks depends on it");
    }
    let locks = &prepared.plan.locks;
    let text = if args.json {
        let report = Report {
            version: 1,
            command: prepared.plan.command.as_deref(),
            locks: locks.iter().map(Lock::of).collect(),
        };
        serde_json::to_string_pretty(&report)? + "\n"
    } else if locks.is_empty() {
        "none\n".to_owned()
    } else {
        locks.iter().map(|(name, mode)| format!("{name} {mode}\n")).collect()
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
