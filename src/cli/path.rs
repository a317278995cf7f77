//! `git lockfs path`: where the locks of this repository are.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use anyhow::Result;

use super::client::Mount;
use super::place::Place;

/// Print where the locks of this repository are
///
/// The same for all worktrees, mounted or not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail with exit code 69 when no daemon answers there
    #[arg(long)]
    check: bool,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let place = Place::find()?;
    if args.check {
        Mount::at(place.clone())?;
    }
    let mut line = place.mountpoint.as_os_str().as_bytes().to_vec();
    line.push(b'\n');
    io::stdout().write_all(&line)?;
    Ok(ExitCode::SUCCESS)
}
