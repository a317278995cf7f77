//! `git lockfs run`: a command under locks. It is a client of `acquire` as any script could be.
//!
//! The locks last as long as one descriptor, which no child inherits: every way out releases them, and a background
//! process of the command does not keep them. Until they are granted, signals act on us as on any program: Ctrl-C
//! ends the wait.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};

use super::EXIT_NOT_HAD;
use super::child::{Outcome, supervise};
use super::client::Mount;
use super::failure::failure;
use super::request::operation;
use super::taken::{Options, Taken, Wait, wait_limit};
use crate::adapters::Repository;
use crate::scopes::Surroundings;
use crate::types::{LockName, Mode, SessionName, TicketName};

/// Run a command while holding locks
///
/// All locks are taken together or none, and released on every way out. Exits with the code of the command; 75 when
/// a lock could not be had or was lost, 69 when no daemon answers, 126 or 127 when the command could not be started.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take the lock of exactly this name; repeat for several [default: the scope of the current worktree]
    #[arg(short, long = "lock", value_name = "NAME", value_parser = super::lock_name)]
    locks: Vec<LockName>,
    /// Share them with others that share
    #[arg(short, long, conflicts_with = "exclusive")]
    shared: bool,
    /// Be alone (the default)
    #[arg(short = 'x', long)]
    exclusive: bool,
    /// Do not wait
    #[arg(short, long, conflicts_with = "wait")]
    nonblock: bool,
    /// Wait that long at most (5s, 2m, 0, forever) [default: as configured]
    #[arg(short, long, value_name = "TIME", value_parser = wait_limit)]
    wait: Option<Wait>,
    /// 10 goes first [default: from nice(1)]
    #[arg(short, long, value_parser = clap::value_parser!(u8).range(1..=10))]
    priority: Option<u8>,
    /// Whose they are [default: $GIT_LOCKFS_SESSION]
    #[arg(long, value_parser = super::session_name)]
    session: Option<SessionName>,
    /// Keep the place in the line under this name when the wait ends early
    #[arg(long, value_parser = super::ticket_name)]
    ticket: Option<TicketName>,
    /// What for, for those who wait [default: `git VERB`, or the program's name]
    #[arg(long, value_name = "TEXT")]
    op: Option<String>,
    /// Tell on standard error who waits for what is held
    #[arg(short)]
    verbose: bool,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

impl Args {
    fn mode(&self) -> Mode {
        if self.shared { Mode::Shared } else { Mode::Exclusive }
    }

    fn wait(&self) -> Option<Wait> {
        if self.nonblock {
            Some(Wait::AtMost(Duration::ZERO))
        } else {
            self.wait
        }
    }
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mount = Mount::find()?;
    let names = match args.locks.as_slice() {
        [] => vec![scope_of_worktree()?],
        names => names.to_vec(),
    };
    let mut wanted: Vec<_> = names.into_iter().map(|name| (name, args.mode())).collect();
    wanted.dedup();
    let (program, arguments) = args.command.split_first().context("no command")?;
    let options = Options {
        wait: args.wait(),
        priority: args.priority,
        session: args.session.clone(),
        ticket: args.ticket.clone(),
        op: args.op.clone().unwrap_or_else(|| operation(&args.command)),
        verbose: args.verbose,
        passed_down: false,
    };
    let taken = Taken::take(&mount, &wanted, &options)?;
    let mut command = Command::new(program);
    command.args(arguments);
    taken.dress(&mut command);
    finish(supervise(command, taken.watch())?)
}

/// The exit code of a command that was run under locks.
pub fn finish(outcome: Outcome) -> Result<ExitCode> {
    match outcome {
        Outcome::Exited(code) => Ok(ExitCode::from(code)),
        // The sentence was said when it happened.
        Outcome::LockLost(_) => Ok(ExitCode::from(EXIT_NOT_HAD)),
        Outcome::NotStarted(code, sentence) => Err(failure(code, sentence)),
    }
}

/// The lock of the current worktree among git's scopes.
fn scope_of_worktree() -> Result<LockName> {
    let repository = Repository::here().context("no repository is here: name a lock with -l")?;
    Ok(repository.worktree())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let words = shell_words::split(line).expect("words");
        Line::try_parse_from(std::iter::once("run".to_owned()).chain(words)).map(|line| line.args)
    }

    #[test]
    fn the_command_line_reads_as_documented() {
        let args = parse("-l x.lock -l y.lock -s -w 5s -p 8 --session a --ticket t --op 'git merge' -- git -C x merge")
            .expect("parse");
        assert_eq!(args.locks.len(), 2);
        assert_eq!(args.mode(), Mode::Shared);
        assert_eq!(args.wait(), Some(Wait::AtMost(Duration::from_secs(5))));
        assert_eq!(args.command, ["git", "-C", "x", "merge"]);
        assert_eq!(
            parse("-n -- true").expect("parse").wait(),
            Some(Wait::AtMost(Duration::ZERO))
        );
        assert_eq!(parse("-w forever true").expect("parse").wait(), Some(Wait::Forever));
        assert_eq!(parse("-- true").expect("parse").mode(), Mode::Exclusive);
    }

    #[test]
    fn a_malformed_command_line_is_refused() {
        for bad in [
            "",
            "--",
            "-s -x -- true",
            "-n -w 5s -- true",
            "-w 5 -- true",
            "-p 0 -- true",
            "-p 11 -- true",
            "-l a/b -- true",
            "-l .x -- true",
            "-l '' -- true",
            "--session a:b -- true",
            "--ticket 'a b' -- true",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
