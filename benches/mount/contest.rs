//! One lock and several processes: how fast it goes from hand to hand, and how evenly.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use libc::{LOCK_EX, O_CREAT, O_RDWR, O_WRONLY};
use nix::unistd::pipe;

use crate::crowd::{Forked, shared, waiters};
use crate::measure::{now, spin};
use crate::support::process::process_state;
use crate::support::sys;

/// How long the sleeping waiter and the daemon are left alone before the lock goes to it.
const SETTLE_NANOS: u64 = 300_000;
/// How long a contender keeps the lock.
const HOLD_NANOS: u64 = 50_000;

/// How a lock is taken and kept.
#[derive(Clone, Copy)]
pub enum Taking {
    /// By opening it for writing.
    Open,
    /// By flock(2) on a descriptor of its own, opened before.
    Flock,
}

impl Taking {
    fn take(self, lock: &Path) -> OwnedFd {
        match self {
            Self::Open => sys::open(lock, O_WRONLY | O_CREAT).expect("the lock comes in the end"),
            Self::Flock => {
                let file = sys::open(lock, O_RDWR | O_CREAT).expect("the file opens");
                sys::flock(&file, LOCK_EX).expect("the lock comes in the end");
                file
            }
        }
    }
}

/// Another process that waits for the lock again and again.
pub struct Handoff<'a> {
    lock: &'a Path,
    taking: Taking,
    waiter: Forked,
    /// Lets the waiter begin a turn.
    starter: OwnedFd,
    /// How many turns it has begun, and when it had the lock in the last one.
    begun: &'static AtomicU64,
    had: &'static AtomicU64,
}

impl<'a> Handoff<'a> {
    /// Starts the waiter.
    pub fn new(lock: &'a Path, taking: Taking) -> Self {
        let (begun, had) = (&shared(1)[0], &shared(1)[0]);
        let (starts, starter) = pipe().expect("a pipe");
        let waiter = Forked::run(|| {
            while sys::read(&starts, 1).is_ok() {
                begun.fetch_add(1, SeqCst);
                let held = taking.take(lock);
                had.store(now(), SeqCst);
                drop(held);
            }
        });
        Self {
            lock,
            taking,
            waiter,
            starter,
            begun,
            had,
        }
    }

    /// From the holder's close to the waiter's return, in nanoseconds.
    pub fn once(&self) -> u64 {
        let held = self.taking.take(self.lock);
        self.had.store(0, SeqCst);
        let turn = self.begun.load(SeqCst) + 1;
        sys::write(&self.starter, b"1").expect("the waiter reads");
        while self.begun.load(SeqCst) != turn || !self.is_asleep() {
            std::thread::yield_now();
        }
        spin(SETTLE_NANOS);
        let closed = now();
        drop(held);
        loop {
            match self.had.load(SeqCst) {
                0 => std::thread::yield_now(),
                had => return had - closed,
            }
        }
    }

    fn is_asleep(&self) -> bool {
        // The kernel's own locks do not tell who waits; there the state has to do.
        let waits = self.lock.starts_with("/dev/shm") || waiters(self.lock) == 1;
        waits && process_state(self.waiter.pid()) == 'S'
    }
}

/// How often each of `contenders` had the lock within `nanos`, keeping it 50 µs each time.
pub fn contest(lock: &Path, contenders: usize, nanos: u64) -> Vec<u64> {
    let counts = shared(contenders);
    let start = now() + 50_000_000;
    let contend = |count: &'static AtomicU64| {
        Forked::run(move || {
            while now() < start {
                std::hint::spin_loop();
            }
            loop {
                let held = Taking::Open.take(lock);
                if now() < start + nanos {
                    count.fetch_add(1, SeqCst);
                }
                spin(HOLD_NANOS);
                drop(held);
            }
        })
    };
    let processes: Vec<Forked> = counts.iter().map(contend).collect();
    while now() < start + nanos {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    drop(processes);
    counts.iter().map(|count| count.load(SeqCst)).collect()
}
