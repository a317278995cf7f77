//! The command that is run when an alert begins or ends, if the user has one.
//!
//! It is read anew each time, and only from git's protected configuration (system, global): what a repository says of
//! itself must not start programs. Like git's own commands of that kind it is a shell's. It runs outside the mount, is
//! told everything in its environment, and is killed when it takes too long.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::poll::PollTimeout;

use super::git::{ConfigError, protected_value};
use super::processes::pidfd::Pidfd;
use crate::metrics::Alert;

/// The key, below `lockfs.`.
const KEY: &str = "alertCommand";
/// How long it may run, in milliseconds.
const RUN_MS_MAX: u16 = 30_000;

/// Runs the command for the alerts of one repository.
#[derive(Clone, Debug)]
pub struct AlertCommand {
    common_dir: PathBuf,
}

impl AlertCommand {
    /// For the repository with that common dir.
    pub fn new(common_dir: &Path) -> Self {
        Self {
            common_dir: common_dir.to_owned(),
        }
    }

    /// Runs the command for alerts that have begun or ended, on a thread of its own, one after the other.
    pub fn tell(&self, alerts: Vec<Alert>) {
        let own = self.clone();
        let told = thread::Builder::new().name("alert".to_owned()).spawn(move || {
            for alert in &alerts {
                own.run(alert);
            }
        });
        if let Err(error) = told {
            tracing::warn!("alertCommand could not be run: {error}");
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
            .spawn()?;
        let ended = Pidfd::open(child.id()).map(|pidfd| pidfd.wait_exit(PollTimeout::from(RUN_MS_MAX)));
        if !matches!(ended, Ok(true)) {
            // It cannot have been waited for, so this is still our child.
            let _ = child.kill();
        }
        Ok(child.wait()?.success() && matches!(ended, Ok(true)))
    }
}

fn warn(error: &ConfigError) {
    tracing::warn!("alertCommand could not be read: {error}");
}
