//! One process held by a pidfd: the system calls, with the roads around those that older kernels lack.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;

use super::procfs::{Stat, Status};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// It returned or called exit(2), with whatever code.
    Clean,
    /// A signal ended it.
    Signalled,
    /// The kernel no longer says, or not to us.
    Unknown,
}

/// A process that cannot be taken for another one, even after its end.
#[derive(Debug)]
pub(in crate::adapters) struct Pidfd {
    fd: OwnedFd,
    pid: u32,
}

/// What changes little or never in the life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Info {
    /// The parent at the moment of the call; 0 when it cannot be seen from here.
    pub(super) parent: u32,
    /// The real user id.
    pub(super) uid: u32,
}

/// Why there is no pidfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters) enum OpenError {
    /// No such process.
    Gone,
    /// The number belongs to a thread that is not the first of its process.
    NotALeader,
    /// We are out of descriptors or memory.
    Full,
}

impl Pidfd {
    /// Opens the process whose first thread has this id.
    pub(in crate::adapters) fn open(pid: u32) -> Result<Self, OpenError> {
        pidfd_open(pid, 0)
            .map(|fd| Self { fd, pid })
            .map_err(|errno| match errno {
                Errno::ESRCH => OpenError::Gone,
                Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => OpenError::Full,
                // EINVAL up to Linux 6.14, ENOENT since.
                _ => OpenError::NotALeader,
            })
    }

    /// Its PID; somebody else's once this process has been waited for.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether all its threads have ended. A zombie has.
    pub(super) fn has_exited(&self) -> bool {
        self.wait_exit(PollTimeout::ZERO)
    }

    /// Waits for its end, at most that long, and says whether it came.
    pub(in crate::adapters) fn wait_exit(&self, timeout: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, timeout) {
                Ok(ready) => return ready > 0,
                Err(Errno::EINTR) => {}
                // Not to know whether it is alive counts as alive.
                Err(_) => return false,
            }
        }
    }

    /// Whether it has been waited for, so that its PID may by now belong to another process.
    fn is_reaped(&self) -> bool {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: signal 0 sends nothing; a null siginfo is allowed.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), 0, none, 0) };
        Errno::result(sent) == Err(Errno::ESRCH)
    }

    /// Its parent and user, now; `None` once it has been waited for.
    pub(super) fn info(&self) -> Option<Info> {
        match get_info(self.fd.as_fd(), 0) {
            Ok(info) => Some(Info {
                parent: info.ppid,
                uid: info.ruid,
            }),
            Err(Errno::ESRCH) => None,
            Err(_) => self.info_from_proc(),
        }
    }

    /// The same on kernels before 6.13.
    fn info_from_proc(&self) -> Option<Info> {
        let status = Status::of(self.pid)?;
        let info = Info {
            parent: status.number("PPid")?,
            uid: status.number("Uid")?,
        };
        (!self.is_reaped()).then_some(info)
    }

    /// How it ended. While it is a zombie /proc says so, and after that the pidfd does, since Linux 6.15.
    pub(super) fn exit_kind(&self) -> ExitKind {
        if !self.has_exited() {
            return ExitKind::Unknown;
        }
        let status = self
            .exit_status_from_kernel()
            .or_else(|| self.exit_status_from_proc())
            // It may have been waited for between the two.
            .or_else(|| self.exit_status_from_kernel());
        match status {
            Some(status) if libc::WIFEXITED(status) => ExitKind::Clean,
            Some(_) => ExitKind::Signalled,
            None => ExitKind::Unknown,
        }
    }

    fn exit_status_from_kernel(&self) -> Option<i32> {
        let asked = u64::from(libc::PIDFD_INFO_EXIT);
        let info = get_info(self.fd.as_fd(), asked).ok()?;
        (info.mask & asked != 0).then_some(info.exit_code)
    }

    fn exit_status_from_proc(&self) -> Option<i32> {
        let uid = Status::of(self.pid)?.number("Uid")?;
        // To other users the kernel shows 0, which would read as a clean exit.
        if !(geteuid().is_root() || uid == geteuid().as_raw()) {
            return None;
        }
        let status = Stat::of(self.pid)?.exit_status()?;
        (!self.is_reaped()).then_some(status)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The process that a thread belongs to.
pub(super) fn leader_of(tid: u32) -> Option<u32> {
    let by_kernel = pidfd_open(tid, libc::PIDFD_THREAD)
        .and_then(|fd| get_info(fd.as_fd(), 0))
        .map(|info| info.tgid);
    match by_kernel {
        Ok(tgid) => Some(tgid).filter(|&tgid| tgid != 0),
        Err(Errno::ESRCH) => None,
        Err(_) => Status::of(tid)?.number("Tgid"),
    }
}

fn pidfd_open(pid: u32, flags: u32) -> Result<OwnedFd, Errno> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    if pid == 0 {
        return Err(Errno::ESRCH);
    }
    // SAFETY: two plain numbers; a result that is not negative is a new descriptor of ours, with close-on-exec set.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EMFILE)?;
    // SAFETY: see above; nobody else knows this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn get_info(fd: BorrowedFd<'_>, mask: u64) -> Result<libc::pidfd_info, Errno> {
    // SAFETY: a struct of integers, for which all zeroes is a value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = mask;
    // SAFETY: the request carries the struct's size, and the kernel writes no more than that.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) })?;
    Ok(info)
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Gone | OpenError::NotALeader => Self::from_raw_os_error(libc::ESRCH),
            OpenError::Full => Self::from_raw_os_error(libc::EMFILE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Program;
    use super::*;

    #[test]
    fn both_roads_to_a_process_tell_the_same() {
        let program = Program::sleeping();
        let pidfd = Pidfd::open(program.pid()).expect("it lives");
        let expected = Info {
            parent: std::process::id(),
            uid: nix::unistd::getuid().as_raw(),
        };
        assert_eq!(pidfd.info(), Some(expected));
        assert_eq!(pidfd.info_from_proc(), Some(expected));
    }

    #[test]
    fn the_end_is_told_apart_while_a_zombie_and_after() {
        for (script, kind) in [("exit 3", ExitKind::Clean), ("kill -9 $$", ExitKind::Signalled)] {
            let mut program = Program::shell(&format!("read line; {script}"));
            let pidfd = Pidfd::open(program.pid()).expect("it lives");
            assert!(!pidfd.has_exited());
            assert_eq!(pidfd.exit_kind(), ExitKind::Unknown, "not yet");
            program.say("go");
            assert!(pidfd.wait_exit(PollTimeout::from(10_000_u16)), "{script}");
            assert!(!pidfd.is_reaped(), "nobody has waited for it");
            assert_eq!(pidfd.exit_kind(), kind, "a zombie after {script}");
            program.reap();
            assert!(pidfd.is_reaped());
            assert_eq!(pidfd.info(), None);
            assert_eq!(pidfd.info_from_proc(), None);
            let afterwards = pidfd.exit_kind();
            let told = pidfd.exit_status_from_kernel().is_some();
            assert_eq!(afterwards, if told { kind } else { ExitKind::Unknown });
        }
    }

    #[test]
    fn a_thread_is_no_process_but_has_one() {
        let (tids, tid) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tids.send(u32::try_from(nix::unistd::gettid().as_raw()).expect("positive"))
                .expect("the test listens");
            let _ = stopped.recv();
        });
        let tid = tid.recv().expect("the thread runs");
        assert_eq!(Pidfd::open(tid).err(), Some(OpenError::NotALeader));
        assert_eq!(leader_of(tid), Some(std::process::id()));
        drop(stop);
        thread.join().expect("no panic");
        assert_eq!(leader_of(tid), None);
    }

    #[test]
    fn nobody_has_these_numbers() {
        for pid in [0, u32::MAX, 0x7fff_ffff] {
            assert_eq!(Pidfd::open(pid).err(), Some(OpenError::Gone), "{pid}");
            assert_eq!(leader_of(pid), None, "{pid}");
        }
    }
}
