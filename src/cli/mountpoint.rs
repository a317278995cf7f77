//! The directory under the mount: made, checked and held open before anything is mounted on it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::place::Place;

/// While it is mounted on: fusermount3 wants a directory that its user may write.
const MOUNTING_MODE: u32 = 0o700;
/// A bare mountpoint: read and search for its owner, nothing for others, so that nothing is written under a mount.
const BARE_MODE: u32 = 0o500;

/// An empty directory of ours, held open so that it cannot be exchanged unnoticed.
#[derive(Debug)]
pub struct Mountpoint {
    path: PathBuf,
    directory: File,
}

impl Mountpoint {
    /// Makes the directory if there is none, and checks it: ours, no link, empty. It can be written until [`Self::close`].
    pub fn prepare(place: &Place) -> Result<Self> {
        let path = &place.mountpoint;
        let at = || path.display().to_string();
        match DirBuilder::new().mode(BARE_MODE).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).with_context(at),
            _ => {}
        }
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY)
            .open(path);
        let directory = match directory {
            Ok(directory) => directory,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => {
                bail!(
                    "{} is a link or a file: move it away, an empty directory belongs there",
                    at()
                )
            }
            Err(error) => return Err(error).with_context(at),
        };
        let meta = directory.metadata().with_context(at)?;
        if meta.uid() != nix::unistd::geteuid().as_raw() {
            bail!(
                "{} belongs to user {}: only its owner may mount there",
                at(),
                meta.uid()
            );
        }
        let mountpoint = Self {
            path: path.clone(),
            directory,
        };
        if mountpoint.read_dir().with_context(at)?.next().is_some() {
            bail!("{} is not empty: move what is in it away", at());
        }
        mountpoint
            .directory
            .set_permissions(Permissions::from_mode(MOUNTING_MODE))
            .with_context(at)?;
        Ok(mountpoint)
    }

    /// Makes what lies under the mount unwritable again.
    pub fn close(&self) -> io::Result<()> {
        self.directory.set_permissions(Permissions::from_mode(BARE_MODE))
    }

    /// The path to mount on, once more compared with what was opened.
    pub fn verified_path(&self) -> Result<&Path> {
        let now = std::fs::symlink_metadata(&self.path).with_context(|| self.path.display().to_string())?;
        let then = self.directory.metadata()?;
        if (now.dev(), now.ino()) != (then.dev(), then.ino()) {
            bail!("{} was exchanged while it was being mounted", self.path.display());
        }
        Ok(&self.path)
    }

    fn read_dir(&self) -> io::Result<std::fs::ReadDir> {
        // By descriptor: this lists what was opened, whatever has the name now.
        std::fs::read_dir(format!("/proc/self/fd/{}", self.directory.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Place::of(dir.path().to_owned());
        (dir, place)
    }

    #[test]
    fn a_mountpoint_is_made_private_and_may_be_there_already() {
        let (_dir, place) = place();
        for _ in 0..2 {
            let mountpoint = Mountpoint::prepare(&place).expect("prepare");
            assert_eq!(mountpoint.verified_path().expect("the same"), place.mountpoint);
            mountpoint.close().expect("close");
        }
        let mode = std::fs::metadata(&place.mountpoint).expect("stat").mode();
        assert_eq!(mode & 0o7777, 0o500);
    }

    #[test]
    fn a_link_a_file_and_a_full_directory_are_refused() {
        let (dir, place) = place();
        std::os::unix::fs::symlink(dir.path(), &place.mountpoint).expect("symlink");
        let error = Mountpoint::prepare(&place).expect_err("a link").to_string();
        assert!(error.contains("is a link or a file"), "{error}");
        std::fs::remove_file(&place.mountpoint).expect("remove");

        std::fs::write(&place.mountpoint, "").expect("write");
        assert!(Mountpoint::prepare(&place).is_err(), "a file");
        std::fs::remove_file(&place.mountpoint).expect("remove");

        std::fs::create_dir(&place.mountpoint).expect("mkdir");
        std::fs::write(place.mountpoint.join("treasure"), "").expect("write");
        let error = Mountpoint::prepare(&place).expect_err("full").to_string();
        assert!(error.contains("is not empty"), "{error}");
    }

    #[test]
    fn an_exchanged_directory_is_noticed() {
        let (_dir, place) = place();
        let mountpoint = Mountpoint::prepare(&place).expect("prepare");
        std::fs::rename(&place.mountpoint, place.common_dir.join("away")).expect("rename");
        std::fs::create_dir(&place.mountpoint).expect("mkdir");
        assert!(mountpoint.verified_path().is_err());
    }
}
