//! How fast a mount is, as ratios in one run to a bare round trip and to the kernel's own locks.
//!
//! Run with `scripts/bench`, or `scripts/bench calls` for one part (calls, shares, crowds, idle, contest, restart). Prints tables and
//! says `MISSED` where a target is missed; that is no failure, for the machine may be busy. Everything happens on mounts
//! in repositories of their own.
//!
//! Calls are measured twice, as the scheduler would put callers and daemon now here, now there. On one processor a round
//! trip is at its shortest, and every instruction of the daemon shows. With the daemon on another, most of a round trip is
//! spent waking that one, and the ratio counts round trips.

#[path = "../tests/support/mod.rs"]
mod support;

#[path = "mount/calls.rs"]
mod calls;
#[path = "mount/contest.rs"]
mod contest;
#[path = "mount/crowd.rs"]
mod crowd;
#[path = "mount/daemon.rs"]
mod daemon;
#[path = "mount/measure.rs"]
mod measure;
#[path = "mount/restart.rs"]
mod restart;
#[path = "mount/table.rs"]
mod table;

use crowd::Crowd;
use daemon::{Daemon, OneProcessor};
use measure::now;
use support::{Mount, wait_until};
use table::{Bound, Row, print_machine, print_rows};

const CROWD: usize = 10_000;
const IDLE_NANOS: u64 = 3_000_000_000;
const IDLE_WAITERS: usize = 8;
const CONTENDERS: usize = 8;
const CONTEST_NANOS: u64 = 4_000_000_000;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    print_machine();
    if wants("calls") {
        let one = OneProcessor::new();
        print_rows("all on one processor", &calls::ratios(&Bench::new()));
        if let Some(other) = one.other() {
            let bench = Bench::new();
            bench.daemon.move_to(&other);
            print_rows("the daemon on another processor", &calls::ratios(&bench));
        }
    }
    if wants("shares") {
        let _one = OneProcessor::new();
        calls::print_shares_of(&Bench::new());
    }
    if wants("crowds") {
        let _one = OneProcessor::new();
        // A daemon of its own for each: the memory that one crowd leaves would hide what the next one needs.
        let held = Bench::new().crowd(Crowd::holding, "memory of a held lock");
        print_rows("10,000 other locks held, to none", &held);
        let waiting = Bench::new().crowd(Crowd::waiting, "memory of a waiter");
        print_rows("10,000 waiters elsewhere, to none", &waiting);
    }
    let bench = Bench::new();
    if wants("idle") {
        print_rows("100 locks held and 8 waited for, for 3 s", &[bench.idle()]);
    }
    if wants("contest") {
        print_rows("8 contenders, 50 µs holds, for 4 s", &bench.contest());
    }
    drop(bench);
    if wants("restart") {
        print_rows("from the kill of a worker to the next answer", &restart::rows());
    }
}

/// A mount to be measured.
struct Bench {
    mount: Mount,
    daemon: Daemon,
}

impl Bench {
    fn new() -> Self {
        // No waiter of a crowd may run out of time while others are measured.
        let mount = Mount::with(&[("wait", "10m")]);
        Self {
            daemon: Daemon::new(mount.worker_pid()),
            mount,
        }
    }

    /// A call with many others about, to the same without them, and the memory that each of those takes.
    fn crowd(&self, gather: fn(&Mount, usize) -> Crowd, memory: &'static str) -> [Row; 4] {
        let mut bytes = None;
        let [take, r] = calls::slowdown(self, |measure| {
            let before = self.daemon.memory();
            let crowd = gather(&self.mount, CROWD);
            self.daemon.wait_until_quiet();
            // Only the first crowd: the next ones find the memory that it left.
            bytes.get_or_insert((self.daemon.memory() - before) / CROWD as f64);
            measure();
            crowd.leave(&self.mount, &self.daemon);
        });
        let kibibytes = bytes.unwrap_or_default() / 1024.0;
        [
            // With many calls waiting the kernel itself is slower: it looks for each reply's request in lists of them.
            Row::figure("R", r, "×", None),
            Row::figure("take and release", take, "×", None),
            Row::figure("take and release, in R", take / r, "×", Some((Bound::AtMost, 1.2))),
            Row::figure(memory, kibibytes, "KiB", Some((Bound::AtMost, 1.0))),
        ]
    }

    /// What the daemon does while nothing happens.
    fn idle(&self) -> Row {
        let crowd = Crowd::waiting(&self.mount, IDLE_WAITERS);
        self.daemon.wait_until_quiet();
        let before = self.daemon.spent();
        let end = now() + IDLE_NANOS;
        wait_until("three seconds are over", || now() >= end);
        let spent = self.daemon.spent().since(before).nanos;
        crowd.leave(&self.mount, &self.daemon);
        Row::figure(
            "processor time of the daemon",
            spent / 1000.0,
            "µs",
            Some((Bound::AtMost, 0.0)),
        )
    }

    /// How evenly a lock goes round.
    fn contest(&self) -> [Row; 2] {
        let counts = contest::contest(&self.mount.lock("contest.lock"), CONTENDERS, CONTEST_NANOS);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        let evenness = least
            .zip(most)
            .map_or(0.0, |(least, most)| *least as f64 / *most as f64);
        let each = CONTEST_NANOS as f64 / 1000.0 / counts.iter().sum::<u64>() as f64;
        [
            Row::figure("least served / most served", evenness, "", Some((Bound::AtLeast, 0.95))),
            Row::figure("from one holder to the next, the hold included", each, "µs", None),
        ]
    }
}
