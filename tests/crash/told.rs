//! What a transaction is told: its token, and who waits for what it holds. Each line once.

use libc::{O_RDWR, POLLIN};

use crate::support::sys::Errno;
use crate::support::{Client, Op, wait_until};
use crate::{Crashing, TAKE};

/// A transaction that holds `x.lock` and has read its token.
fn transaction(mount: &Crashing) -> (Client, i32) {
    let mut client = mount.client();
    let fd = mount.acquire(&mut client, "locks=x.lock mode=exclusive").expect("free");
    let line = client.read(fd, 100).expect("its token");
    assert!(line.starts_with("token="), "{line}");
    (client, fd)
}

/// Whether a line lies ready.
fn has_line(client: &mut Client, fd: i32) -> bool {
    let poll = Op::Poll {
        fd,
        events: POLLIN,
        timeout_ms: 0,
    };
    client.call(poll).expect("poll") != 0
}

fn wanted_by(client: &Client) -> String {
    format!("wanted by={} mode=exclusive priority=10\n", client.pid())
}

#[test]
fn lines_that_were_not_read_can_be_read_after_a_crash() {
    let mount = Crashing::new();
    let mut client = mount.client();
    let fd = mount.acquire(&mut client, "locks=x.lock mode=exclusive").expect("free");
    let (one, two) = (mount.waiter("x.lock", 1), mount.waiter("x.lock", 2));
    mount.kill_worker();
    let token = mount.token("x.lock");
    assert_eq!(client.read(fd, 100), Ok(format!("token={token}\n")));
    mount.kill_worker();
    assert_eq!(
        client.read(fd, 7),
        Ok(wanted_by(&one)[..7].to_owned()),
        "a part of a line"
    );
    mount.kill_worker();
    assert_eq!(
        client.read(fd, 100),
        Ok(wanted_by(&one)[7..].to_owned()),
        "and the rest of it"
    );
    assert_eq!(client.read(fd, 100), Ok(wanted_by(&two)));
    assert!(!has_line(&mut client, fd));
}

#[test]
fn a_line_that_was_read_does_not_come_again() {
    let mount = Crashing::new();
    let (mut client, fd) = transaction(&mount);
    let one = mount.waiter("x.lock", 1);
    assert_eq!(client.read(fd, 100), Ok(wanted_by(&one)));
    for _ in 0..3 {
        mount.kill_worker();
        // Whoever looks into the line makes sure that the worker knows who waits.
        assert_eq!(mount.entry("x.lock")["waiters"][0]["pid"], one.pid());
        assert!(!has_line(&mut client, fd));
    }
    let two = mount.waiter("x.lock", 2);
    assert_eq!(client.read(fd, 100), Ok(wanted_by(&two)));
    assert!(!has_line(&mut client, fd));
}

/// Later reads of the descriptor wait for events.
#[test]
fn a_read_that_waits_for_a_line_gets_it_from_the_next_worker() {
    let mount = Crashing::new();
    let (mut client, fd) = transaction(&mount);
    let read = |client: &mut Client| client.begin(Op::Read { fd, max: 100 });
    read(&mut client);
    wait_until("it sleeps", || client.state() == 'S');
    mount.kill_worker();
    assert!(!client.answered());
    let one = mount.waiter("x.lock", 1);
    let length = wanted_by(&one).len() as i64;
    assert_eq!(client.finish(), Ok(length));
    read(&mut client);
    wait_until("it sleeps", || client.state() == 'S');
    mount.kill_worker();
    let _two = mount.waiter("x.lock", 2);
    assert_eq!(client.finish(), Ok(length));
}

/// A line comes also when the wait began while nobody served.
#[test]
fn a_wait_that_begins_while_nobody_serves_is_told() {
    let mount = Crashing::new();
    let (mut client, fd) = transaction(&mount);
    let mut waits = mount.client();
    mount.while_nobody_serves(|| waits.begin_open(mount.lock("x.lock"), TAKE));
    assert_eq!(client.read(fd, 100), Ok(wanted_by(&waits)));
    assert!(!has_line(&mut client, fd));
    client.close(fd);
    waits.finish().expect("granted");
}

/// A transaction whose lock was taken away answers ESTALE, to whoever reads already, too.
#[test]
fn a_broken_transaction_stays_broken() {
    let mount = Crashing::new();
    let (mut client, fd) = transaction(&mount);
    let token = mount.token("x.lock");
    client.begin(Op::Read { fd, max: 100 });
    wait_until("it sleeps", || client.state() == 'S');
    mount.kill_worker();
    mount.sh(&format!("echo 'break x.lock {token} testing' > $M/control"));
    assert_eq!(client.finish(), Err(Errno::ESTALE));
    mount.kill_worker();
    assert_eq!(client.read(fd, 100), Err(Errno::ESTALE));
}

/// A request that was refused leaves a descriptor that takes another one.
#[test]
fn a_transaction_that_was_refused_can_ask_again() {
    let mount = Crashing::new();
    let (_holder, _) = mount.holder("x.lock");
    let mut client = mount.client();
    let fd = client.open(mount.path("acquire"), O_RDWR).unwrap();
    assert_eq!(client.write(fd, "locks=x.lock wait=0"), Err(Errno::EAGAIN));
    mount.kill_worker();
    client.write(fd, "locks=y.lock wait=0").unwrap();
    let token = mount.token("y.lock");
    assert_eq!(client.read(fd, 100), Ok(format!("token={token}\n")));
    mount.kill_worker();
    assert_eq!(
        client.write(fd, "locks=z.lock wait=0").map(|_| ()),
        client.write(fd, "locks=z.lock").map(|_| ())
    );
}
