//! Waiters go on waiting, in every dialect, and what ends a wait ends it still.

use libc::{F_OFD_SETLKW, F_SETLKW, F_WRLCK, LOCK_EX, LOCK_SH, O_RDWR, POLLIN, SIGKILL};

use crate::support::sys::Errno;
use crate::support::{Client, Op, Said, process_state, wait_until};
use crate::{Crashing, HANDLE, TAKE};

/// Begins a wait for `x.lock`.
type Begin = fn(&Crashing, &mut Client);

const WAITS: [(&str, Begin); 6] = [
    ("open", |mount, client| client.begin_open(mount.lock("x.lock"), TAKE)),
    ("flock", |mount, client| {
        let fd = client.open(mount.lock("x.lock"), HANDLE).unwrap();
        client.begin_flock(fd, LOCK_EX);
    }),
    ("flock through the door, shared", |mount, client| {
        let fd = client.open(mount.door("x.lock"), libc::O_RDONLY).unwrap();
        client.begin_flock(fd, LOCK_SH);
    }),
    ("fcntl", |mount, client| {
        let fd = client.open(mount.lock("x.lock"), HANDLE).unwrap();
        client.begin_fcntl(fd, F_SETLKW, F_WRLCK, 5, 10);
    }),
    ("open file description", |mount, client| {
        let fd = client.open(mount.door("x.lock"), O_RDWR).unwrap();
        client.begin_fcntl(fd, F_OFD_SETLKW, F_WRLCK, 0, 0);
    }),
    ("acquire", |mount, client| {
        let fd = client.open(mount.path("acquire"), O_RDWR).unwrap();
        let data = "locks=x.lock,y.lock mode=exclusive wait=1h".to_owned();
        client.begin(Op::Write { fd, data });
    }),
];

#[test]
fn a_wait_of_every_dialect_is_granted_by_the_next_worker() {
    for (how, begin) in WAITS {
        let mount = Crashing::new();
        let (mut holder, fd) = mount.holder("x.lock");
        let mut waits = mount.client();
        begin(&mount, &mut waits);
        mount.wait_for_waiters("x.lock", 1);
        mount.kill_worker();
        assert_eq!(mount.waiters("x.lock"), 1, "{how}");
        assert!(!waits.answered(), "{how}");
        assert_eq!(waits.state(), 'S', "{how}: it sleeps interruptibly");
        mount.kill_worker();
        holder.close(fd);
        waits.finish().unwrap_or_else(|errno| panic!("{how}: {errno}"));
        assert!(mount.taken("x.lock"), "{how}");
        waits.kill();
        mount.wait_until_free("x.lock");
    }
}

/// A wait that is granted while no worker serves: the holder let go meanwhile.
#[test]
fn a_wait_of_every_dialect_is_granted_when_its_holder_went_meanwhile() {
    for (how, begin) in WAITS {
        let mount = Crashing::new();
        let (holder, _) = mount.holder("x.lock");
        let mut waits = mount.client();
        begin(&mount, &mut waits);
        mount.wait_for_waiters("x.lock", 1);
        mount.while_nobody_serves(|| holder.kill());
        waits.finish().unwrap_or_else(|errno| panic!("{how}: {errno}"));
        waits.kill();
        mount.wait_until_free("x.lock");
    }
}

/// The limit goes on from where it was; it does not begin anew.
#[test]
fn a_wait_limit_counts_from_the_beginning_of_the_wait() {
    let mount = Crashing::with(&[("wait", "1h"), ("waitFor.short.lock", "2s")]);
    let (_long, _) = mount.holder("x.lock");
    let (_short, _) = mount.holder("short.lock");
    let _waits = mount.waiter("x.lock", 1);
    let mut ends = mount.waiter("short.lock", 1);
    let waiter = |name| mount.entry(name)["waiters"][0].clone();
    let waited = |name| waiter(name)["waited_ms"].as_u64().expect("a number");
    wait_until("some of the time has passed", || waited("x.lock") > 300);
    let before = waited("x.lock");
    mount.kill_worker();
    assert!(waited("x.lock") >= before, "its age is as it was");
    assert_eq!(waiter("x.lock")["limit_ms"], 3_600_000);
    let short = waiter("short.lock");
    if !short.is_null() {
        assert_eq!(short["limit_ms"], 2000);
    }
    assert_eq!(ends.finish(), Err(Errno::ETIMEDOUT));
    assert_eq!(mount.waiters("short.lock"), 0);
}

/// ETIMEDOUT comes also when the limit passed while nobody served.
#[test]
fn a_limit_that_passed_while_nobody_served_ends_the_wait() {
    let mount = Crashing::with(&[("wait", "1s")]);
    let (_holder, _) = mount.holder("x.lock");
    let mut waits = mount.waiter("x.lock", 1);
    let began = std::time::Instant::now();
    mount.while_nobody_serves(|| {
        wait_until("the limit has passed", || began.elapsed().as_millis() > 1100);
        assert!(!waits.answered(), "nobody serves");
    });
    assert_eq!(waits.finish(), Err(Errno::ETIMEDOUT));
}

/// EINTR on a signal, at once, also SIGKILL.
#[test]
fn a_signal_ends_a_wait_after_a_crash() {
    let mount = Crashing::new();
    let (_holder, _) = mount.holder("x.lock");
    let shell = mount.spawn_sh("timeout 0.3 flock $F/x.lock true; echo $?");
    mount.wait_for_waiters("x.lock", 1);
    mount.kill_worker();
    assert_eq!(shell.finish().text(), "124");
    let waits = mount.waiter("x.lock", 1);
    mount.kill_worker();
    waits.kill();
    mount.wait_for_waiters("x.lock", 0);
}

/// A waiter that is killed while nobody serves is nobody's waiter any more.
#[test]
fn a_waiter_that_died_meanwhile_leaves_the_line() {
    for (how, begin) in WAITS {
        let mount = Crashing::new();
        let (mut holder, fd) = mount.holder("x.lock");
        let mut dies = mount.client();
        begin(&mount, &mut dies);
        mount.wait_for_waiters("x.lock", 1);
        let mut waits = mount.waiter("x.lock", 2);
        mount.while_nobody_serves(|| dies.signal(SIGKILL));
        wait_until("it is dead", || matches!(process_state(dies.pid()), 'Z' | 'X'));
        mount.wait_for_waiters("x.lock", 1);
        holder.close(fd);
        let granted = waits.finish().unwrap_or_else(|errno| panic!("{how}: {errno}"));
        waits.close(granted as i32);
        mount.wait_until_free("x.lock");
    }
}

/// Of a circle that was closed before the crash one has been refused; one that is closed after it is seen as well.
#[test]
fn a_circle_is_seen_over_a_crash() {
    let mount = Crashing::new();
    let (mut one, _) = mount.holder("x.lock");
    let (mut two, held_by_two) = mount.holder("y.lock");
    one.begin_open(mount.lock("y.lock"), TAKE);
    mount.wait_for_waiters("y.lock", 1);
    mount.kill_worker();
    assert_eq!(two.open(mount.lock("x.lock"), TAKE), Err(Errno::EDEADLK));
    two.close(held_by_two);
    one.finish().unwrap();
}

/// poll(2) on a handle that holds the lock is readable when someone waits for it; on a lockable handle, when the lock
/// could be had.
#[test]
fn who_polls_is_woken_by_the_next_worker() {
    let mount = Crashing::new();
    let (mut holder, mut polls) = (mount.client(), mount.client());
    let held = holder.open(mount.lock("x.lock"), HANDLE).unwrap();
    holder.flock(held, LOCK_EX).unwrap();
    let lockable = polls.open(mount.lock("x.lock"), HANDLE).unwrap();
    let poll = |fd| Op::Poll {
        fd,
        events: POLLIN,
        timeout_ms: 15_000,
    };
    polls.begin(poll(lockable));
    wait_until("it sleeps", || polls.state() == 'S');
    mount.kill_worker();
    assert!(!polls.answered());
    holder.flock(held, libc::LOCK_UN).unwrap();
    assert_eq!(polls.finish(), Ok(1), "the lock could be had");
    holder.flock(held, LOCK_EX).unwrap();
    holder.begin(poll(held));
    wait_until("it sleeps", || holder.state() == 'S');
    mount.kill_worker();
    let _waits = mount.waiter("x.lock", 1);
    assert_eq!(holder.finish(), Ok(1), "somebody waits");
}

/// A wait for one lock never delays anything else, after a crash neither.
#[test]
fn others_go_on_beside_those_who_wait() {
    let mount = Crashing::new();
    let (_holder, _) = mount.holder("x.lock");
    let _waits: Vec<Client> = (1..=8).map(|nth| mount.waiter("x.lock", nth)).collect();
    for _ in 0..3 {
        mount.kill_worker();
        mount
            .sh("echo $$ > $L/y.lock && mkdir $L/z.lock && ls $L > /dev/null && rmdir $L/z.lock && rm $L/y.lock")
            .ok();
        assert_eq!(mount.waiters("x.lock"), 8);
    }
}
