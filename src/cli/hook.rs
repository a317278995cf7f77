//! git's hooks as this program serves them: a link to it under a hook's name in the directory of hooks.
//!
//! As `reference-transaction` it refuses an update of a branch or a tag whose process holds no fitting lock. That stops
//! accidents, not intent: git runs no hook when it is told not to. git runs the hook five times a commit, so that of
//! the program nothing but this room runs then, and in four of the five it ends at once.
//!
//! What was there before, a hook of the user's or of a hook manager, runs after it with the same arguments and input.
//! Where `core.hooksPath` names a directory of hooks, ours takes its place and passes every hook on to it.
//!
//! * [`updates`]: what git is about to move.
//! * [`proof`]: whether this process may.
//! * [`chain`]: what was there before.
//! * [`setup`]: installing and taking back.

mod chain;
mod proof;
mod setup;
mod updates;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use super::bounded::{LOOK_LIMIT, within};
use super::place::{Place, State};
use super::report;
use crate::adapters::ConfigError;
use crate::adapters::configuration::Configuration;
use crate::scopes::Invocation;
use crate::types::{OnUnavailable, Settings};
use proof::{Question, Verdict};
use updates::Update;

pub use setup::{Args, fires, install, run, uninstall};

/// The hook that guards refs.
const GUARD: &str = "reference-transaction";
/// The state in which git still asks; in the others it tells.
const PREPARED: &[u8] = b"prepared";
/// A ref that the hook always refuses, so that `doctor` can see it fire.
const PROBE_REF: &str = "refs/lockfs-probe";
/// What it says then.
const PROBE_ANSWER: &str = "git-lockfs: the hook fires";

/// Serves git when it called this program under the name of a hook. To be asked before anything else.
pub fn serve(called: &Path, arguments: &[OsString]) -> Option<ExitCode> {
    let name = called.file_name()?.to_str()?;
    if !chain::is_hook(name) {
        return None;
    }
    let code = if name == GUARD && arguments.first().is_some_and(|state| state.as_bytes() == PREPARED) {
        guard(called, arguments)
    } else {
        chain::run(called, arguments, None)
    };
    Some(ExitCode::from(code))
}

/// Asks for the locks of what is about to be moved, and then the hook that was there before.
fn guard(called: &Path, arguments: &[OsString]) -> u8 {
    let mut input = Vec::new();
    if let Err(error) = std::io::stdin().read_to_end(&mut input) {
        eprintln!("git-lockfs: the updates could not be read: {error}");
        return 1;
    }
    let updates = match updates::parse(&input) {
        Ok(updates) => updates,
        Err(line) => {
            eprintln!("git-lockfs: git asks about {line:?}, which is no update: nothing is moved");
            return 1;
        }
    };
    if updates.iter().any(|update| update.name.starts_with(PROBE_REF)) {
        eprintln!("{PROBE_ANSWER}");
        return 1;
    }
    let guarded: Vec<Update> = updates.into_iter().filter(Update::is_guarded).collect();
    if !guarded.is_empty() && !may_move(guarded) {
        return 1;
    }
    chain::run(called, arguments, Some(&input))
}

/// Whether these updates may go on; says why not.
fn may_move(updates: Vec<Update>) -> bool {
    let Some(question) = Question::of_environment(updates) else {
        eprintln!("git-lockfs: the repository of this hook could not be found: nothing is moved");
        return false;
    };
    let place = Place::of(question.common_dir.clone());
    let verdict = within(LOOK_LIMIT, move || question.answer());
    match verdict {
        Some(Verdict::Fits) => true,
        Some(Verdict::Unavailable) => decide_unavailable(&place, place.state()),
        None => decide_unavailable(&place, State::Mute),
        Some(Verdict::Refused(refusal)) => {
            // Only who is about to refuse reads the configuration, which costs more than all the rest.
            if settings(&place).is_ok_and(|settings| !settings.enforce) {
                return true;
            }
            let said = write!(std::io::stderr(), "{}", explain(&refusal, &place));
            // Nobody to hear it is no reason to let it pass.
            drop(said);
            false
        }
    }
}

fn settings(place: &Place) -> Result<Settings, ConfigError> {
    let common_dir = &place.common_dir;
    Configuration::read(common_dir, common_dir, &Invocation::default()).settings()
}

fn decide_unavailable(place: &Place, state: State) -> bool {
    let settings = match settings(place) {
        Ok(settings) if !settings.enforce => return true,
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("git-lockfs: {error}: no ref is moved");
            return false;
        }
    };
    let error = super::client::no_daemon(place, state);
    match settings.on_unavailable {
        OnUnavailable::Allow => true,
        OnUnavailable::Warn => {
            eprintln!("git-lockfs: warning: refs are moved without a lock: {error}");
            true
        }
        OnUnavailable::Deny => {
            eprintln!("git-lockfs: no ref is moved (lockfs.onUnavailable is deny): {error}");
            false
        }
    }
}

/// Why, who holds the locks, and what to do.
fn explain(refusal: &proof::Refusal, place: &Place) -> String {
    let mut text = format!("git-lockfs: {} is not moved: {}\n", refusal.name, refusal.why());
    let holders = super::client::Mount::at(place.clone())
        .and_then(|mount| mount.snapshot())
        .map(|snapshot| report::holders_of(&snapshot, refusal.fitting.iter().map(|lock| lock.as_str())))
        .unwrap_or_default();
    for holder in holders {
        text += &format!("  {holder}\n");
    }
    let lock = shell_words::quote(refusal.fitting[0].as_str()).into_owned();
    text += &format!("  take the lock around git: `git lockfs run -l {lock} -- git ...`\n");
    text
}
