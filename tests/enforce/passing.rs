//! What passes: every way to hold a fitting lock, and what moves nothing that is shared.

use crate::support::Said;
use crate::{refused, sh, world};

const COMMIT: &str = "git commit -q --allow-empty -m x";

/// A fitting lock, however it is held.
#[test]
fn every_way_to_hold_a_fitting_lock_will_do() {
    let mount = world();
    let ways = [
        format!("$LOCKFS run -- {COMMIT}"),
        format!("$LOCKFS run -l ref-refs%2Fheads%2Fmain.lock -- {COMMIT}"),
        format!("$LOCKFS run -l global.lock -- {COMMIT}"),
        format!("$LOCKFS run -l global.lock -- $LOCKFS run -- {COMMIT}"),
        format!("$LOCKFS run -- $LOCKFS run -l x.lock -- {COMMIT}"),
        format!("exec 9>$L/main-worktree.lock; {COMMIT}"),
        format!("exec 9<>$F/main-worktree.lock; flock 9; {COMMIT}"),
        format!("flock $F/main-worktree.lock {COMMIT}"),
        format!("echo $$ >$L/main-worktree.lock; bash -c '{COMMIT}'; rm $L/main-worktree.lock"),
        format!("mkdir $L/main-worktree.lock; {COMMIT}; rmdir $L/main-worktree.lock"),
        format!("touch $L/main-worktree.lock; {COMMIT}; rm $L/main-worktree.lock"),
        "echo x >>a; $LOCKFS commit -qm x -- a".to_owned(),
        // bash, for an open in the middle of a script that is read from a pipe.
        format!("exec 9<>$M/acquire; echo 'locks=main-worktree.lock' >&9; read -r grant <&9; {COMMIT}"),
    ];
    for (number, way) in ways.iter().enumerate() {
        sh(&mount, way);
        let count = sh(&mount, "git rev-list --count main");
        assert_eq!(count, (number + 3).to_string(), "{way}");
    }
}

/// works from linked worktrees
#[test]
fn a_linked_worktree_has_its_own_lock() {
    let mount = world();
    sh(
        &mount,
        &format!("cd $T/linked; $LOCKFS run -- {COMMIT}; mkdir sub; cd sub; $LOCKFS run -- {COMMIT}"),
    );
    sh(
        &mount,
        &format!(
            "$LOCKFS run -l worktree-linked.lock -- git -C $T/linked {}",
            &COMMIT[4..]
        ),
    );
    assert_eq!(sh(&mount, "git rev-list --count linked"), "5");
    sh(
        &mount,
        "git --git-dir=.git rev-parse; $LOCKFS run -- git --git-dir=.git --work-tree=. commit -q --allow-empty -m x",
    );
}

/// What git does to a branch that is checked out, in one go or in several.
#[test]
fn sequences_under_the_lock_of_the_worktree_pass() {
    let mount = world();
    sh(
        &mount,
        "$LOCKFS run -- bash -ec '
        git switch -qc new; echo 2 >b; git commit -qam two; git commit -q --amend -m three; git reset -q --hard HEAD~1; git reset -q --hard ORIG_HEAD
        git switch -q main; git merge -q --no-edit new; git switch -q --detach; git switch -q main
        echo 3 >a; git commit -qam four; git revert --no-edit HEAD >/dev/null; git cherry-pick HEAD~1 >/dev/null
        git switch -qc other HEAD~1; echo o >o; git add o; git commit -qm o; git rebase -q main 2>&1; git tag v1; git switch -q main'",
    );
    sh(
        &mount,
        "$LOCKFS run -l ref-refs%2Fheads%2Fother.lock -- git branch -m other renamed",
    );
    sh(
        &mount,
        "$LOCKFS run -l ref-refs%2Fheads%2Frenamed.lock -- git branch -qD renamed",
    );
    sh(
        &mount,
        "$LOCKFS run -l registry.lock -- git worktree add -q -b fresh $T/fresh; git fsck --strict 2>&1",
    );
}

/// refs/remotes/* is skipped, and so is all that belongs to one worktree
#[test]
fn fetches_and_what_is_nobody_elses_need_no_lock() {
    let mount = world();
    sh(
        &mount,
        "git clone -q --bare . $T/up.git; git -C $T/up.git update-ref refs/heads/more main; git remote add up $T/up.git; git fetch -q up",
    );
    sh(
        &mount,
        "git rev-parse -q --verify up/more; git checkout -q --detach; git commit -q --allow-empty -m loose; git bisect start -q",
    );
    sh(
        &mount,
        "echo dirty >a; git stash -q; git stash pop -q; git notes add -m note",
    );
}

/// Packing moves nothing: gc may run at any time.
#[test]
fn packing_needs_no_lock_and_removing_does() {
    let mount = world();
    let before = crate::refs(&mount);
    sh(&mount, "git pack-refs --all; git gc -q; git pack-refs --all");
    assert_eq!(crate::refs(&mount), before);
    assert_eq!(sh(&mount, "ls .git/refs/heads"), "", "all of them are packed");
    refused(&mount, "git branch -D topic", &["refs/heads/topic is not moved"]);
    refused(
        &mount,
        "git update-ref -d refs/heads/topic $(git rev-parse topic)",
        &["refs/heads/topic"],
    );
    // Packed and loose with one value, as after an update back: removing it is still removing it.
    sh(
        &mount,
        "value=$(git rev-parse topic); echo $value >.git/refs/heads/topic",
    );
    refused(
        &mount,
        "git update-ref -d refs/heads/topic $(git rev-parse topic)",
        &["refs/heads/topic"],
    );
    sh(
        &mount,
        "$LOCKFS run -l ref-refs%2Fheads%2Ftopic.lock -- git branch -qD topic",
    );
    assert_eq!(mount.sh("git rev-parse -q --verify topic").code(), 1);
}

/// What `git lockfs git` takes for a command is what the hook asks for, with either table.
#[test]
fn what_runs_through_the_coordinated_git_passes() {
    let mount = world();
    for table in ["measured", "coarse"] {
        sh(
            &mount,
            &format!(
                r#"git config lockfs.scopes {table}; g() {{ "$LOCKFS" git -- "$@"; }}
        g commit -q --allow-empty -m x; g -C $T/linked commit -q --allow-empty -m x
        g tag v-{table}; g tag -d v-{table} >/dev/null; g branch new; g branch -m new newer; g branch -f newer HEAD~1; g branch -qD newer
        g switch -qc side; echo {table} >side; g add side; g commit -qm side; g switch -q main; g merge -q --no-ff -m merge side
        g commit -q --allow-empty -m on; g switch -q side; g rebase -q main 2>&1; g switch -q main; g branch -qD side
        g worktree add -q -b fresh $T/fresh; g worktree remove $T/fresh; g branch -qD fresh
        git clone -q --bare . $T/{table}.git; git -C $T/{table}.git tag tagged; g remote add {table} $T/{table}.git; "$LOCKFS" fetch -q {table}
        git rev-parse -q --verify tagged >/dev/null; g tag -d tagged >/dev/null
        echo dirty >a; g stash -q; g stash pop -q; g reset -q --hard; g gc -q; g fsck --strict 2>&1"#
            ),
        );
    }
}
