//! When nobody can say who holds what, and when nothing is to be enforced.

use crate::support::{Repository, Said, sys};
use crate::{refused, repository, sh, world};

const COMMIT: &str = "git commit -q --allow-empty -m x";

/// lockfs.onUnavailable = allow, warn or deny decides when no daemon answers
#[test]
fn the_setting_decides_when_no_daemon_answers() {
    let repository = repository();
    let said = repository.sh(COMMIT).ok().error();
    assert!(
        said.contains("warning: refs are moved without a lock"),
        "warn is the default: {said}"
    );
    sh(&repository, "git config lockfs.onUnavailable allow");
    assert_eq!(repository.sh(COMMIT).ok().error(), "");
    sh(&repository, "git config lockfs.onUnavailable deny");
    refused(
        &repository,
        COMMIT,
        &["lockfs.onUnavailable is deny", "git lockfs mount"],
    );
    let said = repository
        .sh(&format!("GIT_LOCKFS_ON_UNAVAILABLE=allow {COMMIT}"))
        .ok()
        .error();
    assert_eq!(said, "", "the environment goes first");
    sh(&repository, "git config lockfs.onUnavailable whatever");
    refused(&repository, COMMIT, &["lockfs.onunavailable"]);
}

/// A daemon that died is one that does not answer.
#[test]
fn a_dead_daemon_is_unavailable() {
    let mount = world();
    mount.kill_daemon();
    let said = mount.sh(COMMIT).ok().error();
    assert!(said.contains("is gone"), "{said}");
    sh(&mount, "git config lockfs.onUnavailable deny");
    refused(&mount, COMMIT, &["deny"]);
}

/// A daemon that hangs must not hang git.
#[test]
fn a_daemon_that_does_not_answer_is_waited_for_a_bounded_time() {
    let mount = world();
    // The supervisor first: it would replace a worker that hangs.
    let daemon = [mount.supervisor_pid(), mount.worker_pid()];
    for pid in daemon {
        sys::kill(pid, libc::SIGSTOP).expect("ours to stop");
    }
    let said = mount.sh(COMMIT).ok().error();
    for pid in daemon {
        sys::kill(pid, libc::SIGCONT).expect("ours to continue");
    }
    assert!(said.contains("does not answer"), "{said}");
}

/// With lockfs.enforce=true
#[test]
fn without_the_setting_nothing_is_refused() {
    let mount = world();
    sh(&mount, "git config lockfs.enforce false");
    assert_eq!(mount.sh(COMMIT).ok().error(), "");
    sh(&mount, "git config --unset lockfs.enforce");
    assert_eq!(mount.sh(COMMIT).ok().error(), "");
    let said = mount.sh(&format!("GIT_LOCKFS_ENFORCE=true {COMMIT}"));
    assert!(!said.status.success());
}

/// is proven to fire by doctor
#[test]
fn doctor_sees_it_fire_in_every_worktree() {
    let mount = world();
    let line = |mount: &Repository| {
        let said = mount.lockfs(&["doctor"]).text();
        let line = said
            .lines()
            .find(|line| line.contains("enforcement"))
            .map(str::to_owned);
        line.unwrap_or_default()
    };
    assert_eq!(line(&mount), "ok    enforcement: the hook fires, seen in 2 worktrees");
    assert_eq!(mount.sh("git for-each-ref refs/lockfs-probe").text(), "");
    sh(&mount, "mkdir $T/elsewhere; git config core.hooksPath $T/elsewhere");
    let said = line(&mount);
    assert!(
        said.starts_with("fail  enforcement") && said.contains("hook install"),
        "{said}"
    );
    sh(&mount, "$LOCKFS hook install");
    assert!(line(&mount).starts_with("ok"));
    sh(&mount, "$LOCKFS hook uninstall; git config --unset core.hooksPath");
    assert!(line(&mount).starts_with("fail"));
    assert_eq!(
        mount.sh("git for-each-ref refs/lockfs-probe").text(),
        "",
        "the probe is taken away"
    );
    sh(&mount, "git config lockfs.enforce false");
    assert_eq!(line(&mount), "");
}
