//! What happens while no worker serves is made up for; and what was ordered stays ordered.

use crate::support::sys::Errno;
use crate::support::{Op, Said, process_state, wait_until};
use crate::{Crashing, EXCL, TAKE, TRY};

/// owners that died meanwhile are released
#[test]
fn what_the_dead_held_is_free() {
    let mount = Crashing::new();
    let mut owner = mount.client();
    let (opener, _) = mount.holder("descriptor.lock");
    let fd = owner.open(mount.lock("owner.lock"), TAKE).unwrap();
    let pid = owner.pid();
    owner.write(fd, &format!("{pid}\n")).unwrap();
    owner.close(fd);
    let mut line = Vec::new();
    for name in ["descriptor.lock", "owner.lock"] {
        line.push(mount.waiter(name, 1));
    }
    mount.while_nobody_serves(|| {
        opener.kill();
        owner.kill();
        assert!(line.iter_mut().all(|waits| !waits.answered()));
    });
    for waits in &mut line {
        waits.finish().expect("granted");
    }
}

/// How a keeper ended that died meanwhile, nobody can tell: so nobody is robbed, and its parent keeps the lease.
#[test]
fn a_lease_whose_keeper_died_meanwhile_is_its_parents() {
    let mount = Crashing::with(&[("lease", "0")]);
    mount.sh("mkfifo $T/fifo").ok();
    let shell = mount.spawn_sh("sh -c 'mkdir $L/x.lock; echo $$; read _ < $T/fifo'; sleep 60");
    wait_until("it is made", || mount.taken("x.lock") && shell.said().contains('\n'));
    let keeper: u32 = shell.said().trim().parse().expect("its PID");
    mount.while_nobody_serves(|| {
        crate::sys::kill(keeper, libc::SIGKILL).expect("ours to kill");
        wait_until("it is gone", || process_state(keeper) == 'X');
    });
    assert!(mount.taken("x.lock"));
    assert_eq!(mount.entry("x.lock")["holders"][0]["pid"], shell.id());
    drop(shell);
    mount.wait_until_free("x.lock");
}

/// A descriptor that another process has holds, though its opener died meanwhile.
#[test]
fn what_a_living_copy_holds_is_held() {
    let mount = Crashing::new();
    let (mut opener, _) = mount.holder("x.lock");
    let child = opener.call(Op::Fork).unwrap() as u32;
    mount.while_nobody_serves(|| opener.kill());
    let mut other = mount.client();
    assert_eq!(other.open(mount.lock("x.lock"), TRY), Err(Errno::EAGAIN));
    mount.kill_worker();
    crate::sys::kill(child, libc::SIGKILL).expect("ours to kill");
    mount.wait_until_free("x.lock");
}

/// Calls that come while nobody serves are answered by the next worker.
#[test]
fn who_calls_while_nobody_serves_is_answered() {
    let mount = Crashing::new();
    let (mut holder, fd) = mount.holder("held.lock");
    let mut all: Vec<_> = (0..7).map(|_| mount.client()).collect();
    let locks = mount.locks();
    mount.while_nobody_serves(|| {
        all[0].begin_open(locks.join("a.lock"), TAKE);
        all[1].begin_open(locks.join("b.lock"), EXCL);
        all[2].begin(Op::Mkdir {
            path: locks.join("c.lock"),
        });
        all[3].begin_open(locks.join("held.lock"), TAKE);
        all[4].begin_open(locks.join("held.lock"), TRY);
        all[5].begin(Op::Unlink {
            path: locks.join("held.lock"),
        });
        all[6].begin(Op::Cat {
            path: mount.path("README"),
        });
        wait_until("all of them wait", || {
            all.iter()
                .all(|client| matches!(process_state(client.pid()), 'S' | 'D'))
        });
        assert!(all.iter_mut().all(|client| !client.answered()));
    });
    let answers: Vec<_> = [0, 1, 2, 4, 5, 6].map(|at: usize| all[at].finish()).into();
    assert!(
        answers[0].is_ok() && answers[1].is_ok() && answers[2] == Ok(0),
        "{answers:?}"
    );
    assert_eq!(answers[3..5], [Err(Errno::EAGAIN), Err(Errno::EBUSY)]);
    assert!(answers[5].is_ok());
    assert!(!all[3].answered(), "it waits");
    holder.close(fd);
    all[3].finish().unwrap();
}

/// drain (nothing new is granted: waits go on, O_NONBLOCK is EAGAIN, O_EXCL is EEXIST), resume
#[test]
fn a_drained_mount_stays_drained() {
    let mount = Crashing::new();
    mount.sh("echo drain > $M/control").ok();
    mount.kill_worker();
    let mut client = mount.client();
    assert_eq!(client.open(mount.lock("x.lock"), TRY), Err(Errno::EAGAIN));
    assert_eq!(client.open(mount.lock("x.lock"), EXCL), Err(Errno::EEXIST));
    client.begin_open(mount.lock("x.lock"), TAKE);
    mount.wait_for_waiters("x.lock", 1);
    mount.kill_worker();
    assert_eq!(mount.locks_json()["drained"], true);
    mount.sh("echo resume > $M/control").ok();
    client.finish().unwrap();
    mount.kill_worker();
    assert_eq!(mount.locks_json()["drained"], false);
}

/// Settings that were reloaded are in force; those that were only written are not.
#[test]
fn reloaded_settings_stay_in_force() {
    let mount = Crashing::with(&[("wait", "1h")]);
    let (_holder, _) = mount.holder("x.lock");
    let limit = || {
        let waits = mount.waiter("x.lock", 1);
        let limit = mount.entry("x.lock")["waiters"][0]["limit_ms"].clone();
        waits.kill();
        mount.wait_for_waiters("x.lock", 0);
        limit
    };
    mount.git(&["config", "lockfs.wait", "2h"]);
    mount.kill_worker();
    assert_eq!(limit(), 3_600_000, "it was written, not reloaded");
    mount.sh("echo reload > $M/control").ok();
    assert_eq!(limit(), 7_200_000);
    mount.git(&["config", "lockfs.wait", "no time at all"]);
    mount.kill_worker();
    assert_eq!(limit(), 7_200_000, "the next worker does not ask git");
}

/// Parents of scopes that were reloaded decide about locks that were taken under others until those are free.
#[test]
fn a_lock_keeps_the_scope_it_was_taken_under() {
    let mount = Crashing::with(&[("parents", "a.lock=p.lock")]);
    let (mut holder, fd) = mount.holder("a.lock");
    mount.git(&["config", "lockfs.parents", "b.lock=p.lock"]);
    mount.sh("echo reload > $M/control").ok();
    mount.kill_worker();
    let mut other = mount.client();
    assert_eq!(
        other.open(mount.lock("p.lock"), TRY),
        Err(Errno::EAGAIN),
        "a.lock is below it"
    );
    holder.close(fd);
    mount.wait_until_free("a.lock");
    let (_again, _) = mount.holder("a.lock");
    let p = other.open(mount.lock("p.lock"), TRY).expect("a.lock stands alone");
    other.close(p);
    mount.kill_worker();
    let (_b, _) = mount.holder("b.lock");
    assert_eq!(other.open(mount.lock("p.lock"), TRY), Err(Errno::EAGAIN));
}

/// An orderly end is possible after a crash: umount refuses while locks are held, and unmounts when none are.
#[test]
fn a_mount_ends_in_order_after_a_crash() {
    let mount = Crashing::new();
    let (mut holder, fd) = mount.holder("x.lock");
    mount.kill_worker();
    let refused = mount.lockfs(&["umount"]);
    assert_ne!(refused.code(), 0);
    assert!(refused.error().contains("x.lock"), "{}", refused.error());
    holder.close(fd);
    mount.wait_until_free("x.lock");
    mount.kill_worker();
    mount.lockfs(&["umount"]).ok();
    assert!(!mount.is_mounted());
}
