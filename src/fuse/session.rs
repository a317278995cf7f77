//! Mounting, what was negotiated, and unmounting: fuser's part of the work.
//!
//! fuser mounts (itself, or through fusermount3 for an ordinary user), answers INIT and unmounts. It never reads a
//! request after INIT: its loop does not deliver FUSE_INTERRUPT, without which a process that waits for a lock cannot be
//! stopped. Our loop reads from a duplicate of its descriptor.

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fuser::{Config, Filesystem, InitFlags, KernelConfig, MountOption, Session, SessionACL, SessionUnmounter};
use nix::mount::{MntFlags, umount2};
use parking_lot::Mutex;

use super::channel::Channel;
use super::wire;

const DEVICE: &str = "/dev/fuse";

/// The source that /proc/self/mountinfo shows.
const SOURCE: &str = "git-lockfs";

/// A mount, until it is dropped or somebody unmounts it.
#[derive(Debug)]
pub struct Mounted {
    channel: Arc<Channel>,
    negotiated: Negotiated,
    unmounter: Unmounter,
    /// Owns the kernel's end; must not outlive the rest.
    _session: Session<Handshake>,
}

/// What the kernel can do; it says so once, at INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The kernel's FUSE protocol, major and minor.
    pub protocol: (u32, u32),
    /// Whether unanswered requests can be asked for again (Linux 6.9).
    pub has_resend: bool,
}

/// Unmounts from any thread, any number of times.
#[derive(Clone, Debug)]
pub struct Unmounter {
    session: Arc<Mutex<SessionUnmounter>>,
    channel: Arc<Channel>,
    mountpoint: PathBuf,
    connection: Option<u32>,
}

/// Why there is no mount, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel's FUSE module is not there, or the container was not given the device.
    #[error("{DEVICE} is missing: load the module with `modprobe fuse`, or give the container `--device {DEVICE}`")]
    NoDevice {
        /// What opening it said.
        source: io::Error,
    },
    /// The device is there and not for us.
    #[error(
        "{DEVICE} may not be opened by this user: run `sudo chmod 666 {DEVICE}`, or join the group that owns it \
         (often `fuse`); a container needs `--device {DEVICE}`"
    )]
    DeviceDenied {
        /// What opening it said.
        source: io::Error,
    },
    /// An ordinary user mounts through fusermount3.
    #[error("fusermount3 is missing or may not be run: install the package fuse3")]
    NoFusermount,
    /// `allow_other` by an ordinary user.
    #[error("--allow-other needs the line `user_allow_other` in /etc/fuse.conf")]
    AllowOtherDenied,
    /// mount(2) itself is forbidden.
    #[error(
        "mounting is not permitted here ({detail}): use a directory that you own; a container needs \
         `--cap-add SYS_ADMIN --security-opt apparmor=unconfined`"
    )]
    Denied {
        /// What fuser or fusermount3 said.
        detail: String,
    },
    /// The mountpoint cannot be used.
    #[error("{} cannot be mounted on: it must be a directory that can be read", path.display())]
    Mountpoint {
        /// The mountpoint.
        path: PathBuf,
        /// What looking at it said.
        source: io::Error,
    },
    /// Anything else.
    #[error("the mount failed: {detail}; `git lockfs doctor` looks for the cause")]
    Other {
        /// What fuser or fusermount3 said.
        detail: String,
    },
}

impl Mounted {
    /// Mounts on an empty directory and finishes the handshake; other users are let in only with `allow_other`.
    pub fn mount(mountpoint: &Path, allow_other: bool) -> Result<Self, MountError> {
        let mountpoint = usable(mountpoint)?;
        device_opens()?;
        let agreed = Arc::new(OnceLock::new());
        let handshake = Handshake { agreed: agreed.clone() };
        let mut session =
            Session::new(handshake, &mountpoint, &config(allow_other)).map_err(|error| refused(&error))?;
        let failed = |detail: String| MountError::Other { detail };
        let negotiated = *agreed
            .get()
            .ok_or_else(|| failed("the kernel did not say what it can do".to_owned()))?;
        let device = session
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| failed(error.to_string()))?;
        let channel = Arc::new(Channel::new(device));
        let unmounter = Unmounter {
            session: Arc::new(Mutex::new(session.unmount_callable())),
            channel: channel.clone(),
            connection: connection_of(&mountpoint),
            mountpoint,
        };
        Ok(Self {
            channel,
            negotiated,
            unmounter,
            _session: session,
        })
    }

    /// What was negotiated.
    pub fn negotiated(&self) -> Negotiated {
        self.negotiated
    }

    /// The way to answer calls that were parked; there before the service, which needs it.
    pub fn replies(&self) -> Arc<Channel> {
        self.channel.clone()
    }

    /// A handle that unmounts, also from another thread.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.unmounter.unmount() {
            tracing::warn!(%error, "the mount could not be taken down");
        }
    }
}

/// What became of a mount that was taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// The kernel has let go of it, and the loop ends.
    Ended,
    /// It has left the tree, but files are open there and are still served: until the last close, or the end of this
    /// process. An ordinary user without /sys/fs/fuse has no other way to cut them off.
    Detached,
}

impl Unmounter {
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
        self.session.lock().unmount().or_else(|error| {
            // Somebody is in there (EBUSY). Force ends what waits and cuts off what is open.
            umount2(&self.mountpoint, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).map_err(|_| error)
        })
    }

    fn in_tree(&self) -> bool {
        self.connection.is_none() || self.connection == connection_of(&self.mountpoint)
    }

    /// The minor device number of the mount, by which mountinfo knows it wherever it is; its major number is 0.
    pub fn connection(&self) -> Option<u32> {
        self.connection
    }

    /// Whether the kernel still has the mount, in the tree or kept by an open file.
    pub fn is_connected(&self) -> bool {
        self.channel.is_connected()
    }

    /// Cuts the connection through the kernel's own switch, which belongs to who mounted.
    fn abort(&self) -> io::Result<()> {
        let connection = self.connection.ok_or(io::ErrorKind::NotFound)?;
        std::fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1")
    }
}

/// fuser's view of us: it asks what we want of the kernel, and nothing else.
#[derive(Debug)]
struct Handshake {
    agreed: Arc<OnceLock<Negotiated>>,
}

impl Filesystem for Handshake {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut ask = |flags| config.add_capabilities(flags).is_ok();
        // Without these the kernel would keep flock(2) to itself and every lock taken so would protect nothing.
        if !ask(InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS) {
            return Err(io::Error::other("this kernel does not pass file locks on to FUSE"));
        }
        // Without ATOMIC_O_TRUNC a `>` is an OPEN and a SETATTR; without PARALLEL_DIROPS one LOOKUP goes at a time.
        ask(InitFlags::FUSE_ATOMIC_O_TRUNC);
        ask(InitFlags::FUSE_PARALLEL_DIROPS);
        let has_resend = ask(InitFlags::FUSE_HAS_RESEND);
        config.set_max_write(WRITE_BYTES_MAX).map_err(out_of_bounds)?;
        // Releases are background requests: they must never stand in line behind others.
        config.set_max_background(u16::MAX).map_err(out_of_bounds)?;
        let version = config.kernel_abi();
        self.agreed
            .set(Negotiated {
                protocol: (version.0, version.1),
                has_resend,
            })
            .map_err(|_| io::Error::other("the kernel introduced itself twice"))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "124 KiB")]
const WRITE_BYTES_MAX: u32 = wire::MAX_WRITE as u32;

fn out_of_bounds<T: fmt::Display>(nearest: T) -> io::Error {
    io::Error::other(format!("a limit is out of bounds; the nearest is {nearest}"))
}

/// Never `default_permissions`: who may do what depends on the lock and is the service's to say.
fn config(allow_other: bool) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(SOURCE.to_owned()),
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoExec,
    ];
    config.acl = if allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    config
}

fn usable(mountpoint: &Path) -> Result<PathBuf, MountError> {
    let unusable = |source| MountError::Mountpoint {
        path: mountpoint.to_owned(),
        source,
    };
    let path = mountpoint.canonicalize().map_err(unusable)?;
    match File::open(&path).and_then(|dir| dir.metadata()) {
        Ok(metadata) if metadata.is_dir() => Ok(path),
        Ok(_) => Err(unusable(io::ErrorKind::NotADirectory.into())),
        Err(error) => Err(unusable(error)),
    }
}

/// fuser opens the device before it thinks of fusermount3, so whoever may not open it cannot mount; asked here, where
/// the reason is still known.
fn device_opens() -> Result<(), MountError> {
    let Err(source) = File::options().read(true).write(true).open(DEVICE) else {
        return Ok(());
    };
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Err(MountError::DeviceDenied { source }),
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Err(MountError::NoDevice { source }),
        _ => Err(MountError::Other {
            detail: format!("{DEVICE}: {source}"),
        }),
    }
}

/// fuser and fusermount3 give their reasons as text.
fn refused(error: &io::Error) -> MountError {
    let detail = error.to_string().trim().to_owned();
    let says = |text| detail.contains(text);
    if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EACCES)) {
        // The device and the mountpoint could be opened: what fuser could not start is its helper.
        MountError::NoFusermount
    } else if says("user_allow_other") {
        MountError::AllowOtherDenied
    } else if error.kind() == io::ErrorKind::PermissionDenied
        || [
            "EPERM",
            "EACCES",
            "not permitted",
            "ermission denied",
            "no write access",
            "not owned",
        ]
        .into_iter()
        .any(says)
    {
        MountError::Denied { detail }
    } else {
        MountError::Other { detail }
    }
}

/// The number of the mount's connection under /sys/fs/fuse: its device number. With an empty mask and DONT_SYNC the
/// kernel answers by itself (fuse_getattr), so this asks nothing of a mount that nobody serves yet.
fn connection_of(mountpoint: &Path) -> Option<u32> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mountpoint_that_is_no_directory_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        File::create(&file).expect("a file");
        for path in [file, dir.path().join("absent")] {
            let error = Mounted::mount(&path, false).expect_err("nothing to mount on");
            assert!(matches!(error, MountError::Mountpoint { .. }));
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        }
    }

    #[test]
    fn what_the_helper_says_becomes_what_to_do() {
        let said = |text: &str| refused(&io::Error::other(text.to_owned())).to_string();
        let option = "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf\n";
        assert!(said(option).contains("the line `user_allow_other`"));
        assert!(said("fusermount3: mount failed: Operation not permitted").contains("--cap-add SYS_ADMIN"));
        assert!(said("fusermount3: something else").contains("something else"));
        assert!(matches!(
            refused(&io::Error::from_raw_os_error(libc::ENOENT)),
            MountError::NoFusermount
        ));
    }
}
