//! Locks that a subcommand holds while it runs other commands: asked for through `acquire`, known to what runs within.
//!
//! They last as long as one descriptor, which no child inherits: every way out releases them, and a background process
//! of the command does not keep them. Until they are granted, signals act on us as on any program: Ctrl-C ends the wait.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::ancestors;
use super::client::{Mount, is_disconnected};
use super::failure::failure;
use super::held::{self, HELD_ENV, Held, TOKEN_ENV};
use super::progress::Reporter;
use super::request::Request;
use super::watch::Watch;
use super::{EXIT_NOT_HAD, EXIT_USAGE, report};
use crate::adapters::configuration::Configuration;
use crate::scopes::Invocation;
use crate::types::{LockName, Mode, SessionName, TicketName, parse_span};

/// The session of the locks that a process takes.
pub const SESSION_ENV: &str = "GIT_LOCKFS_SESSION";

/// How long to wait, as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until the lock is had.
    Forever,
    /// That long.
    AtMost(Duration),
}

/// Parses a wait limit of the command line.
pub fn wait_limit(text: &str) -> Result<Wait, &'static str> {
    match text {
        "forever" => Ok(Wait::Forever),
        text => parse_span(text)
            .map(Wait::AtMost)
            .ok_or("a time such as 5s, 2m or 0, or forever"),
    }
}

/// How to ask for locks.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `None` leaves it to the configuration.
    pub wait: Option<Wait>,
    /// `None` leaves it to nice(1).
    pub priority: Option<u8>,
    /// `None` leaves it to the environment.
    pub session: Option<SessionName>,
    /// The name of the place in the line.
    pub ticket: Option<TicketName>,
    /// What for, for those who wait.
    pub op: String,
    /// Whether to tell on standard error who waits for what is held.
    pub verbose: bool,
    /// Whether what a process above this one holds by a file of the mount counts as held for this one: a shell that
    /// has the lock on a descriptor runs its commands within it.
    pub passed_down: bool,
}

impl Options {
    fn session(&self) -> Option<String> {
        match &self.session {
            Some(session) => Some(session.to_string()),
            None => std::env::var(SESSION_ENV).ok().filter(|session| !session.is_empty()),
        }
    }
}

/// Locks that are held as long as this value lives, and what the processes above hold.
#[derive(Debug)]
pub struct Taken {
    mount: Mount,
    held: Vec<Held>,
    grant: Option<Grant>,
    session: Option<SessionName>,
    verbose: bool,
}

#[derive(Debug)]
struct Grant {
    transaction: File,
    token: u64,
    locks: Vec<(LockName, Mode)>,
}

impl Taken {
    /// Takes locks, all together or none; what is held around this process is not asked for again.
    pub fn take(mount: &Mount, wanted: &[(LockName, Mode)], options: &Options) -> Result<Self> {
        let mut held = outer_locks(mount)?;
        let mut ask = locks_to_ask(mount, wanted, &held)?;
        let mut grant = None;
        if options.passed_down && !ask.is_empty() {
            // Only who would wait looks first for whom.
            grant = acquire(mount, &ask, options, Some(Wait::AtMost(Duration::ZERO)))?.ok();
            if grant.is_none() {
                held.extend(ancestors::held_above(mount)?);
                ask = locks_to_ask(mount, wanted, &held)?;
            }
        }
        if grant.is_none() && !ask.is_empty() {
            let granted = acquire(mount, &ask, options, options.wait)?;
            grant = Some(granted.map_err(|refused| refused.explain(mount, &ask))?);
        }
        if let Some(grant) = &grant {
            held.extend(grant.locks.iter().map(|(name, mode)| Held {
                name: name.clone(),
                token: grant.token,
                mode: *mode,
            }));
        }
        Ok(Self {
            mount: mount.clone(),
            held,
            grant,
            session: options.session.clone(),
            verbose: options.verbose,
        })
    }

    /// Tells a command in its environment what it runs within.
    pub fn dress(&self, command: &mut Command) {
        if let Some(session) = &self.session {
            command.env(SESSION_ENV, session.as_str());
        }
        command.env(HELD_ENV, held::render(&self.held));
        if let Some(grant) = &self.grant {
            command.env(TOKEN_ENV, grant.token.to_string());
        }
    }

    /// What there is to watch; `None` when all of it is held by runs around this one, and theirs to watch.
    pub fn watch(&self) -> Option<Watch<'_>> {
        self.grant.as_ref().map(|grant| Watch {
            transaction: &grant.transaction,
            mount: &self.mount,
            locks: &grant.locks,
            verbose: self.verbose,
        })
    }
}

/// What the runs around this one hold, as far as the mount confirms it.
fn outer_locks(mount: &Mount) -> Result<Vec<Held>> {
    match held::parse(&std::env::var(HELD_ENV).unwrap_or_default()) {
        none if none.is_empty() => Ok(none),
        held => Ok(held::confirmed(held, &mount.snapshot()?)),
    }
}

fn locks_to_ask(mount: &Mount, wanted: &[(LockName, Mode)], held: &[Held]) -> Result<Vec<(LockName, Mode)>> {
    if held.is_empty() {
        return Ok(wanted.to_vec());
    }
    let common_dir = &mount.place().common_dir;
    let settings = Configuration::read(common_dir, common_dir, &Invocation::default()).settings()?;
    held::locks_to_ask(wanted, held, &settings).map_err(|refusal| failure(EXIT_NOT_HAD, refusal.to_string()))
}

/// Asks for locks. Being refused costs no more than the call, as long as nobody wants to know why.
fn acquire(
    mount: &Mount,
    ask: &[(LockName, Mode)],
    options: &Options,
    wait: Option<Wait>,
) -> Result<Result<Grant, Refused>> {
    let mut transaction = mount.open_acquire()?;
    let started = Instant::now();
    let session = options.session();
    let mut request = Request {
        locks: ask,
        wait,
        priority: options.priority,
        session: session.as_deref(),
        op: &options.op,
        ticket: options.ticket.as_ref(),
    };
    let names = || ask.iter().map(|(name, _)| name.clone()).collect();
    let reporter = (wait != Some(Wait::AtMost(Duration::ZERO)))
        .then(|| Reporter::start(mount.clone(), names(), options.ticket.clone()));
    let written = loop {
        match transaction.write(request.line().as_bytes()) {
            // Stopped and continued: the wait ended, its place in the line waits for us.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                if let Some(Wait::AtMost(limit)) = wait {
                    request.wait = Some(Wait::AtMost(limit.saturating_sub(started.elapsed())));
                }
            }
            other => break other,
        }
    };
    if let Err(error) = written {
        let waited = started.elapsed();
        return Ok(Err(Refused { waited, error }));
    }
    let mut grant = [0; 256];
    let length = transaction.read(&mut grant).map_err(|error| mount.explain_io(error))?;
    drop(reporter);
    let grant = String::from_utf8_lossy(&grant[..length]);
    let token = grant.lines().next().and_then(|line| line.strip_prefix("token="));
    let token = token.and_then(|token| token.parse().ok());
    let token = token.with_context(|| format!("the daemon answered {grant:?} instead of a token"))?;
    Ok(Ok(Grant {
        transaction,
        token,
        locks: ask.to_vec(),
    }))
}

/// A request that was not granted.
#[derive(Debug)]
struct Refused {
    waited: Duration,
    error: io::Error,
}

impl Refused {
    /// Why the locks could not be had, who has them, and what to do.
    fn explain(self, mount: &Mount, ask: &[(LockName, Mode)]) -> anyhow::Error {
        let Self { waited, error } = self;
        if is_disconnected(&error) {
            return mount.explain_io(error);
        }
        let names: Vec<&str> = ask.iter().map(|(name, _)| name.as_str()).collect();
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
}
