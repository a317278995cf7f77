//! A worker that is killed loses nothing: what was held, who waits, and what was said are as they were, and nobody sees
//! more than a pause.
//!
//! Each test sets something up on a real mount, kills the worker with SIGKILL, and looks. The last one lets many clients
//! fight while worker after worker is killed, and has the history judged.

#[path = "support/mod.rs"]
mod support;

#[path = "history/checker.rs"]
mod checker;
#[path = "history/client.rs"]
mod client;
#[path = "history/contest.rs"]
mod contest;
#[path = "history/record.rs"]
mod record;

#[path = "crash/absence.rs"]
mod absence;
#[path = "crash/cloned.rs"]
mod cloned;
#[path = "crash/files.rs"]
mod files;
#[path = "crash/held.rs"]
mod held;
#[path = "crash/minute.rs"]
mod minute;
#[path = "crash/order.rs"]
mod order;
#[path = "crash/points.rs"]
mod points;
#[path = "crash/survive.rs"]
mod survive;
#[path = "crash/told.rs"]
mod told;
#[path = "crash/waiting.rs"]
mod waiting;

use std::ops::Deref;
use std::path::PathBuf;

use serde_json::Value;

use support::sys::{self, Sys};
use support::{Client, Repository, Said, process_state, wait_until};

/// What the shell's `>` opens with.
const TAKE: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
/// Take it now or EAGAIN.
const TRY: i32 = TAKE | libc::O_NONBLOCK;
/// Take it now or EEXIST.
const EXCL: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
/// A handle, no lock yet.
const HANDLE: i32 = libc::O_RDWR | libc::O_CREAT;

/// What differs from look to look, or from worker to worker.
const FLEETING: [&str; 9] = [
    "time",
    "held_ms",
    "waited_ms",
    "age_ms",
    "expires_ms",
    "estimated_wait_ms",
    "worker_pid",
    "supervisor_pid",
    "recovery",
];

/// A mount whose worker is to be killed: a few times, for a daemon whose workers die one after the other, each within a
/// second of its start, gives up.
struct Crashing {
    repository: Repository,
    faults: PathBuf,
}

impl Deref for Crashing {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repository
    }
}

impl Crashing {
    /// Mounts a repository of its own with the default settings.
    fn new() -> Self {
        Self::with(&[])
    }

    /// Mounts with these settings, given by `git config lockfs.KEY VALUE`.
    fn with(settings: &[(&str, &str)]) -> Self {
        let repository = Repository::new();
        let faults = repository.dir().join("faults");
        std::fs::create_dir(&faults).expect("a directory for the test");
        for (key, value) in settings {
            repository.git(&["config", &format!("lockfs.{key}"), value]);
        }
        let this = Self { repository, faults };
        this.mount(&[]);
        this
    }

    /// Mounts, with these further arguments.
    fn mount(&self, args: &[&str]) {
        let mut mount = self.command(env!("CARGO_BIN_EXE_git-lockfs"));
        mount.arg("mount").args(args).env("GIT_LOCKFS_FAULTS", &self.faults);
        self.run(mount).ok();
    }

    /// Kills the worker and returns when it is gone; whoever calls the mount then waits for the next one.
    #[track_caller]
    fn kill_worker(&self) {
        // After a few deaths in a row the next worker comes after a pause.
        wait_until("a worker serves", || self.worker().is_some());
        let pid = self.worker_pid();
        sys::kill(pid, libc::SIGKILL).expect("ours to kill");
        wait_until("the worker is gone", || self.worker() != Some(pid));
    }

    /// Does something while no worker serves. What calls the mount then does not return before the end.
    #[track_caller]
    fn while_nobody_serves<T>(&self, work: impl FnOnce() -> T) -> T {
        let stopped = Stopped::new(self.supervisor_pid());
        let worker = self.worker_pid();
        sys::kill(worker, libc::SIGKILL).expect("ours to kill");
        // Its parent is stopped and cannot wait for it.
        wait_until("the worker is gone", || matches!(process_state(worker), 'Z' | 'X'));
        let result = work();
        drop(stopped);
        result
    }

    /// Has the worker die when it next comes to that point.
    fn die_at(&self, point: &str) {
        std::fs::write(self.faults.join(point), "").expect("a file of the test");
    }

    /// Has what [`Self::die_at`] asked for happened?
    fn has_died_at(&self, point: &str) -> bool {
        !self.faults.join(point).exists()
    }

    /// A client that holds a lock by an open; the descriptor with it.
    fn holder(&self, name: &str) -> (Client, i32) {
        let mut client = self.client();
        let fd = client.open(self.lock(name), TAKE).expect("a free lock is granted");
        (client, fd)
    }

    /// A client that waits for a lock in an open, as the `nth` waiter.
    fn waiter(&self, name: &str, nth: usize) -> Client {
        let mut client = self.client();
        client.begin_open(self.lock(name), TAKE);
        self.wait_for_waiters(name, nth);
        client
    }

    /// One request through `acquire`: the descriptor that holds the locks.
    fn acquire(&self, client: &mut Client, request: &str) -> Sys<i32> {
        let fd = client.open(self.path("acquire"), libc::O_RDWR)?;
        client.write(fd, request).map(|_| fd)
    }

    /// The entry of a lock in `metrics/locks.json`; null when it has none.
    fn entry(&self, name: &str) -> Value {
        let table = self.locks_json();
        let locks = table["locks"].as_array().expect("locks");
        locks
            .iter()
            .find(|lock| lock["name"] == name)
            .cloned()
            .unwrap_or(Value::Null)
    }

    /// The fencing token of a lock.
    fn token(&self, name: &str) -> u64 {
        let token = self.field_of(name, "token").expect("it is held");
        token.parse().expect("a number")
    }

    /// Everything that a reader can see of all locks, but for what differs from look to look.
    fn picture(&self) -> String {
        let mut table = self.locks_json();
        drop_fleeting(&mut table);
        let table = serde_json::to_string_pretty(&table).expect("JSON");
        // A lock that nobody holds and a scratch file are as old as the look at them.
        let script = "cd $L; ls -a; stat -c '%n %i %h %s' -- * .[!.]*; ls $F
for x in *; do echo \"-- $x\"; cat $x; getfattr -d $x; grep -q ^token= $x && stat -c %Y $x; done";
        table + "\n" + &self.sh(script).text()
    }
}

/// Panics with the first line in which two pictures differ.
#[track_caller]
fn assert_same(after: &str, before: &str) {
    let mut lines = after.lines().zip(before.lines());
    if let Some((after, before)) = lines.find(|(after, before)| after != before) {
        panic!("{before:?} has become {after:?}");
    }
    assert_eq!(after.lines().count(), before.lines().count());
}

fn drop_fleeting(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !FLEETING.contains(&key.as_str()));
            fields.values_mut().for_each(drop_fleeting);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_fleeting),
        _ => {}
    }
}

/// A process that does nothing until this goes.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Self {
        sys::kill(pid, libc::SIGSTOP).expect("ours to stop");
        wait_until("it is stopped", || process_state(pid) == 'T');
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Where it is gone there is nothing to do.
        let _ = sys::kill(self.0, libc::SIGCONT);
    }
}
