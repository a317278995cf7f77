//! Mounting, and what was negotiated: fuser's part of the work.
//!
//! fuser mounts (itself, or through fusermount3 for an ordinary user) and answers INIT. It never reads a request after
//! INIT: its loop does not deliver FUSE_INTERRUPT, without which a process that waits for a lock cannot be stopped. Our
//! loop reads from a duplicate of its descriptor.
//!
//! A mount outlives the process that made it, as long as another one has the descriptor: [`Mounted::adopt`] goes on with
//! it. INIT comes only once in the life of a mount, so what it agreed on goes along, as [`Terms`].

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fuser::{Config, Filesystem, InitFlags, KernelConfig, MountOption, Session, SessionACL};
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use super::encode::Packet;
use super::unmount::{Unmounter, connection_of};
use super::wire;

const DEVICE: &str = "/dev/fuse";

/// `_IOR(229, 0, uint32_t)` of linux/fuse.h (Linux 4.2).
const FUSE_DEV_IOC_CLONE: libc::Ioctl = nix::request_code_read!(229, 0, size_of::<u32>()) as libc::Ioctl;

/// The source that /proc/self/mountinfo shows.
const SOURCE: &str = "git-lockfs";

/// A mount, and our end of its connection to the kernel. Dropping it takes nothing down: others may have that end, too.
#[derive(Debug)]
pub struct Mounted {
    channel: Arc<Channel>,
    terms: Terms,
    unmounter: Unmounter,
}

/// What is known of a mount since its making; whoever adopts it needs this beside the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What the kernel said at INIT.
    pub negotiated: Negotiated,
    /// The number of the connection: the minor device number of the mount.
    pub connection: Option<u32>,
}

/// What the kernel can do; it says so once, at INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    /// The kernel's FUSE protocol, major and minor.
    pub protocol: (u32, u32),
    /// Whether unanswered requests can be asked for again (Linux 6.9).
    pub has_resend: bool,
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
        let session = Session::new(handshake, &mountpoint, &config(allow_other)).map_err(|error| refused(&error))?;
        let failed = |detail: String| MountError::Other { detail };
        let negotiated = *agreed
            .get()
            .ok_or_else(|| failed("the kernel did not say what it can do".to_owned()))?;
        let device = session
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| failed(error.to_string()))?;
        // Dropped, the session would unmount; the mount is to outlive this process.
        std::mem::forget(session);
        let connection = connection_of(&mountpoint);
        Ok(Self::adopt(device, mountpoint, Terms { negotiated, connection }))
    }

    /// Goes on with a mount that another process made, over a descriptor that came from there.
    pub fn adopt(device: OwnedFd, mountpoint: PathBuf, terms: Terms) -> Self {
        let channel = Arc::new(Channel::new(device));
        let unmounter = Unmounter::new(channel.clone(), mountpoint, terms.connection);
        Self {
            channel,
            terms,
            unmounter,
        }
    }

    /// The same mount over a descriptor of its own: requests that were read through it and not answered end with
    /// ECONNABORTED when the descriptor is closed, as at the death of the process, and the mount goes on.
    pub fn cloned(&self) -> io::Result<Self> {
        let device = File::options().read(true).write(true).open(DEVICE)?;
        let original = self.as_fd().as_raw_fd().unsigned_abs();
        // SAFETY: the ioctl reads one u32, which is there.
        if unsafe { libc::ioctl(device.as_raw_fd(), FUSE_DEV_IOC_CLONE, &raw const original) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self::adopt(
            device.into(),
            self.unmounter.mountpoint().to_owned(),
            self.terms,
        ))
    }

    /// What was negotiated.
    pub fn negotiated(&self) -> Negotiated {
        self.terms.negotiated
    }

    /// What another process needs to adopt this.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Has the kernel send every unanswered request again; only where [`Negotiated::has_resend`].
    pub fn resend(&self) {
        self.channel.send(Packet::resend());
    }

    /// Whether requests lie there that nobody has read.
    pub fn has_unread(&self) -> bool {
        self.channel.has_unread()
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

impl AsFd for Mounted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
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
