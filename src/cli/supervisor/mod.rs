//! The supervisor: mounts, keeps the mount, and sees to it that a worker serves it.
//!
//! It holds the kernel's device, so the mount outlives any worker: while none runs, calls wait. A worker that dies is
//! replaced, one that hangs (`pulse`) is ended first, and when each dies at once (`deaths`) the supervisor gives up and
//! cuts the connection, so that nobody waits for ever. It reads no request and knows nothing of locks: the less it does,
//! the less it can fail. If it dies all the same, the worker starts another one, which goes on here.

mod deaths;
mod pulse;
mod renewal;
mod supervised;

use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use self::deaths::Deaths;
use self::pulse::{QUIET_TICK, TICK};
pub use self::renewal::knock;
use self::renewal::{Door, become_latest};
use self::supervised::Supervised;
use super::EXIT_NOT_HAD;
use super::daemon::given_up_path;
use super::estate::{Estate, Program};
use super::failure::failure;
use super::notice::Notice;
use super::process::Process;
use super::worker::EXIT_HOPELESS;
use crate::adapters::Phase;

/// The signals that wake a supervisor. SIGCHLD comes also when the worker is stopped.
const WATCHED: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD];

/// A supervisor at work.
#[derive(Debug)]
pub struct Supervisor {
    estate: Estate,
    signals: SignalFd,
    /// `None` when it could not be opened: then nobody can ask for a restart.
    door: Option<Door>,
    deaths: Deaths,
    /// Those who want to know when a worker is ready: the starter, and who asked for a restart.
    waiting: Vec<File>,
}

/// How a worker has ended.
#[derive(Debug)]
enum End {
    /// As it should: the mount has ended, too.
    Orderly,
    /// It refused to start, and another one would, too.
    Hopeless { code: u8, sentence: String },
    /// It died so long after it was ready (`None`: it never was), in these words.
    Died { lived: Option<Duration>, how: String },
    /// It was ended for another one of the program that lies at its place.
    Renewed,
}

impl Supervisor {
    /// To be made before any thread exists. `starter` waits for the mount to answer.
    pub fn new(estate: Estate, starter: Option<File>) -> Result<Self> {
        let watched: SigSet = WATCHED.into_iter().collect();
        watched.thread_block()?;
        let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let door = Door::open(&estate.place()?)
            .inspect_err(|error| tracing::warn!("nobody can ask for a restart: {error}"))
            .ok();
        Ok(Self {
            estate,
            signals,
            door,
            deaths: Deaths::default(),
            waiting: starter.into_iter().collect(),
        })
    }

    /// Keeps the mount until it ends. `adopted` is the PID of a worker that serves already.
    pub fn run(mut self, adopted: Option<u32>) -> Result<ExitCode> {
        let mut end = match adopted.map(Supervised::adopted) {
            None => self.start_and_attend(Program::Same),
            Some(Some(worker)) => self.attend(worker)?,
            Some(None) => self.end_by_death(None, "died".to_owned()),
        };
        loop {
            let program = match end {
                End::Orderly => return Ok(ExitCode::SUCCESS),
                End::Hopeless { code, sentence } if self.estate.standing.life == 1 => {
                    self.take_down();
                    self.tell(&Notice::Failed { code, sentence });
                    return Ok(ExitCode::from(code));
                }
                End::Hopeless { code, sentence } => return self.give_up(code, sentence),
                End::Died { lived, how } => match self.deaths.count(lived) {
                    Some(pause) => {
                        tracing::warn!(pause_ms = pause.as_millis(), "the worker {how}; another one takes over");
                        std::thread::sleep(pause);
                        Program::Same
                    }
                    None => {
                        let reason = format!("one worker after the other died at once; the last one {how}");
                        return self.give_up(1, reason);
                    }
                },
                End::Renewed => Program::Latest,
            };
            end = self.start_and_attend(program);
        }
    }

    /// One life: starts a worker and looks after it until it has ended.
    fn start_and_attend(&mut self, program: Program) -> End {
        let attended = self
            .start_worker(program)
            .context("could not be started")
            .and_then(|worker| self.attend(worker));
        attended.unwrap_or_else(|error| self.end_by_death(None, format!("{error:#}")))
    }

    fn start_worker(&mut self, program: Program) -> Result<Supervised> {
        self.estate.standing.life += 1;
        self.estate.heartbeat.reset();
        let (notice, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let child = self.estate.worker(&theirs, program)?.spawn()?;
        // It has not been waited for, so the PID is its own.
        let process = Process::open(child.id()).context("no pidfd")?;
        Ok(Supervised::started(process, notice))
    }

    /// Looks after a worker until it has ended.
    fn attend(&mut self, mut worker: Supervised) -> Result<End> {
        self.estate.lock.declare(std::process::id(), Some(worker.process.pid))?;
        let mut next_look = Instant::now() + TICK;
        let mut quiet = false;
        loop {
            let happened = self.wait(&worker, next_look, quiet)?;
            if quiet && happened.any() {
                quiet = false;
                worker.stir();
                next_look = Instant::now() + TICK;
            }
            while let Some(signal) = self.signals.read_signal()? {
                pass_on(&worker.process, signal.ssi_signo);
            }
            // What it told before it ended counts.
            let told = if happened.told { worker.read_notice() } else { None };
            match told {
                Some(Notice::Ready) => self.worker_is_ready(&worker),
                Some(Notice::Failed { code, sentence }) => {
                    worker.await_end();
                    return Ok(self.end_by_refusal(code, sentence, &worker));
                }
                None => {}
            }
            if happened.ended {
                return Ok(self.end_by_death(worker.lived(), worker.how_it_ended()));
            }
            if happened.knocked && self.lets_in(&worker) {
                worker.retire();
                worker.how_it_ended();
                return Ok(End::Renewed);
            }
            if Instant::now() >= next_look {
                if let Some(reason) = worker.look(&self.estate.heartbeat, &self.estate.mounted) {
                    tracing::error!(pid = worker.process.pid, "the worker is ended: {reason}");
                    worker.kill(reason);
                }
                quiet = worker.is_quiet();
                next_look = Instant::now() + if quiet { QUIET_TICK } else { TICK };
            }
        }
    }

    /// Sleeps until something happens, or it is time to look. That a request comes is something only while it is `quiet`:
    /// then it is time to look more often.
    fn wait(&self, worker: &Supervised, until: Instant, quiet: bool) -> Result<Happened> {
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let watched = [
            Some(worker.process.as_fd()),
            Some(self.signals.as_fd()),
            worker.notice.as_ref().map(AsFd::as_fd),
            self.door.as_ref().map(AsFd::as_fd),
            quiet.then(|| self.estate.mounted.as_fd()),
        ];
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds: Vec<PollFd<'_>> = watched.into_iter().flatten().map(readable).collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut fds = fds.iter();
        let [ended, signalled, told, knocked, called] = watched.map(|watched| {
            let fd = watched.and_then(|_| fds.next());
            fd.and_then(PollFd::any).unwrap_or(false)
        });
        Ok(Happened {
            ended,
            signalled,
            told,
            knocked,
            called,
        })
    }

    fn worker_is_ready(&mut self, worker: &Supervised) {
        let was_asked = self.estate.standing.life > 1 && !self.waiting.is_empty();
        self.tell(&Notice::Ready);
        if let Ok(place) = self.estate.place() {
            // What made an earlier supervisor give up is over.
            let _ = std::fs::remove_file(given_up_path(&place));
        }
        if was_asked {
            let Err(error) = become_latest(&self.estate, worker.process.pid);
            tracing::error!("the supervisor goes on as it was: {error:#}");
        }
    }

    /// Somebody asks for a restart: whether it is to be. Who is refused is told why.
    fn lets_in(&mut self, worker: &Supervised) -> bool {
        let Some(visitor) = self.door.as_ref().and_then(Door::next) else {
            return false;
        };
        let possible = if worker.is_ready() {
            renewal::check(&self.estate)
        } else {
            Err(failure(EXIT_NOT_HAD, "a worker is just being started: try again"))
        };
        match possible {
            Ok(()) => {
                tracing::info!(program = %self.estate.launcher.program.display(), "the worker is replaced, as asked");
                self.waiting.push(visitor);
                true
            }
            Err(error) => {
                tracing::warn!("no restart: {error:#}");
                Notice::of(&error).send(&visitor);
                false
            }
        }
    }

    /// What it means that a worker has ended.
    fn end_by_death(&mut self, lived: Option<Duration>, how: String) -> End {
        if self.estate.heartbeat.phase() == Phase::Ending || !self.estate.mounted.unmounter().is_connected() {
            return End::Orderly;
        }
        End::Died { lived, how }
    }

    /// What it means that a worker told why it does not serve.
    fn end_by_refusal(&mut self, code: u8, sentence: String, worker: &Supervised) -> End {
        worker.how_it_ended();
        // Nobody has got anything from a mount that never answered.
        if self.estate.standing.life == 1 || code == EXIT_HOPELESS {
            return End::Hopeless { code, sentence };
        }
        self.tell(&Notice::Failed {
            code,
            sentence: sentence.clone(),
        });
        self.end_by_death(None, format!("did not start: {sentence}"))
    }

    /// Tells those who wait.
    fn tell(&mut self, notice: &Notice) {
        for waiting in self.waiting.drain(..) {
            notice.send(&waiting);
        }
    }

    /// Cuts the connection, so that nobody waits for a worker that does not come, and takes the mount down.
    fn give_up(&mut self, code: u8, reason: String) -> Result<ExitCode> {
        tracing::error!("the mount is given up: {reason}");
        self.take_down();
        let path = given_up_path(&self.estate.place()?);
        let noted = std::fs::write(&path, format!("{reason}\n")).with_context(|| path.display().to_string());
        self.tell(&Notice::Failed { code, sentence: reason });
        noted.map(|()| ExitCode::from(code))
    }

    fn take_down(&self) {
        let unmounter = self.estate.mounted.unmounter();
        // Without the kernel's switch the connection ends with this process, which has the last descriptor.
        let _ = unmounter.abort();
        if let Err(error) = unmounter.unmount() {
            tracing::error!("unmounting failed: {error}");
        }
    }
}

/// What a supervisor woke up for.
#[derive(Clone, Copy, Debug)]
struct Happened {
    ended: bool,
    signalled: bool,
    told: bool,
    knocked: bool,
    called: bool,
}

impl Happened {
    fn any(self) -> bool {
        self.ended || self.signalled || self.told || self.knocked || self.called
    }
}

/// A signal that asks the daemon to end is the worker's to answer: it knows who holds locks.
fn pass_on(process: &Process, signal: u32) {
    if let Ok(signal) = libc::c_int::try_from(signal)
        && [libc::SIGTERM, libc::SIGINT].contains(&signal)
        && let Err(error) = process.signal(signal)
    {
        tracing::warn!("signal {signal} could not be passed on to the worker: {error}");
    }
}
