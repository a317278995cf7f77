//! The table "Taking a lock", row by row.

use libc::{
    F_SETLK, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, O_APPEND, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR,
    O_TRUNC, O_WRONLY,
};

use crate::support::sys::Errno;
use crate::support::{Mount, Op, Said};

const OPENS: [i32; 4] = [
    O_WRONLY | O_CREAT,
    O_WRONLY | O_CREAT | O_TRUNC,
    O_WRONLY | O_CREAT | O_APPEND,
    O_WRONLY | O_CREAT | O_TRUNC | O_APPEND,
];

/// "open O_WRONLY|O_CREAT, with or without O_TRUNC/O_APPEND (shell `>` `>>`): take it exclusively; wait for it."
#[test]
fn a_plain_open_waits_and_takes_the_lock() {
    let mount = Mount::new();
    for flags in OPENS {
        let (mut holder, mut waiter) = (mount.client(), mount.client());
        let fd = holder.open(mount.lock("x.lock"), flags).unwrap();
        waiter.begin_open(mount.lock("x.lock"), flags);
        mount.wait_for_waiters("x.lock", 1);
        assert!(!waiter.answered(), "flags {flags:o}");
        holder.close(fd);
        let fd = waiter.finish().unwrap() as i32;
        let again = holder.open(mount.lock("x.lock"), flags | O_NONBLOCK);
        assert_eq!(again, Err(Errno::EAGAIN), "the waiter holds it alone, flags {flags:o}");
        waiter.close(fd);
    }
}

/// "(Without O_CREAT a free name is ENOENT, a taken one is waited for)"
#[test]
fn an_open_without_o_creat_waits_for_a_taken_name_only() {
    let mount = Mount::new();
    let (mut holder, mut waiter) = (mount.client(), mount.client());
    assert_eq!(waiter.open(mount.lock("x.lock"), O_WRONLY), Err(Errno::ENOENT));
    assert_eq!(waiter.open(mount.lock("x.lock"), O_RDWR), Err(Errno::ENOENT));
    let fd = holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    waiter.begin_open(mount.lock("x.lock"), O_WRONLY);
    mount.wait_for_waiters("x.lock", 1);
    holder.close(fd);
    waiter.finish().expect("it takes what became free while it waited");
    assert!(mount.taken("x.lock"));
}

/// "the same with O_NONBLOCK: take it now or EAGAIN"
#[test]
fn a_nonblocking_open_takes_it_now_or_not_at_all() {
    let mount = Mount::new();
    for flags in OPENS {
        let (mut first, mut second) = (mount.client(), mount.client());
        first.open(mount.lock("x.lock"), flags | O_NONBLOCK).unwrap();
        let refused = second.open(mount.lock("x.lock"), flags | O_NONBLOCK);
        assert_eq!(refused, Err(Errno::EAGAIN), "flags {flags:o}");
        assert_eq!(mount.waiters("x.lock"), 0);
        first.kill();
        mount.wait_until_free("x.lock");
    }
}

/// "open O_CREAT|O_EXCL, any access mode (shell noclobber): take it now or EEXIST"
#[test]
fn an_exclusive_open_takes_it_in_any_access_mode() {
    let mount = Mount::new();
    for access in [O_RDONLY, O_WRONLY, O_RDWR] {
        let (mut first, mut second) = (mount.client(), mount.client());
        first.open(mount.lock("x.lock"), access | O_CREAT | O_EXCL).unwrap();
        for other in [O_RDONLY, O_WRONLY, O_RDWR] {
            let refused = second.open(mount.lock("x.lock"), other | O_CREAT | O_EXCL);
            assert_eq!(refused, Err(Errno::EEXIST), "{access} then {other}");
        }
        let plain = second.open(mount.lock("x.lock"), O_WRONLY | O_NONBLOCK);
        assert_eq!(plain, Err(Errno::EAGAIN), "access {access}");
        first.unlink(mount.lock("x.lock")).unwrap();
    }
}

/// "open O_CREAT|O_EXCL … or EEXIST", also where the holder took it through a handle that needed no name.
#[test]
fn an_exclusive_open_is_refused_by_a_lock_taken_through_flock() {
    let mount = Mount::new();
    let (mut holder, mut other) = (mount.client(), mount.client());
    let fd = holder.open(mount.door("x.lock"), O_RDONLY).unwrap();
    holder.flock(fd, LOCK_SH).unwrap();
    let refused = other.open(mount.lock("x.lock"), O_WRONLY | O_CREAT | O_EXCL);
    assert_eq!(refused, Err(Errno::EEXIST));
    assert_eq!(other.mkdir(mount.lock("x.lock")), Err(Errno::EEXIST));
}

/// "link or rename of a scratch file, or of a name that the caller's own process made with O_EXCL, to the lock's name:
/// take it now or EEXIST, with that file's text"
#[test]
fn a_name_made_by_the_same_process_can_be_linked_to_a_lock() {
    let mount = Mount::new();
    let (mut client, mut other) = (mount.client(), mount.client());
    let own = mount.lock("shlock.71");
    let fd = client.open(&own, O_WRONLY | O_CREAT | O_EXCL).unwrap();
    let pid = client.pid();
    client.write(fd, &format!("{pid}\n")).unwrap();
    client.close(fd);
    let link = |to: &str| Op::Link {
        from: own.clone(),
        to: mount.lock(to),
    };
    assert_eq!(other.call(link("x.lock")), Err(Errno::EPERM), "somebody else's lock");
    client.call(link("x.lock")).unwrap();
    assert_eq!(client.call(link("x.lock")), Err(Errno::EEXIST));
    client.unlink(&own).unwrap();
    assert!(mount.taken("x.lock"), "the link stays");
    let text = mount.text_of("x.lock").unwrap();
    assert_eq!(text.lines().next(), Some(pid.to_string().as_str()));
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("owner"));
}

/// "open O_RDWR, or O_RDONLY|O_CREAT (shell `<>`, flock(1), most lock libraries): a handle, no lock yet; flock(2) and
/// fcntl(2) on it take the lock, shared or exclusive, waiting or not"
#[test]
fn a_handle_takes_the_lock_by_flock() {
    let mount = Mount::new();
    for flags in [O_RDWR | O_CREAT, O_RDONLY | O_CREAT, O_RDWR | O_CREAT | O_TRUNC] {
        let (mut first, mut second) = (mount.client(), mount.client());
        let a = first.open(mount.lock("x.lock"), flags).unwrap();
        let b = second.open(mount.lock("x.lock"), flags).unwrap();
        assert!(!mount.taken("x.lock"), "a handle is no lock");
        first.flock(a, LOCK_SH | LOCK_NB).unwrap();
        second.flock(b, LOCK_SH | LOCK_NB).unwrap();
        assert_eq!(first.flock(a, LOCK_EX | LOCK_NB), Err(Errno::EAGAIN));
        second.flock(b, LOCK_UN).unwrap();
        first.flock(a, LOCK_EX | LOCK_NB).unwrap();
        second.begin_flock(b, LOCK_SH);
        mount.wait_for_waiters("x.lock", 1);
        first.flock(a, LOCK_UN).unwrap();
        second.finish().unwrap();
    }
}

/// "open O_RDWR …: a handle, no lock yet", also while the lock is taken: no open of this kind waits.
#[test]
fn a_handle_is_had_at_once_while_the_lock_is_taken() {
    let mount = Mount::new();
    let (mut holder, mut other) = (mount.client(), mount.client());
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let fd = other.open(mount.lock("x.lock"), O_RDWR | O_CREAT).unwrap();
    assert_eq!(other.flock(fd, LOCK_SH | LOCK_NB), Err(Errno::EAGAIN));
    assert_eq!(other.fcntl(fd, F_SETLK, F_WRLCK, 0, 0), Err(Errno::EAGAIN));
}

/// "open O_RDONLY: looks only; flock(2) on it works too (fcntl only shared: the kernel's rule)"
#[test]
fn a_read_only_open_looks_and_can_flock() {
    let mount = Mount::new();
    let (mut holder, mut other) = (mount.client(), mount.client());
    let held = holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let fd = other.open(mount.lock("x.lock"), O_RDONLY).expect("it does not wait");
    assert_eq!(mount.waiters("x.lock"), 0);
    assert_eq!(other.flock(fd, LOCK_EX | LOCK_NB), Err(Errno::EAGAIN));
    holder.close(held);
    assert!(!mount.taken("x.lock"), "looking does not keep the name");
    other.flock(fd, LOCK_EX | LOCK_NB).unwrap();
    assert!(mount.taken("x.lock"));
    other.flock(fd, LOCK_UN).unwrap();
    assert_eq!(other.fcntl(fd, F_SETLK, F_WRLCK, 0, 0), Err(Errno::EBADF));
    other.fcntl(fd, F_SETLK, libc::F_RDLCK, 0, 0).unwrap();
}

/// "flock and fcntl calls through the handle that holds the lock, or by the same lock owner, never conflict with
/// themselves"
#[test]
fn calls_through_the_handle_that_holds_never_conflict() {
    let mount = Mount::new();
    let (mut client, mut other) = (mount.client(), mount.client());
    let fd = client.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    client.flock(fd, LOCK_EX | LOCK_NB).unwrap();
    client.fcntl(fd, F_SETLK, F_WRLCK, 0, 0).unwrap();
    client.close(fd);
    assert!(!mount.taken("x.lock"));
    let one = client.open(mount.lock("y.lock"), O_RDWR | O_CREAT).unwrap();
    let two = client.open(mount.lock("y.lock"), O_RDWR | O_CREAT).unwrap();
    client.fcntl(one, F_SETLK, F_WRLCK, 0, 0).unwrap();
    client
        .fcntl(two, F_SETLK, F_WRLCK, 0, 0)
        .expect("one process is one lock owner of fcntl");
    let stranger = other.open(mount.lock("y.lock"), O_RDWR | O_CREAT).unwrap();
    assert_eq!(other.fcntl(stranger, F_SETLK, F_WRLCK, 0, 0), Err(Errno::EAGAIN));
}

/// "(and make it a descriptor lock: py-filelock opens O_EXCL, then uses flock, and never unlinks)"
#[test]
fn a_flock_makes_a_lease_a_descriptor_lock() {
    let mount = Mount::new();
    let mut client = mount.client();
    let fd = client.open(mount.lock("x.lock"), O_RDWR | O_CREAT | O_EXCL).unwrap();
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("lease"));
    client.flock(fd, LOCK_EX | LOCK_NB).unwrap();
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("descriptor"));
    client.close(fd);
    assert!(!mount.taken("x.lock"), "it ends with its descriptor");
}

/// "opens are never re-entrant"
#[test]
fn an_open_conflicts_with_the_same_processs_own_open() {
    let mount = Mount::new();
    let mut client = mount.client();
    client.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let again = client.open(mount.lock("x.lock"), O_WRONLY | O_CREAT | O_NONBLOCK);
    assert_eq!(again, Err(Errno::EAGAIN));
    let made = client.open(mount.lock("x.lock"), O_WRONLY | O_CREAT | O_EXCL);
    assert_eq!(made, Err(Errno::EEXIST));
    let handle = client.open(mount.lock("x.lock"), O_RDWR | O_CREAT).unwrap();
    assert_eq!(
        client.flock(handle, LOCK_EX | LOCK_NB),
        Err(Errno::EAGAIN),
        "another handle"
    );
}

/// "RELEASE is asynchronous … but reaches the queue before the same process's next request": a try right after a close
/// never fails by chance.
#[test]
fn a_try_right_after_the_close_succeeds_every_time() {
    let mount = Mount::new();
    let script = "import os
for i in range(1000):
    os.close(os.open(os.environ['L'] + '/x.lock', os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK))
";
    mount.python(script).ok();
    assert!(!mount.taken("x.lock"));
}

/// "A name that goes between a caller's LOOKUP and its OPEN is no error: the OPEN takes the free lock."
#[test]
fn no_open_fails_when_names_come_and_go_under_it() {
    let mount = Mount::new();
    let script = "import os
for i in range(400):
    os.close(os.open(os.environ['L'] + '/x.lock', os.O_WRONLY | os.O_CREAT))
    f = os.open(os.environ['L'] + '/x.lock', os.O_RDWR | os.O_CREAT)
    os.close(f)
";
    let contenders: Vec<_> = (0..4).map(|_| mount.spawn_python(script)).collect();
    for contender in contenders {
        contender.finish().ok();
    }
}
