//! Where a repository keeps its mount, and whether a daemon answers there.

use std::ffi::{CString, OsStr};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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
    /// A mount of another user, made without `--allow-other`: it lives, but not for us.
    Closed,
    /// Nothing is mounted.
    Bare,
}

impl Place {
    /// Asks git for the repository of the current directory; git's own refusals (safe.directory) are passed on.
    pub fn find() -> Result<Self> {
        let output = git()
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
        let Some(mount) = self.mount() else {
            return State::Bare;
        };
        let mountpoint = self.mountpoint.clone();
        match within(LOOK_LIMIT, move || std::fs::symlink_metadata(mountpoint)) {
            Some(Ok(meta)) if (libc::major(meta.dev()), libc::minor(meta.dev())) == mount.device => State::Mounted,
            // Something else is mounted over the repository, and hides the mount.
            Some(Ok(_)) => State::Bare,
            Some(Err(error)) if error.kind() == ErrorKind::PermissionDenied => State::Closed,
            Some(Err(error)) if error.kind() == ErrorKind::NotFound => State::Bare,
            Some(Err(_)) => State::Dead,
            None => State::Mute,
        }
    }

    /// Whether something is mounted there, for who is going to open files of it anyway. It costs one call, for which
    /// the kernel asks no daemon.
    pub fn is_mountpoint(&self) -> bool {
        let Ok(path) = CString::new(self.mountpoint.as_os_str().as_bytes()) else {
            return false;
        };
        // SAFETY: a statx is plain numbers, for which zero is a value.
        let mut found: libc::statx = unsafe { std::mem::zeroed() };
        let flags = libc::AT_STATX_DONT_SYNC | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
        // SAFETY: the path ends with a NUL and the buffer is one statx; both outlive the call.
        let code = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, 0, &raw mut found) };
        let root = libc::STATX_ATTR_MOUNT_ROOT as u64;
        if code == 0 && found.stx_attributes_mask & root == 0 {
            // A kernel before 5.8 does not say.
            return self.mount().is_some();
        }
        code == 0 && found.stx_attributes & root != 0
    }

    /// Our mount there, from mountinfo; `None` when nothing of ours is mounted.
    pub fn mount(&self) -> Option<OurMount> {
        // The mountpoint itself may not be resolved: its daemon may be gone. Its parent can be.
        let parent = self
            .common_dir
            .canonicalize()
            .unwrap_or_else(|_| self.common_dir.clone());
        let wanted = parent.join(MOUNT_NAME);
        // Where several lie on one another, the last is the one that is seen.
        our_mounts().into_iter().rfind(|mount| mount.at == wanted)
    }
}

/// git, in a directory where it finds the repository: one that stands inside the mount would stop at its boundary.
pub fn git() -> Command {
    let mut git = Command::new("git");
    if let Some(outside) = std::env::current_dir()
        .ok()
        .and_then(|inside| outside_of_mount(&inside))
    {
        git.current_dir(outside);
    }
    git
}

fn outside_of_mount(inside: &Path) -> Option<PathBuf> {
    let mounts = our_mounts();
    let point = inside
        .ancestors()
        .find(|dir| mounts.iter().any(|mount| mount.at == *dir))?;
    point.parent().map(Path::to_owned)
}

/// A mount of ours, of whatever repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OurMount {
    /// Its mountpoint.
    pub at: PathBuf,
    /// Its device number, major and minor.
    pub device: (u32, u32),
    /// Its options.
    pub options: String,
}

/// All mounts of ours that this process sees, in the order in which they were made.
pub fn our_mounts() -> Vec<OurMount> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table.split(|&b| b == b'\n').filter_map(our_mount).collect()
}

/// What a line of mountinfo says, if it is a mount of ours.
fn our_mount(line: &[u8]) -> Option<OurMount> {
    let mut fields = line.split(|&b| b == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let at = fields.nth(1).map(unescape)?;
    let options = fields.next()?;
    let separator = line.windows(3).position(|w| w == b" - ")?;
    let source = line[separator + 3..].split(|&b| b == b' ').nth(1)?;
    (source == MOUNT_SOURCE.as_bytes()).then_some(OurMount {
        at: PathBuf::from(OsStr::from_bytes(&at)),
        device: (major.parse().ok()?, minor.parse().ok()?),
        options: String::from_utf8_lossy(options).into_owned(),
    })
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
    fn only_our_mounts_are_ours() {
        let line = br"36 35 0:45 / /r/a\040b/.git/.git-locks rw,nosuid - fuse git-lockfs rw,user_id=0";
        let ours = OurMount {
            at: PathBuf::from("/r/a b/.git/.git-locks"),
            device: (0, 45),
            options: "rw,nosuid".to_owned(),
        };
        assert_eq!(our_mount(line), Some(ours));
        let other = br"36 35 0:45 / /r/.git-locks rw - fuse.sshfs sshfs rw";
        assert_eq!(our_mount(other), None);
    }

    #[test]
    fn blanks_in_paths_are_escaped_in_mountinfo() {
        assert_eq!(unescape(br"/a\040b\134c"), b"/a b\\c");
        assert_eq!(unescape(br"/a\04"), br"/a\04");
    }
}
