//! What is refused: no fitting lock, or one that is over. No ref is ever left half-updated.

use std::time::Duration;

use crate::support::{Said, wait_until};
use crate::{holder_of, refs, refused, sh, world};

/// refuses a ref update whose process holds no fitting lock
#[test]
fn without_a_lock_no_branch_and_no_tag_is_moved() {
    let mount = world();
    let words = ["is not moved", "holds no fitting lock", "git lockfs run"];
    for script in [
        "git commit -q --allow-empty -m x",
        "git commit -q --allow-empty --no-verify -m x",
        "git -C $T/linked commit -q --allow-empty -m x",
        "git update-ref refs/heads/main $(git commit-tree -m x HEAD^{tree})",
        "git branch -f topic $(git commit-tree -m x HEAD^{tree})",
        "git branch -D topic",
        "git branch -m topic other",
        "git branch new",
        "git switch -c new",
        "git tag v1",
        "git reset -q --hard HEAD~1",
        "git worktree add -b new $T/new",
    ] {
        refused(&mount, script, &words);
    }
    sh(&mount, "git fsck --strict && git status");
}

/// names the holder in its refusal
#[test]
fn the_holder_is_named() {
    let mount = world();
    let (holding, _) = holder_of(&mount, "main-worktree.lock");
    let pid = format!("held by {}", holding.pid());
    refused(
        &mount,
        "git commit -q --allow-empty -m x",
        &["main-worktree.lock is", &pid],
    );
}

#[test]
fn a_lock_that_does_not_fit_is_none() {
    let mount = world();
    for lock in [
        "-l worktree-linked.lock",
        "-l x.lock",
        "-l ref-refs%2Fheads%2Ftopic.lock",
        "-s -l main-worktree.lock",
        "-s -l global.lock",
    ] {
        let script = format!("$LOCKFS run {lock} -- git commit -q --allow-empty -m x");
        refused(&mount, &script, &["holds no fitting lock"]);
    }
    refused(
        &mount,
        "$LOCKFS run -- git update-ref refs/heads/topic $(git commit-tree -m x HEAD^{tree})",
        &[],
    );
    refused(
        &mount,
        "exec 9>$L/main-worktree.lock; exec 8<>$F/x.lock; exec 9>&-; git commit -q --allow-empty -m x",
        &["holds no fitting lock"],
    );
}

/// or only one with an outdated fencing token: so a holder whose lock was broken cannot move a branch any more
#[test]
fn a_holder_whose_lock_was_broken_cannot_move_a_branch() {
    let mount = world();
    // It goes on when it is told to end: what it does then must be harmless.
    let script = "trap \"\" TERM; : >$T/in; until test -e $T/go; do :; done
        if git commit -q --allow-empty -m late; then echo moved; else echo refused; fi";
    let mut running = mount.spawn_sh(&format!("exec $LOCKFS run -- bash -c '{script}'"));
    wait_until("it holds the lock", || mount.dir().join("in").exists());
    let before = refs(&mount);
    sh(
        &mount,
        "$LOCKFS break main-worktree.lock --reason 'for a test'; touch $T/go",
    );
    let output = running.finish_within(Duration::from_secs(15));
    assert_eq!(output.text(), "refused", "{}", output.error());
    assert!(output.error().contains("which is outdated"), "{}", output.error());
    assert_eq!(refs(&mount), before);
}

/// A successor's grant is no proof for the predecessor.
#[test]
fn a_token_of_an_earlier_grant_proves_nothing() {
    let mount = world();
    let held = sh(&mount, "$LOCKFS run -- bash -c 'echo $GIT_LOCKFS_HELD'");
    let (_holding, _) = holder_of(&mount, "main-worktree.lock");
    let script = format!("GIT_LOCKFS_HELD='{held}' git commit -q --allow-empty -m x");
    refused(&mount, &script, &["outdated", "main-worktree.lock is held by"]);
}

/// It never leaves a ref half-updated
#[test]
fn of_a_transaction_all_refs_move_or_none() {
    let mount = world();
    let script = |extra: &str| {
        format!(
            "new=$(git commit-tree -m x HEAD^{{tree}}); $LOCKFS run -l ref-refs%2Fheads%2Ftopic.lock {extra} -- \
             git update-ref --stdin <<EOF\nupdate refs/heads/topic $new\nupdate refs/heads/main $new\nEOF"
        )
    };
    refused(&mount, &script(""), &["refs/heads/main is not moved"]);
    sh(&mount, &script("-l ref-refs%2Fheads%2Fmain.lock"));
    assert_eq!(
        sh(&mount, "git log -1 --format=%s topic; git log -1 --format=%s main"),
        "x\nx"
    );
    let left = sh(&mount, "find .git/refs -name '*.lock'");
    assert_eq!(left, "", "no lock of git's stays behind");
}

/// A push that arrives in the repository is one of those who move refs.
#[test]
fn a_push_without_a_lock_is_refused() {
    let mount = world();
    sh(
        &mount,
        "git clone -q . $T/clone; cd $T/clone; git commit -q --allow-empty -m pushed",
    );
    refused(
        &mount,
        "cd $T/clone; git push -q origin HEAD:topic",
        &["refs/heads/topic is not moved"],
    );
    sh(
        &mount,
        "cd $R; $LOCKFS run -l ref-refs%2Fheads%2Ftopic.lock -- git -C $T/clone push -q origin HEAD:topic",
    );
    assert_eq!(sh(&mount, "git log -1 --format=%s topic"), "pushed");
}
