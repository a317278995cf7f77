//! The worktree's index after a commit: the trap of private indexes is that it keeps the old content, so that the next
//! plain commit silently takes the work back.

use crate::support::Said;
use crate::{files, holder_of, nothing_left_behind, sh, status, world};

/// the next plain commit reverts the work; a test proves that it does not
#[test]
fn the_next_plain_commit_does_not_revert_the_work() {
    let mount = world();
    sh(
        &mount,
        "echo 2 >a; echo n >new; rm sub/c; $LOCKFS commit -qm mine -- a new sub/c",
    );
    sh(&mount, "echo 2 >b; git add b; git commit -qm plain");
    assert_eq!(files(&mount, "HEAD"), "M b");
    sh(&mount, "echo 3 >b; git commit -qam all");
    assert_eq!(files(&mount, "HEAD"), "M b");
    assert_eq!(
        sh(&mount, "git show HEAD:a HEAD:new; git ls-tree --name-only HEAD sub"),
        "2\nn"
    );
    assert_eq!(status(&mount), [""; 0]);
}

/// The trap is real: what this guards against happens without it.
#[test]
fn a_private_index_alone_would_revert_it() {
    let mount = world();
    sh(
        &mount,
        "echo 2 >a; export GIT_INDEX_FILE=$T/private; git read-tree HEAD; git add a; git commit -qm mine; unset GIT_INDEX_FILE
        echo 2 >b; git add b; git commit -qm plain",
    );
    assert_eq!(files(&mount, "HEAD"), "M a M b", "the plain commit has taken a back");
    assert_eq!(sh(&mount, "git show HEAD:a"), "1");
}

/// A ref that was moved under the checkout: what landed on it is not reverted either.
#[test]
fn what_landed_on_the_branch_meanwhile_is_not_reverted() {
    let mount = world();
    sh(
        &mount,
        "git worktree add -q $T/other; cd $T/other; echo landed >b; git commit -qam landed; git update-ref refs/heads/main other",
    );
    assert_eq!(status(&mount), ["M  b"], "the checkout shows it as taken back");
    sh(&mount, "echo 2 >a; $LOCKFS commit -qm mine -- a");
    assert_eq!(files(&mount, "HEAD"), "M a");
    assert_eq!(sh(&mount, "git show HEAD:b"), "landed");
}

/// Others commit while it waits: their work stays, and ours comes on top.
#[test]
fn what_others_commit_during_the_wait_stays() {
    let mount = world();
    let (holding, _) = holder_of(&mount, "main-worktree.lock");
    sh(&mount, "echo mine >a; echo mine >same");
    let waiting = mount.spawn_sh("$LOCKFS commit -qm mine -- a same && echo done");
    mount.wait_for_waiters("main-worktree.lock", 1);
    sh(&mount, "echo theirs >b; git add b same; git commit -qm theirs");
    holding.kill();
    waiting.wait_for_line("done");
    assert_eq!(
        files(&mount, "HEAD"),
        "M a",
        "the file that both have is committed already"
    );
    assert_eq!(files(&mount, "HEAD~1"), "M b A same");
    assert_eq!(status(&mount), [""; 0]);
    nothing_left_behind(&mount);
}

/// Two who change one file: the later content, written on top of the earlier, follows it.
#[test]
fn a_file_that_two_have_changed_is_committed_in_order() {
    let mount = world();
    let (holding, _) = holder_of(&mount, "main-worktree.lock");
    sh(&mount, "echo first >>a");
    let first = mount.spawn_sh("$LOCKFS commit -qm first -- a && echo done");
    mount.wait_for_waiters("main-worktree.lock", 1);
    sh(&mount, "echo second >>a");
    let second = mount.spawn_sh("$LOCKFS commit -qm second -- a && echo done");
    mount.wait_for_waiters("main-worktree.lock", 2);
    holding.kill();
    first.wait_for_line("done");
    second.wait_for_line("done");
    assert_eq!(
        sh(&mount, "git log -2 --format=%s; git show HEAD~1:a"),
        "second\nfirst\n1\nfirst"
    );
    assert_eq!(sh(&mount, "git show HEAD:a"), "1\nfirst\nsecond");
    assert_eq!(status(&mount), [""; 0]);
    nothing_left_behind(&mount);
}

/// What would take back what others have committed since is refused.
#[test]
fn a_content_older_than_the_commit_of_others_is_refused() {
    let mount = world();
    let (holding, _) = holder_of(&mount, "main-worktree.lock");
    sh(&mount, "echo older >a");
    let mut waiting = mount.spawn_sh("$LOCKFS commit -qm older -- a");
    mount.wait_for_waiters("main-worktree.lock", 1);
    sh(&mount, "echo newer >a; git commit -qm newer a");
    holding.kill();
    let output = waiting.finish_within(std::time::Duration::from_secs(10));
    assert_eq!(output.code(), 1);
    assert!(output.error().contains("others have committed a"), "{}", output.error());
    assert_eq!(sh(&mount, "git log -1 --format=%s; git show HEAD:a"), "newer\nnewer");
    assert_eq!(status(&mount), [""; 0]);
    nothing_left_behind(&mount);
}

/// A ref moved under the checkout, and the same file changed here: refused, since the file knows nothing of it.
#[test]
fn a_file_that_does_not_know_what_landed_is_refused() {
    let mount = world();
    let (holding, _) = holder_of(&mount, "main-worktree.lock");
    sh(&mount, "echo mine >b");
    let mut waiting = mount.spawn_sh("$LOCKFS commit -qm mine -- b");
    mount.wait_for_waiters("main-worktree.lock", 1);
    sh(
        &mount,
        "git worktree add -q $T/other; cd $T/other; echo landed >b; git commit -qam landed; git update-ref refs/heads/main other",
    );
    holding.kill();
    assert_eq!(waiting.finish_within(std::time::Duration::from_secs(10)).code(), 1);
    assert_eq!(sh(&mount, "git show HEAD:b; cat b"), "landed\nmine");
    nothing_left_behind(&mount);
}

/// git's own lock: a git that does not know of us is waited for, not walked over.
#[test]
fn a_git_that_holds_the_index_is_waited_for() {
    let mount = world();
    sh(&mount, "echo 2 >a; touch .git/index.lock");
    let waiting = mount.spawn_sh("$LOCKFS commit -qm mine -- a && echo done");
    crate::support::wait_until("it has the worktree's lock", || mount.taken("main-worktree.lock"));
    assert_eq!(sh(&mount, "git log -1 --format=%s"), "files");
    sh(&mount, "rm .git/index.lock");
    waiting.wait_for_line("done");
    assert_eq!(files(&mount, "HEAD"), "M a");
    nothing_left_behind(&mount);
}
