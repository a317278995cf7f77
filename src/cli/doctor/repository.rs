//! What the repository has: its mount, its daemon, its settings, its state.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use nix::unistd::{AccessFlags, access};

use super::{Check, enforcement, path};
use crate::adapters::read_settings;
use crate::cli::bounded::{LOOK_LIMIT, within};
use crate::cli::client::Mount;
use crate::cli::daemon::{Running, given_up_path, log_path};
use crate::cli::place::{Place, State};

/// How much of the end of the log is read.
const LOG_TAIL_BYTES: u64 = 64 * 1024;
/// What every mount of ours has.
const OPTIONS_NEEDED: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// All checks of the repository of the current directory.
pub fn checks(place: anyhow::Result<Place>) -> Vec<Check> {
    let place = match place {
        Ok(place) => place,
        Err(error) => {
            let fix = "cd to a repository that git accepts";
            return vec![Check::fail("repository", format!("{error:#}"), fix)];
        }
    };
    let mut checks = vec![writable(&place), settings(&place), mount(&place), daemon(&place)];
    checks.extend(given_up(&place));
    checks.extend(recovery(&place));
    checks.extend(options(&place));
    checks.extend(state_dir(&place));
    checks.extend(log(&place));
    checks.extend(path::check(&place));
    checks.extend(enforcement::check(&place));
    checks
}

fn writable(place: &Place) -> Check {
    let at = place.common_dir.display().to_string();
    match access(&place.common_dir, AccessFlags::W_OK) {
        Ok(()) => Check::ok("repository", at),
        Err(error) => Check::warn(
            "repository",
            format!(
                "{at} cannot be written here ({}): locks/ and mount need that",
                error.desc()
            ),
            "mount outside, and take locks by `flock .git/.git-locks/flock/NAME`, which only reads",
        ),
    }
}

fn settings(place: &Place) -> Check {
    match read_settings(&place.common_dir) {
        Ok(_) => Check::ok("settings", "git config lockfs.* and the environment are valid"),
        Err(error) => Check::fail(
            "settings",
            format!("{error:#}"),
            "git config --unset that key, or unset that variable",
        ),
    }
}

fn mount(place: &Place) -> Check {
    let at = place.mountpoint.display();
    match place.state() {
        State::Mounted => Check::ok("mount", format!("answers at {at}")),
        State::Bare => Check::warn("mount", format!("nothing is mounted at {at}"), "git lockfs mount"),
        State::Dead => Check::fail("mount", format!("the daemon of {at} is gone"), "git lockfs mount"),
        State::Closed => Check::fail(
            "mount",
            format!("{at} was mounted by another user, for itself alone"),
            "let its owner mount it with --allow-other",
        ),
        State::Mute => Check::fail(
            "mount",
            format!("the daemon of {at} does not answer"),
            "git lockfs umount --force",
        ),
    }
}

fn daemon(place: &Place) -> Check {
    match Running::find(place) {
        Ok(Some(daemon)) => match (daemon.supervisor, daemon.worker) {
            (Some(supervisor), Some(worker)) => Check::ok(
                "daemon",
                format!("supervisor {}, worker {}", supervisor.pid, worker.pid),
            ),
            (Some(process), None) | (None, Some(process)) => Check::ok("daemon", format!("runs as {}", process.pid)),
            (None, None) => Check::ok("daemon", "runs, out of sight of this process"),
        },
        Ok(None) if place.state() == State::Bare => Check::ok("daemon", "none, as nothing is mounted"),
        Ok(None) => Check::fail("daemon", "a mount is there and its daemon is not", "git lockfs mount"),
        // Its file is closed to others than its owner, and that is as it should be.
        Err(error) => Check::ok("daemon", format!("{error:#}")),
    }
}

/// Why the last supervisor gave up, unless a mount has answered since.
fn given_up(place: &Place) -> Option<Check> {
    let reason = fs::read_to_string(given_up_path(place)).ok()?;
    let fix = format!("git lockfs mount; what led to it: less {}", log_path(place).display());
    Some(Check::fail("supervisor", format!("gave up: {}", reason.trim()), fix))
}

/// What a worker's death would cost.
fn recovery(place: &Place) -> Option<Check> {
    let mount = Mount::at(place.clone()).ok()?;
    let recovery = within(LOOK_LIMIT, move || mount.snapshot())?.ok()?.recovery?;
    Some(match recovery.as_str() {
        "resend" => Check::ok(
            "recovery",
            "resend: when a worker dies, the next one gets its unanswered requests",
        ),
        _ => Check::warn(
            "recovery",
            format!("{recovery}: when a worker dies, calls that wait for a lock end with an error"),
            "mount on Linux 6.9 or later, without -o no_resend",
        ),
    })
}

fn options(place: &Place) -> Option<Check> {
    let options = place.mount()?.options;
    let has = |wanted: &&&str| options.split(',').any(|option| option == **wanted);
    let missing: Vec<&str> = OPTIONS_NEEDED.iter().filter(|wanted| !has(wanted)).copied().collect();
    Some(if missing.is_empty() {
        Check::ok("options", options)
    } else {
        Check::fail(
            "options",
            format!("the mount lacks {}", missing.join(",")),
            "git lockfs umount && git lockfs mount",
        )
    })
}

fn state_dir(place: &Place) -> Option<Check> {
    let at = place.state_dir.display();
    let meta = fs::symlink_metadata(&place.state_dir).ok()?;
    Some(if !meta.is_dir() {
        Check::fail("state", format!("{at} is no directory"), format!("mv {at} away"))
    } else if meta.uid() != nix::unistd::geteuid().as_raw() {
        Check::warn(
            "state",
            format!("{at} belongs to user {}", meta.uid()),
            "mount as that user",
        )
    } else if meta.mode() & 0o077 != 0 {
        Check::warn("state", format!("{at} is open to others"), format!("chmod 700 {at}"))
    } else {
        Check::ok("state", at.to_string())
    })
}

fn log(place: &Place) -> Option<Check> {
    let path = log_path(place);
    let mut file = fs::File::open(&path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut tail).ok()?;
    Some(match last_error(&String::from_utf8_lossy(&tail)) {
        Some(line) => Check::warn(
            "log",
            format!("the last error was: {line}"),
            format!("less {}", path.display()),
        ),
        None => Check::ok("log", "no errors"),
    })
}

fn last_error(log: &str) -> Option<&str> {
    let is_error = |line: &&str| line.contains("ERROR") || line.contains("panicked");
    log.lines().rev().find(is_error).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_error_of_the_log_is_found() {
        let log = "T1 ERROR first\nT2  INFO fine\nT3 ERROR second\nT4  WARN so-so\n";
        assert_eq!(last_error(log), Some("T3 ERROR second"));
        assert_eq!(last_error("T1 INFO fine\n"), None);
    }
}
