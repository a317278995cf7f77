//! How long nobody is answered when the worker is killed.

use std::time::Duration;

use crate::Bench;
use crate::crowd::Crowd;
use crate::daemon::Daemon;
use crate::measure::{median, now};
use crate::support::process::holds_within;
use crate::support::{Mount, sys};
use crate::table::{Bound, Row};

/// How often the worker is killed for one figure.
const KILLS: usize = 9;
/// How long each worker lives before: one that dies within a second of its start is replaced after a pause.
const LIFE_NANOS: u64 = 1_200_000_000;
/// The most that a pause may take, in milliseconds.
const PAUSE_MS_MAX: f64 = 200.0;
const HELD: usize = 10_000;
const WAITING: usize = 1_000;

/// The pause of a mount where nothing is held, of one with many holders, and of one with many waiters.
pub fn rows() -> [Row; 3] {
    let none = |_: &Mount, _: usize| None;
    [
        row("nothing held", none, 0),
        row(
            "10,000 locks held",
            |mount, count| Some(Crowd::holding(mount, count)),
            HELD,
        ),
        row(
            "1,000 waiters",
            |mount, count| Some(Crowd::waiting(mount, count)),
            WAITING,
        ),
    ]
}

fn row(what: &'static str, gather: impl FnOnce(&Mount, usize) -> Option<Crowd>, count: usize) -> Row {
    let bench = Bench::new();
    let mount = &bench.mount;
    let crowd = gather(mount, count);
    let millis = median((0..KILLS).map(|_| pause(mount) as f64 / 1e6));
    if let Some(crowd) = crowd {
        crowd.leave(mount, &Daemon::new(mount.worker_pid()));
    }
    Row::figure(what, millis, "ms", Some((Bound::AtMost, PAUSE_MS_MAX)))
}

/// Nanoseconds from the kill to the answer of a call that was made at once.
fn pause(mount: &Mount) -> u64 {
    let born = now();
    let lived = holds_within(Duration::from_secs(10), || now() - born > LIFE_NANOS);
    assert!(lived, "time passes");
    let path = mount.lock("never-taken.lock");
    let worker = mount.worker_pid();
    let start = now();
    sys::kill(worker, libc::SIGKILL).expect("ours to kill");
    assert!(path.symlink_metadata().is_err(), "nobody takes it");
    let end = now();
    assert_ne!(mount.worker(), Some(worker), "the killed one cannot have answered");
    end - start
}
