//! Enforcement on real git: the reference-transaction hook refuses ref updates whose process holds no fitting lock, and
//! lets all others pass.
//!
//! Each test carries the sentence of the issue that it proves.

#[path = "support/mod.rs"]
mod support;

#[path = "enforce/chained.rs"]
mod chained;
#[path = "enforce/passing.rs"]
mod passing;
#[path = "enforce/refusing.rs"]
mod refusing;
#[path = "enforce/unavailable.rs"]
mod unavailable;

use support::{Client, Mount, Repository, Said};

/// A mounted repository with the hook: branches main and topic, the worktree `$T/linked` on linked, files a and b.
fn world() -> Mount {
    Mount::start(repository(), &[], &[])
}

/// The same, not mounted.
fn repository() -> Repository {
    let repository = Repository::new();
    let script = "set -e; echo 1 >a; echo 1 >b; git add -A; git commit -qm files; git branch topic
        git worktree add -q -b linked $T/linked; git config lockfs.enforce true; $LOCKFS hook install";
    repository.sh(script).ok();
    repository
}

/// Runs a script that must succeed; what it said.
#[track_caller]
fn sh(repository: &Repository, script: &str) -> String {
    repository.sh(&format!("set -e; {script}")).ok().text()
}

/// All refs with their values.
#[track_caller]
fn refs(repository: &Repository) -> String {
    sh(
        repository,
        "git for-each-ref; git rev-parse HEAD; git -C $T/linked rev-parse HEAD",
    )
}

/// The script fails, says these words, and moves no ref.
#[track_caller]
fn refused(repository: &Repository, script: &str, words: &[&str]) {
    let before = refs(repository);
    let output = repository.sh(script);
    assert!(!output.status.success(), "{script}: {}", output.text());
    for word in words {
        assert!(output.error().contains(word), "{script}: {word}: {}", output.error());
    }
    assert_eq!(refs(repository), before, "{script}");
}

/// A client that holds a lock by an open; the descriptor with it.
fn holder_of(mount: &Mount, name: &str) -> (Client, i32) {
    let mut client = mount.client();
    let take = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
    let fd = client.open(mount.lock(name), take).expect("a free lock is granted");
    (client, fd)
}
