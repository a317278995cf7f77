//! What the daemon waits for besides requests: exits, deadlines, signals, the end of the repository.
//!
//! One thread sleeps in [`Watcher::wait`], on one epoll, for ever if nothing happens; nothing is polled. Other threads
//! reach it through [`Alarm`] and [`Exits`]. It reports and does nothing else: what an event means is not known here.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::read;

use crate::types::{ProcessId, Tick};

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A watched process has ended (it may still be a zombie).
    Exited(ProcessId),
    /// An armed time has come, on one of the two clocks.
    Deadline,
    /// SIGTERM, SIGINT, SIGHUP or SIGURG was sent to the daemon.
    Signal(i32),
    /// The repository was removed, moved away or replaced by another one. Told once.
    RepositoryGone,
    /// Somebody called [`Alarm::wake`].
    Wake,
}

/// The signals that become [`Event::Signal`].
///
/// SIGURG is what the supervisor asks by whether somebody listens: it kills nobody who does not know it. SIGUSR1 asks a
/// worker to make place for another: who does not know it ends at once.
const SIGNALS: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGURG,
    Signal::SIGUSR1,
];

/// How many events one [`Watcher::wait`] takes in; the rest comes with the next one.
const BATCH: usize = 64;

// What epoll hands back with an event: a ProcessId, which counts from 0, or one of these.
const MONO: u64 = u64::MAX;
const BOOT: u64 = u64::MAX - 1;
const WAKE: u64 = u64::MAX - 2;
const SIGNAL: u64 = u64::MAX - 3;
const REPOSITORY: u64 = u64::MAX - 4;

/// The eyes of one thread.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    signals: SignalFd,
    repository: Option<Repository>,
}

/// Sets the deadlines of a [`Watcher`] and wakes it, from any thread.
#[derive(Clone, Debug)]
pub struct Alarm(Arc<Shared>);

/// Makes a [`Watcher`] tell the exits of processes.
#[derive(Clone, Debug)]
pub struct Exits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    epoll: Epoll,
    mono: TimerFd,
    boot: TimerFd,
    wake: EventFd,
}

/// Blocks the watched signals in this thread and in all that it starts later, so that they reach the [`Watcher`] only.
///
/// To be called before any thread exists. Programs started afterwards inherit the blocked signals: one that should
/// end by them needs [`unblock_signals`] between fork and exec.
pub fn block_signals() -> io::Result<()> {
    Ok(pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&watched()), None)?)
}

/// Undoes [`block_signals`] in this thread. Async-signal-safe, hence fit for `CommandExt::pre_exec`.
pub fn unblock_signals() -> io::Result<()> {
    Ok(pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&watched()), None)?)
}

fn watched() -> SigSet {
    SIGNALS.into_iter().collect()
}

impl Watcher {
    /// Opens everything that is watched: the signals of [`block_signals`] and the repository with this common dir.
    pub fn new(common_dir: &Path) -> io::Result<Self> {
        let shared = Shared {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            mono: timer(ClockId::CLOCK_MONOTONIC)?,
            boot: timer(ClockId::CLOCK_BOOTTIME)?,
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        };
        let signals = SignalFd::with_flags(&watched(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let repository = Repository::watch(common_dir)
            .inspect_err(|error| {
                tracing::warn!(
                    "{} cannot be watched ({error}): unmount by hand before removing the repository",
                    common_dir.display()
                );
            })
            .ok();
        let readable = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
        shared.epoll.add(&shared.mono, readable(MONO))?;
        shared.epoll.add(&shared.boot, readable(BOOT))?;
        shared.epoll.add(&shared.wake, readable(WAKE))?;
        shared.epoll.add(&signals, readable(SIGNAL))?;
        if let Some(repository) = &repository {
            shared.epoll.add(&repository.inotify, readable(REPOSITORY))?;
            // It may have gone before the watch was set.
            if repository.is_gone() {
                shared.wake.write(1)?;
            }
        }
        Ok(Self {
            shared: Arc::new(shared),
            signals,
            repository,
        })
    }

    /// A handle that sets deadlines.
    pub fn alarm(&self) -> Alarm {
        Alarm(self.shared.clone())
    }

    /// A handle that watches processes.
    pub fn exits(&self) -> Exits {
        Exits(self.shared.clone())
    }

    /// Sleeps until something happens and appends it to `out`, at least one event unless the wait was for nothing.
    pub fn wait(&self, out: &mut Vec<Event>) -> io::Result<()> {
        let mut ready = [EpollEvent::empty(); BATCH];
        let count = loop {
            match self.shared.epoll.wait(&mut ready, EpollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                result => break result?,
            }
        };
        for event in &ready[..count] {
            match event.data() {
                MONO => self.take_deadline(&self.shared.mono, out)?,
                BOOT => self.take_deadline(&self.shared.boot, out)?,
                WAKE => {
                    drain(self.shared.wake.as_fd())?;
                    out.push(Event::Wake);
                    self.look_at_repository(out);
                }
                SIGNAL => self.take_signals(out)?,
                REPOSITORY => self.take_notifications(out)?,
                id => out.push(Event::Exited(ProcessId(id))),
            }
        }
        Ok(())
    }

    fn take_deadline(&self, timer: &TimerFd, out: &mut Vec<Event>) -> io::Result<()> {
        // A timer that was set anew since epoll saw it has nothing to read, and its time has not come.
        if drain(timer.as_fd())? && !out.contains(&Event::Deadline) {
            out.push(Event::Deadline);
        }
        Ok(())
    }

    fn take_signals(&self, out: &mut Vec<Event>) -> io::Result<()> {
        while let Some(signal) = self.signals.read_signal()? {
            out.extend(i32::try_from(signal.ssi_signo).ok().map(Event::Signal));
        }
        Ok(())
    }

    fn take_notifications(&self, out: &mut Vec<Event>) -> io::Result<()> {
        if let Some(repository) = &self.repository {
            while drain(repository.inotify.as_fd())? {}
            self.look_at_repository(out);
        }
        Ok(())
    }

    fn look_at_repository(&self, out: &mut Vec<Event>) {
        let Some(repository) = &self.repository else { return };
        if repository.is_gone() && !repository.told.swap(true, Ordering::Relaxed) {
            out.push(Event::RepositoryGone);
        }
    }
}

impl Alarm {
    /// Sets the times, absolute on their clocks, at which [`Event::Deadline`] comes; `None` means never.
    ///
    /// A time that has passed comes at once. Two system calls: call it only when a deadline comes nearer or is gone.
    pub fn arm(&self, mono: Option<Tick>, boot: Option<Tick>) {
        set(&self.0.mono, mono);
        set(&self.0.boot, boot);
    }

    /// Wakes the watcher; wakes before its next wait count as one.
    pub fn wake(&self) {
        // Only a full counter is refused (EAGAIN), and then the watcher is awake already.
        let _ = self.0.wake.write(1);
    }
}

impl Exits {
    /// Has [`Event::Exited`] told once when the process behind this pidfd ends, or at once if it has.
    pub(super) fn watch(&self, pidfd: impl AsFd, id: ProcessId) -> io::Result<()> {
        debug_assert!(id.0 < REPOSITORY, "ids count from 0");
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, id.0);
        Ok(self.0.epoll.add(pidfd, event)?)
    }

    /// Tells nothing more about it.
    pub(super) fn unwatch(&self, pidfd: impl AsFd) {
        // Refused only for a descriptor that was never watched.
        let _ = self.0.epoll.delete(pidfd);
    }
}

/// The watch on a repository: on its directory, and on its HEAD.
///
/// git makes and renames files in that directory all the time, and inotify cannot select by name; so the directory
/// is watched only for its own end, and HEAD as a file, which git replaces once a checkout.
#[derive(Debug)]
struct Repository {
    common_dir: PathBuf,
    identity: (u64, u64),
    inotify: Inotify,
    told: AtomicBool,
}

impl Repository {
    fn watch(common_dir: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let ends = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(common_dir, ends)?;
        Ok(Self {
            common_dir: common_dir.to_owned(),
            identity: identity(&fs::metadata(common_dir)?),
            inotify,
            told: AtomicBool::new(false),
        })
    }

    /// Looks, and sets the watch on the HEAD of now first: a HEAD that goes after this look is told by inotify.
    fn is_gone(&self) -> bool {
        let head = self.common_dir.join("HEAD");
        // IN_ATTRIB tells of a lost link at once, also while somebody has the file open.
        let ends = AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DONT_FOLLOW;
        let is_missing = |error: Errno| matches!(error, Errno::ENOENT | Errno::ENOTDIR);
        match self.inotify.add_watch(&head, ends) {
            Err(error) if is_missing(error) => return true,
            Err(error) => tracing::warn!("{} cannot be watched ({error})", head.display()),
            Ok(_) => {}
        }
        // The watch may have met a HEAD that was just being replaced; what counts is that one is there.
        let gone = |error: io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        match (fs::symlink_metadata(&head), fs::metadata(&self.common_dir)) {
            (Ok(_), Ok(now)) => identity(&now) != self.identity,
            (Err(error), _) | (_, Err(error)) => gone(error),
        }
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn timer(clock: ClockId) -> io::Result<TimerFd> {
    Ok(TimerFd::new(clock, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?)
}

fn set(timer: &TimerFd, at: Option<Tick>) {
    let result = match at {
        None | Some(Tick::NEVER) => timer.unset(),
        Some(Tick(nanoseconds)) => {
            // To the kernel, 0 would mean never.
            let at = std::time::Duration::from_nanos(nanoseconds.max(1));
            timer.set(
                Expiration::OneShot(TimeSpec::from_duration(at)),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            )
        }
    };
    result.expect("a timer of ours takes every time that is not negative");
}

/// Reads what there is; false when there was nothing.
fn drain(fd: std::os::fd::BorrowedFd<'_>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match read(fd, &mut buffer) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl AsFd for Watcher {
    /// The epoll itself, readable when [`Watcher::wait`] would not sleep.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        let Epoll(fd): &Epoll = &self.shared.epoll;
        OwnedFd::as_fd(fd)
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::raise;

    use super::super::clock::Clock;
    use super::super::processes::testing::Program;
    use super::*;
    use crate::adapters::Processes;

    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("HEAD"), "ref: refs/heads/main\n").expect("it is ours");
        dir
    }

    /// Whether an event comes within so many milliseconds.
    fn comes(watcher: &Watcher, millis: u16) -> bool {
        let mut fds = [PollFd::new(watcher.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(millis)).expect("poll works") > 0
    }

    fn next(watcher: &Watcher) -> Vec<Event> {
        assert!(comes(watcher, 10_000), "nothing happened within 10 s");
        let mut events = Vec::new();
        watcher.wait(&mut events).expect("epoll works");
        events
    }

    #[test]
    fn an_exit_is_told_once() {
        let dir = repository();
        let watcher = Watcher::new(dir.path()).expect("a watcher");
        let processes = Processes::new(watcher.exits());
        let mut program = Program::sleeping();
        let pinned = processes.pin(program.pid()).expect("it lives");
        assert!(!comes(&watcher, 0));
        program.kill();
        assert_eq!(next(&watcher), [Event::Exited(pinned.id)]);
        assert!(!comes(&watcher, 0), "neither as a zombie");
        program.reap();
        assert!(!comes(&watcher, 0), "nor after");
    }

    #[test]
    fn deadlines_come_on_either_clock_and_can_be_taken_back() {
        let dir = repository();
        let watcher = Watcher::new(dir.path()).expect("a watcher");
        let alarm = watcher.alarm();
        let soon = std::time::Duration::from_millis(5);
        let now = Clock::now();
        alarm.arm(Some(now.mono.after(soon)), None);
        assert_eq!(next(&watcher), [Event::Deadline]);
        assert!(Clock::now().mono >= now.mono.after(soon));
        let now = Clock::now();
        alarm.arm(None, Some(now.boot.after(soon)));
        assert_eq!(next(&watcher), [Event::Deadline]);
        assert!(Clock::now().boot >= now.boot.after(soon));
        alarm.arm(Some(Tick(0)), Some(Tick(0)));
        assert_eq!(next(&watcher), [Event::Deadline], "what has passed comes at once");
        alarm.arm(Some(Tick(0)), None);
        assert!(comes(&watcher, 10_000));
        alarm.arm(None, Some(Tick::NEVER));
        assert!(!comes(&watcher, 0), "taken back");
    }

    #[test]
    fn wakes_from_other_threads_are_gathered() {
        let dir = repository();
        let watcher = Watcher::new(dir.path()).expect("a watcher");
        let threads = [watcher.alarm(), watcher.alarm()].map(|alarm| std::thread::spawn(move || alarm.wake()));
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(next(&watcher), [Event::Wake]);
        assert!(!comes(&watcher, 0));
    }

    #[test]
    fn blocked_signals_arrive_as_events() {
        block_signals().expect("these signals can be blocked");
        let dir = repository();
        let watcher = Watcher::new(dir.path()).expect("a watcher");
        for signal in SIGNALS {
            raise(signal).expect("to this thread");
            assert_eq!(next(&watcher), [Event::Signal(signal as i32)]);
        }
        unblock_signals().expect("and unblocked");
    }

    #[test]
    fn a_repository_that_goes_is_told_once_however_it_goes() {
        type Way = fn(&Path) -> io::Result<()>;
        let ways: [(&str, Way); 4] = [
            ("HEAD removed", |at| fs::remove_file(at.join("HEAD"))),
            ("HEAD moved", |at| fs::rename(at.join("HEAD"), at.join("TAIL"))),
            ("moved", |at| fs::rename(at, at.with_extension("away"))),
            ("removed", |at| fs::remove_dir_all(at)),
        ];
        for (what, goes) in ways {
            let above = tempfile::tempdir().expect("a temporary directory");
            let at = above.path().join("repository");
            fs::create_dir(&at).expect("it is ours");
            fs::write(at.join("HEAD"), "ref: refs/heads/main\n").expect("it is ours");
            let watcher = Watcher::new(&at).expect("a watcher");
            goes(&at).expect(what);
            assert_eq!(next(&watcher), [Event::RepositoryGone], "{what}");
            fs::remove_dir_all(above.path()).expect("the rest goes");
            let mut events = Vec::new();
            while comes(&watcher, 0) {
                watcher.wait(&mut events).expect("epoll works");
            }
            assert_eq!(events, [], "{what}: once only");
        }
    }

    #[test]
    fn what_git_does_every_day_is_no_end() {
        let dir = repository();
        let watcher = Watcher::new(dir.path()).expect("a watcher");
        let mut events = Vec::new();
        for _ in 0..100 {
            // A checkout.
            fs::write(dir.path().join("HEAD.lock"), "ref: refs/heads/topic\n").expect("it is ours");
            fs::rename(dir.path().join("HEAD.lock"), dir.path().join("HEAD")).expect("it is ours");
            while comes(&watcher, 0) {
                watcher.wait(&mut events).expect("epoll works");
            }
        }
        fs::write(dir.path().join("index.lock"), "").expect("it is ours");
        fs::rename(dir.path().join("index.lock"), dir.path().join("index")).expect("it is ours");
        assert!(!comes(&watcher, 0), "the index does not even wake us");
        assert_eq!(events, []);
        fs::remove_file(dir.path().join("HEAD")).expect("it is ours");
        assert_eq!(
            next(&watcher),
            [Event::RepositoryGone],
            "still watching after 100 checkouts"
        );
    }

    #[test]
    fn a_repository_that_went_before_is_told_too() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let watcher = Watcher::new(dir.path()).expect("a watcher");
        assert_eq!(next(&watcher), [Event::Wake, Event::RepositoryGone]);
    }
}
