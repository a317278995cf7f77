//! Where a repository keeps its mount, and whether a daemon answers there.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::bounded::{LOOK_LIMIT, within};

/// The directory under git's common dir where locks are files.
pub const MOUNT_NAME: &str = ".git-locks";
/// The source of our mounts in /proc/self/mountinfo.
pub const MOUNT_SOURCE: &str = "git-lockfs";

/// The places that belong to one repository, the same from all of its worktrees.
#[derive(Clone, Debug)]
pub struct Place {
    /// `git rev-parse --git-common-dir`, absolute.
    pub common_dir: PathBuf,
    /// Where the locks are.
    pub mountpoint: PathBuf,
    /// What outlives a mount: the log, fencing tokens, the daemon's own lock. Mode 0700.
    pub state_dir: PathBuf,
}

/// What is at the mountpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A daemon answers.
    Mounted,
    /// A mount whose daemon is gone ("Transport endpoint is not connected").
    Dead,
    /// A mount whose daemon is there but does not answer in time.
    Mute,
    /// Nothing is mounted.
    Bare,
}

impl Place {
    /// Asks git for the repository of the current directory; git's own refusals (safe.directory) are passed on.
    pub fn find() -> Result<Self> {
        let output = Command::new("git")
            .args(["rev-parse", "--path-format=absolute", "--git-common-dir"])
            .output()
            .context("git could not be started")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        let common_dir = PathBuf::from(OsStr::from_bytes(output.stdout.trim_ascii_end()));
        Ok(Self::of(common_dir))
    }

    /// The places of the repository with that common directory (absolute).
    pub fn of(common_dir: PathBuf) -> Self {
        Self {
            mountpoint: common_dir.join(MOUNT_NAME),
            state_dir: common_dir.join("lockfs"),
            common_dir,
        }
    }

    /// Looks at the mountpoint, for a bounded time: in mountinfo first, so that a path that is not ours is never touched.
    pub fn state(&self) -> State {
        if self.mount_options().is_none() {
            return State::Bare;
        }
        let mountpoint = self.mountpoint.clone();
        match within(LOOK_LIMIT, move || std::fs::symlink_metadata(mountpoint)) {
            Some(Ok(_)) => State::Mounted,
            // Another user's mount: it lives, but not for us.
            Some(Err(error)) if error.kind() == ErrorKind::PermissionDenied => State::Mounted,
            Some(Err(_)) => State::Dead,
            None => State::Mute,
        }
    }

    /// The options of our mount there, from mountinfo; `None` when nothing of ours is mounted.
    pub fn mount_options(&self) -> Option<String> {
        // The mountpoint itself may not be resolved: its daemon may be gone. Its parent can be.
        let parent = self
            .common_dir
            .canonicalize()
            .unwrap_or_else(|_| self.common_dir.clone());
        let wanted = parent.join(MOUNT_NAME);
        let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        table
            .split(|&b| b == b'\n')
            .find_map(|line| our_mount(line, wanted.as_os_str().as_bytes()))
    }
}

/// The options in a line of mountinfo, if it is a mount of ours at `wanted`.
fn our_mount(line: &[u8], wanted: &[u8]) -> Option<String> {
    let mut fields = line.split(|&b| b == b' ');
    let at = fields.nth(4).map(unescape)?;
    let options = fields.next()?;
    let separator = line.windows(3).position(|w| w == b" - ")?;
    let source = line[separator + 3..].split(|&b| b == b' ').nth(1)?;
    (at == wanted && source == MOUNT_SOURCE.as_bytes()).then(|| String::from_utf8_lossy(options).into_owned())
}

/// Undoes the octal escapes of /proc/self/mountinfo (proc_pid_mountinfo(5)).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_mount_at_that_place_is_ours() {
        let line = br"36 35 0:45 / /r/a\040b/.git/.git-locks rw,nosuid - fuse git-lockfs rw,user_id=0";
        let at = |wanted: &str| our_mount(line, wanted.as_bytes());
        assert_eq!(at("/r/a b/.git/.git-locks").as_deref(), Some("rw,nosuid"));
        assert_eq!(at("/r/.git/.git-locks"), None);
        let other = br"36 35 0:45 / /r/.git-locks rw - fuse.sshfs sshfs rw";
        assert_eq!(our_mount(other, b"/r/.git-locks"), None);
    }

    #[test]
    fn blanks_in_paths_are_escaped_in_mountinfo() {
        assert_eq!(unescape(br"/a\040b\134c"), b"/a b\\c");
        assert_eq!(unescape(br"/a\04"), br"/a\04");
    }
}
