//! `git lockfs git`: git under the locks of its command, and again when it lost a race for a lock file of its own.

use std::time::Duration;

use super::support::{Mount, Said, wait_until};
use super::{WRITE_DOWN, exists, hook, safe_git, with_file, written};

fn mounted() -> Mount {
    Mount::start(with_file(), &[], &[])
}

/// finds the scope, takes the locks through `acquire`, runs git, gives its exit code
#[test]
fn git_runs_under_the_locks_of_its_command() {
    let mount = mounted();
    hook(&mount, "pre-commit", WRITE_DOWN);
    safe_git(&mount, &["commit", "-q", "--allow-empty", "-m", "x"]).ok();
    assert_eq!(
        written(&mount, "held"),
        "main-worktree.lock\nmaintenance.lock\nref-refs%2Fheads%2Fmain.lock\n"
    );
    let env = written(&mount, "env");
    assert!(env.contains("GIT_LOCKFS_HELD=main-worktree.lock="), "{env}");
    assert!(env.contains("GIT_LOCKFS_TOKEN="), "{env}");
    let trace = env
        .lines()
        .find_map(|line| line.strip_prefix("GIT_TRACE2_EVENT="))
        .expect("a trace");
    assert!(
        !exists(std::path::Path::new(trace).parent().expect("its directory")),
        "gone with git: {trace}"
    );
    assert_eq!(written(&mount, "timeout"), "10000\n", "git's own timeouts are raised");
    assert_eq!(mount.listed(), [""; 0]);
    assert_eq!(safe_git(&mount, &["commit", "-q", "-m", "nothing"]).code(), 1);
    assert_eq!(safe_git(&mount, &["add", "missing"]).code(), 128);
    assert_eq!(safe_git(&mount, &["--version"]).code(), 0);
    assert_eq!(safe_git(&mount, &["frobnicate"]).code(), 1);
}

/// read-only commands take none and set GIT_OPTIONAL_LOCKS=0
#[test]
fn who_only_looks_takes_nothing() {
    let mount = mounted();
    let script = "echo two > file; GIT_EXTERNAL_DIFF='ls $L > $T/held; env > $T/env; true' $LOCKFS git -- diff";
    mount.sh(script).ok();
    assert_eq!(written(&mount, "held"), "");
    assert!(written(&mount, "env").contains("GIT_OPTIONAL_LOCKS=0\n"));
    let held = "exec 9> $L/global.lock; exec 8>&9; bash -c 'exec 9>&- 8>&-; $LOCKFS git -n -- log --oneline'";
    mount.sh(held).ok();
}

/// with wait limit and priority
#[test]
fn who_cannot_have_the_locks_is_told_by_whom() {
    let mount = mounted();
    let holder = mount.spawn_sh("exec 9> $L/main-worktree.lock; echo taken; exec sleep 100");
    holder.wait_for_line("taken");
    for args in [
        &["git", "-n", "--", "add", "file"][..],
        &["git", "-w", "100ms", "-p", "9", "--session", "me", "add", "file"],
    ] {
        let output = mount.lockfs(args);
        assert_eq!(output.code(), 75, "{args:?}: {}", output.error());
        assert!(output.error().contains(&holder.id().to_string()), "{}", output.error());
    }
    // Another worktree is another scope.
    mount.git(&["worktree", "add", "-q", "-b", "topic", "../linked"]);
    safe_git(&mount, &["-C", "../linked", "commit", "-q", "--allow-empty", "-m", "x"]).ok();
}

/// transient failures that are git's own lock races are tried again with backoff and jitter, 3 times
#[test]
fn a_lost_race_is_run_again() {
    let mount = mounted();
    mount.sh("echo two > file; touch .git/index.lock").ok();
    let mut adding = mount.spawn_sh("exec 2>&1; exec $LOCKFS git -- add file");
    wait_until("it tries again", || adding.said().contains("trying again (1 of 3)"));
    std::fs::remove_file(mount.repo().join(".git/index.lock")).expect("it is there");
    let output = adding.finish_within(Duration::from_secs(10));
    assert!(output.status.success(), "{}", output.text());
    assert_eq!(mount.git(&["diff", "--cached", "--name-only"]).text(), "file");
}

#[test]
fn a_race_that_is_never_won_ends_with_gits_exit_code() {
    let mount = mounted();
    mount.sh("touch .git/index.lock").ok();
    let output = safe_git(&mount, &["rm", "-q", "file"]);
    assert_eq!(output.code(), 128);
    assert_eq!(output.error().matches("trying again").count(), 3, "{}", output.error());
    assert_eq!(mount.listed(), [""; 0]);
}

#[test]
fn what_is_no_race_is_not_run_again() {
    let mount = mounted();
    mount
        .sh("git switch -q -c other && echo a > file && git commit -qam a && git switch -q main && echo b > file && git commit -qam b")
        .ok();
    let output = safe_git(&mount, &["merge", "-q", "other"]);
    assert_eq!(output.code(), 1, "a conflict");
    assert!(!output.error().contains("trying again"), "{}", output.error());
    assert!(exists(mount.repo().join(".git/MERGE_HEAD")));
    // Its standard input is gone after the first time.
    mount.sh("git merge --abort; touch .git/index.lock").ok();
    let output = mount.sh("echo message | $LOCKFS git -- commit -q --allow-empty -F -");
    assert_eq!(output.code(), 128);
    assert!(!output.error().contains("trying again"), "{}", output.error());
}

/// with no orphan branch left
#[test]
fn a_failed_worktree_add_leaves_no_branch() {
    let mount = mounted();
    mount
        .sh("git clone -q . ../upstream && git remote add origin ../upstream && git fetch -q && touch .git/config.lock")
        .ok();
    let plain = mount.sh("git worktree add -b orphan ../plain origin/main");
    let left = |name: &str| mount.git(&["branch", "--list", name]).text();
    assert!(
        !plain.status.success() && left("orphan").contains("orphan"),
        "what git does by itself"
    );
    let output = safe_git(&mount, &["worktree", "add", "-b", "new", "../new", "origin/main"]);
    assert!(
        !output.status.success() && output.error().contains("trying again (3 of 3)"),
        "{}",
        output.error()
    );
    assert_eq!(left("new"), "");
    std::fs::remove_file(mount.repo().join(".git/config.lock")).expect("it is there");
    safe_git(&mount, &["worktree", "add", "-q", "-b", "new", "../new", "origin/main"]).ok();
}

#[test]
fn a_lost_lock_ends_git() {
    let mount = mounted();
    hook(&mount, "pre-commit", "#!/bin/sh\necho in; exec sleep 100\n");
    let mut committing = mount.spawn_sh("exec 2>&1; exec $LOCKFS git -- commit --allow-empty -m x");
    committing.wait_for_line("in");
    mount
        .lockfs(&["break", "main-worktree.lock", "--reason", "for a test"])
        .ok();
    let output = committing.finish_within(Duration::from_secs(15));
    assert_eq!(output.status.code(), Some(75), "{}", output.text());
    assert!(output.text().contains("for a test"), "{}", output.text());
}
