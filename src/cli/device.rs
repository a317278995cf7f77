//! /dev/fuse and fusermount3: whether this machine lets us mount at all.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use anyhow::Result;

use super::EXIT_NO_DAEMON;
use super::failure::failure;

/// Where the kernel's FUSE device is.
const DEVICE: &str = "/dev/fuse";
/// Its device number, from Documentation/admin-guide/devices.txt.
const DEVICE_MAJOR_MINOR: (u32, u32) = (10, 229);
/// The configuration of fusermount3.
pub const FUSE_CONF: &str = "/etc/fuse.conf";

/// What keeps a machine from mounting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What is wrong.
    pub finding: String,
    /// What to do.
    pub fix: String,
}

/// What keeps this machine from mounting; `None` when nothing does.
pub fn obstacle() -> Option<Obstacle> {
    let obstacle = |finding: String, fix: &str| {
        let fix = fix.to_owned();
        Some(Obstacle { finding, fix })
    };
    let load = format!(
        "load the kernel's module with `modprobe fuse`, or start the container with \
         `--device {DEVICE} --cap-add SYS_ADMIN`"
    );
    let meta = match std::fs::metadata(DEVICE) {
        Ok(meta) => meta,
        Err(error) => return obstacle(format!("{DEVICE} cannot be used ({error})"), &load),
    };
    let number = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
    if !meta.file_type().is_char_device() || number != DEVICE_MAJOR_MINOR {
        return obstacle(
            format!("{DEVICE} is not the kernel's FUSE device (a sandbox has put something else there)"),
            "run `git lockfs mount` outside of it; locks taken through that mount work inside",
        );
    }
    if let Err(error) = open_device() {
        // An ordinary user does not open it: fusermount3 does. A device cgroup (EPERM) or a kernel without FUSE
        // stops that one too.
        let stops_all = error.kind() != io::ErrorKind::PermissionDenied || error.raw_os_error() == Some(libc::EPERM);
        if is_root() || stops_all {
            return obstacle(format!("{DEVICE} cannot be opened ({error})"), &load);
        }
    }
    if !is_root() && fusermount().is_none() {
        return obstacle(
            "fusermount3 is not installed, and only root mounts without it".to_owned(),
            "apt-get install fuse3",
        );
    }
    None
}

/// Fails with [`EXIT_NO_DAEMON`] when this machine cannot mount.
pub fn require() -> Result<()> {
    match obstacle() {
        None => Ok(()),
        Some(Obstacle { finding, fix }) => Err(failure(EXIT_NO_DAEMON, format!("{finding}: {fix}"))),
    }
}

/// Opens the device for a moment.
pub fn open_device() -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(DEVICE).map(drop)
}

/// fusermount3 in the search path.
pub fn fusermount() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("fusermount3"))
        .find(|file| file.is_file())
}

/// Whether /etc/fuse.conf lets ordinary users pass `allow_other`.
pub fn others_may_be_allowed() -> bool {
    std::fs::read_to_string(FUSE_CONF).is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"))
}

/// Whether we may mount ourselves.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
