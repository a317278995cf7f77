//! Where a repository keeps its mount, and whether a daemon answers there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

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
        Ok(Self {
            mountpoint: common_dir.join(MOUNT_NAME),
            state_dir: common_dir.join("lockfs"),
            common_dir,
        })
    }

    /// Looks at the mountpoint: in mountinfo first, so that a path that is not ours is never touched.
    pub fn state(&self) -> State {
        if !self.in_mountinfo() {
            return State::Bare;
        }
        match std::fs::symlink_metadata(&self.mountpoint) {
            Ok(_) => State::Mounted,
            Err(_) => State::Dead,
        }
    }

    fn in_mountinfo(&self) -> bool {
        // The mountpoint itself may not be resolved: its daemon may be gone. Its parent can be.
        let parent = self
            .common_dir
            .canonicalize()
            .unwrap_or_else(|_| self.common_dir.clone());
        let wanted = parent.join(MOUNT_NAME);
        let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        table.split(|&b| b == b'\n').any(|line| {
            let mut fields = line.split(|&b| b == b' ');
            let at = fields.nth(4).map(unescape);
            let source = line
                .windows(3)
                .position(|w| w == b" - ")
                .and_then(|i| line[i + 3..].split(|&b| b == b' ').nth(1));
            at.as_deref() == Some(wanted.as_os_str().as_bytes()) && source == Some(MOUNT_SOURCE.as_bytes())
        })
    }
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
    use super::unescape;

    #[test]
    fn blanks_in_paths_are_escaped_in_mountinfo() {
        assert_eq!(unescape(br"/a\040b\134c"), b"/a b\\c");
        assert_eq!(unescape(br"/a\04"), br"/a\04");
    }
}
