//! `git lockfs completions`: generated from the same definitions as the help.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

/// Print completions for a shell
///
/// bash: `git lockfs completions bash > ~/.local/share/bash-completion/completions/git-lockfs`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    // Generated aside first: clap_complete panics when it cannot write.
    let mut script = Vec::new();
    let mut command = super::Cli::command().bin_name("git-lockfs");
    clap_complete::generate(args.shell, &mut command, "git-lockfs", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
