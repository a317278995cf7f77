//! The command under a lock: in the foreground, with the signals that `run` gets, ended when the lock is lost.
//!
//! The command stays in our process group, so a terminal's Ctrl-C reaches it by itself: signals that the kernel sent
//! are not passed on, those of other processes are. On SIGTSTP we stop as well, for the shell's job control looks at
//! us.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};

use super::watch::{News, Watch};

/// How long a command may take to end after SIGTERM when its lock is lost.
const TERM_LIMIT: Duration = Duration::from_secs(5);
/// How long a command runs before the daemon is asked to tell of a loss. Most git commands have ended by then, and have
/// not waited for its answer; what was lost meanwhile is told then.
const WATCH_AFTER: Duration = Duration::from_millis(50);

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

/// What there is to read, in the numbers of epoll(7).
const SIGNALS: u64 = 0;
/// The same for the lock.
const LOCK: u64 = 1;

/// Runs the command to its end, and ends it when `watch` finds that a lock is lost.
///
/// The lock is watched by epoll(7), which asks the daemon once and is told of what comes. poll(2) would ask at each
/// signal, and a thread that waits in read(2) would have to be interrupted before this process can end.
pub fn supervise(mut command: Command, watch: Option<Watch<'_>>) -> Result<Outcome> {
    let mut wanted = SigSet::from_iter(PASSED_ON.iter().copied());
    wanted.add(Signal::SIGCHLD);
    reset_sigchld();
    // Blocked before the command exists: no signal may find us without a reader.
    let before = wanted.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    ready.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
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
    Supervisor {
        child,
        signals,
        ready,
        watch_at: watch.is_some().then(|| Instant::now() + WATCH_AFTER),
        watch,
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

struct Supervisor<'a> {
    child: Child,
    signals: SignalFd,
    ready: Epoll,
    watch: Option<Watch<'a>>,
    /// When to begin with it.
    watch_at: Option<Instant>,
    loss: Option<Loss>,
}

struct Loss {
    reason: String,
    kill_at: Option<Instant>,
}

impl Supervisor<'_> {
    fn run(mut self) -> Result<Outcome> {
        loop {
            let has_news = self.wait()?;
            while let Some(info) = self.signals.read_signal()? {
                self.pass_on(&info);
            }
            if let Some(status) = self.child.try_wait().context("the command cannot be waited for")? {
                return Ok(match self.loss {
                    Some(loss) => Outcome::LockLost(loss.reason),
                    None => Outcome::Exited(exit_code(status)),
                });
            }
            if has_news {
                self.read_news()?;
            }
            self.watch_if_due()?;
            self.kill_if_late();
        }
    }

    /// Waits for a signal, news of the lock, or the time to do something; whether there is news.
    fn wait(&self) -> Result<bool> {
        let due = self.loss.as_ref().and_then(|loss| loss.kill_at).or(self.watch_at);
        let timeout = due.map_or(EpollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now());
            EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
        });
        let mut events = [EpollEvent::empty(); 2];
        match self.ready.wait(&mut events, timeout) {
            Ok(count) => Ok(events[..count].iter().any(|event| event.data() == LOCK)),
            Err(nix::Error::EINTR) => Ok(false),
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

    fn watch_if_due(&mut self) -> Result<()> {
        if let (Some(watch), Some(at)) = (&self.watch, self.watch_at)
            && Instant::now() >= at
        {
            self.ready.add(watch, EpollEvent::new(EpollFlags::EPOLLIN, LOCK))?;
            self.watch_at = None;
        }
        Ok(())
    }

    fn read_news(&mut self) -> Result<()> {
        let Some(watch) = &self.watch else { return Ok(()) };
        let news = watch.read();
        if news == News::Held {
            return Ok(());
        }
        self.ready.delete(watch)?;
        if let News::Lost(reason) = news {
            eprintln!("git-lockfs: ending the command: {reason}");
            self.loss = Some(Loss {
                reason,
                kill_at: Some(Instant::now() + TERM_LIMIT),
            });
            self.signal(libc::SIGTERM);
            // A stopped command would not see it.
            self.signal(libc::SIGCONT);
        }
        Ok(())
    }

    fn kill_if_late(&mut self) {
        if let Some(loss) = &mut self.loss
            && loss.kill_at.is_some_and(|at| Instant::now() >= at)
        {
            loss.kill_at = None;
            self.signal(libc::SIGKILL);
        }
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
