//! Who is served first.

use crate::support::client::Op;
use crate::support::sys::Errno;
use crate::support::{Client, Mount, wait_until};
use crate::{HANDLE, TAKE, TRY, entry, holder, transaction, waiter};

/// Ages so slowly that no test sees it.
const NO_AGING: (&str, &str) = ("aging", "1h");

/// Lets the lock go from hand to hand and checks that the clients get it in this order, one at a time.
#[track_caller]
fn assert_served(mut first: (Client, i32), mut line: Vec<Client>, order: &[usize]) {
    first.0.close(first.1);
    for (turn, &next) in order.iter().enumerate() {
        line[next].finish().expect("it is granted");
        for &other in &order[turn + 1..] {
            assert!(!line[other].answered(), "{other} must wait while {next} holds");
        }
        // Its death is the release, whatever way it holds.
        line[next].signal(libc::SIGKILL);
    }
}

fn at_nice(mount: &Mount, level: i32) -> Client {
    let mut client = mount.client();
    client.call(Op::Nice { level }).expect("it may be nicer");
    client
}

fn begin_acquire(mount: &Mount, request: &str, nth: usize) -> Client {
    let mut client = mount.client();
    let fd = transaction(&mut client, mount);
    let data = request.to_owned();
    client.begin(Op::Write { fd, data });
    mount.wait_for_waiters("x.lock", nth);
    client
}

fn begin_flock(mount: &Mount, operation: i32, nth: usize) -> Client {
    let mut client = mount.client();
    let fd = client.open(mount.lock("x.lock"), HANDLE).expect("a handle");
    client.begin_flock(fd, operation);
    mount.wait_for_waiters("x.lock", nth);
    client
}

/// by effective priority, then arrival
#[test]
fn equals_are_served_as_they_came() {
    let mount = Mount::with(&[NO_AGING]);
    let first = holder(&mount, "x.lock");
    let line = (1..=6).map(|nth| waiter(&mount, "x.lock", nth)).collect();
    assert_served(first, line, &[0, 1, 2, 3, 4, 5]);
}

/// for a plain open from nice(1): nice ≤ 0 → 10, 1-4 → 8, 5-9 → 5, 10-14 → 3, ≥ 15 → 1
#[test]
fn who_is_nicer_waits_longer() {
    let mount = Mount::with(&[NO_AGING]);
    let first = holder(&mount, "x.lock");
    let levels = [(19, 1), (14, 3), (9, 5), (4, 8), (0, 10)];
    let mut line = Vec::new();
    for (nth, (nice, _)) in levels.iter().enumerate() {
        let mut client = at_nice(&mount, *nice);
        client.begin_open(mount.lock("x.lock"), TAKE);
        mount.wait_for_waiters("x.lock", nth + 1);
        line.push(client);
    }
    let waiters = entry(&mount, "x.lock")["waiters"].clone();
    for (client, (nice, priority)) in line.iter().zip(levels) {
        let shown = waiters.as_array().unwrap().iter().find(|w| w["pid"] == client.pid());
        assert_eq!(shown.expect("it waits")["priority"], priority, "nice {nice}");
    }
    assert_served(first, line, &[4, 3, 2, 1, 0]);
}

/// Priority 1..10 comes from the request
#[test]
fn a_request_chooses_its_priority() {
    let mount = Mount::with(&[NO_AGING]);
    let first = holder(&mount, "x.lock");
    let requests = [(1, "1"), (2, "5"), (3, "10"), (4, "5")];
    let line = requests
        .map(|(nth, priority)| begin_acquire(&mount, &format!("locks=x.lock wait=forever priority={priority}\n"), nth));
    assert_served(first, line.into(), &[2, 1, 3, 0]);
}

/// Waiting raises it one level each 2 s, so nothing starves.
#[test]
fn waiting_raises_the_priority() {
    let mount = Mount::with(&[("aging", "100ms")]);
    let first = holder(&mount, "x.lock");
    let humble = begin_acquire(&mount, "locks=x.lock wait=forever priority=1\n", 1);
    let effective = || entry(&mount, "x.lock")["waiters"][0]["effective_priority"].clone();
    wait_until("it has risen to the top", || effective() == 10);
    assert_eq!(
        entry(&mount, "x.lock")["waiters"][0]["priority"],
        1,
        "what it asked for stays"
    );
    let important = begin_acquire(&mount, "locks=x.lock wait=forever priority=10\n", 2);
    assert_served(first, vec![important, humble], &[1, 0]);
}

/// Shared waiters at the head go together.
#[test]
fn shared_waiters_at_the_head_go_together() {
    let mount = Mount::with(&[NO_AGING]);
    let (mut holding, fd) = holder(&mount, "x.lock");
    let mut shared: Vec<Client> = (1..=3).map(|nth| begin_flock(&mount, libc::LOCK_SH, nth)).collect();
    let mut alone = waiter(&mount, "x.lock", 4);
    let mut behind = begin_flock(&mount, libc::LOCK_SH, 5);
    holding.close(fd);
    for client in &mut shared {
        assert_eq!(client.finish(), Ok(0));
    }
    assert!(
        !alone.answered() && !behind.answered(),
        "who came later waits for its turn"
    );
    shared.into_iter().for_each(Client::kill);
    assert!(alone.finish().is_ok());
    assert!(!behind.answered(), "shared does not pass exclusive");
    alone.kill();
    assert_eq!(behind.finish(), Ok(0));
}

/// A request is granted when it conflicts with no holder and with no waiter ahead of it
#[test]
fn nobody_slips_past_a_waiter() {
    let mount = Mount::with(&[NO_AGING]);
    let mut sharing = mount.client();
    let fd = sharing.open(mount.lock("x.lock"), HANDLE).unwrap();
    assert_eq!(sharing.flock(fd, libc::LOCK_SH), Ok(0));
    let _exclusive = waiter(&mount, "x.lock", 1);
    let mut late = mount.client();
    let fd = late.open(mount.lock("x.lock"), HANDLE).unwrap();
    let tried = late.flock(fd, libc::LOCK_SH | libc::LOCK_NB);
    assert_eq!(tried, Err(Errno::EAGAIN), "it would pass the exclusive waiter");
    assert_eq!(late.open(mount.lock("x.lock"), TRY), Err(Errno::EAGAIN));
}

/// Two clients that share `x.lock` by flock; with the descriptors of each.
fn two_sharing(mount: &Mount) -> [(Client, i32); 2] {
    [(); 2].map(|()| {
        let mut client = mount.client();
        let fd = client.open(mount.lock("x.lock"), HANDLE).expect("a handle");
        assert_eq!(client.flock(fd, libc::LOCK_SH), Ok(0));
        (client, fd)
    })
}

/// Upgrade of shared to exclusive keeps the shared lock until it succeeds and stands ahead of conflicting waiters
#[test]
fn an_upgrade_stands_ahead() {
    let mount = Mount::with(&[NO_AGING]);
    let [(mut upgrading, fd), (mut other, other_fd)] = two_sharing(&mount);
    let mut earlier = waiter(&mount, "x.lock", 1);
    upgrading.begin_flock(fd, libc::LOCK_EX);
    mount.wait_for_waiters("x.lock", 2);
    let holders = entry(&mount, "x.lock")["holders"].clone();
    let pids: Vec<_> = holders.as_array().unwrap().iter().map(|h| h["pid"].clone()).collect();
    assert!(
        pids.contains(&upgrading.pid().into()),
        "it keeps the shared lock while it waits: {pids:?}"
    );

    assert_eq!(other.flock(other_fd, libc::LOCK_UN), Ok(0));
    assert_eq!(upgrading.finish(), Ok(0));
    assert!(
        !earlier.answered(),
        "the waiter that came first would have waited for ever"
    );
    upgrading.close(fd);
    assert!(earlier.finish().is_ok());
}

/// two upgraders: the second gets EDEADLK
#[test]
fn the_second_of_two_upgraders_is_refused_and_still_shares() {
    let mount = Mount::with(&[NO_AGING]);
    let [(mut first, first_fd), (mut second, second_fd)] = two_sharing(&mount);
    first.begin_flock(first_fd, libc::LOCK_EX);
    mount.wait_for_waiters("x.lock", 1);
    assert_eq!(second.flock(second_fd, libc::LOCK_EX), Err(Errno::EDEADLK));
    assert!(!first.answered(), "the second still holds its shared lock");
    assert_eq!(second.flock(second_fd, libc::LOCK_UN), Ok(0));
    assert_eq!(first.finish(), Ok(0));
}
