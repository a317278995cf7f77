//! The daemon from outside: what /proc tells of its memory, its processor time and the requests it has read, and where
//! it runs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::measure::spin;
use crate::support::process::holds_within;

/// The daemon, from outside.
pub struct Daemon {
    proc: PathBuf,
}

/// What the daemon spent.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Processor time of all its threads.
    pub nanos: f64,
    /// read(2) calls, one a request.
    pub requests: f64,
}

impl Spent {
    /// What was spent between two looks.
    pub fn since(self, before: Self) -> Self {
        Self {
            nanos: self.nanos - before.nanos,
            requests: self.requests - before.requests,
        }
    }

    /// The share of one of so many calls.
    pub fn per(self, calls: usize) -> Self {
        Self {
            nanos: self.nanos / calls as f64,
            requests: self.requests / calls as f64,
        }
    }
}

impl Daemon {
    /// The daemon with that PID.
    pub fn new(pid: u32) -> Self {
        Self {
            proc: PathBuf::from(format!("/proc/{pid}")),
        }
    }

    /// What it has spent since it started.
    pub fn spent(&self) -> Spent {
        let threads = fs::read_dir(self.proc.join("task")).expect("the daemon runs");
        let nanos = threads.flatten().filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<f64>().ok()
        });
        Spent {
            nanos: nanos.sum(),
            requests: self.number("io", "syscr:"),
        }
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> f64 {
        self.number("status", "VmRSS:") * 1024.0
    }

    /// How much of its processor time was spent in the program itself and not in the kernel, by the clock's ticks.
    pub fn user_share(&self) -> f64 {
        let text = fs::read_to_string(self.proc.join("stat")).expect("the daemon runs");
        let (_, fields) = text.rsplit_once(") ").expect("the name is in brackets");
        // proc(5): utime and stime are fields 14 and 15, and the state after the name is field 3.
        let mut ticks = fields.split(' ').skip(11).map_while(|field| field.parse::<f64>().ok());
        let (user, system) = (ticks.next().unwrap_or_default(), ticks.next().unwrap_or_default());
        user / (user + system).max(1.0)
    }

    /// Moves all its threads.
    pub fn move_to(&self, processor: &CpuSet) {
        let threads = fs::read_dir(self.proc.join("task")).expect("the daemon runs");
        let tids = threads
            .flatten()
            .filter_map(|thread| thread.file_name().to_str()?.parse().ok());
        for tid in tids {
            sched_setaffinity(Pid::from_raw(tid), processor).expect("the daemon is ours");
        }
    }

    /// Returns once it has spent nothing for 30 ms: what came after the last answer is done.
    pub fn wait_until_quiet(&self) {
        let quiet = holds_within(Duration::from_secs(30), || {
            let before = self.spent().nanos;
            spin(30_000_000);
            self.spent().nanos == before
        });
        assert!(quiet, "the daemon does not come to rest");
    }

    fn number(&self, file: &str, key: &str) -> f64 {
        let text = fs::read_to_string(self.proc.join(file)).expect("the daemon runs");
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("{key} in {file}: {text}"))
    }
}

/// Keeps this process, and all that it starts meanwhile, on one processor until it goes.
pub struct OneProcessor {
    before: CpuSet,
}

impl OneProcessor {
    /// Moves to the last processor that this process may use.
    pub fn new() -> Self {
        let before = sched_getaffinity(Pid::from_raw(0)).expect("our own processors");
        let last = (0..CpuSet::count()).rev().find(|&cpu| before.is_set(cpu) == Ok(true));
        let mut one = CpuSet::new();
        one.set(last.expect("we run somewhere"))
            .expect("it was found in such a set");
        sched_setaffinity(Pid::from_raw(0), &one).expect("one of our own processors");
        Self { before }
    }
}

impl OneProcessor {
    /// Another processor, if this process may use one.
    pub fn other(&self) -> Option<CpuSet> {
        let own = sched_getaffinity(Pid::from_raw(0)).expect("our own processors");
        let is_other = |&cpu: &usize| self.before.is_set(cpu) == Ok(true) && own.is_set(cpu) == Ok(false);
        let mut other = CpuSet::new();
        other.set((0..CpuSet::count()).find(is_other)?).ok()?;
        Some(other)
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        sched_setaffinity(Pid::from_raw(0), &self.before).expect("they were ours before");
    }
}
