//! Hooks run as in any commit; the check afterwards tells what they added or took out.

use crate::support::{Mount, Said};
use crate::{files, nothing_left_behind, sh, status, world};

fn hook(mount: &Mount, name: &str, script: &str) {
    let path = mount.repo().join(".git/hooks").join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a hook");
    sh(mount, &format!("chmod +x .git/hooks/{name}"));
}

/// A hook sees what is going to be committed, and can refuse it.
#[test]
fn a_hook_that_refuses_leaves_everything_as_it_was() {
    let mount = world();
    hook(&mount, "pre-commit", "git diff --cached --name-only >$T/seen; exit 1");
    sh(&mount, "echo 2 >a; echo 2 >b; git add b");
    let before = status(&mount);
    assert_eq!(mount.sh("$LOCKFS commit -qm mine -- a").code(), 1);
    assert_eq!(sh(&mount, "cat $T/seen"), "a");
    assert_eq!(status(&mount), before);
    nothing_left_behind(&mount);
    sh(&mount, "$LOCKFS commit -nqm mine -- a");
    assert_eq!(files(&mount, "HEAD"), "M a");
}

/// A hook that formats and adds again: the index has what was committed.
#[test]
fn what_a_hook_adds_again_is_in_step() {
    let mount = world();
    hook(&mount, "pre-commit", "echo formatted >>a; git add a");
    let output = mount
        .sh("echo 2 >a; echo 2 >b; git add b; $LOCKFS commit -qm mine -- a")
        .ok();
    assert_eq!(output.error(), "", "the same file: nothing to warn of");
    assert_eq!(sh(&mount, "git show HEAD:a"), "2\nformatted");
    assert_eq!(status(&mount), ["M  b"]);
    nothing_left_behind(&mount);
}

/// After every commit a check compares the commit's files with the declared scope; a difference is a warning event
/// with commit, missing and foreign files, and never fails the commit.
#[test]
fn files_that_a_hook_adds_or_takes_out_are_told() {
    let mount = world();
    hook(
        &mount,
        "pre-commit",
        "echo generated >made; git add made; git restore --staged --source=HEAD b",
    );
    let output = mount.sh("echo 2 >a; echo 2 >b; $LOCKFS commit -qm mine -- a b").ok();
    let commit = sh(&mount, "git rev-parse HEAD");
    assert_eq!(
        output.error(),
        format!("git-lockfs: warning: git_commit_validation_warning: commit={commit} missing=b foreign=made")
    );
    let event = sh(
        &mount,
        "grep -o 'git_commit_validation_warning.*' $M/metrics/events.csv",
    );
    assert_eq!(
        event,
        format!("git_commit_validation_warning,,0.000,commit={commit} missing=1 foreign=1")
    );
    assert_eq!(files(&mount, "HEAD"), "M a A made");
    assert_eq!(status(&mount), [" M b"]);
    nothing_left_behind(&mount);
    let quiet = mount.sh("rm .git/hooks/pre-commit; $LOCKFS commit -qm rest -- b").ok();
    assert_eq!(quiet.error(), "");
}

/// A post-commit hook runs, and its failure is none of the commit.
#[test]
fn a_failing_post_commit_hook_changes_nothing() {
    let mount = world();
    hook(&mount, "post-commit", "git log -1 --format=%s >$T/seen; exit 3");
    mount.sh("echo 2 >a; $LOCKFS commit -qm mine -- a").ok();
    assert_eq!(sh(&mount, "cat $T/seen"), "mine");
    assert_eq!(status(&mount), [""; 0]);
    nothing_left_behind(&mount);
}

/// What it stages is for the next commit, as after any other.
#[test]
fn what_a_post_commit_hook_stages_stays_staged() {
    let mount = world();
    hook(&mount, "post-commit", "echo 2 >b; git add b");
    let output = mount.sh("echo 2 >a; $LOCKFS commit -qm mine -- a").ok();
    assert_eq!(output.error(), "");
    assert_eq!(files(&mount, "HEAD"), "M a");
    assert_eq!(status(&mount), ["M  b"]);
    nothing_left_behind(&mount);
}

/// A signal in the middle ends the commit in order.
#[test]
fn a_signal_during_a_hook_leaves_nothing_behind() {
    let mount = world();
    hook(&mount, "pre-commit", "echo in >$T/in; exec sleep 100");
    sh(&mount, "echo 2 >a");
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut running = mount.spawn_sh("exec $LOCKFS commit -qm mine -- a");
        crate::support::wait_until("the hook runs", || mount.dir().join("in").exists());
        // As Ctrl-C does: to all of the terminal's foreground.
        sh(&mount, &format!("rm $T/in; kill -{signal} -- -{}", running.id()));
        let output = running.finish_within(std::time::Duration::from_secs(10));
        assert!(!output.status.success());
        assert_eq!(sh(&mount, "git log -1 --format=%s"), "files");
        assert_eq!(status(&mount), [" M a"]);
        nothing_left_behind(&mount);
    }
}
