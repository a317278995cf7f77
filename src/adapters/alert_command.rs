//! The command that is run when an alert begins or ends, if the user has one.
//!
//! It is read anew each time, and only from git's protected configuration (system, global): what a repository says of
//! itself must not start programs. Like git's own commands of that kind it is a shell's. It runs outside the mount, is
//! told everything in its environment, and is killed with all that it started when it takes too long. It runs for one
//! alert after the other, so that nobody hears of the end before the beginning.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::poll::PollTimeout;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::git::{ConfigError, protected_value};
use super::processes::pidfd::Pidfd;
use crate::metrics::Alert;

/// The key, below `lockfs.`.
const KEY: &str = "alertCommand";
/// How long it may run, in milliseconds.
const RUN_MS_MAX: u16 = 30_000;

/// How many alerts wait while a command runs; more are not told.
const QUEUE_MAX: usize = 64;

/// Tells a command of the alerts of one repository.
#[derive(Debug)]
pub struct AlertCommand {
    common_dir: PathBuf,
    /// Made at the first alert.
    queue: OnceLock<Option<Sender<Alert>>>,
}

impl AlertCommand {
    /// For the repository with that common dir.
    pub fn new(common_dir: &Path) -> Self {
        Self {
            common_dir: common_dir.to_owned(),
            queue: OnceLock::new(),
        }
    }

    /// Has the command run for alerts that have begun or ended, a moment later.
    pub fn tell(&self, alerts: Vec<Alert>) {
        let Some(queue) = self.queue.get_or_init(|| self.start()) else {
            return;
        };
        for alert in alerts {
            if let Err(full) = queue.try_send(alert) {
                let alert = full.into_inner();
                tracing::warn!(
                    "alertCommand was not run for {}: too many alerts wait for it",
                    alert.kind
                );
            }
        }
    }

    fn start(&self) -> Option<Sender<Alert>> {
        let (sender, receiver) = bounded(QUEUE_MAX);
        let runner = Runner {
            common_dir: self.common_dir.clone(),
            run_ms_max: RUN_MS_MAX,
        };
        let started = thread::Builder::new()
            .name("alert".to_owned())
            .spawn(move || runner.run_all(&receiver));
        if let Err(error) = &started {
            tracing::warn!("alertCommand cannot be run: {error}");
        }
        started.is_ok().then_some(sender)
    }
}

/// The thread that waits for the command.
struct Runner {
    common_dir: PathBuf,
    run_ms_max: u16,
}

impl Runner {
    fn run_all(&self, alerts: &Receiver<Alert>) {
        for alert in alerts {
            self.run(&alert);
        }
    }

    fn run(&self, alert: &Alert) {
        let command = match protected_value(&self.common_dir, KEY) {
            Ok(Some(command)) => command,
            Ok(None) => return,
            Err(error) => return warn(&error),
        };
        match self.run_bounded(&command, alert) {
            Ok(true) => {}
            Ok(false) => tracing::warn!("alertCommand failed for {}: {command}", alert.kind),
            Err(error) => tracing::warn!("alertCommand could not be run: {error}"),
        }
    }

    /// Whether it succeeded in time.
    fn run_bounded(&self, command: &str, alert: &Alert) -> io::Result<bool> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", command])
            .current_dir(&self.common_dir)
            .env("LOCKFS_ALERT", alert.kind.name())
            .env("LOCKFS_ALERT_STATE", if alert.firing { "firing" } else { "ok" })
            .env("LOCKFS_ALERT_SENTENCE", &alert.sentence)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        let ended = Pidfd::open(child.id()).map(|pidfd| pidfd.wait_exit(PollTimeout::from(self.run_ms_max)));
        if !matches!(ended, Ok(true)) {
            // It cannot have been waited for, so this is still our child and its group.
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        }
        Ok(child.wait()?.success() && matches!(ended, Ok(true)))
    }
}

fn warn(error: &ConfigError) {
    tracing::warn!("alertCommand could not be read: {error}");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;
    use crate::metrics::AlertKind;

    #[test]
    fn a_command_that_takes_too_long_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let runner = Runner {
            common_dir: dir.path().to_owned(),
            run_ms_max: 200,
        };
        let alert = Alert {
            kind: AlertKind::LongHold,
            firing: true,
            since: None,
            sentence: String::new(),
        };
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        // Reads to its end only when nobody has it open any more: neither the shell nor its child.
        let reader = thread::spawn(move || fs::File::open(fifo)?.read_to_end(&mut Vec::new()));
        let told = runner.run_bounded("exec 3> fifo; sleep 600; true", &alert);
        assert!(!told.expect("it starts"));
        assert_eq!(reader.join().expect("no panic").expect("it is read"), 0);
        assert!(
            runner
                .run_bounded("test $LOCKFS_ALERT = long-hold", &alert)
                .expect("it starts")
        );
        assert!(!runner.run_bounded("exit 1", &alert).expect("it starts"));
    }
}
