//! A service with recorded answers, and short names for its calls.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use git_lockfs::adapters::memory::Crash;
use git_lockfs::adapters::{Confinement, Event, Heartbeat, HistoryError, MemoryDisk, Processes, Tokens, Watcher};
use git_lockfs::ports::{Log, Replay};
use git_lockfs::service::api::{Access, Answer, Call, Caller, Entry, Files, LockStyle, OpenMode, Replies};
use git_lockfs::service::{Outside, Service};
use git_lockfs::types::{HandleId, Mode, NodeId, Range, Refusal, Settings, Unique};
use git_lockfs::view::locks_json::{Recovery, ServedBy};
use parking_lot::{Condvar, Mutex};

pub const ROOT: NodeId = NodeId(1);
pub const LOCKS: NodeId = NodeId(2);
pub const FLOCK: NodeId = NodeId(3);

/// How long anything may take that needs no time to pass.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers that came later, and poll handles that were woken.
type Sent = (Vec<(Unique, Answer)>, Vec<u64>);

/// Keeps what the service sends later.
#[derive(Default)]
pub struct Recorder {
    sent: Mutex<Sent>,
    changed: Condvar,
    /// Fails when it is to answer this call.
    pub fails_at: Mutex<Option<Unique>>,
}

impl Replies for Recorder {
    fn answer(&self, unique: Unique, answer: Answer) {
        assert_ne!(*self.fails_at.lock(), Some(unique), "an answer that fails");
        self.sent.lock().0.push((unique, answer));
        self.changed.notify_all();
    }

    fn wake_poll(&self, poll_handle: u64) {
        self.sent.lock().1.push(poll_handle);
        self.changed.notify_all();
    }
}

/// Who calls in most tests: the test's own process, as root or whoever runs it.
pub fn me() -> Caller {
    by(std::process::id())
}

/// A thread of the user who runs the test.
pub fn by(tid: u32) -> Caller {
    Caller {
        tid,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    }
}

/// A program that lives until it is ended or dropped.
pub struct Program(Child);

impl Program {
    pub fn sleeping() -> Self {
        let mut command = Command::new("sleep");
        let child = command.arg("600").stdin(Stdio::null()).spawn();
        Self(child.expect("sleep(1) is there"))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

/// A process with the PID of one that is gone.
pub struct Namesake(libc::pid_t);

impl Namesake {
    /// Fails where a PID cannot be chosen, or this one is somebody's again.
    pub fn of(pid: u32) -> io::Result<Self> {
        let wanted = [libc::pid_t::try_from(pid).expect("a PID")];
        // SAFETY: a struct of integers.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.exit_signal = u64::try_from(libc::SIGCHLD).expect("positive");
        args.set_tid = wanted.as_ptr() as u64;
        args.set_tid_size = 1;
        // SAFETY: a fork without shared memory; the child makes system calls only.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) } {
            0 => loop {
                // SAFETY: no arguments.
                unsafe { libc::pause() };
            },
            child if child > 0 => Ok(Self(libc::pid_t::try_from(child).expect("a PID"))),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Namesake {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
    }
}

pub struct World {
    pub service: Arc<Service>,
    pub recorder: Arc<Recorder>,
    watcher: Option<Watcher>,
    alarm: git_lockfs::adapters::Alarm,
    threads: Vec<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
    next: Mutex<u64>,
    pub disk: MemoryDisk,
    dir: Arc<tempfile::TempDir>,
}

impl World {
    /// A service that nobody attends to: no exits, no deadlines, no inspector.
    pub fn bare(settings: Settings, others_allowed: bool) -> Self {
        let (dir, disk) = (
            Arc::new(tempfile::tempdir().expect("a directory")),
            MemoryDisk::default(),
        );
        let log = disk.create(b"").expect("there is room");
        Self::with(dir, disk, others_allowed, |outside| {
            Service::new(settings, outside, Box::new(log))
        })
    }

    fn with(
        dir: Arc<tempfile::TempDir>,
        disk: MemoryDisk,
        others_allowed: bool,
        begin: impl FnOnce(Outside) -> Service,
    ) -> Self {
        let watcher = Watcher::new(dir.path()).expect("a watcher");
        let (tokens, first, end) = Tokens::open(&dir.path().join("state")).expect("tokens");
        let recorder = Arc::new(Recorder::default());
        let owner = me();
        let service = begin(Outside {
            processes: Arc::new(Processes::new(watcher.exits())),
            alarm: watcher.alarm(),
            confinement: Confinement::of_self().expect("our own confinement"),
            tokens,
            reserved: first..end,
            history: Err(HistoryError::NotWanted),
            heartbeat: Arc::new(Heartbeat::new().expect("a page")),
            replies: recorder.clone(),
            reload: Box::new(|| Ok(Settings::default())),
            tell_alerts: Box::new(drop),
            mountpoint: dir.path().to_owned(),
            owner: (owner.uid, owner.gid),
            others_allowed,
            served_by: Box::new(|| ServedBy {
                worker_pid: 2,
                supervisor_pid: 1,
                recovery: Recovery::Resend,
            }),
        });
        Self {
            service: Arc::new(service),
            recorder,
            alarm: watcher.alarm(),
            watcher: Some(watcher),
            threads: Vec::new(),
            ended: Arc::new(AtomicBool::new(false)),
            next: Mutex::new(1),
            disk,
            dir,
        }
    }

    /// Kills the service; what the next one finds.
    fn die(self, crash: Crash) -> (Arc<tempfile::TempDir>, MemoryDisk, u64) {
        let next = *self.next.lock();
        self.disk.crash(crash, next);
        (self.dir.clone(), self.disk.clone(), next)
    }

    /// The next life on the same connection, as far as to its start.
    pub fn next_life(self, meanwhile: impl FnOnce()) -> Self {
        self.next_life_and_replay(meanwhile).0
    }

    /// The same, and what it went on from.
    pub fn next_life_and_replay(self, meanwhile: impl FnOnce()) -> (Self, Replay) {
        let (dir, disk, next) = self.die(Crash::Killed);
        meanwhile();
        let (log, replay) = disk.open().expect("whole").expect("there");
        let world = Self::with(dir, disk, true, |outside| {
            Service::replayed(outside, Box::new(log), &replay).expect("it makes sense")
        });
        *world.next.lock() = next;
        world.service.start();
        (world, replay)
    }

    /// The life after one that wrote this.
    pub fn after(replay: &Replay) -> Self {
        let before = Self::bare(Settings::default(), true);
        let mut log = before.disk.create(&replay.snapshot).expect("there is room");
        for record in &replay.records {
            log.append(record).expect("there is room");
        }
        *before.next.lock() = 1_000;
        before.next_life(|| {})
    }

    /// The first life on a new connection; also what was kept.
    pub fn next_mount(self, crash: Crash, settings: Settings, meanwhile: impl FnOnce()) -> (Self, Vec<String>) {
        let (dir, disk, next) = self.die(crash);
        meanwhile();
        let (log, replay) = disk.open().expect("whole").expect("there");
        let mut kept = Vec::new();
        let world = Self::with(dir, disk, true, |outside| {
            let survived = Service::survived(settings, outside, Box::new(log), &replay);
            let (service, told) = survived.expect("it makes sense");
            kept = told;
            service
        });
        *world.next.lock() = next;
        world.service.start();
        (world, kept)
    }

    /// A service as it is served: attended, and with an inspector.
    pub fn new() -> Self {
        let mut world = Self::bare(Settings::default(), true);
        world.inspect();
        world.attend();
        world
    }

    /// Starts the inspector.
    pub fn inspect(&mut self) {
        let service = self.service.clone();
        self.threads.push(std::thread::spawn(move || service.inspect_forever()));
    }

    /// Starts to attend to exits and deadlines.
    pub fn attend(&mut self) {
        let watcher = self.watcher.take().expect("attended once");
        let (service, ended) = (self.service.clone(), self.ended.clone());
        self.threads.push(std::thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                let mut events = Vec::new();
                watcher.wait(&mut events).expect("the watcher sees");
                for event in events {
                    match event {
                        Event::Exited(process) => service.attend_exit(process),
                        Event::Deadline => service.attend_deadline(),
                        Event::Signal(_) | Event::RepositoryGone | Event::Wake => {}
                    }
                }
            }
        }));
    }

    /// Makes a call; `None` when it is parked.
    pub fn send(&self, caller: Caller, call: Call<'_>) -> (Unique, Option<Answer>) {
        let unique = {
            let mut next = self.next.lock();
            *next += 2;
            Unique(*next)
        };
        (unique, self.service.call(unique, caller, call))
    }

    /// Makes a call and waits for its answer.
    pub fn call(&self, caller: Caller, call: Call<'_>) -> Answer {
        let (unique, answer) = self.send(caller, call);
        answer.unwrap_or_else(|| self.answer_to(unique))
    }

    /// Makes a call that must be parked.
    pub fn park(&self, caller: Caller, call: Call<'_>) -> Unique {
        let (unique, answer) = self.send(caller, call);
        assert_eq!(answer, None, "the call waits");
        unique
    }

    /// Takes the answer to a parked call.
    pub fn answer_to(&self, unique: Unique) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        let mut sent = self.recorder.sent.lock();
        loop {
            if let Some(at) = sent.0.iter().position(|(to, _)| *to == unique) {
                return sent.0.remove(at).1;
            }
            let in_time = !self.recorder.changed.wait_until(&mut sent, deadline).timed_out();
            assert!(in_time, "no answer to {unique}");
        }
    }

    /// Whether a parked call still has no answer.
    pub fn is_parked(&self, unique: Unique) -> bool {
        !self.recorder.sent.lock().0.iter().any(|(to, _)| *to == unique)
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    pub fn interrupt(&self, target: Unique) {
        let (_, answer) = self.send(me(), Call::Interrupt { target });
        assert_eq!(answer, None);
    }

    pub fn lookup(&self, caller: Caller, parent: NodeId, name: &str) -> Result<Entry, Refusal> {
        let name = name.as_bytes();
        match self.call(caller, Call::Lookup { parent, name }) {
            Answer::Entry(entry) => Ok(entry),
            Answer::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub fn node(&self, parent: NodeId, name: &str) -> NodeId {
        self.lookup(me(), parent, name).expect("it exists").node
    }

    pub fn create(&self, caller: Caller, name: &str, mode: OpenMode) -> Result<(Entry, HandleId), Refusal> {
        let call = Call::Create {
            parent: LOCKS,
            name: name.as_bytes(),
            mode,
        };
        match self.call(caller, call) {
            Answer::Created(entry, opened) => Ok((entry, opened.handle)),
            Answer::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Takes a free lock as `>` does.
    pub fn take(&self, caller: Caller, name: &str) -> HandleId {
        self.create(caller, name, WRITE).expect("it is free").1
    }

    pub fn open(&self, caller: Caller, node: NodeId, mode: OpenMode) -> Result<HandleId, Refusal> {
        opened(self.call(caller, Call::Open { node, mode }))
    }

    /// A handle in flock/, and what it is open for.
    pub fn lockable(&self, caller: Caller, name: &str) -> (NodeId, HandleId) {
        let node = self.lookup(caller, FLOCK, name).expect("every name exists").node;
        (node, self.open(caller, node, BOTH).expect("no lock yet"))
    }

    pub fn write(&self, caller: Caller, handle: HandleId, offset: u64, data: &[u8]) -> Answer {
        self.call(caller, Call::Write { handle, offset, data })
    }

    pub fn read(&self, handle: HandleId) -> Answer {
        let (offset, size) = (0, 4096);
        self.call(me(), Call::Read { handle, offset, size })
    }

    pub fn close(&self, handle: HandleId) {
        assert_eq!(self.call(me(), Call::Release { handle }), Answer::Done);
    }

    /// What `cat locks/NAME` shows.
    pub fn text(&self, name: &str) -> String {
        let Ok(entry) = self.lookup(me(), LOCKS, name) else {
            return String::new();
        };
        let handle = self.open(me(), entry.node, READ).expect("reading never waits");
        let data = match self.read(handle) {
            Answer::Data(data) => data,
            other => panic!("{name}: {other:?}"),
        };
        self.close(handle);
        String::from_utf8(data).expect("text")
    }

    pub fn is_free(&self, name: &str) -> bool {
        self.lookup(by(0), LOCKS, name) == Err(Refusal::Absent)
    }

    /// A file in the root, opened.
    pub fn open_root(&self, caller: Caller, name: &str, mode: OpenMode) -> HandleId {
        let node = self.lookup(caller, ROOT, name).expect("fixed").node;
        self.open(caller, node, mode).expect("it opens")
    }

    pub fn last_error(&self) -> String {
        let handle = self.open_root(me(), "last-error", READ);
        let Answer::Data(data) = self.read(handle) else {
            panic!("text")
        };
        self.close(handle);
        String::from_utf8(data).expect("text")
    }

    /// Locks through a handle, waiting or not.
    pub fn flock(&self, node: NodeId, handle: HandleId, mode: Option<Mode>, wait: bool) -> Call<'static> {
        Call::SetLock {
            node,
            handle,
            style: LockStyle::Flock,
            mode,
            range: Range::WHOLE,
            wait,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.service.stop_inspector();
        self.alarm.wake();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(
                std::thread::panicking() || ended.is_ok(),
                "a thread of the service died"
            );
        }
    }
}

pub fn opened(answer: Answer) -> Result<HandleId, Refusal> {
    match answer {
        Answer::Opened(opened) => Ok(opened.handle),
        Answer::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

pub const READ: OpenMode = mode(Access::Read);
pub const WRITE: OpenMode = mode(Access::Write);
pub const BOTH: OpenMode = mode(Access::Both);
pub const TRY: OpenMode = OpenMode {
    nonblock: true,
    ..WRITE
};
pub const EXCL: OpenMode = OpenMode {
    exclusive: true,
    ..WRITE
};

const fn mode(access: Access) -> OpenMode {
    OpenMode {
        access,
        nonblock: false,
        exclusive: false,
        append: false,
        truncate: false,
    }
}
