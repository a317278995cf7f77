//! Holders keep their locks, in every dialect.

use libc::{F_GETLK, F_OFD_SETLK, F_RDLCK, F_SETLK, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, O_RDWR};

use crate::support::sys::Errno;
use crate::support::{Op, Said, dialect, wait_until};
use crate::{Crashing, EXCL, HANDLE, TAKE, TRY, assert_same};

/// Whoever held keeps it, others are refused as before, the release counts, and tokens grow.
#[test]
fn every_dialect_holds_and_releases_over_a_crash() {
    for &dialect in dialect::ALL {
        let mount = Crashing::new();
        let (mut holder, mut other) = (mount.client(), mount.client());
        let id = holder
            .take_now(dialect, "x.lock")
            .unwrap_or_else(|errno| panic!("{dialect:?}: {errno}"));
        let token = mount.token("x.lock");
        mount.kill_worker();
        assert_eq!(mount.token("x.lock"), token, "{dialect:?}: it is the same grant");
        for &rival in dialect::ALL {
            if !(dialect.is_shared() && rival.is_shared()) {
                let refused = other.take_now(rival, "x.lock");
                assert_eq!(refused, Err(rival.refusal()), "{rival:?} while {dialect:?}");
            }
        }
        mount.kill_worker();
        holder.release(id);
        mount.wait_until_free("x.lock");
        other
            .take_now(dialect, "x.lock")
            .unwrap_or_else(|errno| panic!("{dialect:?}: {errno}"));
        assert!(mount.token("x.lock") > token, "{dialect:?}");
    }
}

/// Text, mode, way of holding, token, time, waiters, operation, xattrs, inode numbers: nothing that can be read changes.
#[test]
fn everything_reads_as_it_did() {
    let mount = Crashing::with(&[("wait", "1h")]);
    let mut all: Vec<_> = (0..8).map(|_| mount.client()).collect();
    let locks = mount.locks();
    let script = "mkdir $L/dir.lock; echo 1 > $L/dir.lock/a; echo 22 > $L/dir.lock/b; ln -s 0 $L/link.lock
touch -d @1000 $L/touch.lock; printf '0:agent-7\\na note\\n' > $L/zero.lock
printf \"$$:agent-8\\n\" > $L/.scratch; ln $L/.scratch $L/scratched.lock
echo ready; while :; do sleep 60; done";
    // Made with noclobber, as scratch files are.
    let script = format!("set -C; {script}");
    let shell = mount.spawn_sh(&script);
    shell.wait_for_line("ready");
    all[0].open(locks.join("open.lock"), TAKE).unwrap();
    let fd = all[1].open(locks.join("owner.lock"), TAKE).unwrap();
    let pid = all[1].pid();
    all[1].write(fd, &format!("{pid}:agent-9:77\nsome words\n")).unwrap();
    for client in &mut all[2..4] {
        let fd = client.open(locks.join("shared.lock"), HANDLE).unwrap();
        client.flock(fd, LOCK_SH).unwrap();
    }
    let fd = all[4].open(locks.join("ranges.lock"), HANDLE).unwrap();
    all[4].fcntl(fd, F_SETLK, F_WRLCK, 0, 10).unwrap();
    all[4].fcntl(fd, F_SETLK, F_RDLCK, 20, 10).unwrap();
    let request = "locks=main-worktree.lock,a.lock mode=exclusive session=s7 op=\"git merge\"";
    mount.acquire(&mut all[5], request).unwrap();
    all[6].open(locks.join("excl.lock"), EXCL).unwrap();
    let absent = "locks=open.lock ticket=t1 wait=0 session=s7";
    assert_eq!(mount.acquire(&mut all[6], absent), Err(Errno::EAGAIN));
    all[7].begin_open(locks.join("open.lock"), TAKE);
    mount.wait_for_waiters("open.lock", 1);
    let _global = {
        let mut client = mount.client();
        client.begin_open(locks.join("global.lock"), TAKE);
        mount.wait_for_waiters("global.lock", 1);
        client
    };
    let settled = || {
        let table = mount.locks_json().to_string();
        !table.contains("\"session\":null") && !table.contains("\"pid\":0,\"session\":\"sid")
    };
    wait_until("everybody is known", settled);
    let before = mount.picture();
    for _ in 0..3 {
        mount.kill_worker();
        assert_same(&mount.picture(), &before);
    }
}

#[test]
fn a_descriptor_holds_until_its_last_copy_is_closed() {
    let mount = Crashing::new();
    let (mut client, fd) = mount.holder("x.lock");
    let copy = client.call(Op::Dup { fd }).unwrap() as i32;
    mount.kill_worker();
    client.close(fd);
    assert!(mount.taken("x.lock"));
    mount.kill_worker();
    client.close(copy);
    mount.wait_until_free("x.lock");
}

#[test]
fn an_owner_holds_until_it_exits_and_keeps_strangers_out() {
    let mount = Crashing::new();
    let (mut owner, mut stranger) = (mount.client(), mount.client());
    let pid = owner.pid();
    mount.sh(&format!("echo {pid} > $L/x.lock")).ok();
    mount.kill_worker();
    assert_eq!(stranger.unlink(mount.lock("x.lock")), Err(Errno::EBUSY));
    assert_eq!(owner.open(mount.lock("x.lock"), TAKE), Err(Errno::EDEADLK));
    owner.exit();
    mount.wait_until_free("x.lock");
}

#[test]
fn a_lease_is_kept_by_its_keeper_and_then_by_time() {
    let mount = Crashing::with(&[("lease", "1s")]);
    let (mut keeper, mut stranger) = (mount.client(), mount.client());
    let fd = keeper.open(mount.lock("x.lock"), EXCL).unwrap();
    keeper.close(fd);
    mount.kill_worker();
    assert_eq!(stranger.unlink(mount.lock("x.lock")), Err(Errno::EBUSY));
    let path = mount.lock("x.lock");
    keeper
        .call(Op::Utimens {
            path,
            time: Some((1000, 5)),
        })
        .unwrap();
    mount.kill_worker();
    assert_eq!(mount.sh("stat -c %Y $L/x.lock").text(), "1000");
    keeper.kill();
    assert!(mount.taken("x.lock"), "its time has not passed");
    mount.kill_worker();
    mount.wait_until_free("x.lock");
}

/// A keeper that exits of its own will soon after it made a lock passes it on: also when nobody saw the making.
#[test]
fn a_lease_made_by_mkdir_is_the_scripts() {
    let mount = Crashing::new();
    let script = "mkdir $L/x.lock; echo made; until test -e $T/go; do sleep 0.02; done; rmdir $L/x.lock && echo mine";
    let shell = mount.spawn_sh(script);
    shell.wait_for_line("made");
    mount.kill_worker();
    assert_ne!(mount.sh("rmdir $L/x.lock").code(), 0, "the script lives");
    mount.sh(": > $T/go").ok();
    assert_eq!(shell.finish().ok().text(), "made\nmine");
}

#[test]
fn flock_converts_and_unlocks_as_before() {
    let mount = Crashing::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let a = one.open(mount.lock("x.lock"), HANDLE).unwrap();
    let b = two.open(mount.door("x.lock"), O_RDWR).unwrap();
    one.flock(a, LOCK_SH).unwrap();
    two.flock(b, LOCK_SH).unwrap();
    mount.kill_worker();
    assert_eq!(one.flock(a, LOCK_EX | LOCK_NB), Err(Errno::EAGAIN), "two share it");
    two.flock(b, LOCK_UN).unwrap();
    one.flock(a, LOCK_EX | LOCK_NB).unwrap();
    mount.kill_worker();
    assert_eq!(two.flock(b, LOCK_SH | LOCK_NB), Err(Errno::EAGAIN));
    one.flock(a, LOCK_SH).unwrap();
    mount.kill_worker();
    two.flock(b, LOCK_SH | LOCK_NB).unwrap();
}

#[test]
fn what_flock_took_for_its_shell_stays_the_shells() {
    let mount = Crashing::new();
    let script = "exec 9<> $F/x.lock; flock 9; echo ready; until test -e $T/go; do sleep 0.02 9>&-; done
rm $L/x.lock && echo mine";
    let shell = mount.spawn_sh(script);
    shell.wait_for_line("ready");
    mount.kill_worker();
    assert_ne!(mount.sh("rm $L/x.lock").code(), 0, "the shell lives");
    mount.sh(": > $T/go").ok();
    assert_eq!(shell.finish().ok().text(), "ready\nmine");
}

#[test]
fn byte_ranges_are_cut_joined_and_shown_as_before() {
    let mount = Crashing::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let a = one.open(mount.lock("x.lock"), HANDLE).unwrap();
    let b = two.open(mount.lock("x.lock"), HANDLE).unwrap();
    one.fcntl(a, F_SETLK, F_WRLCK, 0, 100).unwrap();
    two.fcntl(b, F_SETLK, F_RDLCK, 200, 50).unwrap();
    mount.kill_worker();
    let ask = Op::Fcntl {
        fd: b,
        command: F_GETLK,
        kind: F_WRLCK as i16,
        start: 0,
        len: 0,
    };
    assert_eq!(two.ask(ask).unwrap(), format!("{F_WRLCK} {} 0 100", one.pid()));
    one.fcntl(a, F_SETLK, F_UNLCK, 40, 20).unwrap();
    mount.kill_worker();
    two.fcntl(b, F_SETLK, F_WRLCK, 40, 20).unwrap();
    assert_eq!(two.fcntl(b, F_SETLK, F_WRLCK, 39, 1), Err(Errno::EAGAIN));
    assert_eq!(two.fcntl(b, F_SETLK, F_WRLCK, 60, 1), Err(Errno::EAGAIN));
    mount.kill_worker();
    // The close of any copy ends what its process holds by fcntl.
    let other = one.open(mount.lock("x.lock"), HANDLE).unwrap();
    one.close(other);
    two.fcntl(b, F_SETLK, F_WRLCK, 0, 100).unwrap();
}

#[test]
fn an_open_file_description_lock_is_kept() {
    let mount = Crashing::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let a = one.open(mount.lock("x.lock"), HANDLE).unwrap();
    one.fcntl(a, F_OFD_SETLK, F_WRLCK, 0, 0).unwrap();
    let b = two.open(mount.door("x.lock"), O_RDWR).unwrap();
    mount.kill_worker();
    assert_eq!(two.fcntl(b, F_OFD_SETLK, F_WRLCK, 0, 0), Err(Errno::EAGAIN));
    one.close(a);
    two.fcntl(b, F_OFD_SETLK, F_WRLCK, 0, 0).unwrap();
}

#[test]
fn a_transaction_holds_all_its_locks_until_its_close() {
    let mount = Crashing::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let fd = mount
        .acquire(&mut one, "locks=a.lock,ref-b.lock mode=exclusive")
        .unwrap();
    mount.kill_worker();
    assert_eq!(one.read(fd, 100).unwrap(), format!("token={}\n", mount.token("a.lock")));
    for name in ["a.lock", "ref-b.lock", "global.lock"] {
        assert_eq!(two.open(mount.lock(name), TRY), Err(Errno::EAGAIN), "{name}");
    }
    mount.kill_worker();
    one.close(fd);
    for name in ["a.lock", "ref-b.lock", "global.lock"] {
        let fd = two.open(mount.lock(name), TRY).unwrap();
        two.close(fd);
    }
}

/// A scope is taken by whoever holds a part of it.
#[test]
fn scopes_keep_each_other_out_as_before() {
    let mount = Crashing::new();
    let (mut child, fd) = mount.holder("main-worktree.lock");
    let mut waits = mount.waiter("global.lock", 1);
    mount.kill_worker();
    let mut late = mount.client();
    assert_eq!(
        late.open(mount.lock("ref-a.lock"), TRY),
        Err(Errno::EAGAIN),
        "global.lock is waited for"
    );
    assert!(!waits.answered());
    child.close(fd);
    waits.finish().unwrap();
    mount.kill_worker();
    assert_eq!(
        late.open(mount.lock("ref-a.lock"), TRY),
        Err(Errno::EAGAIN),
        "global.lock is held"
    );
}

/// The former holder's handle answers ESTALE.
#[test]
fn a_broken_handle_stays_broken() {
    let mount = Crashing::new();
    let (mut client, fd) = mount.holder("x.lock");
    let token = mount.token("x.lock");
    mount
        .sh(&format!("echo 'break x.lock {token} testing' > $M/control"))
        .ok();
    mount.kill_worker();
    assert_eq!(client.write(fd, "0\n"), Err(Errno::ESTALE));
    mount.holder("x.lock");
}

/// A handle whose first write was refused releases at its close, whatever the way it was taken.
#[test]
fn a_spoiled_lock_ends_with_its_handle() {
    let mount = Crashing::new();
    let mut client = mount.client();
    let fd = client.open(mount.lock("x.lock"), EXCL).unwrap();
    assert_eq!(client.write(fd, "no pid\n"), Err(Errno::EINVAL));
    mount.kill_worker();
    assert!(mount.taken("x.lock"));
    client.close(fd);
    mount.wait_until_free("x.lock");
}

/// It only ever grows.
#[test]
fn tokens_grow_from_worker_to_worker() {
    let mount = Crashing::new();
    let mut last = 0;
    for _ in 0..5 {
        for _ in 0..3 {
            let (_client, _) = mount.holder("x.lock");
            let token = mount.token("x.lock");
            assert!(token > last, "{token} after {last}");
            last = token;
            drop(_client);
            mount.wait_until_free("x.lock");
        }
        mount.kill_worker();
    }
}
