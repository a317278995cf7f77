//! The mount as a program: how it starts, how it ends, whom it serves, that git does not feel it, and the command line.
//!
//! Each test carries the sentence of the issue or the contract that it proves.

#[path = "support/mod.rs"]
mod support;

#[path = "daemon/commands.rs"]
mod commands;
#[path = "daemon/ending.rs"]
mod ending;
#[path = "daemon/git.rs"]
mod git;
#[path = "daemon/run.rs"]
mod run;
#[path = "daemon/settings.rs"]
mod settings;
#[path = "daemon/starting.rs"]
mod starting;
#[path = "daemon/users.rs"]
mod users;

use std::path::PathBuf;

use support::{Client, Mount, Repository};

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
    use support::Said;
    let repository = Repository::new();
    repository.lockfs(&["mount"]).ok();
    repository
}

/// The processes of all daemons of a repository: those of our program that carry the test's mark, other than clients.
fn daemons(repository: &Repository) -> Vec<u32> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_git-lockfs"));
    let mark = format!("{}={}", support::MARK, repository.dir().display());
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
            && environ.split(|&b| b == 0).any(|variable| variable == mark.as_bytes())
    })
    .collect()
}

/// The supervisor of the one daemon of a repository, which is that and its worker.
#[track_caller]
fn the_daemon(repository: &Repository) -> u32 {
    let mut all = daemons(repository);
    let mut both = [repository.supervisor_pid(), repository.worker_pid()];
    all.sort_unstable();
    both.sort_unstable();
    assert_eq!(all, both, "exactly one daemon a repository");
    repository.supervisor_pid()
}

/// How often a repository's mountpoint is in the table of mounts.
fn times_mounted(repository: &Repository) -> usize {
    let wanted = repository.mountpoint();
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| *point == wanted.to_str().expect("UTF-8")).count()
}

/// A mount with a linked worktree beside the main one.
fn with_linked_worktree() -> (Mount, PathBuf) {
    let mount = Mount::new();
    let linked = mount.dir().join("linked");
    mount.git(&["worktree", "add", "-q", linked.to_str().expect("UTF-8")]);
    (mount, linked)
}
