//! "All of these arbitrate in one place: an exclusive open, a flock, an fcntl range and a mkdir on one name conflict
//! with each other as one lock."

use crate::support::{Dialect, Mount, dialect};

/// Every dialect holds against every dialect that tries.
#[test]
fn every_dialect_refuses_every_other_at_once() {
    let mount = Mount::new();
    let (mut holder, mut contender) = (mount.client(), mount.client());
    for &one in dialect::ALL {
        for &two in dialect::ALL {
            let name = format!("{one:?}-{two:?}.lock");
            let held = holder.take_now(one, &name);
            let held = held.unwrap_or_else(|errno| panic!("{one:?} takes a free lock: {errno}"));
            let tried = contender.take_now(two, &name);
            if one.is_shared() && two.is_shared() {
                contender.release(tried.expect("two share"));
            } else {
                assert_eq!(tried, Err(two.refusal()), "{one:?} holds, {two:?} tries");
            }
            holder.release(held);
            let taken = contender.take_now(two, &name);
            let taken = taken.unwrap_or_else(|errno| panic!("{two:?} takes what {one:?} gave back: {errno}"));
            contender.release(taken);
            assert!(!mount.taken(&name), "{name} is free again");
        }
    }
    assert_eq!(mount.listed(), [""; 0]);
}

/// Every dialect that can wait is granted when any dialect gives the lock back.
#[test]
fn every_dialect_that_waits_is_granted_when_any_other_ends() {
    let mount = Mount::new();
    let (mut holder, mut waiter) = (mount.client(), mount.client());
    let waiting = dialect::ALL.iter().copied().filter(|dialect| dialect.can_wait());
    for two in waiting {
        for &one in dialect::ALL {
            if one.is_shared() && two.is_shared() {
                continue;
            }
            let name = format!("{one:?}-{two:?}.lock");
            let held = holder.take_now(one, &name).unwrap();
            waiter.begin_take(two, &name);
            mount.wait_for_waiters(&name, 1);
            assert!(!waiter.answered(), "{one:?} holds, {two:?} waits");
            holder.release(held);
            let taken = waiter.finish();
            let taken = taken.unwrap_or_else(|errno| panic!("{two:?} waited for {one:?}: {errno}"));
            let refused = holder.take_now(Dialect::FlockDoor, &name);
            if !two.is_shared() {
                assert_eq!(refused, Err(Dialect::FlockDoor.refusal()), "{two:?} holds it now");
            }
            waiter.release(taken);
        }
    }
    assert_eq!(mount.listed(), [""; 0]);
}

/// Killed holders of every dialect that lives with its process leave nothing behind.
#[test]
fn what_lives_with_its_process_ends_with_it() {
    let mount = Mount::new();
    for &dialect in dialect::ALL {
        // A lease outlives its maker; Link, Rename and Symlink write a PID, so they do not.
        if matches!(dialect, Dialect::Exclusive | Dialect::Mkdir | Dialect::Touch) {
            continue;
        }
        let name = format!("{dialect:?}.lock");
        let (mut holder, mut waiter) = (mount.client(), mount.client());
        holder.take_now(dialect, &name).unwrap();
        waiter.begin_take(Dialect::Redirect, &name);
        mount.wait_for_waiters(&name, 1);
        holder.kill();
        waiter
            .finish()
            .unwrap_or_else(|errno| panic!("after {dialect:?} was killed: {errno}"));
    }
}
