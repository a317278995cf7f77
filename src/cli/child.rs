//! The command under a lock: in the foreground, with the signals that `run` gets, ended when the lock is lost.
//!
//! The command stays in our process group, so a terminal's Ctrl-C reaches it by itself: signals that the kernel sent
//! are not passed on, those of other processes are. On SIGTSTP we stop as well, for the shell's job control looks at
//! us.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};

/// How long a command may take to end after SIGTERM when its lock is lost.
const TERM_LIMIT: Duration = Duration::from_secs(5);

/// Signals that are passed on.
const PASSED_ON: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
];

/// How the command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By itself: its exit code, or 128 and the signal that killed it.
    Exited(u8),
    /// After its lock was lost, for this reason.
    LockLost(String),
    /// It never started: 127 when it is not there, else 126.
    NotStarted(u8, String),
}

/// Runs the command to its end. `watch` runs in a thread of its own: it returns when the lock is lost, with the
/// reason, and `None` when it will never know.
pub fn supervise(mut command: Command, watch: impl FnOnce() -> Option<String> + Send + 'static) -> Result<Outcome> {
    let mut wanted = SigSet::from_iter(PASSED_ON.iter().copied());
    wanted.add(Signal::SIGCHLD);
    reset_sigchld();
    // Blocked before the command and the thread exist: no signal may find us without a reader.
    let before = wanted.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let parent = std::process::id();
    // SAFETY: only system calls that are safe between fork and exec, on values of the closure.
    unsafe { command.pre_exec(move || become_command(before, parent)) };
    let name = command.get_program().to_string_lossy().into_owned();
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            };
            return Ok(Outcome::NotStarted(code, format!("{name}: {error}")));
        }
    };
    let (lost, mut reporter) = UnixStream::pair()?;
    thread::Builder::new().name("lock".to_owned()).spawn(move || {
        if let Some(reason) = watch() {
            // The reader is gone only when the command has ended.
            let _ = reporter.write_all(reason.as_bytes());
        } else {
            // Kept open: the end of the stream would read as a loss.
            std::mem::forget(reporter);
        }
    })?;
    Supervisor {
        child,
        signals,
        lost,
        loss: None,
    }
    .run()
}

/// Lets signals act on us again as on any program, after a command has ended.
pub fn release_signals() -> Result<()> {
    let mut ours = SigSet::from_iter(PASSED_ON.iter().copied());
    ours.add(Signal::SIGCHLD);
    Ok(ours.thread_unblock()?)
}

struct Supervisor {
    child: Child,
    signals: SignalFd,
    lost: UnixStream,
    loss: Option<Loss>,
}

struct Loss {
    reason: String,
    kill_at: Option<Instant>,
}

impl Supervisor {
    fn run(mut self) -> Result<Outcome> {
        loop {
            self.wait()?;
            while let Some(info) = self.signals.read_signal()? {
                self.pass_on(&info);
            }
            if let Some(status) = self.child.try_wait().context("the command cannot be waited for")? {
                return Ok(match self.loss {
                    Some(loss) => Outcome::LockLost(loss.reason),
                    None => Outcome::Exited(exit_code(status)),
                });
            }
            self.end_if_lost()?;
        }
    }

    /// Waits for a signal, the loss of the lock, or the time to kill.
    fn wait(&self) -> Result<()> {
        let timeout = match &self.loss {
            Some(Loss { kill_at: Some(at), .. }) => {
                let left = at.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
            _ => PollTimeout::NONE,
        };
        let signals = PollFd::new(self.signals.as_fd(), PollFlags::POLLIN);
        let lost = PollFd::new(self.lost.as_fd(), PollFlags::POLLIN);
        let polled = match self.loss {
            None => poll(&mut [signals, lost], timeout),
            Some(_) => poll(&mut [signals], timeout),
        };
        match polled {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn pass_on(&self, info: &siginfo) {
        let Ok(signal) = i32::try_from(info.ssi_signo) else {
            return;
        };
        if signal == libc::SIGCHLD {
            return;
        }
        // The kernel sends to the whole group: the command has got it already.
        if info.ssi_code != SI_KERNEL {
            self.signal(signal);
        }
        if signal == libc::SIGTSTP {
            // SAFETY: a signal to ourselves; we go on at SIGCONT.
            unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
        }
    }

    /// Sends to the command, which is ours to wait for: its PID cannot have been given to another process.
    fn signal(&self, signal: libc::c_int) {
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: a signal to our own child. A child that has just ended does not mind.
            unsafe { libc::kill(pid, signal) };
        }
    }

    fn end_if_lost(&mut self) -> Result<()> {
        if let Some(loss) = &mut self.loss {
            if loss.kill_at.is_some_and(|at| Instant::now() >= at) {
                loss.kill_at = None;
                self.signal(libc::SIGKILL);
            }
            return Ok(());
        }
        self.lost.set_nonblocking(true)?;
        let mut reason = [0; 1024];
        match self.lost.read(&mut reason) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(length) => {
                let reason = String::from_utf8_lossy(&reason[..length]).into_owned();
                eprintln!("git-lockfs: ending the command: {reason}");
                self.loss = Some(Loss {
                    reason,
                    kill_at: Some(Instant::now() + TERM_LIMIT),
                });
            }
        }
        self.signal(libc::SIGTERM);
        // A stopped command would not see it.
        self.signal(libc::SIGCONT);
        Ok(())
    }
}

/// `si_code` of a signal that the kernel itself sent, such as that of a terminal.
const SI_KERNEL: i32 = 0x80;

/// The exit code as a shell gives it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// A parent that ignored SIGCHLD would have us wait for nothing.
fn reset_sigchld() {
    // SAFETY: the default action needs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Runs between fork and exec: the signals as `run` found them, and an end together with `run`.
fn become_command(mask: SigSet, parent: u32) -> io::Result<()> {
    mask.thread_set_mask()?;
    // Killed, `run` cannot end the command any more, and its lock is free.
    // SAFETY: plain system calls.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == -1 {
            return Err(io::Error::last_os_error());
        }
        if u32::try_from(libc::getppid()) != Ok(parent) {
            libc::raise(libc::SIGTERM);
        }
    }
    Ok(())
}
