//! Places in the line: order, priority, age, tickets, upgrades.

use libc::{LOCK_EX, LOCK_SH, LOCK_UN, O_RDWR};

use crate::support::sys::Errno;
use crate::support::{Client, Op, Said};
use crate::{Crashing, HANDLE, TAKE};

/// Lets the line go and returns in which order its clients were granted the lock, killing the worker before each grant.
fn order_of(mount: &Crashing, mut holder: Client, fd: i32, mut line: Vec<Client>) -> Vec<usize> {
    let mut left: Vec<usize> = (0..line.len()).collect();
    let mut order = Vec::new();
    holder.close(fd);
    while !left.is_empty() {
        let mut next = None;
        crate::wait_until("the next one is granted it", || {
            next = left.iter().copied().find(|&at| line[at].answered());
            next.is_some()
        });
        let at = next.expect("one was found");
        let granted = line[at].finish().expect("granted");
        assert!(
            left.iter().all(|&other| other == at || !line[other].answered()),
            "one at a time"
        );
        left.retain(|&other| other != at);
        order.push(at);
        mount.kill_worker();
        line[at].close(granted as i32);
    }
    order
}

/// granted … by effective priority, then arrival
#[test]
fn waiters_are_granted_in_order() {
    let mount = Crashing::with(&[("aging", "1h")]);
    let (holder, fd) = mount.holder("x.lock");
    let mut line = Vec::new();
    for (nth, nice) in [10, 0, 19, 0, 5].into_iter().enumerate() {
        let mut client = mount.client();
        client.call(Op::Nice { level: nice }).unwrap();
        client.begin_open(mount.lock("x.lock"), TAKE);
        mount.wait_for_waiters("x.lock", nth + 1);
        line.push(client);
        if nth == 2 {
            mount.kill_worker();
        }
    }
    let waiters = |mount: &Crashing| -> Vec<(u64, u64)> {
        let entry = mount.entry("x.lock");
        let waiters = entry["waiters"].as_array().expect("waiters").iter();
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        waiters
            .map(|waiter| (number(&waiter["pid"]), number(&waiter["priority"])))
            .collect()
    };
    let pids: Vec<u64> = line.iter().map(|client| u64::from(client.pid())).collect();
    let expected: Vec<(u64, u64)> = [(1, 10), (3, 10), (4, 5), (0, 3), (2, 1)]
        .into_iter()
        .map(|(at, priority): (usize, u64)| (pids[at], priority))
        .collect();
    mount.kill_worker();
    assert_eq!(waiters(&mount), expected);
    assert_eq!(order_of(&mount, holder, fd, line), [1, 3, 4, 0, 2]);
}

/// Waiting raises a request: what it has risen it keeps.
#[test]
fn age_counts_over_a_crash() {
    let mount = Crashing::with(&[("aging", "200ms")]);
    let (holder, fd) = mount.holder("x.lock");
    let mut old = mount.client();
    old.call(Op::Nice { level: 19 }).unwrap();
    old.begin_open(mount.lock("x.lock"), TAKE);
    mount.wait_for_waiters("x.lock", 1);
    let level = || {
        mount.entry("x.lock")["waiters"][0]["effective_priority"]
            .as_u64()
            .expect("a number")
    };
    crate::wait_until("it has risen", || level() >= 5);
    mount.kill_worker();
    assert!(level() >= 5, "it is as old as it was");
    crate::wait_until("it is at the top", || level() == 10);
    mount.kill_worker();
    let young = mount.waiter("x.lock", 2);
    assert_eq!(order_of(&mount, holder, fd, vec![old, young]), [0, 1]);
}

/// Shared waiters at the head go together.
#[test]
fn shared_waiters_go_together() {
    let mount = Crashing::new();
    let (mut holder, fd) = mount.holder("x.lock");
    let mut line: Vec<Client> = Vec::new();
    for nth in 1..=3 {
        let mut client = mount.client();
        let handle = client.open(mount.door("x.lock"), O_RDWR).unwrap();
        client.begin_flock(handle, LOCK_SH);
        mount.wait_for_waiters("x.lock", nth);
        line.push(client);
    }
    let mut last = mount.waiter("x.lock", 4);
    mount.kill_worker();
    holder.close(fd);
    for client in &mut line {
        client.finish().unwrap();
    }
    assert!(!last.answered());
    mount.kill_worker();
    drop(line);
    last.finish().unwrap();
}

/// Upgrade of shared to exclusive keeps the shared lock until it succeeds and stands ahead of conflicting waiters.
#[test]
fn an_upgrade_stays_ahead() {
    let mount = Crashing::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let a = one.open(mount.door("x.lock"), O_RDWR).unwrap();
    let b = two.open(mount.door("x.lock"), O_RDWR).unwrap();
    one.flock(a, LOCK_SH).unwrap();
    two.flock(b, LOCK_SH).unwrap();
    let mut behind = mount.waiter("x.lock", 1);
    one.begin_flock(a, LOCK_EX);
    mount.wait_for_waiters("x.lock", 2);
    mount.kill_worker();
    assert_eq!(two.flock(b, LOCK_EX), Err(Errno::EDEADLK), "two upgraders: the second");
    two.flock(b, LOCK_UN).unwrap();
    one.finish().unwrap();
    assert!(!behind.answered());
    mount.kill_worker();
    one.close(a);
    behind.finish().unwrap();
}

/// `ticket=NAME` keeps the place in the line: the same name asked again within a minute resumes it at its old age.
#[test]
fn a_ticket_keeps_its_place() {
    let mount = Crashing::with(&[("aging", "1h")]);
    let (holder, held) = mount.holder("x.lock");
    let mut first = mount.client();
    let ask = "locks=x.lock ticket=t1 session=s wait=";
    assert_eq!(mount.acquire(&mut first, &format!("{ask}0")), Err(Errno::EAGAIN));
    let second = mount.waiter("x.lock", 1);
    mount.kill_worker();
    let ticket = mount.locks_json()["tickets"][0].clone();
    assert_eq!((&ticket["name"], &ticket["session"]), (&"t1".into(), &"s".into()));
    let other = format!("{ask}0").replace("session=s", "session=t");
    assert_eq!(
        mount.acquire(&mut mount.client(), &other),
        Err(Errno::EBUSY),
        "another session's"
    );
    let fd = first.open(mount.path("acquire"), O_RDWR).unwrap();
    let data = format!("{ask}1h");
    first.begin(Op::Write { fd, data });
    mount.wait_for_waiters("x.lock", 2);
    mount.kill_worker();
    let pids: Vec<_> = (0..2)
        .map(|at| mount.entry("x.lock")["waiters"][at]["pid"].clone())
        .collect();
    assert_eq!(pids, [first.pid(), second.pid()], "at its old place");
    let (mut holder, mut second) = (holder, second);
    holder.close(held);
    first.finish().unwrap();
    assert!(!second.answered());
    mount.kill_worker();
    first.close(fd);
    second.finish().unwrap();
}

/// `echo 'withdraw NAME' > control` gives it up.
#[test]
fn a_ticket_can_be_withdrawn_after_a_crash() {
    let mount = Crashing::new();
    let (_holder, _) = mount.holder("x.lock");
    let mut client = mount.client();
    assert_eq!(
        mount.acquire(&mut client, "locks=x.lock ticket=t1 wait=0"),
        Err(Errno::EAGAIN)
    );
    mount.kill_worker();
    mount.sh("echo withdraw t1 > $M/control").ok();
    assert_eq!(mount.locks_json()["tickets"], serde_json::json!([]));
}

/// A wait ended by a signal keeps its place for 1 s for the same process, name and kind (bash opens again after each
/// SIGCHLD).
#[test]
fn bash_keeps_its_place_when_it_opens_again() {
    let mount = Crashing::with(&[("aging", "1h")]);
    let (mut holder, fd) = mount.holder("x.lock");
    let shell = mount.spawn_sh("for s in 0.2 0.4 0.6 0.8; do sleep $s & done; exec 9> $L/x.lock; echo granted");
    mount.wait_for_waiters("x.lock", 1);
    let mut behind = mount.waiter("x.lock", 2);
    for _ in 0..4 {
        mount.kill_worker();
        // It may be away just now, between two opens, or have come back after this look began.
        let mut pids = Vec::new();
        crate::wait_until("both wait", || {
            let entry = mount.entry("x.lock");
            let waiters = entry["waiters"].as_array().expect("waiters").iter();
            pids = waiters.map(|waiter| waiter["pid"].clone()).collect();
            pids.len() == 2 && !pids.contains(&0.into())
        });
        assert_eq!(pids[0], shell.id());
    }
    let children = format!("/proc/{0}/task/{0}/children", shell.id());
    crate::wait_until("no signal comes any more", || {
        std::fs::read_to_string(&children).is_ok_and(|children| children.is_empty())
    });
    mount.wait_for_waiters("x.lock", 2);
    holder.close(fd);
    behind.finish().expect("the shell had it and has ended");
    assert_eq!(shell.finish().text(), "granted");
}

/// An idle handle is none that waits, and holds nothing.
#[test]
fn an_idle_handle_locks_after_a_crash() {
    let mount = Crashing::new();
    let mut client = mount.client();
    let fd = client.open(mount.lock("x.lock"), HANDLE).unwrap();
    mount.kill_worker();
    assert!(!mount.taken("x.lock"));
    client.flock(fd, LOCK_EX).unwrap();
    assert!(mount.taken("x.lock"));
    client.close(fd);
    mount.wait_until_free("x.lock");
}
