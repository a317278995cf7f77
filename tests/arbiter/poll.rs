//! poll(2) and select(2) on lock handles.

use crate::support::Mount;
use crate::support::client::Op;
use crate::{HANDLE, acquire, holder, waiter};

const IN: i16 = libc::POLLIN;

fn poll(fd: i32, timeout_ms: i32) -> Op {
    Op::Poll {
        fd,
        events: IN,
        timeout_ms,
    }
}

/// poll(2)/select(2) on a handle that holds the lock is readable when someone waits for it
#[test]
fn a_holder_can_poll_for_waiters() {
    let mount = Mount::new();
    let mut holding = mount.client();
    let fd = holding.open(mount.lock("x.lock"), HANDLE).unwrap();
    holding.flock(fd, libc::LOCK_EX).unwrap();
    assert_eq!(holding.call(poll(fd, 0)).unwrap() & i64::from(IN), 0);
    holding.begin(poll(fd, 15_000));
    assert!(!holding.answered());
    let _waiting = waiter(&mount, "x.lock", 1);
    assert_ne!(holding.finish().unwrap() & i64::from(IN), 0, "the waiter woke it");
    assert_ne!(
        holding.call(poll(fd, 0)).unwrap() & i64::from(IN),
        0,
        "and it stays readable"
    );
}

/// on a handle that holds the lock: also one of `acquire`
#[test]
fn a_transaction_can_be_polled() {
    let mount = Mount::new();
    let mut holding = mount.client();
    let fd = acquire(&mut holding, &mount, "locks=x.lock\n").unwrap();
    holding.read(fd, 256).unwrap();
    holding.begin(poll(fd, 15_000));
    let _waiting = waiter(&mount, "x.lock", 1);
    assert_ne!(holding.finish().unwrap() & i64::from(IN), 0);
    assert!(holding.read(fd, 256).unwrap().starts_with("wanted by="));
}

/// on a lockable handle, when the lock could be had
#[test]
fn a_handle_can_poll_for_its_turn() {
    let mount = Mount::new();
    let (mut holding, held) = holder(&mount, "x.lock");
    let mut polling = mount.client();
    let fd = polling.open(mount.lock("x.lock"), HANDLE).unwrap();
    assert_eq!(polling.call(poll(fd, 0)).unwrap() & i64::from(IN), 0);
    polling.begin(poll(fd, 15_000));
    assert!(!polling.answered());
    holding.close(held);
    assert_ne!(polling.finish().unwrap() & i64::from(IN), 0, "the release woke it");
    assert!(polling.flock(fd, libc::LOCK_EX | libc::LOCK_NB).is_ok());
}

/// on a lockable handle, when the lock could be had
#[test]
fn a_free_lock_is_readable_at_once() {
    let mount = Mount::new();
    let mut client = mount.client();
    let fd = client.open(mount.door("x.lock"), libc::O_RDONLY).unwrap();
    assert_ne!(client.call(poll(fd, 0)).unwrap() & i64::from(IN), 0);
}
