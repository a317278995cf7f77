//! git itself is undisturbed, and so is everything that walks over `.git`.

use crate::support::client::Op;
use crate::support::{Client, Mount, Said};
use crate::{TAKE, holder};

/// A mount with every kind of entry in it, and those who hold and wait.
fn busy() -> (Mount, [Client; 2]) {
    let mount = Mount::new();
    let (mut holding, _) = holder(&mount, "x.lock");
    holding.mkdir(mount.lock("dir.lock")).unwrap();
    let link = Op::Symlink {
        target: holding.pid().to_string(),
        path: mount.lock("link.lock"),
    };
    holding.call(link).unwrap();
    let mut waiting = mount.client();
    waiting.begin_open(mount.lock("x.lock"), TAKE);
    mount.wait_for_waiters("x.lock", 1);
    (mount, [holding, waiting])
}

/// Who holds and who waits, without what grows by itself.
fn state(mount: &Mount) -> Vec<(String, usize, usize)> {
    let table = mount.locks_json();
    let locks = table["locks"].as_array().expect("locks").iter();
    let count = |lock: &serde_json::Value, role: &str| lock[role].as_array().map_or(0, Vec::len);
    locks
        .map(|lock| (lock["name"].to_string(), count(lock, "holders"), count(lock, "waiters")))
        .collect()
}

/// git itself is undisturbed: status, gc, fsck, worktree add/remove/prune, clone of that repository
#[test]
fn git_does_not_feel_the_mount() {
    let (mount, _clients) = busy();
    let before = state(&mount);
    let script = r#"set -e
test -z "$(git status --porcelain --ignored)"
echo content > file && git add -A && git commit -qm second
git gc -q --prune=now && git repack -qad && git pack-refs --all && git maintenance run --quiet
git fsck --full --strict 2>&1
git worktree add -q $T/linked && git -C $T/linked status --porcelain && git -C $T/linked commit -q --allow-empty -m there
git worktree list >/dev/null && git worktree remove $T/linked && git worktree prune && git branch -q -D linked
git clone -q . $T/clone && git -C $T/clone fsck --full 2>&1 && test ! -e $T/clone/.git/.git-locks
git clone -q --no-local . $T/remote && git clone -q --mirror . $T/mirror && test ! -e $T/mirror/.git-locks
git stash list && git branch topic && git checkout -q topic && git merge -q main && git reflog expire --all
git clean -ndx && git count-objects -v >/dev/null && git for-each-ref >/dev/null
test -z "$(git status --porcelain --ignored)"
echo fine"#;
    let output = mount.sh(script);
    assert_eq!(
        output.text().lines().last(),
        Some("fine"),
        "{}\n{}",
        output.text(),
        output.error()
    );
    assert_eq!(state(&mount), before);
}

/// tar, cp -r and grep -r over `.git` neither hang nor take a lock
#[test]
fn walkers_neither_hang_nor_take_a_lock() {
    let (mount, _clients) = busy();
    let before = state(&mount);
    for walk in [
        "tar cf - .git | wc -c",
        "tar czf $T/all.tgz --ignore-failed-read .git",
        "cp -r .git $T/copy",
        "cp -a .git $T/archive",
        "grep -r nothing-of-this-kind .git",
        "grep -rI nothing-of-this-kind $F $L",
        "find .git -type f -exec cat {} +",
        "find .git -type f -print0 | xargs -0 wc -c",
        "find .git -ls",
        "du -ab .git",
        "ls -laR .git",
        "stat $L/* $F/* $M/*",
        "wc -c $L/* $M/*",
        "file $L/* $M/* || head -c1 $L/* $M/*",
        "diff -r $L $F",
        "test -e $L/x.lock && test -r $L/x.lock && test ! -e $L/free.lock",
    ] {
        // Some complain of what they cannot read; none may wait or change anything. The harness bounds each.
        mount.sh(&format!("({walk}) >/dev/null 2>&1; true")).ok();
        assert_eq!(state(&mount), before, "{walk}");
    }
}

/// their sizes are true
#[test]
fn sizes_are_true() {
    let (mount, _clients) = busy();
    let script = r#"for file in $M/README $M/acquire $M/metrics/locks.json $L/x.lock; do
    size=$(stat -c %s $file); read=$(cat $file | wc -c)
    # A figure within may have grown by a digit in between.
    test $((size - read)) -ge -16 -a $((size - read)) -le 16 || echo "$file: $size is said, $read are read"
done; cp $M/README $T/readme && cmp $M/README $T/readme && echo same"#;
    assert_eq!(mount.sh(script).ok().text(), "same");
}
