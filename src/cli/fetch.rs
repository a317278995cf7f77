//! `git lockfs fetch`: callers who ask together share one fetch.
//!
//! Whoever fetches holds a lock named after what is fetched, and leaves a record of it when it is done. Whoever had to
//! wait for that lock finds the record, sees that the fetch came to an end while it waited, and has its result.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::child::Outcome;
use super::client::Mount;
use super::daemon::make_state_dir;
use super::failure::failure;
use super::git::{Prepared, attempts, become_git, real_git, unmounted};
use super::place::{Place, State};
use super::run::finish;
use super::taken::{Options, Taken, Wait, wait_limit};
use crate::adapters::Repository;
use crate::scopes::{self, Surroundings};
use crate::types::{LockName, Mode, SessionName};

/// Fetch once for all who ask together
///
/// Runs `git fetch ARGS`. When the same fetch is under way, waits for it and takes its result.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Share only a fetch that begins after this call
    #[arg(long)]
    fresh: bool,
    /// Wait that long at most (5s, 2m, 0, forever) [default: as configured]
    #[arg(short, long, value_name = "TIME", value_parser = wait_limit)]
    wait: Option<Wait>,
    /// Whose the locks are [default: $GIT_LOCKFS_SESSION]
    #[arg(long, value_parser = super::session_name)]
    session: Option<SessionName>,
    /// Say on standard error when another fetch was shared
    #[arg(short)]
    verbose: bool,
    /// What follows `git fetch`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// How a fetch went. Moments are of CLOCK_BOOTTIME, so they count only within one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    boot: String,
    pid: u32,
    started: Duration,
    ended: Duration,
    code: u8,
    git_dir: PathBuf,
    branch: Option<String>,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let asked = moment()?;
    let words: Vec<OsString> = std::iter::once("fetch".into())
        .chain(args.args.iter().cloned())
        .collect();
    let prepared = Prepared::find(&words)?;
    let Some(repository) = &prepared.repository else {
        bail!("no repository is here to fetch into");
    };
    let program = real_git()?;
    let place = Place::of(repository.common_dir.clone());
    let mount = match place.state() {
        State::Mounted => Mount::at(place.clone())?,
        state => {
            unmounted::allow(&place, state, &prepared)?;
            let mut command = Command::new(program);
            command.args(words);
            return become_git(command);
        }
    };
    let key = key(&words, &prepared);
    let flight = LockName::parse_lock(format!("fetch-{key}.lock").as_bytes())?;
    let mut locks = prepared.plan.locks.clone();
    locks.push((flight, Mode::Exclusive));
    let options = Options {
        wait: args.wait,
        session: args.session.clone(),
        op: "git fetch".to_owned(),
        passed_down: true,
        ..Options::default()
    };
    let taken = Taken::take(&mount, &locks, &options)?;
    let path = place.state_dir.join("fetch").join(key);
    let shared = Record::read(&path).filter(|record| record.answers(asked, args.fresh));
    if let Some(record) = shared {
        return record.share(repository, has_refspec(&words), args.verbose);
    }
    let started = moment()?;
    let outcome = attempts::run(&program, &words, &taken, repository, &prepared.plan)?;
    if let Outcome::Exited(code) = outcome {
        make_state_dir(&place.state_dir)?;
        let record = Record {
            boot: boot()?,
            pid: std::process::id(),
            started,
            ended: moment()?,
            code,
            git_dir: repository.git_dir.clone(),
            branch: repository.branch(),
        };
        record.write(&path)?;
    }
    finish(outcome)
}

/// What tells one fetch from another: its arguments, and the remotes that it is from.
fn key(words: &[OsString], prepared: &Prepared) -> String {
    let mut text = String::new();
    for word in words {
        text += &word.to_string_lossy();
        text.push('\0');
    }
    for (lock, _) in &prepared.plan.locks {
        text += lock.as_str();
        text.push('\0');
    }
    format!("{:016x}", scopes::fnv1a(text.as_bytes()))
}

/// Whether it is said what to fetch: `fetch REMOTE REFSPEC`.
fn has_refspec(words: &[OsString]) -> bool {
    words
        .iter()
        .skip(1)
        .filter(|word| !word.to_string_lossy().starts_with('-'))
        .count()
        > 1
}

fn moment() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?))
}

fn boot() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("the id of this boot")?;
    Ok(id.trim().to_owned())
}

impl Record {
    fn read(path: &std::path::Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Under the lock of this fetch: nobody reads or writes it at the same time.
    fn write(&self, path: &std::path::Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, serde_json::to_vec(self)?).with_context(|| path.display().to_string())
    }

    /// Whether this fetch is one for a caller who asked then: it ended after that, so it was under way or yet to come.
    fn answers(&self, asked: Duration, fresh: bool) -> bool {
        let since = if fresh { self.started } else { self.ended };
        boot().is_ok_and(|boot| boot == self.boot) && since >= asked
    }

    fn share(&self, repository: &Repository, has_refspec: bool, verbose: bool) -> Result<ExitCode> {
        if self.code != 0 {
            let sentence = format!(
                "the fetch of process {}, which this one shared, failed with {}",
                self.pid, self.code
            );
            return Err(failure(self.code, sentence));
        }
        // What FETCH_HEAD says depends on the branch only when no refspec does.
        if self.git_dir != repository.git_dir && (has_refspec || self.branch == repository.branch()) {
            let copied = fs::copy(self.git_dir.join("FETCH_HEAD"), repository.git_dir.join("FETCH_HEAD"));
            copied.context("FETCH_HEAD")?;
        }
        if verbose {
            eprintln!("git-lockfs: shared the fetch of process {}", self.pid);
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_answers_those_who_asked_before_it_ended() {
        let second = Duration::from_secs;
        let record = Record {
            boot: boot().expect("Linux"),
            pid: 1,
            started: second(10),
            ended: second(20),
            code: 0,
            git_dir: PathBuf::new(),
            branch: None,
        };
        assert!(record.answers(second(5), false) && record.answers(second(5), true));
        assert!(record.answers(second(15), false) && !record.answers(second(15), true));
        assert!(!record.answers(second(21), false));
        let other_boot = Record {
            boot: "another".to_owned(),
            ..record
        };
        assert!(!other_boot.answers(second(5), false));
    }
}
