//! What a service lives on: a disk, reserved tokens, and somebody who takes its answers.

use std::io;
use std::sync::Arc;

use git_lockfs::adapters::memory::MemoryLog;
use git_lockfs::adapters::{Confinement, Heartbeat, HistoryError, MemoryDisk, Processes, Tokens, Watcher};
use git_lockfs::ports::{Log, Replay};
use git_lockfs::service::api::{Answer, Caller, Replies};
use git_lockfs::service::{Outside, ReplayError, Service, check_replay};
use git_lockfs::types::{Settings, Unique};
use git_lockfs::view::locks_json::{Recovery, ServedBy};
use parking_lot::Mutex;

/// What the service sends on its own.
#[derive(Debug)]
pub enum Sent {
    Answer(Unique, Answer),
    Wake(u64),
}

/// Keeps what the service sends later, in order.
#[derive(Default)]
pub struct Recorder(pub Mutex<Vec<Sent>>);

impl Recorder {
    pub fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Replies for Recorder {
    fn answer(&self, unique: Unique, answer: Answer) {
        self.0.lock().push(Sent::Answer(unique, answer));
    }

    fn wake_poll(&self, number: u64) {
        self.0.lock().push(Sent::Wake(number));
    }
}

pub fn nobody() -> Caller {
    Caller {
        tid: 0,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    }
}

/// Nothing here depends on how fast a history runs.
fn settings() -> Settings {
    let mut settings = Settings::default();
    for (key, value) in [("wait", "forever"), ("aging", "1h"), ("ticketGrace", "1h")] {
        settings.set(key, value).expect("a time");
    }
    settings
}

/// What a power cut left of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// One that can be read; how much of it was lost nobody sees.
    Legible,
    /// One that was damaged, and is set aside.
    Damaged,
    /// One that was never begun.
    Empty,
}

/// A journal that is worth a snapshot after this many records, that there are many to die in.
const RECORDS: u32 = 6;

/// A journal in memory that counts its records instead of their bytes.
#[derive(Debug)]
struct Short {
    log: MemoryLog,
    records: u32,
}

impl Short {
    fn boxed(log: MemoryLog) -> Box<dyn Log> {
        Box::new(Self { log, records: 0 })
    }
}

impl Log for Short {
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.records += 1;
        self.log.append(record)
    }

    fn size(&self) -> u64 {
        if self.records < RECORDS {
            self.log.size()
        } else {
            u64::MAX
        }
    }

    fn compact(&mut self, snapshot: &[u8]) -> io::Result<()> {
        self.records = 0;
        self.log.compact(snapshot)
    }
}

pub struct Machine {
    dir: tempfile::TempDir,
    /// One for all lives: to take one down costs the kernel milliseconds, and nobody waits on it here.
    watcher: Watcher,
    pub disk: MemoryDisk,
    pub recorder: Arc<Recorder>,
}

impl Machine {
    /// A machine with a directory in memory where there is one: tokens are written durably, thousands of times.
    pub fn new() -> Self {
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let dir = in_memory.unwrap_or_else(|_| tempfile::tempdir().expect("a directory"));
        Self {
            watcher: Watcher::new(dir.path()).expect("a watcher"),
            dir,
            disk: MemoryDisk::default(),
            recorder: Arc::default(),
        }
    }

    fn outside(&mut self) -> Outside {
        self.recorder = Arc::default();
        let (tokens, first, end) = Tokens::open(&self.dir.path().join("state")).expect("tokens");
        let owner = nobody();
        Outside {
            processes: Arc::new(Processes::new(self.watcher.exits())),
            alarm: self.watcher.alarm(),
            confinement: Confinement::of_self().expect("our own confinement"),
            tokens,
            reserved: first..end,
            history: Err(HistoryError::NotWanted),
            heartbeat: Arc::new(Heartbeat::new().expect("a page")),
            replies: self.recorder.clone(),
            reload: Box::new(|| Ok(settings())),
            tell_alerts: Box::new(drop),
            mountpoint: self.dir.path().to_owned(),
            owner: (owner.uid, owner.gid),
            others_allowed: true,
            served_by: Box::new(|| ServedBy {
                worker_pid: 2,
                supervisor_pid: 1,
                recovery: Recovery::Resend,
            }),
        }
    }

    /// The first life, with a new journal.
    pub fn first_life(&mut self) -> Service {
        let log = self.disk.create(b"").expect("there is room");
        Service::new(settings(), self.outside(), Short::boxed(log))
    }

    /// The next life on the same connection, which has not made good yet what it missed.
    pub fn next_life(&mut self) -> Service {
        let (log, replay) = self.read();
        Service::replayed(self.outside(), Short::boxed(log), &replay).expect("it was written whole")
    }

    /// Reads the journal, and does no more.
    pub fn read(&self) -> (MemoryLog, Replay) {
        let (log, replay) = self.disk.open().expect("a crash damages nothing").expect("it is there");
        assert!(replay.same_boot);
        (log, replay)
    }

    /// The first life on a new connection, after nobody was left to serve the old one; with what it says is kept.
    pub fn next_mount(&mut self) -> (Service, Vec<String>) {
        let (log, replay) = self.read();
        let survived = Service::survived(settings(), self.outside(), Short::boxed(log), &replay);
        let (service, kept) = survived.expect("it was written whole");
        service.start();
        (service, kept)
    }

    /// The first life after the power failed, begun as a mount begins.
    pub fn next_boot(&mut self) -> (Service, Left) {
        let (service, left) = match self.disk.open() {
            Ok(found) => self.go_on_from(found.expect("a power cut takes no file away")),
            Err(fault) => {
                assert!(fault.to_string().starts_with("it is damaged"), "{fault}");
                let aside = self.disk.open().expect("nothing is there to be damaged");
                assert!(aside.is_none(), "it was set aside");
                (self.first_life(), Left::Damaged)
            }
        };
        service.start();
        (service, left)
    }

    fn go_on_from(&mut self, (log, replay): (MemoryLog, Replay)) -> (Service, Left) {
        assert!(!replay.same_boot, "the machine was started anew");
        match check_replay(&replay) {
            Ok(()) => {
                let survived = Service::survived(settings(), self.outside(), Short::boxed(log), &replay);
                let (service, kept) = survived.expect("it was checked");
                assert_eq!(kept, Vec::<String>::new(), "who held something is gone");
                (service, Left::Legible)
            }
            Err(ReplayError::Empty) => (self.first_life(), Left::Empty),
            Err(error) => panic!("what is legible makes sense: {error}"),
        }
    }
}
