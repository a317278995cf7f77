//! Scopes: `global.lock` and what lies under it.

use crate::support::sys::Errno;
use crate::support::{Mount, Said, wait_until};
use crate::{EXCL, HANDLE, TAKE, TRY, acquire, entry, holder, waiter};

const CHILDREN: [&str; 9] = [
    "main-worktree.lock",
    "worktree-a.lock",
    "worktree-b.lock",
    "ref-refs%2Fheads%2Fmain.lock",
    "registry.lock",
    "config.lock",
    "maintenance.lock",
    "stash.lock",
    "shallow.lock",
];

/// worktrees run side by side
#[test]
fn children_of_a_scope_go_side_by_side() {
    let mount = Mount::new();
    let holders: Vec<_> = CHILDREN.iter().map(|name| holder(&mount, name)).collect();
    assert!(mount.taken("global.lock"), "its scope forbids it now, so it exists");
    let mut other = mount.client();
    assert_eq!(other.open(mount.lock("global.lock"), TRY), Err(Errno::EAGAIN));
    drop(holders);
    wait_until("the scope is free again", || {
        other.open(mount.lock("global.lock"), TRY).is_ok()
    });
}

/// a holder of `global.lock` is alone
#[test]
fn a_holder_of_the_parent_is_alone() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "global.lock");
    let mut other = mount.client();
    for name in CHILDREN {
        assert_eq!(other.open(mount.lock(name), TRY), Err(Errno::EAGAIN), "{name}");
        assert_eq!(other.open(mount.lock(name), EXCL), Err(Errno::EEXIST), "{name}");
        assert_eq!(other.mkdir(mount.lock(name)), Err(Errno::EEXIST), "{name}");
        let handle = other.open(mount.lock(name), HANDLE).expect("a handle takes no lock");
        assert_eq!(
            other.flock(handle, libc::LOCK_SH | libc::LOCK_NB),
            Err(Errno::EAGAIN),
            "{name}"
        );
        other.close(handle);
    }
    let mut waiting = mount.client();
    waiting.begin_open(mount.lock("worktree-a.lock"), TAKE);
    mount.wait_for_waiters("worktree-a.lock", 1);
    holding.close(fd);
    assert!(waiting.finish().is_ok());
}

/// taking a child counts as shared on the parent
#[test]
fn a_child_goes_with_a_shared_parent() {
    let mount = Mount::new();
    let mut sharing = mount.client();
    let fd = sharing.open(mount.lock("global.lock"), HANDLE).unwrap();
    assert_eq!(sharing.flock(fd, libc::LOCK_SH), Ok(0));
    let (_child, _) = holder(&mount, "worktree-a.lock");
}

/// Other names stand alone.
#[test]
fn other_names_stand_alone() {
    let mount = Mount::new();
    let (_global, _) = holder(&mount, "global.lock");
    for name in ["x.lock", "worktree.lock", "issue-71.lock", "global", "ref.lock"] {
        let (_other, _) = holder(&mount, name);
    }
}

/// all locks are taken together or none, in an order that cannot deadlock
#[test]
fn one_request_may_take_a_scope_and_what_lies_in_it() {
    let mount = Mount::new();
    let mut client = mount.client();
    acquire(&mut client, &mount, "locks=worktree-a.lock,global.lock wait=0\n")
        .expect("it does not stand in its own way");
}

/// A git ref is written whole with `/` as `%2F` and `%` as `%25`, upper case, no other escapes, so that no two spellings
/// name one ref.
#[test]
fn a_ref_has_one_spelling() {
    let mount = Mount::new();
    let mut client = mount.client();
    for good in ["ref-main.lock", "ref-a%2Fb.lock", "ref-50%25.lock", "ref-%252F.lock"] {
        assert!(client.open(mount.lock(good), TRY).is_ok(), "{good}");
    }
    for bad in [
        "ref-a%2fb.lock",
        "ref-a%41.lock",
        "ref-a%.lock",
        "ref-%",
        "ref-a%2.lock",
        "ref-%25%2G",
    ] {
        assert_eq!(client.open(mount.lock(bad), TRY), Err(Errno::EINVAL), "{bad}");
        assert_eq!(client.mkdir(mount.lock(bad)), Err(Errno::EINVAL), "{bad}");
    }
    assert!(
        client.open(mount.lock("100%.lock"), TRY).is_ok(),
        "other names may have a per cent sign"
    );
}

/// The parents are configurable.
#[test]
fn parents_are_configurable() {
    let mount = Mount::with(&[("parents", "issue-*.lock=project.lock project.lock=world.lock")]);
    let (mut issue, fd) = holder(&mount, "issue-7.lock");
    let mut other = mount.client();
    assert_eq!(other.open(mount.lock("project.lock"), TRY), Err(Errno::EAGAIN));
    assert_eq!(
        other.open(mount.lock("world.lock"), TRY),
        Err(Errno::EAGAIN),
        "scopes nest"
    );
    assert!(other.open(mount.lock("issue-8.lock"), TRY).is_ok());
    let (_global, _) = holder(&mount, "global.lock");
    assert!(
        other.open(mount.lock("worktree-a.lock"), TRY).is_ok(),
        "git's own scopes are configured away"
    );
    issue.close(fd);
}

/// `default` stands for git's
#[test]
fn configured_parents_can_join_the_default_ones() {
    let mount = Mount::with(&[("parents", "default issue-*.lock=project.lock")]);
    let (_child, _) = holder(&mount, "issue-7.lock");
    let (_worktree, _) = holder(&mount, "worktree-a.lock");
    let mut other = mount.client();
    assert_eq!(other.open(mount.lock("project.lock"), TRY), Err(Errno::EAGAIN));
    assert_eq!(other.open(mount.lock("global.lock"), TRY), Err(Errno::EAGAIN));
}

/// A request by a descendant of a holder, under the same parent scope, goes ahead of the waiters for that parent: its
/// ancestor waits for it.
#[test]
fn a_descendant_of_a_holder_goes_ahead_of_waiters_for_the_parent() {
    let mount = Mount::with(&[("aging", "1h")]);
    let script = "exec 9> $L/worktree-a.lock; echo holds; read -r _ < $T/go; \
        bash -c 'exec 9>&-; : 8> $L/worktree-b.lock && echo served; true'; read -r _ < $T/end";
    mount.sh("mkfifo $T/go $T/end").ok();
    let holding = mount.spawn_sh(script);
    holding.wait_for_line("holds");
    let mut for_parent = waiter(&mount, "global.lock", 1);
    let mut stranger = mount.client();
    stranger.begin_open(mount.lock("worktree-c.lock"), TAKE);
    let waits = |name: &str| entry(&mount, name)["waiters"][0]["pid"].is_u64();
    wait_until("the stranger waits behind it", || waits("worktree-c.lock"));

    mount.sh("echo > $T/go").ok();
    holding.wait_for_line("served");
    assert!(!stranger.answered(), "only descendants go ahead");
    mount.sh("echo > $T/end").ok();
    let fd = for_parent.finish().expect("then it is its turn");
    assert!(!stranger.answered());
    for_parent.close(fd as i32);
    assert!(stranger.finish().is_ok());
}
