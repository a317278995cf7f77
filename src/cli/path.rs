//! In work.

use std::process::ExitCode;

/// In work.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Carries out the subcommand.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("in work")
}
