//! The daemon as two processes, supervisor and worker: the one lock that makes them the only ones of their repository,
//! and their PIDs.
//!
//! The lock is a kernel flock on `daemon.lock` in the state directory. A starter takes it and the daemon inherits
//! the descriptor, so that there is no moment between the two; it ends with the last process of the daemon, however that
//! ends. The PIDs in the file are hints: each counts only while that process has the very file open.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::place::Place;
use super::process::Process;

/// Digits of the highest PID there can be, 4194304 (proc_sys_kernel(5)).
const PID_DIGITS: usize = 7;

/// The right to be the daemon of a repository; held as long as a copy of its descriptor is open.
#[derive(Debug)]
pub struct DaemonLock {
    file: File,
}

impl DaemonLock {
    /// Takes the lock if nobody has it. Makes the state directory.
    pub fn try_take(place: &Place) -> Result<Option<Self>> {
        make_state_dir(&place.state_dir)?;
        let path = lock_path(place);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        if !flock(&file, libc::LOCK_EX | libc::LOCK_NB)? {
            return Ok(None);
        }
        // A file that was removed after we opened it locks nobody out.
        if std::fs::symlink_metadata(&path)
            .map(|meta| (meta.dev(), meta.ino()))
            .ok()
            != Some(identity(&file)?)
        {
            return Ok(None);
        }
        file.set_len(0)?;
        Ok(Some(Self { file }))
    }

    /// The lock that this process inherited as descriptor `fd` from its starter.
    pub fn inherit(place: &Place, fd: RawFd) -> Result<Self> {
        let file = File::from(inherited(fd)?);
        let meta = std::fs::symlink_metadata(lock_path(place))?;
        if (meta.dev(), meta.ino()) != identity(&file)? || !flock(&file, libc::LOCK_EX | libc::LOCK_NB)? {
            bail!("descriptor {fd} is not the daemon's lock");
        }
        Ok(Self { file })
    }

    /// Writes down who the daemon is.
    pub fn declare(&self, supervisor: u32, worker: Option<u32>) -> io::Result<()> {
        // Always as many bytes, in one write: a reader never sees half of it.
        let worker = worker.map(|pid| pid.to_string()).unwrap_or_default();
        let text = format!("{supervisor:<PID_DIGITS$}\n{worker:<PID_DIGITS$}\n");
        self.file.write_all_at(text.as_bytes(), 0)
    }

    /// The descriptor to pass on.
    pub fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// A daemon that runs.
#[derive(Debug)]
pub struct Running {
    /// `None` while it starts, when it has died and the worker has not replaced it yet, or when it cannot be seen
    /// (another PID namespace).
    pub supervisor: Option<Process>,
    /// The same of the worker.
    pub worker: Option<Process>,
}

impl Running {
    /// The daemon of that repository, if one runs or starts.
    pub fn find(place: &Place) -> Result<Option<Self>> {
        let path = lock_path(place);
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                bail!("{}: the daemon belongs to another user", path.display())
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        if flock(&file, libc::LOCK_SH | libc::LOCK_NB)? {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut pids = text.lines().map(|line| line.trim().parse::<u32>().ok());
        // The pidfd is taken first: if the process has the file open afterwards, the pidfd is the daemon's.
        let mut next = || Process::open(pids.next()??).filter(|process| has_open(process.pid, &file));
        Ok(Some(Self {
            supervisor: next(),
            worker: next(),
        }))
    }

    /// The process that is asked to end: the supervisor, or a worker that has none.
    pub fn process(&self) -> Option<&Process> {
        self.supervisor.as_ref().or(self.worker.as_ref())
    }

    /// Sends a signal to [`Self::process`]; false when none can be seen from here.
    pub fn signal(&self, signal: libc::c_int) -> io::Result<bool> {
        let Some(process) = self.process() else {
            return Ok(false);
        };
        process.signal(signal).map(|()| true)
    }

    /// Kills both.
    pub fn kill(&self) -> io::Result<()> {
        // Neither may replace the other meanwhile: a stopped supervisor starts nothing.
        for (process, signal) in [
            (&self.supervisor, libc::SIGSTOP),
            (&self.worker, libc::SIGKILL),
            (&self.supervisor, libc::SIGKILL),
        ] {
            if let Some(process) = process {
                process.signal(signal)?;
            }
        }
        Ok(())
    }
}

/// Why the last supervisor gave the mount up; there until a mount answers again.
pub fn given_up_path(place: &Place) -> PathBuf {
    place.state_dir.join("given-up")
}

/// The daemon's log.
pub fn log_path(place: &Place) -> PathBuf {
    place.state_dir.join("daemon.log")
}

/// Makes a descriptor that an exec left open ours, and closed at the next exec.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD only fails on a number that is no descriptor.
    if fd <= libc::STDERR_FILENO || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open (just checked), and the command line that named it gave it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn lock_path(place: &Place) -> PathBuf {
    place.state_dir.join("daemon.lock")
}

/// Makes the state directory, closed to others, when it is missing.
pub fn make_state_dir(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino()))
}

/// flock(2) without waiting; whether it was had.
fn flock(file: &File, operation: libc::c_int) -> io::Result<bool> {
    loop {
        // SAFETY: flock on an open descriptor.
        if unsafe { libc::flock(file.as_raw_fd(), operation) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => return Ok(false),
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

/// Whether a process has this very file open.
fn has_open(pid: u32, file: &File) -> bool {
    let Ok(wanted) = identity(file) else { return false };
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    // Only links to a `daemon.lock` are followed: a descriptor of the daemon may lead into its own mount.
    descriptors.flatten().map(|entry| entry.path()).any(|link| {
        let named = std::fs::read_link(&link).is_ok_and(|target| target.ends_with("daemon.lock"));
        named && std::fs::metadata(&link).is_ok_and(|meta| (meta.dev(), meta.ino()) == wanted)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Place::of(dir.path().to_owned());
        (dir, place)
    }

    #[test]
    fn only_one_can_be_the_daemon_and_it_is_found_by_its_pid() {
        let (_dir, place) = place();
        assert!(Running::find(&place).expect("look").is_none(), "nobody ever ran");
        let lock = DaemonLock::try_take(&place).expect("take").expect("free");
        assert!(DaemonLock::try_take(&place).expect("try").is_none());
        let starting = Running::find(&place).expect("look").expect("somebody has the lock");
        assert!(starting.process().is_none(), "it has not said who it is");
        lock.declare(std::process::id(), None).expect("declare");
        let running = Running::find(&place).expect("look").expect("runs");
        assert_eq!(running.process().map(|process| process.pid), Some(std::process::id()));
        assert!(running.worker.is_none());
        assert!(running.signal(0).expect("signal 0 only asks"));
        drop(lock);
        assert!(
            Running::find(&place).expect("look").is_none(),
            "the lock ends with its holder"
        );
    }

    #[test]
    fn a_pid_of_somebody_else_is_never_taken_for_the_daemon() {
        let (_dir, place) = place();
        let lock = DaemonLock::try_take(&place).expect("take").expect("free");
        lock.declare(1, Some(1)).expect("write");
        let running = Running::find(&place).expect("look").expect("runs");
        assert!(running.process().is_none());
        assert!(!running.signal(0).expect("nobody to signal"));
    }

    #[test]
    fn the_state_is_private() {
        let (_dir, place) = place();
        let _lock = DaemonLock::try_take(&place).expect("take");
        let mode = |path: &Path| std::fs::metadata(path).expect("stat").permissions().mode() & 0o777;
        assert_eq!(mode(&place.state_dir), 0o700);
        assert_eq!(mode(&lock_path(&place)), 0o600);
    }

    #[test]
    fn a_number_that_is_no_descriptor_is_refused() {
        assert!(inherited(1).is_err(), "standard output is not for us to take");
        assert!(inherited(1_000_000).is_err());
    }
}
