//! Repositories whose refs are in reftables: the same scopes, and patience for the lock of the one table.

use super::support::{Mount, Repository, Said};
use super::{hook, with_shim};

fn world() -> Mount {
    let repository = Repository::new();
    repository
        .sh("rm -r .git; git init -q -b main --ref-format=reftable; echo one >file; git add file; git commit -qm file")
        .ok();
    assert_eq!(repository.git(&["config", "extensions.refStorage"]).text(), "reftable");
    let mount = Mount::start(repository, &[], &[]);
    mount.lockfs(&["install"]).ok();
    mount.git(&["branch", "topic"]);
    mount
}

#[test]
fn the_scopes_are_those_of_other_repositories() {
    let (files, reftable) = (super::installed(), world());
    files.git(&["branch", "topic"]);
    for command in [
        "commit -m x",
        "switch topic",
        "switch -c new",
        "branch -d topic",
        "worktree add ../w",
        "tag v1",
        "gc",
    ] {
        let scope = format!("$LOCKFS scope -- {command}");
        assert_eq!(
            reftable.sh(&scope).ok().text(),
            files.sh(&scope).ok().text(),
            "{command}"
        );
    }
}

/// git gives up after 100 ms by itself.
#[test]
fn the_lock_of_the_table_is_waited_for() {
    let mount = world();
    // Somebody has it from before the commit needs it until half a second later.
    hook(
        &mount,
        "pre-commit",
        "#!/bin/sh\n: >.git/reftable/tables.list.lock\n(exec >/dev/null 2>&1 </dev/null; sleep 0.5; rm .git/reftable/tables.list.lock) &\n",
    );
    let plain = mount.sh("git -c reftable.lockTimeout=100 commit -q --allow-empty -m x; code=$?; wait; exit $code");
    assert_ne!(plain.code(), 0, "git alone loses");
    mount.sh("while [ -e .git/reftable/tables.list.lock ]; do :; done").ok();
    let said = mount.sh(&with_shim("git commit -q --allow-empty -m x")).ok();
    assert_eq!(said.error(), "", "it has not even been tried twice");
}

#[test]
fn worktrees_that_commit_at_once_lose_nothing() {
    let mount = world();
    let script = "for w in 1 2 3 4 5 6; do git worktree add -q -b b$w ../w$w || exit 1; done
        for w in 1 2 3 4 5 6; do
            (cd ../w$w; for n in 1 2 3 4; do git commit -q --allow-empty -m $n || echo lost; done) &
        done
        wait; git worktree remove ../w6; git branch -qD b6; git gc -q; git fsck --strict";
    let said = mount.sh(&with_shim(script)).ok();
    assert!(!said.text().contains("lost"), "{} {}", said.text(), said.error());
    for branch in ["b1", "b2", "b3", "b4", "b5"] {
        assert_eq!(
            mount.git(&["rev-list", "--count", &format!("main..{branch}")]).text(),
            "4",
            "{branch}"
        );
    }
}

/// Refused without a lock, and every command that makes a ref passes under those of the table.
#[test]
fn refs_are_guarded_too() {
    let mount = world();
    mount.sh("git config lockfs.enforce true; $LOCKFS hook install").ok();
    for command in [
        "git commit -q --allow-empty -m x",
        "git branch new",
        "git branch -D topic",
        "git tag v1",
    ] {
        let refused = mount.sh(command);
        assert_ne!(refused.code(), 0, "{command}");
        assert!(
            refused.error().contains("is not moved"),
            "{command}: {}",
            refused.error()
        );
    }
    let script = "set -e; git commit -q --allow-empty -m x; git branch new; git switch -qc more; git switch -q topic; git tag v1
        git worktree add -q -b linked ../linked; git worktree add -q ../named; git -C ../linked commit -q --allow-empty -m y
        git branch -m new newer; git branch -qD newer; git rebase -q main; git merge -q linked; git tag -d v1; git gc -q";
    mount.sh(&with_shim(script)).ok();
    assert_eq!(
        mount.git(&["for-each-ref", "--format=%(refname:short)"]).text(),
        "linked\nmain\nmore\nnamed\ntopic"
    );
}
