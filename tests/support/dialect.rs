//! Every way that a program takes a lock: one list for the matrix of exclusion, the counters and the stress test.
//!
//! A dialect is a sequence of system calls as the programs make them, with the errno by which it is refused.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use libc::{LOCK_EX, LOCK_NB, LOCK_SH, O_APPEND, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
use serde::{Deserialize, Serialize};

use super::sys::{self, Errno, Sys};

/// A way to take a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// `exec 9>x.lock`
    Redirect,
    /// `exec 9>>x.lock`
    Append,
    /// `echo $$ >x.lock`: held by the process, not by the descriptor
    Owner,
    /// noclobber, Python's `open(path, "x")`
    Exclusive,
    /// mkdir(1)
    Mkdir,
    /// `ln -s $$ x.lock`
    Symlink,
    /// dotlockfile(1): a scratch file linked to the lock's name
    Link,
    /// A scratch file renamed to the lock's name
    Rename,
    /// touch(1)
    Touch,
    /// flock(1) on locks/
    Flock,
    /// flock(1) on flock/
    FlockDoor,
    /// `flock -s`
    FlockShared,
    /// Python's `fcntl.lockf`
    Fcntl,
    /// fcntl on flock/, as Java's FileChannel does
    FcntlDoor,
    /// fcntl with F_OFD_SETLK
    Ofd,
    /// The transaction file
    Acquire,
}

/// Every dialect there is.
pub const ALL: &[Dialect] = &[
    Dialect::Redirect,
    Dialect::Append,
    Dialect::Owner,
    Dialect::Exclusive,
    Dialect::Mkdir,
    Dialect::Symlink,
    Dialect::Link,
    Dialect::Rename,
    Dialect::Touch,
    Dialect::Flock,
    Dialect::FlockDoor,
    Dialect::FlockShared,
    Dialect::Fcntl,
    Dialect::FcntlDoor,
    Dialect::Ofd,
    Dialect::Acquire,
];

/// A lock that was taken, and what gives it back.
#[derive(Debug)]
pub enum Held {
    /// Closing it.
    Descriptor(OwnedFd),
    /// Removing the file.
    File(PathBuf),
    /// Removing the directory.
    Directory(PathBuf),
}

impl Held {
    /// Gives the lock back.
    pub fn release(self) -> Sys<()> {
        match self {
            Self::Descriptor(fd) => {
                drop(fd);
                Ok(())
            }
            Self::File(path) => sys::unlink(path),
            Self::Directory(path) => sys::rmdir(path),
        }
    }
}

impl Dialect {
    /// Whether a taker waits in line; the others are refused at once and try again.
    pub fn can_wait(self) -> bool {
        !matches!(
            self,
            Self::Exclusive | Self::Mkdir | Self::Symlink | Self::Link | Self::Rename | Self::Touch
        )
    }

    /// Whether two of this dialect may hold one lock together.
    pub fn is_shared(self) -> bool {
        self == Self::FlockShared
    }

    /// The errno of a try that finds the lock taken.
    pub fn refusal(self) -> Errno {
        match self {
            Self::Exclusive | Self::Mkdir | Self::Symlink | Self::Link | Self::Rename => Errno::EEXIST,
            _ => Errno::EAGAIN,
        }
    }

    /// Takes a lock below a mountpoint; `wait` is ignored by those that cannot.
    pub fn take(self, mountpoint: &Path, name: &str, wait: bool) -> Sys<Held> {
        let lock = mountpoint.join("locks").join(name);
        let door = mountpoint.join("flock").join(name);
        let now = if wait { 0 } else { O_NONBLOCK };
        match self {
            Self::Redirect => sys::open(lock, O_WRONLY | O_CREAT | O_TRUNC | now).map(Held::Descriptor),
            Self::Append => sys::open(lock, O_WRONLY | O_CREAT | O_APPEND | now).map(Held::Descriptor),
            Self::Owner => {
                let fd = sys::open(&lock, O_WRONLY | O_CREAT | O_TRUNC | now)?;
                sys::write(&fd, own_pid().as_bytes())?;
                Ok(Held::File(lock))
            }
            Self::Exclusive => {
                sys::open(&lock, O_WRONLY | O_CREAT | O_EXCL)?;
                Ok(Held::File(lock))
            }
            Self::Mkdir => sys::mkdir(&lock).map(|()| Held::Directory(lock)),
            Self::Symlink => sys::symlink(own_pid().trim_end(), &lock).map(|()| Held::File(lock)),
            Self::Link => {
                with_scratch(mountpoint, name, |scratch| sys::link(scratch, &lock)).map(|()| Held::File(lock))
            }
            Self::Rename => {
                with_scratch(mountpoint, name, |scratch| sys::rename(scratch, &lock)).map(|()| Held::File(lock))
            }
            Self::Touch => {
                let fd = sys::open(&lock, O_WRONLY | O_CREAT | O_NONBLOCK)?;
                sys::futimens(&fd, None)?;
                Ok(Held::File(lock))
            }
            Self::Flock => flock(sys::open(lock, O_RDWR | O_CREAT)?, LOCK_EX, wait),
            Self::FlockDoor => flock(sys::open(door, O_RDONLY)?, LOCK_EX, wait),
            Self::FlockShared => flock(sys::open(lock, O_RDONLY | O_CREAT)?, LOCK_SH, wait),
            Self::Fcntl => {
                let command = if wait { libc::F_SETLKW } else { libc::F_SETLK };
                range(sys::open(lock, O_RDWR | O_CREAT)?, command)
            }
            Self::FcntlDoor => {
                let command = if wait { libc::F_SETLKW } else { libc::F_SETLK };
                range(sys::open(door, O_RDWR)?, command)
            }
            Self::Ofd => {
                let command = if wait { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK };
                range(sys::open(lock, O_RDWR | O_CREAT)?, command)
            }
            Self::Acquire => {
                let fd = sys::open(mountpoint.join("acquire"), O_RDWR)?;
                let wait = if wait { "20s" } else { "0" };
                sys::write(&fd, format!("locks={name} mode=exclusive wait={wait}\n").as_bytes())?;
                let grant = sys::read(&fd, 4096)?;
                assert!(grant.starts_with(b"token="), "{:?}", String::from_utf8_lossy(&grant));
                Ok(Held::Descriptor(fd))
            }
        }
    }

    /// Takes a lock however long it takes: waits where the dialect can, else tries again and again, as its users do.
    pub fn take_at_last(self, mountpoint: &Path, name: &str) -> Sys<Held> {
        loop {
            match self.take(mountpoint, name, true) {
                Err(errno) if !self.can_wait() && errno == self.refusal() => {
                    // The pause of a client that polls: without it, twenty of them leave no CPU for the holder.
                    std::thread::sleep(std::time::Duration::from_micros(500));
                }
                other => return other,
            }
        }
    }
}

fn own_pid() -> String {
    format!("{}\n", std::process::id())
}

fn flock(fd: OwnedFd, mode: i32, wait: bool) -> Sys<Held> {
    sys::flock(&fd, mode | if wait { 0 } else { LOCK_NB })?;
    Ok(Held::Descriptor(fd))
}

fn range(fd: OwnedFd, command: i32) -> Sys<Held> {
    sys::fcntl(&fd, command, &mut sys::range(libc::F_WRLCK, 0, 0))?;
    Ok(Held::Descriptor(fd))
}

/// Writes the own PID into a scratch file, uses it, and removes it if it is still there.
fn with_scratch(mountpoint: &Path, name: &str, use_it: impl FnOnce(&Path) -> Sys<()>) -> Sys<()> {
    let scratch = mountpoint.join("locks").join(format!(".{}-{name}", std::process::id()));
    let fd = sys::open(&scratch, O_WRONLY | O_CREAT | O_EXCL)?;
    sys::write(&fd, own_pid().as_bytes())?;
    drop(fd);
    let used = use_it(&scratch);
    match sys::unlink(&scratch) {
        Ok(()) | Err(Errno::ENOENT) => used,
        Err(errno) => Err(errno),
    }
}
