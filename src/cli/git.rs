//! `git lockfs git`, and git itself when we are called by its name: git, under the locks that its command needs.
//!
//! This is the hot path of a transparent git. A command that needs no lock becomes git at once, before anything else
//! of the program is set up; the others cost one request to the mount. Nothing here starts another git to find out what
//! to do.

pub mod attempts;
mod program;
pub mod unmounted;
mod validation;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;

use super::EXIT_NO_DAEMON;
use super::client::Mount;
use super::failure::exit_code;
use super::place::{Place, State};
use super::run::finish;
use super::taken::{Options, Taken, Wait, wait_limit};
use crate::adapters::Repository;
use crate::scopes::{self, Invocation, Plan};
use crate::types::{SessionName, Settings};

pub use program::{become_git, callers_path, real_git};
use validation::Declared;

/// Run git under the locks that its command needs
///
/// Which locks: `git lockfs scope`. A command that only reads takes none, and leaves git's own optional locks alone.
/// Exits as git does; with 75 when a lock could not be had or was lost, with 69 when no daemon answers and
/// lockfs.require is set.
#[derive(Debug, clap::Args)]
pub struct Args {
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
    /// Tell on standard error who waits for what is held
    #[arg(short)]
    verbose: bool,
    /// What follows `git`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let wait = if args.nonblock {
        Some(Wait::AtMost(std::time::Duration::ZERO))
    } else {
        args.wait
    };
    let options = Options {
        wait,
        priority: args.priority,
        session: args.session.clone(),
        verbose: args.verbose,
        ..Options::default()
    };
    git(&args.args, options, true)
}

/// Carries out `git ARGS` as the program `git` that stands before the real one in PATH.
pub fn run_as_git(args: &[OsString]) -> Result<ExitCode> {
    git(args, Options::default(), false)
}

/// A command of git as it is going to run: where, and what it needs.
#[derive(Debug)]
pub struct Prepared {
    /// The repository it is about; `None` outside of any.
    pub repository: Option<Repository>,
    /// Its settings.
    pub settings: Settings,
    /// Its locks.
    pub plan: Plan,
    /// How many words of the command line are options of git itself.
    options: usize,
}

impl Prepared {
    /// Finds out about a command line.
    pub fn find(args: &[OsString]) -> Result<Self> {
        let invocation = Invocation::parse(args.iter().map(|word| word.to_string_lossy()));
        if invocation.command.is_none() {
            return Ok(Self::outside(Plan::default()));
        }
        let Some(repository) = Repository::find(&invocation) else {
            return Ok(Self::outside(Plan::default()));
        };
        let settings = repository.configuration.settings()?;
        let plan = scopes::plan(&invocation, &settings, &repository);
        Ok(Self {
            repository: Some(repository),
            settings,
            plan,
            options: invocation.options.len(),
        })
    }

    fn outside(plan: Plan) -> Self {
        Self {
            repository: None,
            settings: Settings::default(),
            plan,
            options: 0,
        }
    }
}

/// `named` says that we were asked for by our own name: then a commit is compared with what it was about to have, which
/// costs two more processes, also where `lockfs.validate` is not set.
fn git(args: &[OsString], options: Options, named: bool) -> Result<ExitCode> {
    let prepared = Prepared::find(args)?;
    let program = real_git()?;
    let mut command = Command::new(&program);
    command.args(args);
    let Some(repository) = &prepared.repository else {
        return become_git(command);
    };
    if prepared.plan.locks.is_empty() {
        // Ours decide themselves about the git that they start.
        if prepared.plan.command.as_deref().is_some_and(|name| name != "lockfs") {
            command.env("GIT_OPTIONAL_LOCKS", "0");
        }
        return become_git(command);
    }
    let place = Place::of(repository.common_dir.clone());
    let Some(mount) = Mount::hoped_for(place.clone()) else {
        unmounted::allow(&place, State::Bare, &prepared)?;
        return become_git(command);
    };
    let options = Options {
        op: format!("git {}", prepared.plan.command.as_deref().unwrap_or_default()),
        passed_down: true,
        ..options
    };
    let taken = match Taken::take(&mount, &prepared.plan.locks, &options) {
        Err(error) if exit_code(&error) == EXIT_NO_DAEMON => {
            unmounted::allow(&place, place.state(), &prepared)?;
            return become_git(command);
        }
        other => other?,
    };
    let validates = named || prepared.settings.validate;
    let declared = validates
        .then(|| Declared::before(&program, args, &prepared, &taken))
        .flatten();
    let outcome = attempts::run(&program, args, &taken, repository, &prepared.plan)?;
    if let Some(declared) = declared {
        declared.compare(&outcome, &mount);
    }
    finish(outcome)
}
