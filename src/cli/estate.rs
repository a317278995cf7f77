//! What the supervisor and the worker both hold, and how each starts the other.
//!
//! The supervisor keeps the mount, the worker serves it; when one dies, the other starts the next. So both have the
//! daemon's lock, the kernel's device, the heartbeat and the repository's directory open, and pass them on by number,
//! with a [`Role`] on the command line that says what each is for. Whatever else is open is closed.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::daemon::{DaemonLock, inherited};
use super::held;
use super::place::{MOUNT_NAME, Place};
use crate::adapters::Heartbeat;
use crate::fuse::{Mounted, Terms};
use crate::view::locks_json::Recovery;

/// The program that runs, whatever became of its file.
const SELF_EXE: &str = "/proc/self/exe";

/// What a process of the daemon is started as. The numbers are descriptors that it inherits.
///
/// An older or newer version may read this: keys may be added, with a default, and none changes its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Role {
    /// A supervisor that mounts.
    Founder {
        /// Git's common directory.
        common: RawFd,
        /// The daemon's lock.
        lock: RawFd,
        /// The pipe of the starter.
        notice: RawFd,
    },
    /// A supervisor that takes the place of one that died.
    Heir {
        /// What it finds.
        bequest: Bequest,
        /// The worker that goes on.
        worker: u32,
    },
    /// Looks whether it could go on from the journal, changes nothing, and ends.
    Examiner {
        /// Git's common directory.
        common: RawFd,
        /// The pipe of who asks.
        notice: RawFd,
    },
    /// A worker.
    Worker {
        /// What it finds.
        bequest: Bequest,
        /// The pipe of the supervisor.
        notice: RawFd,
        /// Who that is.
        supervisor: u32,
    },
}

/// Which program is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// That which runs here. One that has replaced it on disk is taken on request only.
    Same,
    /// That which lies where this one was started from.
    Latest,
}

/// The part of a [`Role`] that stands for an [`Estate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bequest {
    common: RawFd,
    lock: RawFd,
    device: RawFd,
    heartbeat: RawFd,
    standing: Standing,
}

/// What is so as long as the mount is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What the kernel agreed to.
    pub terms: Terms,
    /// Whether other users may look and lock.
    pub others_allowed: bool,
    /// How a worker's death is made up for.
    pub recovery: Recovery,
    /// How many workers there were, the one that this is for included.
    pub life: u32,
}

impl Role {
    /// The descriptors that must stay open.
    fn descriptors(&self) -> Vec<RawFd> {
        let of = |bequest: &Bequest| vec![bequest.common, bequest.lock, bequest.device, bequest.heartbeat];
        match self {
            Self::Founder { common, lock, notice } => vec![*common, *lock, *notice],
            Self::Heir { bequest, .. } => of(bequest),
            Self::Examiner { common, notice } => vec![*common, *notice],
            Self::Worker { bequest, notice, .. } => [of(bequest), vec![*notice]].concat(),
        }
    }
}

/// How to start another process of this daemon.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// Where the program was when the daemon was first started.
    pub program: PathBuf,
    /// The options of `git lockfs mount`.
    pub options: Vec<OsString>,
}

impl Launcher {
    /// For a process of the daemon that was itself launched so: the program is what it was called by.
    pub fn inherit(options: Vec<OsString>) -> Result<Self> {
        let called = std::env::args_os().next().map(PathBuf::from);
        let program = match called.filter(|called| called.is_absolute()) {
            Some(program) => program,
            None => std::env::current_exe()?,
        };
        Ok(Self { program, options })
    }

    /// The program in that role, as a process of its own.
    pub fn command(&self, role: &Role, program: Program) -> Result<Command> {
        let mut command = self.bare_command(role, program)?;
        // SAFETY: `detach_from_starter` only makes system calls that are safe between fork and exec.
        unsafe { command.pre_exec(detach_from_starter) };
        self.keep(&mut command, role);
        Ok(command)
    }

    /// The program in that role, to take the place of this process.
    pub fn successor(&self, role: &Role, program: Program) -> Result<Command> {
        let mut command = self.bare_command(role, program)?;
        self.keep(&mut command, role);
        Ok(command)
    }

    fn bare_command(&self, role: &Role, program: Program) -> Result<Command> {
        let identity = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
        let this = identity(Path::new(SELF_EXE));
        let unchanged = this.is_some() && identity(&self.program) == this;
        let latest = unchanged || program == Program::Latest;
        let mut command = Command::new(if latest { &self.program } else { Path::new(SELF_EXE) });
        command
            .arg0(&self.program)
            .args(["mount", "--foreground"])
            .arg(format!("--role={}", serde_json::to_string(role)?))
            .args(&self.options)
            // The starter may itself run under a lock; the daemon does not.
            .env_remove(held::HELD_ENV)
            .env_remove(held::TOKEN_ENV)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Ok(command)
    }

    /// Leaves open what the role names, and nothing else.
    fn keep(&self, command: &mut Command, role: &Role) {
        let kept = role.descriptors();
        // SAFETY: `keep_only` only makes system calls that are safe between fork and exec.
        unsafe { command.pre_exec(move || keep_only(&kept)) };
    }
}

/// A mount and what belongs to it, in the hands of one process.
#[derive(Debug)]
pub struct Estate {
    common: OwnedFd,
    /// The right to be the daemon.
    pub lock: DaemonLock,
    /// Our end of the mount.
    pub mounted: Mounted,
    /// Shows whether the worker works.
    pub heartbeat: Arc<Heartbeat>,
    /// What is so as long as the mount is.
    pub standing: Standing,
    /// Starts the others.
    pub launcher: Launcher,
}

impl Estate {
    /// That of a mount which was just made.
    pub fn found(
        common: OwnedFd,
        lock: DaemonLock,
        mounted: Mounted,
        standing: Standing,
        launcher: Launcher,
    ) -> Result<Self> {
        let heartbeat = Arc::new(Heartbeat::new().context("no heartbeat could be made")?);
        Ok(Self {
            common,
            lock,
            mounted,
            heartbeat,
            standing,
            launcher,
        })
    }

    /// That which another process has handed to this one.
    pub fn inherit(bequest: Bequest, launcher: Launcher) -> Result<Self> {
        let common = inherited(bequest.common)?;
        let place = place_of(&common)?;
        let standing = bequest.standing;
        Ok(Self {
            lock: DaemonLock::inherit(&place, bequest.lock)?,
            mounted: Mounted::adopt(inherited(bequest.device)?, place.mountpoint, standing.terms),
            heartbeat: Arc::new(Heartbeat::shared(inherited(bequest.heartbeat)?)?),
            common,
            standing,
            launcher,
        })
    }

    /// Where the repository is now: it may have been moved.
    pub fn place(&self) -> Result<Place> {
        Ok(place_of(&self.common)?)
    }

    /// The next worker, which tells through `notice` when it serves.
    pub fn worker(&self, notice: &OwnedFd, program: Program) -> Result<Command> {
        let role = Role::Worker {
            bequest: self.bequest(),
            notice: notice.as_raw_fd(),
            supervisor: std::process::id(),
        };
        self.launcher.command(&role, program)
    }

    /// A supervisor over this process, a worker.
    pub fn supervisor(&self) -> Result<Command> {
        self.launcher.command(&self.heir_of(std::process::id()), Program::Same)
    }

    /// What takes the place of this process, a supervisor, over the same worker.
    pub fn successor(&self, worker: u32) -> Result<Command> {
        self.launcher.successor(&self.heir_of(worker), Program::Latest)
    }

    /// The program that would be started at a restart, to look whether it can go on from the journal.
    pub fn examiner(&self, notice: &OwnedFd) -> Result<Command> {
        let role = Role::Examiner {
            common: self.common.as_raw_fd(),
            notice: notice.as_raw_fd(),
        };
        self.launcher.command(&role, Program::Latest)
    }

    fn heir_of(&self, worker: u32) -> Role {
        Role::Heir {
            bequest: self.bequest(),
            worker,
        }
    }

    fn bequest(&self) -> Bequest {
        Bequest {
            common: self.common.as_raw_fd(),
            lock: self.lock.raw_fd(),
            device: self.mounted.as_fd().as_raw_fd(),
            heartbeat: self.heartbeat.as_fd().as_raw_fd(),
            standing: self.standing,
        }
    }
}

/// Opens git's common directory so that it is found again wherever it is moved.
pub fn open_common_dir(place: &Place) -> Result<OwnedFd> {
    let opened = File::open(&place.common_dir).with_context(|| place.common_dir.display().to_string())?;
    Ok(opened.into())
}

/// Where an open common directory is now.
pub fn place_of(common: &OwnedFd) -> io::Result<Place> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", common.as_raw_fd()))?;
    debug_assert!(path.file_name().is_none_or(|name| name != MOUNT_NAME));
    Ok(Place::of(path))
}

/// Runs between fork and exec: a session of its own.
fn detach_from_starter() -> io::Result<()> {
    // SAFETY: a plain system call.
    match unsafe { libc::setsid() } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Runs between fork and exec: only the signals blocked that ask the daemon to end, until it reads them, and of the
/// descriptors that are open only `kept`.
fn keep_only(kept: &[RawFd]) -> io::Result<()> {
    // SAFETY: plain system calls on numbers and on values of this frame; none allocates or locks.
    unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut blocked);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&mut blocked, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &blocked, std::ptr::null_mut());
        // Marked, not closed: the spawn itself still needs a descriptor to report a failed exec.
        let first: libc::c_uint = 3;
        let marked = libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        if marked == -1 {
            // Before Linux 5.11: one by one, as far as descriptors commonly go.
            for fd in 3..4096 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        for &fd in kept {
            if libc::fcntl(fd, libc::F_SETFD, 0) == -1 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}
