//! `git lockfs run`: a command under locks. It is a client of `acquire` as any script could be.
//!
//! The locks last as long as one descriptor, which no child inherits: every way out releases them, and a background
//! process of the command does not keep them. Until they are granted, signals act on us as on any program: Ctrl-C
//! ends the wait.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::child::{Outcome, supervise};
use super::client::{Mount, is_disconnected};
use super::failure::failure;
use super::held::{self, HELD_ENV, Held, TOKEN_ENV};
use super::place::{self, Place};
use super::progress::Reporter;
use super::request::{Request, operation};
use super::{EXIT_NOT_HAD, report};
use crate::adapters::read_settings;
use crate::types::{LockName, Mode, SessionName, TicketName, parse_span};

/// The session of the locks that a process takes.
const SESSION_ENV: &str = "GIT_LOCKFS_SESSION";
/// Exit code for a malformed command line, as clap has it.
const EXIT_USAGE: u8 = 2;

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

/// How long to wait, as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until the lock is had.
    Forever,
    /// That long.
    AtMost(Duration),
}

fn wait_limit(text: &str) -> Result<Wait, &'static str> {
    match text {
        "forever" => Ok(Wait::Forever),
        text => parse_span(text)
            .map(Wait::AtMost)
            .ok_or("a time such as 5s, 2m or 0, or forever"),
    }
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
    let wanted = match args.locks.as_slice() {
        [] => vec![scope_of_worktree(mount.place())?],
        names => names.to_vec(),
    };
    let mut held = outer_locks(&mount)?;
    let ask = names_to_ask(&mount, &wanted, args.mode(), &held)?;
    let (program, arguments) = args.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(session) = &args.session {
        command.env(SESSION_ENV, session.as_str());
    }
    if ask.is_empty() {
        // All of it is held by runs around this one, and theirs to watch.
        command.env(HELD_ENV, held::render(&held));
        return finish(supervise(command, || None)?);
    }
    let op = args.op.clone().unwrap_or_else(|| operation(&args.command));
    let grant = acquire(&mount, args, &ask, op)?;
    let mode = args.mode();
    held.extend(ask.iter().map(|name| Held {
        name: name.clone(),
        token: grant.token,
        mode,
    }));
    command
        .env(TOKEN_ENV, grant.token.to_string())
        .env(HELD_ENV, held::render(&held));
    let verbose = args.verbose;
    finish(supervise(command, move || grant.watch(&mount, &ask, verbose))?)
}

fn finish(outcome: Outcome) -> Result<ExitCode> {
    match outcome {
        Outcome::Exited(code) => Ok(ExitCode::from(code)),
        // The sentence was said when it happened.
        Outcome::LockLost(_) => Ok(ExitCode::from(EXIT_NOT_HAD)),
        Outcome::NotStarted(code, sentence) => Err(failure(code, sentence)),
    }
}

/// What the runs around this one hold, as far as the mount confirms it.
fn outer_locks(mount: &Mount) -> Result<Vec<Held>> {
    match held::parse(&std::env::var(HELD_ENV).unwrap_or_default()) {
        none if none.is_empty() => Ok(none),
        held => Ok(held::confirmed(held, &mount.snapshot()?)),
    }
}

fn names_to_ask(mount: &Mount, wanted: &[LockName], mode: Mode, held: &[Held]) -> Result<Vec<LockName>> {
    if held.is_empty() {
        return Ok(wanted.to_vec());
    }
    let settings = read_settings(&mount.place().common_dir)?;
    held::names_to_ask(wanted, mode, held, &settings).map_err(|refusal| failure(EXIT_NOT_HAD, refusal.to_string()))
}

/// The lock of the current worktree among git's scopes.
fn scope_of_worktree(place: &Place) -> Result<LockName> {
    let output = place::git()
        .args(["rev-parse", "--absolute-git-dir"])
        .output()
        .context("git could not be started")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let git_dir = Path::new(bytes_as_os(output.stdout.trim_ascii_end()));
    scope_name(git_dir, &place.common_dir)
}

fn bytes_as_os(bytes: &[u8]) -> &OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

fn scope_name(git_dir: &Path, common_dir: &Path) -> Result<LockName> {
    let same = git_dir == common_dir
        || matches!((git_dir.canonicalize(), common_dir.canonicalize()), (Ok(a), Ok(b)) if a == b);
    let name = match git_dir.file_name() {
        _ if same => "main-worktree.lock".to_owned(),
        Some(id) => format!("worktree-{}.lock", id.to_string_lossy()),
        None => bail!("{} is no worktree's git directory", git_dir.display()),
    };
    LockName::parse_lock(name.as_bytes()).with_context(|| format!("{name}: name a lock with -l"))
}

/// Locks that are held as long as this value lives.
#[derive(Debug)]
struct Grant {
    transaction: File,
    token: u64,
}

fn acquire(mount: &Mount, args: &Args, ask: &[LockName], op: String) -> Result<Grant> {
    let mut transaction = mount.open_acquire()?;
    let started = Instant::now();
    let session = match &args.session {
        Some(session) => Some(session.to_string()),
        None => std::env::var(SESSION_ENV).ok().filter(|session| !session.is_empty()),
    };
    let mut request = Request {
        locks: ask,
        mode: args.mode(),
        wait: args.wait(),
        priority: args.priority,
        session: session.as_deref(),
        op: &op,
        ticket: args.ticket.as_ref(),
    };
    let reporter = Reporter::start(mount.clone(), ask.to_vec(), args.ticket.clone());
    let written = loop {
        match transaction.write(request.line().as_bytes()) {
            // Stopped and continued: the wait ended, its place in the line waits for us.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                if let Some(Wait::AtMost(limit)) = args.wait() {
                    request.wait = Some(Wait::AtMost(limit.saturating_sub(started.elapsed())));
                }
            }
            other => break other,
        }
    };
    written.map_err(|error| not_had(mount, ask, started.elapsed(), error))?;
    let mut grant = [0; 256];
    let length = transaction.read(&mut grant).map_err(|error| mount.explain_io(error))?;
    drop(reporter);
    let grant = String::from_utf8_lossy(&grant[..length]);
    let token = grant.lines().next().and_then(|line| line.strip_prefix("token="));
    let token = token.and_then(|token| token.parse().ok());
    let token = token.with_context(|| format!("the daemon answered {grant:?} instead of a token"))?;
    Ok(Grant { transaction, token })
}

/// Why the locks could not be had, who has them, and what to do.
fn not_had(mount: &Mount, ask: &[LockName], waited: Duration, error: io::Error) -> anyhow::Error {
    if is_disconnected(&error) {
        return mount.explain_io(error);
    }
    let names: Vec<&str> = ask.iter().map(LockName::as_str).collect();
    let said = mount.last_error();
    let because = match error.raw_os_error() {
        Some(libc::EINVAL) => return failure(EXIT_USAGE, said.unwrap_or_else(|| error.to_string())),
        Some(libc::EAGAIN) => format!("{} could not be had at once", names.join(", ")),
        Some(libc::ETIMEDOUT) => format!("{} could not be had within {}", names.join(", "), report::span(waited)),
        _ => said.clone().unwrap_or_else(|| format!("{}: {error}", names.join(", "))),
    };
    let mut holders = mount
        .snapshot()
        .map(|snapshot| report::holders_of(&snapshot, names.iter().copied()))
        .unwrap_or_default();
    if holders.is_empty() {
        // A scope is in the way: the daemon says which.
        holders.extend(said.filter(|said| *said != because));
    }
    let holders: String = holders.iter().map(|sentence| format!("\n  {sentence}")).collect();
    failure(
        EXIT_NOT_HAD,
        format!(
            "{because}{holders}\n  wait longer with -w, look with `git lockfs status`, or take it away with `git lockfs break`"
        ),
    )
}

impl Grant {
    /// Reads events until the lock is lost; `None` when the daemon has no more to say.
    fn watch(mut self, mount: &Mount, names: &[LockName], verbose: bool) -> Option<String> {
        let mut events = [0; 4096];
        loop {
            match self.transaction.read(&mut events) {
                Ok(0) => {
                    // Still ours: the descriptor lives as long as this process.
                    std::mem::forget(self.transaction);
                    return None;
                }
                Ok(length) if verbose => eprint!("{}", String::from_utf8_lossy(&events[..length])),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(loss(mount, names, &error)),
            }
        }
    }
}

fn loss(mount: &Mount, names: &[LockName], error: &io::Error) -> String {
    let names: Vec<&str> = names.iter().map(LockName::as_str).collect();
    let names = names.join(", ");
    if is_disconnected(error) {
        return format!("{names}: lost, the daemon is gone");
    }
    match mount.last_error() {
        Some(sentence) => sentence,
        None => format!("{names}: lost ({error})"),
    }
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

    #[test]
    fn the_scope_of_a_worktree_has_gits_name_for_it() {
        let scope = |git_dir: &str| scope_name(Path::new(git_dir), Path::new("/r/.git")).map(|name| name.to_string());
        assert_eq!(scope("/r/.git").expect("main"), "main-worktree.lock");
        assert_eq!(
            scope("/r/.git/worktrees/topic1").expect("linked"),
            "worktree-topic1.lock"
        );
        assert!(scope("/r/.git/worktrees/it's").is_err());
    }
}
