//! Other processes: forked, since this one has a single thread, and gone with the guard.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use libc::{O_CREAT, O_WRONLY};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

use crate::daemon::Daemon;
use crate::support::process::holds_within;
use crate::support::{Mount, sys};

/// How many processes share the work of a crowd: a process has a limit on its descriptors.
const PROCESSES: usize = 4;
/// How many locks the waiters wait for.
const WAITED_FOR: usize = 100;
/// The stack of a waiting thread, in bytes.
const STACK_BYTES: usize = 32 << 10;
/// How long a crowd may take to gather or to go.
const GATHER_MAX: Duration = Duration::from_secs(60);

/// Numbers that this process shares with those it forks afterwards.
pub fn shared(count: usize) -> &'static [AtomicU64] {
    let (bytes, access) = (count * size_of::<AtomicU64>(), libc::PROT_READ | libc::PROT_WRITE);
    let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a mapping of its own at a place that the kernel chooses.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
    assert_ne!(map, libc::MAP_FAILED, "a page of shared memory");
    // SAFETY: a fresh mapping of zeroes, never unmapped, is valid as atomic numbers for ever.
    unsafe { std::slice::from_raw_parts(map.cast(), count) }
}

/// A forked process; killed when this goes.
pub struct Forked(Pid);

impl Forked {
    /// Runs `body` in a process of its own.
    pub fn run(body: impl FnOnce()) -> Self {
        // SAFETY: this process has one thread, so nothing is left locked in the child.
        match unsafe { fork() }.expect("one more process") {
            ForkResult::Parent { child } => Self(child),
            ForkResult::Child => {
                prctl::set_pdeathsig(Signal::SIGKILL).expect("a child may end with its parent");
                body();
                // SAFETY: ends the child without what the parent has yet to do at its own end.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.0.as_raw().unsigned_abs()
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        // Refused only when it has ended already.
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

/// Many who hold locks or wait for them.
pub struct Crowd(Vec<Forked>);

impl Crowd {
    /// Holders of `count` locks, a name each.
    pub fn holding(mount: &Mount, count: usize) -> Self {
        let dir = mount.locks();
        let ready = &shared(1)[0];
        let hold = |first: usize| {
            Forked::run(|| {
                raise_descriptor_limit();
                let _held: Vec<OwnedFd> = (first..count)
                    .step_by(PROCESSES)
                    .map(|number| take(&dir, "held", number))
                    .collect();
                ready.fetch_add(1, SeqCst);
                rest();
            })
        };
        let processes = (0..PROCESSES).map(hold).collect();
        let gathered = holds_within(GATHER_MAX, || ready.load(SeqCst) == PROCESSES as u64);
        assert!(gathered, "{count} locks are not held in time");
        Self(processes)
    }

    /// `count` threads that wait in open(2), for [`WAITED_FOR`] locks that another process holds.
    pub fn waiting(mount: &Mount, count: usize) -> Self {
        let holders = Self::holding(mount, WAITED_FOR);
        let dir = mount.locks();
        let wait = |first: usize| {
            Forked::run(|| {
                for number in (first..count).step_by(PROCESSES) {
                    let dir = dir.clone();
                    let body = move || drop(take(&dir, "held", number % WAITED_FOR));
                    let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(body);
                    thread.expect("one more thread");
                }
                rest();
            })
        };
        let mut processes: Vec<Forked> = (0..PROCESSES).map(wait).collect();
        let waiting = || -> usize { (0..WAITED_FOR).map(|number| waiters(&path(&dir, "held", number))).sum() };
        assert!(
            holds_within(GATHER_MAX, || waiting() == count),
            "{count} do not wait in time"
        );
        processes.extend(holders.0);
        Self(processes)
    }

    /// Sends all of them away and returns once the daemon has forgotten them.
    pub fn leave(self, mount: &Mount, daemon: &Daemon) {
        drop(self);
        assert!(
            holds_within(GATHER_MAX, || mount.listed().is_empty()),
            "locks are left behind"
        );
        daemon.wait_until_quiet();
    }
}

/// Takes a lock by opening it for writing.
fn take(dir: &Path, kind: &str, number: usize) -> OwnedFd {
    sys::open(path(dir, kind, number), O_WRONLY | O_CREAT).expect("the lock comes in the end")
}

fn path(dir: &Path, kind: &str, number: usize) -> PathBuf {
    dir.join(format!("{kind}-{number}.lock"))
}

/// How many wait for a lock.
pub fn waiters(lock: &Path) -> usize {
    let count = sys::getxattr(lock, "user.lockfs.waiters").ok();
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}

fn raise_descriptor_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit anyone may go");
}

fn rest() -> ! {
    loop {
        nix::unistd::pause();
    }
}
