//! The inside of the daemon: mountpoint, mount, service, loop.

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use super::mountpoint::Mountpoint;
use super::place::Place;
use crate::types::Settings;

/// What a daemon serves, and who wants to know when it does.
#[derive(Debug)]
pub struct Options {
    /// Where.
    pub place: Place,
    /// Under which settings.
    pub settings: Settings,
    /// Whether other users may look and lock.
    pub allow_other: bool,
    /// Gets one byte when the mount answers. An error returned before that is reported there by the caller.
    pub ready: Option<OwnedFd>,
    /// Whether a person watches: logs go to standard error either way, which the starter of a daemon has pointed at
    /// the log file.
    pub foreground: bool,
}

/// Mounts and serves until it is unmounted.
pub fn serve(options: Options) -> anyhow::Result<ExitCode> {
    let _mountpoint = Mountpoint::prepare(&options.place)?;
    anyhow::bail!("in work")
}
