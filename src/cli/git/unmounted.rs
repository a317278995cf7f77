//! What happens to a git command that needs locks while no daemon answers.
//!
//! Where git-lockfs was not installed, nobody expects it, and git runs without a word. Where it was, a warning is due,
//! once a login session: the session's number is remembered in a file.

use std::fs::{self, OpenOptions};
use std::path::Path;

use anyhow::Result;
use nix::sys::signal::kill;
use nix::unistd::{Pid, getsid};

use super::super::EXIT_NO_DAEMON;
use super::super::client::no_daemon;
use super::super::failure::failure;
use super::super::install::is_installed;
use super::super::place::{Place, State};
use super::Prepared;

/// Where it is remembered who was told, below the state directory: an empty file for each login session.
const TOLD: &str = "unmounted";

/// Lets git run without locks, with a warning where one is due; refuses with `lockfs.require`.
pub fn allow(place: &Place, state: State, prepared: &Prepared) -> Result<()> {
    if prepared.settings.require {
        let reason = no_daemon(place, state);
        // Also what would change the setting needs a lock.
        let sentence =
            format!("{reason}; without locks it runs, once, with GIT_LOCKFS_REQUIRE=false in its environment");
        return Err(failure(EXIT_NO_DAEMON, sentence));
    }
    if is_installed(place) && is_news(&place.state_dir.join(TOLD)) {
        let reason = no_daemon(place, state);
        eprintln!("git-lockfs: warning: running git without locks: {reason}");
    }
    Ok(())
}

/// Whether this login session has not been told; remembers that it was. Where nothing can be remembered, it is told
/// each time.
fn is_news(told: &Path) -> bool {
    let Ok(session) = getsid(None) else { return true };
    if fs::create_dir(told).is_err() && !told.is_dir() {
        return true;
    }
    forget_the_dead(told);
    let mark = told.join(session.to_string());
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(mark)
        .map_or_else(|error| error.kind() != std::io::ErrorKind::AlreadyExists, |_| true)
}

fn forget_the_dead(told: &Path) {
    for entry in fs::read_dir(told).into_iter().flatten().flatten() {
        let session = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let lives = session.is_some_and(|session| kill(Pid::from_raw(session), None) != Err(nix::Error::ESRCH));
        if !lives {
            // Somebody else may have removed it meanwhile.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_once_and_the_dead_are_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let told = dir.path().join("unmounted");
        fs::create_dir(&told).expect("a directory");
        let dead = told.join(i32::MAX.to_string());
        fs::write(&dead, "").expect("a file");
        assert!(is_news(&told));
        assert!(!is_news(&told));
        assert!(!dead.exists(), "no such session lives");
        assert!(
            is_news(&dir.path().join("missing/unmounted")),
            "nothing can be remembered there"
        );
    }
}
