//! A process that cannot be taken for another one: its PID with a pidfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, waitid};

/// A process, alive or not, as long as nobody has waited for it.
#[derive(Debug)]
pub struct Process {
    /// Its PID as seen from here.
    pub pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// The process that has this PID now; `None` when there is none.
    pub fn open(pid: u32) -> Option<Self> {
        // SAFETY: pidfd_open takes two numbers and gives a new descriptor, or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::pid_t::try_from(pid).ok()?, 0) };
        let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0)?;
        Some(Self {
            pid,
            // SAFETY: the kernel has just given us this descriptor.
            pidfd: unsafe { OwnedFd::from_raw_fd(fd) },
        })
    }

    /// Sends it a signal; one that has ended does not mind.
    pub fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        // SAFETY: a valid descriptor and no siginfo.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match io::Error::last_os_error() {
            error if sent != 0 && error.raw_os_error() != Some(libc::ESRCH) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether this process is its parent.
    pub fn is_child(&self) -> bool {
        // ECHILD for a stranger; looking leaves a zombie what it is.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::PIDFd(self.as_fd()), flags).is_ok()
    }

    /// Waits for its end, at most that long; whether it has ended.
    pub fn has_ended_within(&self, limit: Duration) -> bool {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, timeout) {
                Ok(ready) => return ready > 0,
                Err(nix::Error::EINTR) => {}
                // Not to know whether it is alive counts as alive.
                Err(_) => return false,
            }
        }
    }
}

/// Readable once the process has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn an_ended_process_is_known_to_have_ended_and_takes_signals_quietly() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let process = Process::open(child.id()).expect("it runs");
        assert!(!process.has_ended_within(Duration::ZERO));
        assert!(process.is_child());
        let ourselves = Process::open(std::process::id()).expect("we run");
        assert!(!ourselves.is_child());
        process.signal(libc::SIGKILL).expect("ours to kill");
        assert!(process.has_ended_within(Duration::from_secs(10)));
        child.wait().expect("our child");
        process.signal(libc::SIGKILL).expect("nobody is hit");
        assert!(Process::open(u32::MAX).is_none());
    }
}
