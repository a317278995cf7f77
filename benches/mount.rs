//! How fast a mount is, as ratios in one run to a bare round trip and to the kernel's own locks.
//!
//! Run with `scripts/bench`, or `scripts/bench calls` for one part (calls, shares, crowds, idle, contest). Prints a table and says
//! `MISSED` where a target is missed; that is no failure, for the machine may be busy. Everything happens on a mount in
//! a repository of its own.

#[path = "../tests/support/mod.rs"]
mod support;

#[path = "mount/contest.rs"]
mod contest;
#[path = "mount/crowd.rs"]
mod crowd;
#[path = "mount/daemon.rs"]
mod daemon;
#[path = "mount/measure.rs"]
mod measure;
#[path = "mount/table.rs"]
mod table;

use std::cell::Cell;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use libc::{LOCK_EX, LOCK_UN, O_CREAT, O_RDWR};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use contest::{Handoff, Taking, contest};
use crowd::Crowd;
use daemon::Daemon;
use measure::{Probe, in_turns, median, now};
use support::sys::{self, Errno};
use support::{Mount, wait_until};
use table::{Bound, Row, print_machine, print_rows, print_shares};

/// What a shell's `>` opens with.
const TAKE: OFlag = OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_TRUNC);
const CALL_ROUNDS: usize = 40;
const CALL_BATCH: usize = 200;
/// A handoff needs its waiter asleep, which takes most of its time.
const HANDOFF_BATCH: usize = 12;
const CROWD: usize = 10_000;
/// Rounds of calls while one crowd is there, and while none is.
const CROWD_CALL_ROUNDS: usize = 10;
const IDLE_NANOS: u64 = 3_000_000_000;
const CONTENDERS: usize = 8;
const CONTEST_NANOS: u64 = 4_000_000_000;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    print_machine();
    let bench = Bench::new();
    let mut rows = Vec::new();
    if wants("calls") {
        bench.calls(&mut rows);
    }
    if wants("shares") {
        bench.shares();
    }
    if wants("crowds") {
        // A daemon of its own for each: the memory that one crowd leaves would hide what the next one needs.
        rows.extend(Bench::new().crowd(
            Crowd::holding,
            "take and release, 10,000 other locks held",
            "memory of a held lock",
        ));
        rows.extend(Bench::new().crowd(
            Crowd::waiting,
            "take and release, 10,000 waiters elsewhere",
            "memory of a waiter",
        ));
    }
    if wants("idle") {
        bench.idle(&mut rows);
    }
    if wants("contest") {
        bench.contest(&mut rows);
    }
    print_rows(&rows);
}

struct Bench {
    mount: Mount,
    daemon: Daemon,
}

impl Bench {
    fn new() -> Self {
        // No waiter of a crowd may run out of time while others are measured.
        let mount = Mount::with(&[("wait", "10m")]);
        Self {
            daemon: Daemon::new(mount.daemon_pid()),
            mount,
        }
    }

    /// The road of one uncontended caller, and from hand to hand.
    fn calls(&self, rows: &mut Vec<Row>) {
        let shm = tempfile::Builder::new()
            .tempdir_in("/dev/shm")
            .expect("a directory on tmpfs");
        let in_shm = |name: &str| shm.path().join(name);
        let (hand, kernel_hand) = (self.mount.lock("hand.lock"), in_shm("hand"));
        // Forked before this process has descriptors that a child would keep open.
        let handoff = Handoff::new(&hand, Taking::Open);
        let kernel_handoff = Handoff::new(&kernel_hand, Taking::Flock);
        let (lock, kernel_lock) = (
            File::new(&self.mount.locks(), "take.lock"),
            File::new(shm.path(), "take"),
        );
        let handle = sys::open(self.mount.lock("open.lock"), O_RDWR | O_CREAT).expect("a handle");
        let kernel_handle = sys::open(in_shm("open"), O_RDWR | O_CREAT).expect("a file");
        let refused = Cell::new(0_u32);

        let mut r = Probe::whole(CALL_BATCH, || fstat(&handle));
        let mut take = Probe::whole(CALL_BATCH, || take_and_release(&lock));
        let mut kernel_take = Probe::whole(CALL_BATCH, || {
            let file = kernel_lock.open(TAKE).expect("a file");
            sys::flock(&file, LOCK_EX).expect("nobody has it");
        });
        let mut flock = Probe::whole(CALL_BATCH, || lock_and_unlock(&handle));
        let mut kernel_flock = Probe::whole(CALL_BATCH, || lock_and_unlock(&kernel_handle));
        let mut hands = Probe::part(HANDOFF_BATCH, || handoff.once());
        let mut kernel_hands = Probe::part(HANDOFF_BATCH, || kernel_handoff.once());
        let mut trying = Probe::whole(CALL_BATCH, || match lock.open(TAKE | OFlag::O_NONBLOCK) {
            Ok(held) => drop(held),
            Err(Errno::EAGAIN) => refused.set(refused.get() + 1),
            Err(errno) => panic!("a try: {errno}"),
        });
        let mut probes = [
            &mut r,
            &mut take,
            &mut kernel_take,
            &mut flock,
            &mut kernel_flock,
            &mut hands,
            &mut kernel_hands,
            &mut trying,
        ];
        in_turns(CALL_ROUNDS, &self.daemon, &mut probes);
        let refused = f64::from(refused.get());
        rows.extend([
            Row::call("R: fstat of an open file", &r, &r, None),
            Row::call("take and release by >", &take, &r, Some(4.5)).beside(&take, &kernel_take),
            Row::call("flock LOCK_EX and LOCK_UN, open handle", &flock, &r, Some(2.5)).beside(&flock, &kernel_flock),
            Row::call("holder's close to sleeping waiter's return", &hands, &r, Some(4.5))
                .beside(&hands, &kernel_hands),
            Row::figure("tries refused right after a close", refused, "", Bound::AtMost, 0.0),
        ]);
    }

    /// What the calls are made of.
    fn shares(&self) {
        let lock = File::new(&self.mount.locks(), "take.lock");
        let handle = sys::open(self.mount.lock("open.lock"), O_RDWR | O_CREAT).expect("a handle");
        let number = Cell::new(0);
        // A name that the kernel does not have in its cache.
        let fresh = || {
            number.set(number.get() + 1);
            File::new(&self.mount.locks(), &format!("fresh-{}.lock", number.get()))
        };
        let mut r = Probe::whole(CALL_BATCH, || fstat(&handle));
        let mut look = Probe::part(CALL_BATCH, || {
            let name = fresh();
            timed(|| assert_eq!(name.open(OFlag::O_WRONLY).err(), Some(Errno::ENOENT)))
        });
        let mut first_take = Probe::part(CALL_BATCH, || {
            let name = fresh();
            timed(|| take_and_release(&name))
        });
        let mut take = Probe::whole(CALL_BATCH, || take_and_release(&lock));
        let mut opening = Probe::part(CALL_BATCH, || {
            let start = now();
            let held = lock.open(TAKE).expect("nobody has it");
            let opened = now() - start;
            drop(held);
            opened
        });
        let mut closing = Probe::part(CALL_BATCH, || {
            let held = lock.open(TAKE).expect("nobody has it");
            timed(|| drop(held))
        });
        let mut flock = Probe::whole(CALL_BATCH, || lock_and_unlock(&handle));
        let mut locking = Probe::part(CALL_BATCH, || {
            let locked = timed(|| sys::flock(&handle, LOCK_EX).expect("nobody has it"));
            sys::flock(&handle, LOCK_UN).expect("it is ours");
            locked
        });
        let mut probes = [
            &mut r,
            &mut look,
            &mut first_take,
            &mut take,
            &mut opening,
            &mut closing,
            &mut flock,
            &mut locking,
        ];
        in_turns(CALL_ROUNDS, &self.daemon, &mut probes);
        let calls = [
            ("fstat: GETATTR", &r),
            ("open of a free name: LOOKUP", &look),
            ("> of a name the kernel has not cached", &first_take),
            ("> of the name of the last time", &take),
            ("  its open", &opening),
            ("  its close", &closing),
            ("flock LOCK_EX and LOCK_UN", &flock),
            ("  its LOCK_EX", &locking),
        ];
        print_shares(&calls, self.daemon.user_share());
    }

    /// The same calls with many others about, and what each of those costs in memory.
    fn crowd(&self, gather: fn(&Mount, usize) -> Crowd, slower: &'static str, memory: &'static str) -> [Row; 2] {
        let lock = File::new(&self.mount.locks(), "take.lock");
        let handle = sys::open(self.mount.lock("open.lock"), O_RDWR | O_CREAT).expect("a handle");
        let measure = || {
            let mut r = Probe::whole(CALL_BATCH, || fstat(&handle));
            let mut take = Probe::whole(CALL_BATCH, || take_and_release(&lock));
            in_turns(CROWD_CALL_ROUNDS, &self.daemon, &mut [&mut r, &mut take]);
            take.ratio(&r)
        };
        measure();
        let mut bytes = None;
        let mut slowdown = || {
            let alone = measure();
            let before = self.daemon.memory();
            let crowd = gather(&self.mount, CROWD);
            self.daemon.wait_until_quiet();
            // Only the first crowd: the next ones find the memory that it left.
            bytes.get_or_insert((self.daemon.memory() - before) / CROWD as f64);
            let crowded = measure();
            crowd.leave(&self.mount, &self.daemon);
            crowded / alone
        };
        let slowdown = median([slowdown(), slowdown(), slowdown()]);
        let kibibytes = bytes.unwrap_or_default() / 1024.0;
        [
            Row::figure(slower, slowdown, "×", Bound::AtMost, 1.2),
            Row::figure(memory, kibibytes, "KiB", Bound::AtMost, 1.0),
        ]
    }

    /// What the daemon does while nothing happens.
    fn idle(&self, rows: &mut Vec<Row>) {
        let crowd = Crowd::waiting(&self.mount, CONTENDERS);
        self.daemon.wait_until_quiet();
        let before = self.daemon.spent();
        let end = now() + IDLE_NANOS;
        wait_until("three seconds are over", || now() >= end);
        let spent = self.daemon.spent().since(before).nanos / IDLE_NANOS as f64;
        crowd.leave(&self.mount, &self.daemon);
        rows.push(Row::figure(
            "processor while 100 locks are held",
            spent * 100.0,
            "%",
            Bound::AtMost,
            0.0,
        ));
    }

    /// How evenly a lock goes round.
    fn contest(&self, rows: &mut Vec<Row>) {
        let counts = contest(&self.mount.lock("contest.lock"), CONTENDERS, CONTEST_NANOS);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        let evenness = least
            .zip(most)
            .map_or(0.0, |(least, most)| *least as f64 / *most as f64);
        let times: u64 = counts.iter().sum();
        let each = CONTEST_NANOS as f64 / 1000.0 / times as f64;
        rows.push(Row::figure(
            "8 contenders, 50 µs holds: least / most",
            evenness,
            "",
            Bound::AtLeast,
            0.95,
        ));
        println!("\n8 contenders had the lock {times} times, {each:.1} µs each, of which they kept it 50 µs.");
    }
}

/// A file in an open directory: the way to the directory is not what is measured.
struct File {
    directory: OwnedFd,
    name: CString,
}

impl File {
    fn new(directory: &Path, name: &str) -> Self {
        Self {
            directory: sys::open(directory, libc::O_PATH).expect("the directory is there"),
            name: CString::new(name).expect("no NUL in a name"),
        }
    }

    fn open(&self, flags: OFlag) -> nix::Result<OwnedFd> {
        openat(
            &self.directory,
            &*self.name,
            flags | OFlag::O_CLOEXEC,
            Mode::from_bits_truncate(0o644),
        )
    }
}

fn fstat(file: &OwnedFd) {
    nix::sys::stat::fstat(file).expect("an open file");
}

fn take_and_release(lock: &File) {
    drop(lock.open(TAKE).expect("nobody has it"));
}

fn lock_and_unlock(file: &OwnedFd) {
    sys::flock(file, LOCK_EX).expect("nobody has it");
    sys::flock(file, LOCK_UN).expect("it is ours");
}

fn timed(call: impl FnOnce()) -> u64 {
    let start = now();
    call();
    now() - start
}
