//! `git lockfs commit` on real git: a commit has the named paths and nothing else, whoever shares the worktree, and
//! the index is in step with it.
//!
//! Each test carries the sentence of the issue that it proves.

#[path = "support/mod.rs"]
mod support;

#[path = "commits/concurrent.rs"]
mod concurrent;
#[path = "commits/content.rs"]
mod content;
#[path = "commits/hooks.rs"]
mod hooks;
#[path = "commits/index.rs"]
mod index;
#[path = "commits/refusals.rs"]
mod refusals;

use support::{Client, Mount, Said};

/// A mounted repository whose first commits have `a`, `b` and `sub/c`.
fn world() -> Mount {
    let mount = Mount::new();
    sh(
        &mount,
        "mkdir sub; echo 1 >a; echo 1 >b; echo 1 >sub/c; git add -A; git commit -qm files",
    );
    mount
}

/// Runs a script that must succeed; what it said.
#[track_caller]
fn sh(mount: &Mount, script: &str) -> String {
    mount.sh(&format!("set -e; {script}")).ok().text()
}

/// The files of a commit, with their states.
#[track_caller]
fn files(mount: &Mount, commit: &str) -> String {
    sh(
        mount,
        &format!("git show --format= --name-status --no-renames {commit} | tr '\\t\\n' '  '"),
    )
    .trim()
    .to_owned()
}

/// What `git status` says of tracked and untracked files, a line each.
#[track_caller]
fn status(mount: &Mount) -> Vec<String> {
    let said = mount.git(&["status", "--porcelain", "--untracked-files=all"]).text();
    said.lines().map(str::to_owned).collect()
}

/// Nothing is left of the way a commit was made.
#[track_caller]
fn nothing_left_behind(mount: &Mount) {
    let left: Vec<String> = support::names_in(&mount.repo().join(".git"))
        .into_iter()
        .filter(|name| name.starts_with("lockfs-") || name.ends_with(".lock"))
        .collect();
    assert_eq!(left, [""; 0], "in the git directory");
    assert_eq!(mount.listed(), [""; 0], "locks");
    let fsck = mount.git(&["fsck", "--full", "--strict", "--no-dangling"]);
    assert_eq!(fsck.text() + &fsck.error(), "");
}

/// A client that holds a lock by an open; the descriptor with it.
fn holder_of(mount: &Mount, name: &str) -> (Client, i32) {
    let mut client = mount.client();
    let take = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
    let fd = client.open(mount.lock(name), take).expect("a free lock is granted");
    (client, fd)
}
