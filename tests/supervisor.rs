//! The daemon as two processes: one keeps the mount, one serves it, and each replaces the other.

#[path = "support/mod.rs"]
mod support;

#[path = "supervisor/restarting.rs"]
mod restarting;
#[path = "supervisor/supervising.rs"]
mod supervising;
#[path = "supervisor/worker.rs"]
mod worker;

use support::{Client, Repository, Said, wait_until};

/// What the shell's `>` opens with.
const TAKE: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;

/// A client that holds a lock by an open; the descriptor with it.
fn holder(repository: &Repository, name: &str) -> (Client, i32) {
    let mut client = repository.client();
    let fd = client
        .open(repository.lock(name), TAKE)
        .expect("a free lock is granted");
    (client, fd)
}

/// A daemonised mount of a repository of its own.
fn daemonised() -> Repository {
    let repository = Repository::new();
    repository.lockfs(&["mount"]).ok();
    repository
}

/// Kills a process of a daemon; its PID was just read from a file that has it only while it runs.
fn kill(pid: u32) {
    support::sys::kill(pid, libc::SIGKILL).expect("ours to kill");
}

/// Returns once a worker other than that one serves.
#[track_caller]
fn another_worker(repository: &Repository, old: u32) {
    wait_until("another worker serves", || {
        repository.worker().is_some_and(|worker| worker != old)
    });
}

/// What `doctor` says; it must end with that exit code.
#[track_caller]
fn doctor(repository: &Repository, code: i32) -> String {
    let output = repository.lockfs(&["doctor"]);
    assert_eq!(output.code(), code, "{}", output.text());
    output.text()
}

/// The journal as a newer version of the program would begin it.
fn of_a_newer_version(journal: &[u8]) -> Vec<u8> {
    let mut newer = journal.to_vec();
    newer[8] += 1;
    let checksum = crc32fast::hash(&newer[..10]);
    newer[10..14].copy_from_slice(&checksum.to_le_bytes());
    newer
}
