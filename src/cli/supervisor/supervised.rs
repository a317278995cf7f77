//! A worker and what its supervisor knows of it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::super::notice::Notice;
use super::super::process::Process;
use super::super::worker::{PING, RETIRE};
use super::pulse::{Look, Pulse};
use crate::adapters::{Heartbeat, Phase};
use crate::fuse::Mounted;

/// How long a worker may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a worker may take to end once it has begun to.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long a worker may take to retire: it writes a snapshot.
const RETIRE_LIMIT: Duration = Duration::from_secs(2);
/// How long a killed worker may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The worker of this life.
#[derive(Debug)]
pub struct Supervised {
    /// It, ended or not.
    pub process: Process,
    /// What it tells once; `None` when it has, or tells another supervisor.
    pub notice: Option<File>,
    started: Instant,
    ready: Option<Instant>,
    /// When it was first seen to end.
    ending: Option<Instant>,
    /// The number of the last question to its watcher.
    asked: u64,
    pulse: Pulse,
    /// Why it was ended.
    killed: Option<&'static str>,
    /// Whether it is a child of this process, so that the kernel tells when it is stopped.
    is_child: bool,
}

impl Supervised {
    /// A worker that this process has just started.
    pub fn started(process: Process, notice: OwnedFd) -> Self {
        Self {
            process,
            notice: Some(notice.into()),
            started: Instant::now(),
            ready: None,
            ending: None,
            asked: 0,
            pulse: Pulse::default(),
            killed: None,
            is_child: true,
        }
    }

    /// A worker that serves already; `None` when it has ended.
    pub fn adopted(pid: u32) -> Option<Self> {
        let process = Process::open(pid)?;
        // Either it has started us, or what ran in this process before has started it; else the PID is another's by now.
        let is_child = process.is_child();
        let is_ours = is_child || std::os::unix::process::parent_id() == pid;
        is_ours.then(|| Self {
            process,
            notice: None,
            started: Instant::now(),
            ready: Some(Instant::now()),
            ending: None,
            asked: 0,
            pulse: Pulse::default(),
            killed: None,
            is_child,
        })
    }

    /// What the worker has told; the pipe is done with then.
    pub fn read_notice(&mut self) -> Option<Notice> {
        // One that cannot be read has said nothing; then its end is seen soon.
        let told = self.notice.take().and_then(|pipe| Notice::read(pipe).ok()?);
        if told == Some(Notice::Ready) {
            self.ready = Some(Instant::now());
        }
        told
    }

    /// Whether it serves, as far as is known.
    pub fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// How long it has served; `None` for not at all.
    pub fn lived(&self) -> Option<Duration> {
        self.ready.map(|ready| ready.elapsed())
    }

    /// Looks whether it works; why it should be ended, if it should.
    pub fn look(&mut self, heartbeat: &Heartbeat, mounted: &Mounted) -> Option<&'static str> {
        match heartbeat.phase() {
            Phase::Starting => (self.started.elapsed() > START_LIMIT).then_some("it does not begin to serve"),
            Phase::Ending => {
                let since = *self.ending.get_or_insert_with(Instant::now);
                (since.elapsed() > END_LIMIT).then_some("it does not end")
            }
            Phase::Serving => {
                let beat = heartbeat.beat();
                // Asked at the last look: it had the time between the two to answer.
                let asked = std::mem::replace(&mut self.asked, heartbeat.ask());
                // It is there, or its end is seen at once.
                let _ = self.process.signal(PING);
                self.pulse.take(Look {
                    beat,
                    has_unread: mounted.has_unread(),
                    asked,
                })
            }
        }
    }

    /// Whether it may be left alone until something happens.
    pub fn is_quiet(&self) -> bool {
        self.is_child && self.pulse.is_quiet()
    }

    /// Something has happened.
    pub fn stir(&mut self) {
        self.pulse.stir();
    }

    /// Has it hand over to its successor, and waits for its end. The successor of one that does not goes on as after a
    /// crash.
    pub fn retire(&mut self) {
        if let Err(error) = self.process.signal(RETIRE) {
            tracing::warn!(pid = self.process.pid, "the worker cannot be told to retire: {error}");
        }
        if !self.process.has_ended_within(RETIRE_LIMIT) {
            self.kill("it did not retire");
        }
    }

    /// Ends it, if it has not ended, and waits for that.
    pub fn kill(&mut self, reason: &'static str) {
        self.killed.get_or_insert(reason);
        if let Err(error) = self.process.signal(libc::SIGKILL) {
            tracing::error!(pid = self.process.pid, "the worker cannot be ended: {error}");
        }
        self.await_end();
    }

    /// Waits for an end that must come.
    pub fn await_end(&self) {
        if !self.process.has_ended_within(KILL_LIMIT) {
            tracing::error!(pid = self.process.pid, "the worker does not end");
        }
    }

    /// In words, how it has ended.
    pub fn how_it_ended(&self) -> String {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        // Of a worker that another supervisor has started the kernel tells us nothing.
        let status = waitid(Id::PIDFd(self.process.as_fd()), flags);
        match (self.killed, status) {
            (Some(reason), _) => format!("was ended because {reason}"),
            (None, Ok(WaitStatus::Signaled(_, signal, _))) => format!("was killed by {signal}"),
            (None, Ok(WaitStatus::Exited(_, code))) => format!("ended with exit code {code}"),
            (None, _) => "died".to_owned(),
        }
    }
}
