//! fcntl(2): byte ranges of processes and of open file descriptions.

use libc::{
    F_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_NB, O_CREAT,
    O_NONBLOCK, O_RDWR, O_WRONLY,
};

use crate::support::sys::Errno;
use crate::support::{Client, Mount, Op};

fn handle(mount: &Mount, client: &mut Client) -> i32 {
    client.open(mount.lock("x.lock"), O_RDWR | O_CREAT).unwrap()
}

/// "Byte ranges of fcntl are honoured: disjoint ranges do not conflict"
#[test]
fn disjoint_ranges_are_held_side_by_side() {
    let mount = Mount::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let (a, b) = (handle(&mount, &mut one), handle(&mount, &mut two));
    one.fcntl(a, F_SETLK, F_WRLCK, 0, 10).unwrap();
    two.fcntl(b, F_SETLK, F_WRLCK, 10, 10).expect("the next byte is free");
    assert_eq!(two.fcntl(b, F_SETLK, F_WRLCK, 9, 1), Err(Errno::EAGAIN));
    assert_eq!(one.fcntl(a, F_SETLK, F_WRLCK, 19, 0), Err(Errno::EAGAIN), "to the end");
    one.fcntl(a, F_SETLK, F_WRLCK, 20, 0).unwrap();
    assert_eq!(two.fcntl(b, F_SETLK, F_RDLCK, i64::MAX - 1, 1), Err(Errno::EAGAIN));
}

/// "an open, a flock or a mkdir is the whole range"
#[test]
fn an_open_and_a_flock_conflict_with_any_range() {
    let mount = Mount::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let (a, b) = (handle(&mount, &mut one), handle(&mount, &mut two));
    one.fcntl(a, F_SETLK, F_WRLCK, 1 << 40, 1).unwrap();
    let opened = two.open(mount.lock("x.lock"), O_WRONLY | O_CREAT | O_NONBLOCK);
    assert_eq!(opened, Err(Errno::EAGAIN));
    assert_eq!(two.flock(b, LOCK_EX | LOCK_NB), Err(Errno::EAGAIN));
    assert_eq!(two.mkdir(mount.lock("x.lock")), Err(Errno::EEXIST));
    one.fcntl(a, F_SETLK, F_UNLCK, 0, 0).unwrap();
    let fd = two.open(mount.lock("x.lock"), O_WRONLY | O_CREAT | O_NONBLOCK).unwrap();
    assert_eq!(one.fcntl(a, F_SETLK, F_RDLCK, 5, 1), Err(Errno::EAGAIN));
    two.close(fd);
    one.fcntl(a, F_SETLK, F_RDLCK, 5, 1).unwrap();
}

/// "flock(2) and fcntl(2) on it take the lock, shared or exclusive"
#[test]
fn read_ranges_are_shared() {
    let mount = Mount::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let (a, b) = (handle(&mount, &mut one), handle(&mount, &mut two));
    one.fcntl(a, F_SETLK, F_RDLCK, 0, 100).unwrap();
    two.fcntl(b, F_SETLK, F_RDLCK, 50, 100).unwrap();
    assert_eq!(one.fcntl(a, F_SETLK, F_WRLCK, 0, 100), Err(Errno::EAGAIN));
    one.fcntl(a, F_SETLK, F_WRLCK, 0, 50)
        .expect("the other holds only from 50 on");
}

/// fcntl(2): unlocking a part leaves what lies on either side.
#[test]
fn unlocking_the_middle_leaves_both_ends_locked() {
    let mount = Mount::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let (a, b) = (handle(&mount, &mut one), handle(&mount, &mut two));
    one.fcntl(a, F_SETLK, F_WRLCK, 0, 100).unwrap();
    one.fcntl(a, F_SETLK, F_UNLCK, 40, 20).unwrap();
    two.fcntl(b, F_SETLK, F_WRLCK, 40, 20).unwrap();
    assert_eq!(two.fcntl(b, F_SETLK, F_WRLCK, 39, 1), Err(Errno::EAGAIN));
    assert_eq!(two.fcntl(b, F_SETLK, F_WRLCK, 60, 1), Err(Errno::EAGAIN));
    one.fcntl(a, F_SETLK, F_RDLCK, 0, 40)
        .expect("a part can be made shared");
    two.fcntl(b, F_SETLK, F_RDLCK, 0, 40).unwrap();
}

/// fcntl(2): F_GETLK tells who is in the way, or that nobody is.
#[test]
fn the_holder_of_a_range_can_be_asked_for() {
    let mount = Mount::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let (a, b) = (handle(&mount, &mut one), handle(&mount, &mut two));
    let probe = |fd, start, len| Op::Fcntl {
        fd,
        command: F_GETLK,
        kind: F_WRLCK as i16,
        start,
        len,
    };
    one.fcntl(a, F_SETLK, F_RDLCK, 10, 5).unwrap();
    let conflict = format!("{F_RDLCK} {} 10 5", one.pid());
    assert_eq!(two.ask(probe(b, 0, 0)).unwrap(), conflict);
    assert!(two.ask(probe(b, 15, 0)).unwrap().starts_with(&format!("{F_UNLCK} ")));
    assert!(
        one.ask(probe(a, 0, 0)).unwrap().starts_with(&format!("{F_UNLCK} ")),
        "its own is no conflict"
    );
    one.fcntl(a, F_SETLK, F_UNLCK, 0, 0).unwrap();
    one.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let whole = format!("{F_WRLCK} {} 0 0", one.pid());
    assert_eq!(two.ask(probe(b, 3, 1)).unwrap(), whole, "an open is the whole range");
}

/// "flock(2) and fcntl(2) wait as long as their caller does": for their own bytes only.
#[test]
fn a_range_is_waited_for_until_its_bytes_are_free() {
    let mount = Mount::new();
    let (mut one, mut two, mut three) = (mount.client(), mount.client(), mount.client());
    let (a, b, c) = (
        handle(&mount, &mut one),
        handle(&mount, &mut two),
        handle(&mount, &mut three),
    );
    one.fcntl(a, F_SETLK, F_WRLCK, 0, 10).unwrap();
    two.fcntl(b, F_SETLK, F_WRLCK, 20, 10).unwrap();
    three.begin_fcntl(c, F_SETLKW, F_WRLCK, 5, 3);
    mount.wait_for_waiters("x.lock", 1);
    two.fcntl(b, F_SETLK, F_UNLCK, 0, 0).unwrap();
    assert!(!three.answered(), "these were other bytes");
    one.fcntl(a, F_SETLK, F_UNLCK, 5, 3).unwrap();
    three.finish().unwrap();
    assert_eq!(
        two.fcntl(b, F_SETLK, F_WRLCK, 4, 1),
        Err(Errno::EAGAIN),
        "the first keeps the rest"
    );
}

/// fcntl(2): the locks of a process go when it closes any descriptor of the file; FLUSH drops those of its owner.
#[test]
fn closing_any_descriptor_drops_the_ranges_of_the_process() {
    let mount = Mount::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let (a, b) = (handle(&mount, &mut one), handle(&mount, &mut two));
    let second = handle(&mount, &mut one);
    one.fcntl(a, F_SETLK, F_WRLCK, 0, 0).unwrap();
    assert_eq!(two.fcntl(b, F_SETLK, F_WRLCK, 0, 0), Err(Errno::EAGAIN));
    one.close(second);
    two.fcntl(b, F_SETLK, F_WRLCK, 0, 0).expect("POSIX asks for it");
}

/// fcntl(2): a process's ranges are not inherited by a child and end with the process.
#[test]
fn the_ranges_of_a_process_end_with_it_though_a_child_has_the_descriptor() {
    let mount = Mount::new();
    let mut one = mount.client();
    let a = handle(&mount, &mut one);
    one.fcntl(a, F_SETLK, F_WRLCK, 0, 0).unwrap();
    one.call(Op::Fork).unwrap();
    one.kill();
    mount.wait_until_free("x.lock");
}

/// "OFD locks look like POSIX ones but no FLUSH names their owner: at RELEASE drop everything that was set through that
/// handle."
#[test]
fn a_description_lock_belongs_to_its_handle() {
    let mount = Mount::new();
    let mut one = mount.client();
    let (a, b) = (handle(&mount, &mut one), handle(&mount, &mut one));
    one.fcntl(a, F_OFD_SETLK, F_WRLCK, 0, 10).unwrap();
    assert_eq!(
        one.fcntl(b, F_OFD_SETLK, F_WRLCK, 0, 10),
        Err(Errno::EAGAIN),
        "two handles of one process conflict"
    );
    one.fcntl(b, F_OFD_SETLK, F_WRLCK, 10, 10).unwrap();
    let copy = one.call(Op::Dup { fd: a }).unwrap() as i32;
    one.close(a);
    assert_eq!(
        one.fcntl(b, F_OFD_SETLK, F_WRLCK, 0, 10),
        Err(Errno::EAGAIN),
        "a copy is open"
    );
    one.close(copy);
    one.fcntl(b, F_OFD_SETLK, F_WRLCK, 0, 10).unwrap();
    one.close(b);
    assert!(!mount.taken("x.lock"));
}

/// OFD locks wait, and conflict with those of processes.
#[test]
fn description_and_process_locks_conflict_and_wait_for_each_other() {
    let mount = Mount::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let (a, b) = (handle(&mount, &mut one), handle(&mount, &mut two));
    one.fcntl(a, F_SETLK, F_WRLCK, 0, 0).unwrap();
    two.begin_fcntl(b, F_OFD_SETLKW, F_WRLCK, 0, 0);
    mount.wait_for_waiters("x.lock", 1);
    one.fcntl(a, F_SETLK, F_UNLCK, 0, 0).unwrap();
    two.finish().unwrap();
    one.begin_fcntl(a, F_SETLKW, F_RDLCK, 7, 1);
    mount.wait_for_waiters("x.lock", 1);
    two.fcntl(b, F_OFD_SETLK, F_UNLCK, 0, 0).unwrap();
    one.finish().unwrap();
}
