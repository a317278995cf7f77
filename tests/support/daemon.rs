//! The two processes of a daemon: found, and ended as a crash would end them.

use std::path::Path;

use super::process::{process_state, wait_until};
use super::{Repository, sys};

impl Repository {
    /// The PID of the supervisor; `None` while there is none.
    pub fn supervisor(&self) -> Option<u32> {
        self.daemon_line(0)
    }

    /// The PID of the worker; `None` while there is none.
    pub fn worker(&self) -> Option<u32> {
        self.daemon_line(1)
    }

    /// The PID of the worker that serves.
    #[track_caller]
    pub fn worker_pid(&self) -> u32 {
        self.worker().expect("a worker serves")
    }

    /// The PID of the supervisor that keeps the mount.
    #[track_caller]
    pub fn supervisor_pid(&self) -> u32 {
        self.supervisor().expect("a supervisor keeps the mount")
    }

    /// Kills supervisor and worker, neither of which can replace the other; the mount is dead then.
    #[track_caller]
    pub fn kill_daemon(&self) {
        let (supervisor, worker) = (self.supervisor_pid(), self.worker_pid());
        sys::kill(supervisor, libc::SIGSTOP).expect("ours to stop");
        sys::kill(worker, libc::SIGKILL).expect("ours to kill");
        sys::kill(supervisor, libc::SIGKILL).expect("ours to kill");
        // Not the state of the processes: a first thread may be a zombie before the last one has closed the device.
        wait_until("the mount is dead", || {
            let error = self.mountpoint().symlink_metadata().err();
            error.and_then(|error| error.raw_os_error()) == Some(libc::ENOTCONN)
        });
    }

    fn daemon_line(&self, line: usize) -> Option<u32> {
        let text = std::fs::read_to_string(self.repo().join(".git/lockfs/daemon.lock")).ok()?;
        let pid = text.lines().nth(line)?.trim().parse().ok()?;
        // The file outlives its processes, and a PID may be another's by then.
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        (program == Path::new(env!("CARGO_BIN_EXE_git-lockfs")) && process_state(pid) != 'Z').then_some(pid)
    }
}
