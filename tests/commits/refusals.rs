//! What is refused, with which exit code and which words; nothing is changed by it.

use crate::support::{Mount, Repository, Said};
use crate::{holder_of, nothing_left_behind, sh, status, world};

#[track_caller]
fn refused(mount: &Mount, arguments: &str, code: i32, words: &str) {
    let before = (sh(mount, "git rev-parse HEAD"), status(mount));
    let output = mount.sh(&format!("$LOCKFS commit {arguments}"));
    assert_eq!(output.code(), code, "{arguments}: {}", output.error());
    assert!(output.error().contains(words), "{arguments}: {}", output.error());
    assert_eq!((sh(mount, "git rev-parse HEAD"), status(mount)), before, "{arguments}");
    nothing_left_behind(mount);
}

#[test]
fn what_cannot_be_committed_is_refused() {
    let mount = world();
    refused(&mount, "-m x -- a", 1, "nothing to commit");
    refused(&mount, "-m x -- no-such-file", 1, "no-such-file");
    sh(&mount, "echo '*.o' >.gitignore; echo x >x.o; echo 2 >a");
    refused(&mount, "-m x -- x.o", 1, "ignored");
    refused(&mount, "-m x -- a ../outside", 1, "outside");
    refused(&mount, "-m x", 2, "PATH");
    refused(&mount, "-m x -F f -- a", 2, "--file");
    refused(&mount, "-m '' -- a", 1, "empty commit message");
    sh(&mount, "$LOCKFS commit -qm empty --allow-empty -- b");
    assert_eq!(sh(&mount, "git show --format=%s --name-only"), "empty");
}

/// a partial commit during a merge would lose the rest of it
#[test]
fn a_merge_in_progress_is_refused() {
    let mount = world();
    sh(
        &mount,
        "git switch -qc topic; echo topic >a; echo topic >b; git commit -qam topic; git switch -q main; echo main >a; git commit -qam main
        git merge -q topic >/dev/null 2>&1 || echo 2 >a",
    );
    let output = mount.sh("$LOCKFS commit -qm x -- a");
    assert_eq!(output.code(), 1);
    assert!(output.error().contains("git merge --abort") || output.error().contains("git merge --continue"));
    assert!(!mount.repo().join(".git/index.lock").exists());
    assert_eq!(
        sh(
            &mount,
            "git log -1 --format=%s; git rev-parse -q --verify MERGE_HEAD >/dev/null && echo merging"
        ),
        "main\nmerging"
    );
}

/// 75 when the lock could not be had; it says who has it
#[test]
fn who_holds_the_worktree_is_told() {
    let mount = world();
    let (holding, _) = holder_of(&mount, "main-worktree.lock");
    sh(&mount, "echo 2 >a");
    let output = mount.sh("$LOCKFS commit --wait 0 -m x -- a");
    assert_eq!(output.code(), 75);
    assert!(
        output.error().contains(&holding.pid().to_string()),
        "{}",
        output.error()
    );
    holding.kill();
    mount.wait_until_free("main-worktree.lock");
    nothing_left_behind(&mount);
}

/// A worktree that was switched while the commit waited: what was meant for one branch is not put on another.
#[test]
fn a_branch_that_was_switched_meanwhile_is_refused() {
    let mount = world();
    let (holding, _) = holder_of(&mount, "main-worktree.lock");
    sh(&mount, "echo 2 >a");
    let mut waiting = mount.spawn_sh("$LOCKFS commit -qm mine -- a");
    mount.wait_for_waiters("main-worktree.lock", 1);
    sh(&mount, "git switch -qc other");
    holding.kill();
    let output = waiting.finish_within(std::time::Duration::from_secs(10));
    assert_eq!(output.code(), 1);
    assert!(
        output.error().contains("refs/heads/main to refs/heads/other"),
        "{}",
        output.error()
    );
    assert_eq!(status(&mount), [" M a"]);
    nothing_left_behind(&mount);
}

/// A lock that is lost while git commits ends git, and the index belongs to whatever HEAD is then.
#[test]
fn a_lost_lock_ends_the_commit() {
    let mount = world();
    sh(
        &mount,
        "printf '#!/bin/sh\\n: >$T/in; exec sleep 100\\n' >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; echo 2 >a",
    );
    let mut running = mount.spawn_sh("exec $LOCKFS commit -qm mine -- a");
    crate::support::wait_until("the hook runs", || mount.dir().join("in").exists());
    sh(&mount, "$LOCKFS break main-worktree.lock --reason 'for a test'");
    let output = running.finish_within(std::time::Duration::from_secs(15));
    assert_eq!(output.code(), 75);
    assert!(output.error().contains("for a test"), "{}", output.error());
    assert_eq!(sh(&mount, "git log -1 --format=%s"), "files");
    nothing_left_behind(&mount);
}

/// 69 when no daemon answers
#[test]
fn without_a_daemon_it_exits_69() {
    let repository = Repository::new();
    let output = repository.sh("echo 1 >a; $LOCKFS commit -m x -- a");
    assert_eq!(output.code(), 69);
    assert!(output.error().contains("git lockfs mount"), "{}", output.error());
}
