//! Many at once: what fails without locks succeeds with them.

use std::time::Duration;

use super::support::{Mount, Said};
use super::{installed, with_shim};

/// How long a crowd may take on a busy machine.
const CROWD_MAX: Duration = Duration::from_secs(60);

fn crowd(mount: &Mount, script: &str) -> std::process::Output {
    mount.run_within(mount.script("bash", &with_shim(script)), CROWD_MAX)
}

/// A script that runs `body` as many times at once, with `$i`, and fails when one of them fails.
fn at_once(count: usize, body: &str) -> String {
    format!(
        "pids=; for i in $(seq {count}); do ( {body} ) & pids=\"$pids $!\"; done; \
         for pid in $pids; do wait $pid || exit 1; done"
    )
}

/// 8 writers in ONE worktree, each of its own file
#[test]
fn writers_in_one_worktree_all_commit() {
    let mount = installed();
    let body =
        "for n in 1 2 3; do echo $n > f$i && git add f$i && git commit -q --only f$i -m \"$i $n\" || exit 1; done";
    crowd(&mount, &at_once(6, body)).ok();
    let commits = mount.git(&["log", "--format=%s", "--name-only", "-18"]).text();
    for pair in commits.split("\n\n").flat_map(|block| {
        block
            .split('\n')
            .collect::<Vec<_>>()
            .chunks(2)
            .map(<[&str]>::to_vec)
            .collect::<Vec<_>>()
    }) {
        if let [subject, file] = pair.as_slice()
            && let Some(writer) = file.strip_prefix('f')
            && subject.contains(' ')
        {
            assert!(subject.starts_with(writer), "only its own file: {commits}");
        }
    }
    assert_eq!(mount.git(&["rev-list", "--count", "HEAD"]).text(), "20");
    assert_eq!(mount.git(&["status", "--porcelain"]).text(), "");
}

/// parallel `git worktree add` (also from `origin/main`) + remove, beside running fetches, with no orphan branch left
#[test]
fn worktrees_are_added_and_removed_beside_fetches() {
    let mount = installed();
    mount
        .sh("git clone -q --bare . ../upstream && git remote add origin ../upstream && git fetch -q")
        .ok();
    let body = "start=main; [ $((i % 2)) = 0 ] && start=origin/main; \
                git worktree add -q -b b$i ../w$i $start && git fetch -q && git worktree remove ../w$i && git branch -q -D b$i";
    crowd(&mount, &at_once(8, body)).ok();
    assert_eq!(mount.git(&["branch", "--format=%(refname:short)"]).text(), "main");
    assert_eq!(
        mount
            .git(&["worktree", "list", "--porcelain"])
            .text()
            .matches("worktree ")
            .count(),
        1
    );
    mount.git(&["fsck", "--no-dangling"]);
}

/// Background status checks never break an `add`.
#[test]
fn status_checks_never_break_an_add() {
    let mount = installed();
    let script = "for p in 1 2 3; do while [ ! -e $T/stop ]; do git status -s > /dev/null; done & done
                  for n in $(seq 25); do echo $n > file; touch file; git add file || touch $T/failed; done
                  touch $T/stop; wait; [ ! -e $T/failed ]";
    let output = crowd(&mount, script).ok();
    assert!(!output.error().contains("trying again"), "{}", output.error());
}

/// One branch is checked out in one worktree, however many ask at once.
#[test]
fn a_branch_is_claimed_by_one_worktree() {
    let mount = installed();
    mount
        .sh("git branch x; for i in 1 2 3 4; do git worktree add -q --detach ../w$i; done")
        .ok();
    let body = "git -C ../w$i switch -q x 2> /dev/null && echo w$i >> $T/winners; true";
    crowd(&mount, &at_once(4, body)).ok();
    let winners = super::written(&mount, "winners");
    assert_eq!(winners.lines().count(), 1, "{winners}");
}
