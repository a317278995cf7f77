//! `git lockfs commit`: a commit of exactly the named paths, so that those who share a worktree cannot commit each
//! other's work.
//!
//! It goes through four steps, of which only the first is outside the lock:
//! 1. [`capture`]: the content of the paths is put aside as it is when the command is called;
//! 2. the locks of the worktree and its branch are taken, and git's own `index.lock`, against gits that do not know
//!    of us;
//! 3. in its [`turn`], git commits from a private index that has HEAD and the captured content, with all its hooks, and
//!    nothing that others have staged;
//! 4. the worktree's index gets what was committed. Left as it was, it would have the old content of the paths, and
//!    the next plain `git commit` would take the work back. So it is written before the commit and put in force after
//!    it; when we are killed in between, `index.lock` stays and git refuses to go on.

mod capture;
mod changes;
mod index;
mod interrupt;
mod turn;
pub mod validate;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use super::child::supervise;
use super::client::Mount;
use super::failure::failure;
use super::git::attempts::raise_timeouts;
use super::git::real_git;
use super::run::finish;
use super::taken::{Options, Taken, Wait, wait_limit};
use super::worktree::Worktree;
use crate::adapters::Repository;
use crate::scopes::{self, Invocation};
use crate::types::{SessionName, TicketName};
use capture::{Capture, lines, tree_of};
use changes::Changes;
use index::{IndexLock, PrivateIndex};
use interrupt::Deferred;
use turn::Turn;

/// What is in the git directory while a commit of some of the paths would lose the rest.
const UNFINISHED: &[(&str, &str)] = &[("MERGE_HEAD", "merge"), ("CHERRY_PICK_HEAD", "cherry-pick")];

/// Commit exactly the named paths
///
/// With the content that they have when the command is called, new files too. What else is staged stays staged and
/// stays out. Waits for the lock of the worktree; exits as git commit does, with 75 when the lock could not be had or
/// was lost, 69 when no daemon answers.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The message; more than one make paragraphs [default: ask the editor, under the lock]
    #[arg(short, long = "message", value_name = "TEXT", allow_hyphen_values = true)]
    message: Vec<OsString>,
    /// Take the message from a file, - is standard input
    #[arg(short = 'F', long, value_name = "FILE", conflicts_with = "message")]
    file: Option<OsString>,
    /// Say nothing about the commit
    #[arg(short, long)]
    quiet: bool,
    /// Skip the pre-commit and commit-msg hooks
    #[arg(short, long)]
    no_verify: bool,
    /// Add a Signed-off-by trailer
    #[arg(short, long)]
    signoff: bool,
    /// Add a trailer, as git commit does
    #[arg(long, value_name = "TOKEN=VALUE")]
    trailer: Vec<OsString>,
    /// The author, as git commit takes it
    #[arg(long, value_name = "AUTHOR")]
    author: Option<OsString>,
    /// The author's date, as git commit takes it
    #[arg(long, value_name = "DATE")]
    date: Option<OsString>,
    /// Commit also when nothing is changed
    #[arg(long)]
    allow_empty: bool,
    /// Wait that long for the lock at most (5s, 2m, 0, forever) [default: as configured]
    #[arg(long, value_name = "TIME", value_parser = wait_limit)]
    wait: Option<Wait>,
    /// 10 goes first [default: from nice(1)]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=10))]
    priority: Option<u8>,
    /// Who commits [default: $GIT_LOCKFS_SESSION]
    #[arg(long, value_parser = super::session_name)]
    session: Option<SessionName>,
    /// Keep the place in the line under this name when the wait ends early
    #[arg(long, value_parser = super::ticket_name)]
    ticket: Option<TicketName>,
    /// What to commit, as git's pathspecs
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let worktree = Worktree::find()?;
    let mount = Mount::at(worktree.place.clone())?;
    let capture = {
        let deferred = Deferred::begin()?;
        let capture = Capture::take(&worktree, &args.paths)?;
        deferred.check()?;
        capture
    };
    if capture.declared.is_empty() && !args.allow_empty {
        return Err(nothing_to_commit());
    }
    let taken = take(&mount, args)?;
    let mut command = git_commit(args)?;
    taken.dress(&mut command);

    let deferred = Deferred::begin()?;
    let lock = IndexLock::take(&worktree)?;
    let now = worktree.head()?;
    if now.branch != capture.head.branch {
        bail!(
            "this worktree was switched from {} to {} while you waited: commit again if that is where it belongs",
            capture.head.branch.as_deref().unwrap_or("a detached HEAD"),
            now.branch.as_deref().unwrap_or("a detached HEAD")
        );
    }
    refuse_unfinished(&worktree)?;
    let turn = Turn::begin(&worktree, &capture, now)?;
    if turn.declared.is_empty() && !args.allow_empty {
        return Err(nothing_to_commit());
    }
    let next = turn.next(&turn.declared)?;
    let index = turn.index(&next)?;
    let is_plain = next.is_plain;
    if !is_plain {
        turn.refresh(&next, &turn.declared);
    }
    lock.fill(next.index)?;
    deferred.check()?;
    index.apply(&mut command);
    let outcome = supervise(command, taken.watch())?;
    let landed = land(&turn, index, is_plain, lock)?;
    if let Some((commit, changes)) = landed {
        validate::warn(&mount, &commit, &turn.declared, &changes);
    }
    deferred.check()?;
    finish(outcome)
}

/// The locks that the table has for a commit here.
fn take(mount: &Mount, args: &Args) -> Result<Taken> {
    let repository = Repository::here().context("git's directory of this worktree cannot be read")?;
    let settings = repository.configuration.settings()?;
    let plan = scopes::plan(&Invocation::parse(["commit"]), &settings, &repository);
    let options = Options {
        wait: args.wait,
        priority: args.priority,
        session: args.session.clone(),
        ticket: args.ticket.clone(),
        op: "git commit".to_owned(),
        verbose: false,
        passed_down: true,
    };
    Taken::take(mount, &plan.locks, &options)
}

/// `git commit` with the options that are its own.
fn git_commit(args: &Args) -> Result<Command> {
    let mut command = Command::new(real_git()?);
    command.arg("commit");
    raise_timeouts(&mut command);
    for message in &args.message {
        command.arg("-m").arg(message);
    }
    if let Some(file) = &args.file {
        command.arg("-F").arg(file);
    }
    for (given, option) in [
        (args.quiet, "--quiet"),
        (args.no_verify, "--no-verify"),
        (args.signoff, "--signoff"),
        (args.allow_empty, "--allow-empty"),
    ] {
        command.args(given.then_some(option));
    }
    for trailer in &args.trailer {
        command.arg("--trailer").arg(trailer);
    }
    for (option, value) in [("--author", &args.author), ("--date", &args.date)] {
        if let Some(value) = value {
            command.arg(option).arg(value);
        }
    }
    Ok(command)
}

/// Puts the next index in force if the commit is there, whatever git's exit code says; the commit and what it changed.
/// `index` is what git has committed from.
fn land(
    turn: &Turn<'_>,
    index: PrivateIndex,
    is_plain: bool,
    lock: IndexLock<'_>,
) -> Result<Option<(String, Changes)>> {
    let landed = || -> Result<Option<(String, Changes)>> {
        let Some(commit) = turn.worktree.head()?.commit else {
            return Ok(None);
        };
        if Some(&commit) == turn.head.commit.as_ref() {
            return Ok(None);
        }
        let changes = changes::between(&tree_of(&turn.head)?, &commit)?;
        if lines(&changes) != lines(&turn.declared) {
            // A hook has added something, or taken it away.
            let next = turn.next(&changes)?;
            turn.refresh(&next, &changes);
            lock.fill(next.index)?;
        } else if is_plain {
            // The same, and git knows more of its files.
            lock.fill(index)?;
        }
        Ok(Some((commit, changes)))
    };
    match landed() {
        Ok(None) => Ok(None),
        Ok(done) => lock.publish().map(|()| done),
        Err(error) => {
            let lock = lock.leave();
            Err(error.context(format!(
                "the commit may be there and the index not in step with it: compare `git status`, then `mv {} {}`",
                lock.display(),
                turn.worktree.index.display()
            )))
        }
    }
}

fn refuse_unfinished(worktree: &Worktree) -> Result<()> {
    for (file, what) in UNFINISHED {
        match worktree.git_dir.join(file).symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            _ => bail!("a {what} is going on in this worktree: end it with `git {what} --continue` or `--abort` first"),
        }
    }
    Ok(())
}

fn nothing_to_commit() -> anyhow::Error {
    failure(1, "nothing to commit: these paths are as HEAD has them")
}
