//! The command line: one more client of the mounted files, with no private door to the daemon.
//!
//! One file a subcommand. Errors are printed once, here.

mod break_lock;
mod completions;
mod doctor;
mod man;
mod mount;
mod path;
pub mod place;
mod release;
mod run;
mod status;
mod umount;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code when a lock could not be had (EX_TEMPFAIL of sysexits.h).
pub const EXIT_NOT_HAD: u8 = 75;
/// Exit code when no daemon answers (EX_UNAVAILABLE of sysexits.h).
pub const EXIT_NO_DAEMON: u8 = 69;

/// Locks for git worktrees, as files
#[derive(Debug, Parser)]
#[command(name = "git-lockfs", bin_name = "git lockfs", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount the locks of this repository
    Mount(mount::Args),
    /// Unmount them
    Umount(umount::Args),
    /// Show who holds and who waits
    Status(status::Args),
    /// Print where the locks of this repository are
    Path(path::Args),
    /// Run a command while holding locks
    Run(run::Args),
    /// Take a lock away from its holder
    Break(break_lock::Args),
    /// Release a lock, or all locks of a session
    Release(release::Args),
    /// Say what this machine or mount lacks, and how to fix it
    Doctor(doctor::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Show a man page
    Man(man::Args),
}

/// Parses the command line, carries it out and prints an error once.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Mount(args) => mount::run(args),
        Command::Umount(args) => umount::run(args),
        Command::Status(args) => status::run(args),
        Command::Path(args) => path::run(args),
        Command::Run(args) => run::run(args),
        Command::Break(args) => break_lock::run(args),
        Command::Release(args) => release::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("git-lockfs: {error:#}");
        ExitCode::FAILURE
    })
}
