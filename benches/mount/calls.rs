//! The road of one uncontended caller, from hand to hand, and what the calls are made of.

use std::cell::Cell;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use libc::{LOCK_EX, LOCK_UN, O_CREAT, O_RDWR};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::Bench;
use crate::contest::{Handoff, Taking};
use crate::measure::{Probe, in_turns, median, now};
use crate::support::sys::{self, Errno};
use crate::table::{Bound, Row, print_shares};

/// What a shell's `>` opens with.
const TAKE: OFlag = OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_TRUNC);
/// Rounds, and how often each call is made in one.
const ROUNDS: usize = 40;
const BATCH: usize = 200;
/// Rounds while one crowd is there, and while none is.
const CROWD_ROUNDS: usize = 10;
/// A handoff needs its waiter asleep, which takes most of its time.
const HANDOFF_BATCH: usize = 12;

/// The road of one uncontended caller, and from hand to hand.
pub fn ratios(bench: &Bench) -> Vec<Row> {
    let shm = tempfile::Builder::new()
        .tempdir_in("/dev/shm")
        .expect("a directory on tmpfs");
    let in_shm = |name: &str| shm.path().join(name);
    let (hand, kernel_hand) = (bench.mount.lock("hand.lock"), in_shm("hand"));
    // Forked before this process has descriptors that a child would keep open.
    let handoff = Handoff::new(&hand, Taking::Open);
    let kernel_handoff = Handoff::new(&kernel_hand, Taking::Flock);
    let (lock, kernel_lock) = (
        File::new(&bench.mount.locks(), "take.lock"),
        File::new(shm.path(), "take"),
    );
    let handle = sys::open(bench.mount.lock("open.lock"), O_RDWR | O_CREAT).expect("a handle");
    let kernel_handle = sys::open(in_shm("open"), O_RDWR | O_CREAT).expect("a file");
    let refused = Cell::new(0_u32);

    let mut r = Probe::whole(BATCH, || fstat(&handle));
    let mut take = Probe::whole(BATCH, || take_and_release(&lock));
    let mut kernel_take = Probe::whole(BATCH, || {
        let file = kernel_lock.open(TAKE).expect("a file");
        sys::flock(&file, LOCK_EX).expect("nobody has it");
    });
    let mut flock = Probe::whole(BATCH, || lock_and_unlock(&handle));
    let mut kernel_flock = Probe::whole(BATCH, || lock_and_unlock(&kernel_handle));
    let mut hands = Probe::part(HANDOFF_BATCH, || handoff.once());
    let mut kernel_hands = Probe::part(HANDOFF_BATCH, || kernel_handoff.once());
    let mut trying = Probe::whole(BATCH, || match lock.open(TAKE | OFlag::O_NONBLOCK) {
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
    in_turns(ROUNDS, &bench.daemon, &mut probes);
    let refused = f64::from(refused.get());
    vec![
        Row::call("R: fstat of an open file", &r, &r, None),
        Row::call("take and release by >", &take, &r, Some(4.5)).beside(&take, &kernel_take),
        Row::call("flock LOCK_EX and LOCK_UN, open handle", &flock, &r, Some(2.5)).beside(&flock, &kernel_flock),
        Row::call("holder's close to sleeping waiter's return", &hands, &r, Some(4.5)).beside(&hands, &kernel_hands),
        Row::figure(
            "tries refused right after a close",
            refused,
            "",
            Some((Bound::AtMost, 0.0)),
        ),
    ]
}

/// What the calls are made of.
pub fn print_shares_of(bench: &Bench) {
    let lock = File::new(&bench.mount.locks(), "take.lock");
    let handle = sys::open(bench.mount.lock("open.lock"), O_RDWR | O_CREAT).expect("a handle");
    let number = Cell::new(0);
    // A name that the kernel does not have in its cache.
    let fresh = || {
        number.set(number.get() + 1);
        File::new(&bench.mount.locks(), &format!("fresh-{}.lock", number.get()))
    };
    let mut r = Probe::whole(BATCH, || fstat(&handle));
    let mut look = Probe::part(BATCH, || {
        let name = fresh();
        timed(|| assert_eq!(name.open(OFlag::O_WRONLY).err(), Some(Errno::ENOENT)))
    });
    let mut first_take = Probe::part(BATCH, || {
        let name = fresh();
        timed(|| take_and_release(&name))
    });
    let mut take = Probe::whole(BATCH, || take_and_release(&lock));
    let mut opening = Probe::part(BATCH, || {
        let start = now();
        let held = lock.open(TAKE).expect("nobody has it");
        let opened = now() - start;
        drop(held);
        opened
    });
    let mut closing = Probe::part(BATCH, || {
        let held = lock.open(TAKE).expect("nobody has it");
        timed(|| drop(held))
    });
    let mut flock = Probe::whole(BATCH, || lock_and_unlock(&handle));
    let mut locking = Probe::part(BATCH, || {
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
    in_turns(ROUNDS, &bench.daemon, &mut probes);
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
    print_shares(&calls, bench.daemon.user_share());
}

/// How much slower a take and a bare round trip are while a crowd is there: `with_crowd` gathers one, measures, and sends it
/// away. The measure is the kernel's own lock, which no crowd slows.
pub fn slowdown(bench: &Bench, mut with_crowd: impl FnMut(&mut dyn FnMut())) -> [f64; 2] {
    let lock = File::new(&bench.mount.locks(), "take.lock");
    let handle = sys::open(bench.mount.lock("open.lock"), O_RDWR | O_CREAT).expect("a handle");
    let file = OwnedFd::from(tempfile::tempfile_in("/dev/shm").expect("a file on tmpfs"));
    let ratios = || {
        let mut kernel = Probe::whole(BATCH, || lock_and_unlock(&file));
        let mut r = Probe::whole(BATCH, || fstat(&handle));
        let mut take = Probe::whole(BATCH, || take_and_release(&lock));
        in_turns(CROWD_ROUNDS, &bench.daemon, &mut [&mut kernel, &mut r, &mut take]);
        [take.ratio(&kernel), r.ratio(&kernel)]
    };
    ratios();
    let mut once = || {
        let alone = ratios();
        let mut crowded = [0.0; 2];
        with_crowd(&mut || crowded = ratios());
        [crowded[0] / alone[0], crowded[1] / alone[1]]
    };
    let all = [once(), once(), once()];
    [0, 1].map(|which| median(all.map(|pair| pair[which])))
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

fn fstat(file: &OwnedFd) {
    nix::sys::stat::fstat(file).expect("an open file");
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
