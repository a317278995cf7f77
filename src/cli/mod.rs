//! The command line: one more client of the mounted files, with no private door to the daemon.
//!
//! One file a subcommand. Errors are printed once, here.

mod ancestors;
mod bounded;
mod break_lock;
mod check;
mod child;
mod client;
mod commit;
mod completions;
mod config;
mod daemon;
mod dashboard;
mod device;
mod doctor;
mod estate;
mod failure;
mod fetch;
mod git;
mod held;
mod hook;
mod install;
mod issue;
mod lock;
mod locks_json;
mod man;
mod mount;
mod mountpoint;
mod notice;
mod path;
pub mod place;
mod precommand;
mod process;
mod progress;
mod release;
mod report;
mod request;
mod restart;
mod roff;
mod run;
mod scope;
mod shellenv;
mod status;
mod supervisor;
mod taken;
mod top;
mod umount;
mod uninstall;
mod unlock;
mod watch;
mod worker;
mod worktree;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::types::{LockName, NameError, SessionName, TicketName};

/// Exit code for a malformed command line, as clap has it.
pub const EXIT_USAGE: u8 = 2;
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
    Mount(mount::Args),
    Umount(umount::Args),
    Restart(restart::Args),
    Status(status::Args),
    Top(top::Args),
    Dashboard(dashboard::Args),
    Path(path::Args),
    Run(run::Args),
    Git(git::Args),
    Scope(scope::Args),
    Fetch(fetch::Args),
    Lock(lock::Args),
    Unlock(unlock::Args),
    Check(check::Args),
    Install(install::Args),
    Uninstall(uninstall::Args),
    Shellenv(shellenv::Args),
    #[command(name = "pre-command")]
    Precommand(precommand::Args),
    Commit(commit::Args),
    Break(break_lock::Args),
    Release(release::Args),
    Hook(hook::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Parses the command line, carries it out and prints an error once. Called by the name of git we are git, and by that of
/// a hook that hook.
pub fn run() -> ExitCode {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    if Path::new(&called).file_name() == Some(OsStr::new("git")) {
        return run_as_git();
    }
    let arguments: Vec<OsString> = words.collect();
    if let Some(code) = hook::serve(Path::new(&called), &arguments) {
        return code;
    }
    let result = if man::is_wanted(&arguments) {
        man::show(man::Page::Commands)
    } else {
        Cli::parse().command.run()
    };
    exit_code(result)
}

/// Carries out our own command line as that of git, under the locks that the command needs.
pub fn run_as_git() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    exit_code(git::run_as_git(&arguments))
}

fn exit_code(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        if is_broken_pipe(&error) {
            // Who read our output has seen enough.
            return ExitCode::SUCCESS;
        }
        eprintln!("git-lockfs: {error:#}");
        ExitCode::from(failure::exit_code(&error))
    })
}

impl Command {
    fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Mount(args) => mount::run(args),
            Self::Umount(args) => umount::run(args),
            Self::Restart(args) => restart::run(args),
            Self::Status(args) => status::run(args),
            Self::Top(args) => top::run(args),
            Self::Dashboard(args) => dashboard::run(args),
            Self::Path(args) => path::run(args),
            Self::Run(args) => run::run(args),
            Self::Git(args) => git::run(args),
            Self::Scope(args) => scope::run(args),
            Self::Fetch(args) => fetch::run(args),
            Self::Lock(args) => lock::run(args),
            Self::Unlock(args) => unlock::run(args),
            Self::Check(args) => check::run(args),
            Self::Install(args) => install::run(args),
            Self::Uninstall(args) => uninstall::run(args),
            Self::Shellenv(args) => shellenv::run(args),
            Self::Precommand(args) => precommand::run(args),
            Self::Commit(args) => commit::run(args),
            Self::Break(args) => break_lock::run(args),
            Self::Release(args) => release::run(args),
            Self::Hook(args) => hook::run(args),
            Self::Doctor(args) => doctor::run(args),
            Self::Completions(args) => completions::run(args),
            Self::Man(args) => man::run(args),
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.root_cause().downcast_ref().is_some_and(broken)
}

fn lock_name(text: &str) -> Result<LockName, NameError> {
    LockName::parse_lock(text.as_bytes())
}

fn session_name(text: &str) -> Result<SessionName, NameError> {
    SessionName::parse(text.as_bytes())
}

fn ticket_name(text: &str) -> Result<TicketName, NameError> {
    TicketName::parse(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
