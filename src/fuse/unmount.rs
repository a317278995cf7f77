//! Taking a mount down, whoever made it, and cutting its connection.
//!
//! The kernel lets root unmount; an ordinary user goes through fusermount3. Files that are open there keep the
//! connection alive after the mount has left the tree; only the kernel's own switch under /sys/fs/fuse cuts them off,
//! and it belongs to who mounted.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::mount::{MntFlags, umount2};

use super::channel::Channel;

/// Unmounts from any thread, any number of times.
#[derive(Clone, Debug)]
pub struct Unmounter {
    channel: Arc<Channel>,
    mountpoint: PathBuf,
    connection: Option<u32>,
}

/// What became of a mount that was taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// The kernel has let go of it, and the loop ends.
    Ended,
    /// It has left the tree, but files are open there and are still served: until the last close, or the end of all who
    /// have our end of the connection. An ordinary user without /sys/fs/fuse has no other way to cut them off.
    Detached,
}

/// How to take a mount off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detach {
    /// Only when nobody uses it.
    Idle,
    /// From the tree at once, whoever uses it; for mounts whose daemon is gone.
    Lazy,
}

impl Unmounter {
    pub(super) fn new(channel: Arc<Channel>, mountpoint: PathBuf, connection: Option<u32>) -> Self {
        Self {
            channel,
            mountpoint,
            connection,
        }
    }

    /// Takes the mount down, also when files are open there or calls wait: these end with ECONNABORTED, and descriptors
    /// that stay open answer ENOTCONN. An error means that it is still in the tree.
    pub fn unmount(&self) -> io::Result<Unmounted> {
        let tried = self.leave_tree();
        if !self.channel.is_connected() || self.abort().is_ok() {
            return Ok(Unmounted::Ended);
        }
        if self.in_tree() {
            tried?;
        }
        Ok(Unmounted::Detached)
    }

    /// Takes the mount out of the tree, unless it has left already: then what is there now is another's.
    fn leave_tree(&self) -> io::Result<()> {
        if !self.in_tree() {
            return Ok(());
        }
        detach(&self.mountpoint, Detach::Idle).or_else(|_| {
            // Somebody is in there (EBUSY). Force ends what waits and cuts off what is open; an ordinary user has not got it.
            umount2(&self.mountpoint, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH)
                .or_else(|_| detach(&self.mountpoint, Detach::Lazy))
        })
    }

    fn in_tree(&self) -> bool {
        self.connection.is_none() || self.connection == connection_of(&self.mountpoint)
    }

    /// The minor device number of the mount, by which mountinfo knows it wherever it is; its major number is 0.
    pub fn connection(&self) -> Option<u32> {
        self.connection
    }

    pub(super) fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Whether the kernel still has the mount, in the tree or kept by an open file.
    pub fn is_connected(&self) -> bool {
        self.channel.is_connected()
    }

    /// Cuts the connection through the kernel's own switch, which belongs to who mounted: calls that wait end with
    /// ECONNABORTED, later ones with ENOTCONN. The mount stays in the tree.
    pub fn abort(&self) -> io::Result<()> {
        let connection = self.connection.ok_or(io::ErrorKind::NotFound)?;
        std::fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1")
    }
}

/// Takes a mount off: ourselves where we may, else through fusermount3. Never follows a link.
pub fn detach(path: &Path, how: Detach) -> io::Result<()> {
    let target = CString::new(path.as_os_str().as_bytes())?;
    let flags = match how {
        Detach::Idle => libc::UMOUNT_NOFOLLOW,
        Detach::Lazy => libc::UMOUNT_NOFOLLOW | libc::MNT_DETACH,
    };
    // SAFETY: a path that ends in NUL, and flags.
    if unsafe { libc::umount2(target.as_ptr(), flags) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EPERM) {
        return Err(error);
    }
    let output = Command::new("fusermount3")
        .args(match how {
            Detach::Idle => ["-u"].as_slice(),
            Detach::Lazy => ["-u", "-z"].as_slice(),
        })
        .arg("--")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), "fusermount3 could not be started: install fuse3"))?;
    if !output.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
        ));
    }
    Ok(())
}

/// The number of the mount's connection under /sys/fs/fuse: its device number. With an empty mask and DONT_SYNC the
/// kernel answers by itself (fuse_getattr), so this asks nothing of a mount that nobody serves yet.
pub(super) fn connection_of(mountpoint: &Path) -> Option<u32> {
    let path = CString::new(mountpoint.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: `path` ends with a NUL and `found` has room for one statx, of which every bit pattern is valid.
    let found = unsafe {
        match libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, 0, found.as_mut_ptr()) {
            0 => found.assume_init(),
            _ => return None,
        }
    };
    // FUSE mounts are on anonymous devices, of major 0.
    (found.stx_dev_major == 0).then_some(found.stx_dev_minor)
}
