//! The supervisor: mounts, keeps the mount, and sees to it that a worker serves it.
//!
//! It holds the kernel's device, so the mount outlives any worker: while none runs, calls wait. A worker that dies is
//! replaced, one that hangs (`pulse`) is ended first, and when each dies at once (`deaths`) the supervisor gives up and
//! cuts the connection, so that nobody waits for ever. It reads no request and knows nothing of locks: the less it does,
//! the less it can fail. If it dies all the same, the worker starts another one, which goes on here.

mod deaths;
mod pulse;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use self::deaths::Deaths;
use self::pulse::{Look, Pulse, TICK};
use super::daemon::given_up_path;
use super::estate::Estate;
use super::notice::Notice;
use super::process::Process;
use super::worker::{EXIT_HOPELESS, PING};
use crate::adapters::Phase;
use crate::fuse::Unmounter;

/// Whether a worker that dies is replaced.
const RESTARTS: bool = false;
/// How long a worker may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a worker may take to end once it has begun to.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long a killed worker may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A supervisor at work.
#[derive(Debug)]
pub struct Supervisor {
    estate: Estate,
    signals: SignalFd,
    deaths: Deaths,
    /// Who waits for the mount to answer.
    starter: Option<File>,
}

/// How a worker has ended.
#[derive(Debug)]
enum End {
    /// As it should: the mount has ended, too.
    Orderly,
    /// It refused to start, and another one would, too.
    Hopeless { code: u8, sentence: String },
    /// It died so long after it was ready; in words, and when it was never ready, `None`.
    Died { lived: Option<Duration>, how: String },
}

impl Supervisor {
    /// To be made before any thread exists.
    pub fn new(estate: Estate, starter: Option<File>) -> Result<Self> {
        let watched: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        watched.thread_block()?;
        let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self {
            estate,
            signals,
            deaths: Deaths::default(),
            starter,
        })
    }

    /// Keeps the mount until it ends. `adopted` is the PID of a worker that serves already.
    pub fn run(mut self, adopted: Option<u32>) -> Result<ExitCode> {
        let mut worker = match adopted {
            Some(pid) => Ok(Worker::adopted(pid)),
            None => self.start_worker(),
        };
        loop {
            let end = match worker {
                Ok(worker) => self.attend(worker)?,
                Err(error) => End::Died {
                    lived: None,
                    how: format!("could not be started: {error:#}"),
                },
            };
            match end {
                End::Orderly => return Ok(ExitCode::SUCCESS),
                End::Hopeless { code, sentence } if self.estate.standing.life == 1 => {
                    return Ok(self.refuse(Notice::Failed { code, sentence }, code));
                }
                End::Hopeless { code, sentence } => return self.give_up(code, &sentence),
                End::Died { lived, how } => match self.deaths.count(lived) {
                    Some(pause) if RESTARTS => {
                        tracing::warn!(pause_ms = pause.as_millis(), "the worker {how}; another one takes over");
                        std::thread::sleep(pause);
                    }
                    Some(_) => return self.give_up(1, &format!("the worker {how}")),
                    None => {
                        return self.give_up(
                            1,
                            &format!("one worker after the other died at once; the last one {how}"),
                        );
                    }
                },
            }
            worker = self.start_worker();
        }
    }

    fn start_worker(&mut self) -> Result<Worker> {
        self.estate.standing.life += 1;
        self.estate.heartbeat.reset();
        let (notice, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let child = self.estate.start_worker(&theirs)?;
        self.estate.lock.declare(std::process::id(), Some(child.id()))?;
        Ok(Worker::started(Some(child), Some(notice)))
    }

    /// Looks after a worker until it has ended.
    fn attend(&mut self, mut worker: Worker) -> Result<End> {
        if worker.child.is_none() {
            self.estate
                .lock
                .declare(std::process::id(), worker.process.as_ref().map(|process| process.pid))?;
        }
        let mut pulse = Pulse::default();
        let mut next_look = Instant::now() + TICK;
        let Some(process) = worker.process.take() else {
            return Ok(self.end_of(worker, None));
        };
        loop {
            let (has_ended, has_told) = self.wait(&process, worker.notice.as_ref(), next_look)?;
            while let Some(signal) = self.signals.read_signal()? {
                pass_on(&process, signal.ssi_signo);
            }
            // What it told before it ended counts.
            let told = if has_told { worker.read_notice() } else { None };
            match told {
                Some(Notice::Ready) => self.worker_is_ready(&mut worker),
                Some(Notice::Failed { code, sentence }) => {
                    process.has_ended_within(KILL_LIMIT);
                    return Ok(self.end_of(worker, Some((code, sentence))));
                }
                None => {}
            }
            if has_ended {
                return Ok(self.end_of(worker, None));
            }
            if Instant::now() >= next_look {
                next_look = Instant::now() + TICK;
                if let Some(reason) = self.look(&process, &mut worker, &mut pulse) {
                    tracing::error!(pid = process.pid, "the worker is ended: {reason}");
                    process.signal(libc::SIGKILL)?;
                    worker.killed = Some(reason);
                    if !process.has_ended_within(KILL_LIMIT) {
                        tracing::error!(pid = process.pid, "the worker cannot be ended");
                    }
                }
            }
        }
    }

    /// Sleeps until the worker ends or tells something, a signal comes, or it is time to look.
    fn wait(&self, process: &Process, notice: Option<&File>, until: Instant) -> Result<(bool, bool)> {
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![readable(process.as_fd()), readable(self.signals.as_fd())];
        fds.extend(notice.map(|notice| readable(notice.as_fd())));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
        Ok((happened(0), happened(2)))
    }

    /// Why the worker should be ended, if it should.
    fn look(&self, process: &Process, worker: &mut Worker, pulse: &mut Pulse) -> Option<&'static str> {
        let heartbeat = &self.estate.heartbeat;
        match heartbeat.phase() {
            Phase::Starting => (worker.started.elapsed() > START_LIMIT).then_some("it does not begin to serve"),
            Phase::Ending => {
                let since = *worker.ending.get_or_insert_with(Instant::now);
                (since.elapsed() > END_LIMIT).then_some("it does not end")
            }
            Phase::Serving => {
                let beat = heartbeat.beat();
                let has_unread = self.estate.mounted.has_unread();
                // Asked at the last look: it had the time between the two to answer.
                let asked = std::mem::replace(&mut worker.asked, heartbeat.ask());
                // It is there, or its end is seen at once.
                let _ = process.signal(PING);
                pulse.take(Look {
                    beat,
                    has_unread,
                    asked,
                })
            }
        }
    }

    fn worker_is_ready(&mut self, worker: &mut Worker) {
        worker.ready = Some(Instant::now());
        if let Some(starter) = self.starter.take() {
            Notice::Ready.send(&starter);
        }
        if let Ok(place) = self.estate.place() {
            // What made an earlier supervisor give up is over.
            let _ = std::fs::remove_file(given_up_path(&place));
        }
    }

    /// What the end of a worker means; `refusal` is what it told instead of serving.
    fn end_of(&self, mut worker: Worker, refusal: Option<(u8, String)>) -> End {
        let status = worker.child.as_mut().and_then(|child| child.wait().ok());
        let phase = self.estate.heartbeat.phase();
        if phase == Phase::Ending || !self.unmounter().is_connected() {
            return End::Orderly;
        }
        if let Some((code, sentence)) = refusal {
            // Nobody has got anything from a mount that never answered.
            if self.estate.standing.life == 1 || code == EXIT_HOPELESS {
                return End::Hopeless { code, sentence };
            }
            let how = format!("did not start: {sentence}");
            return End::Died { lived: None, how };
        }
        let how = match (worker.killed, status) {
            (Some(reason), _) => format!("was ended because {reason}"),
            (None, Some(status)) => format!("died ({status})"),
            (None, None) => "died".to_owned(),
        };
        let lived = worker.ready.map(|ready| ready.elapsed());
        End::Died { lived, how }
    }

    fn unmounter(&self) -> Unmounter {
        self.estate.mounted.unmounter()
    }

    /// Cuts the connection, so that nobody waits for a worker that does not come, and takes the mount down.
    fn give_up(&mut self, code: u8, reason: &str) -> Result<ExitCode> {
        tracing::error!("the mount is given up: {reason}");
        self.take_down();
        if let Some(starter) = self.starter.take() {
            let sentence = reason.to_owned();
            Notice::Failed { code, sentence }.send(&starter);
        }
        let path = given_up_path(&self.estate.place()?);
        std::fs::write(&path, format!("{reason}\n")).with_context(|| path.display().to_string())?;
        Ok(ExitCode::from(code))
    }

    /// Ends a mount that never answered; its worker has said why in the log.
    fn refuse(&mut self, notice: Notice, code: u8) -> ExitCode {
        self.take_down();
        if let Some(starter) = self.starter.take() {
            notice.send(&starter);
        }
        ExitCode::from(code)
    }

    fn take_down(&self) {
        let unmounter = self.unmounter();
        if let Err(error) = unmounter.abort() {
            // It ends with this process, which has the last descriptor.
            tracing::warn!("the connection could not be cut at once: {error}");
        }
        if let Err(error) = unmounter.unmount() {
            tracing::error!("unmounting failed: {error}");
        }
    }
}

/// A worker and what its supervisor knows of it.
#[derive(Debug)]
struct Worker {
    /// `None` when it had ended before it could be looked at.
    process: Option<Process>,
    /// `None` when another supervisor started it.
    child: Option<Child>,
    notice: Option<File>,
    started: Instant,
    ready: Option<Instant>,
    /// When it was first seen to end.
    ending: Option<Instant>,
    /// The number of the last question to its watcher.
    asked: u64,
    /// Why it was ended.
    killed: Option<&'static str>,
}

impl Worker {
    fn adopted(pid: u32) -> Self {
        // It is our parent, or was until it ended.
        let process = Process::open(pid).filter(|_| std::os::unix::process::parent_id() == pid);
        Self {
            process,
            ready: Some(Instant::now()),
            ..Self::started(None, None)
        }
    }

    fn started(child: Option<Child>, notice: Option<OwnedFd>) -> Self {
        Self {
            // It has not been waited for, so the PID is its own.
            process: child.as_ref().and_then(|child| Process::open(child.id())),
            child,
            notice: notice.map(File::from),
            started: Instant::now(),
            ready: None,
            ending: None,
            asked: 0,
            killed: None,
        }
    }

    /// What the worker has told; the pipe is done with then.
    fn read_notice(&mut self) -> Option<Notice> {
        // One that cannot be read has said nothing; then its end is seen soon.
        self.notice.take().and_then(|pipe| Notice::read(pipe).ok()?)
    }
}

/// A signal that asks the daemon to end is the worker's to answer: it knows who holds locks.
fn pass_on(process: &Process, signal: u32) {
    if let Ok(signal) = libc::c_int::try_from(signal)
        && signal != libc::SIGHUP
        && let Err(error) = process.signal(signal)
    {
        tracing::warn!("signal {signal} could not be passed on to the worker: {error}");
    }
}
