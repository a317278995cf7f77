//! `ticket=NAME` keeps the place in the line when the waiting process leaves.

use serde_json::Value;

use crate::support::client::Op;
use crate::support::sys::Errno;
use crate::support::{Client, Mount, wait_until};
use crate::{acquire, control, holder, transaction, waiter};

const ASK: &str = "locks=x.lock ticket=t session=s wait=100ms\n";
const ASK_LONG: &str = "locks=x.lock ticket=t session=s wait=forever\n";

/// Asks under a ticket until the wait limit.
fn leave_a_ticket(mount: &Mount) {
    let mut client = mount.client();
    assert_eq!(acquire(&mut client, mount, ASK), Err(Errno::ETIMEDOUT));
}

fn begin(mount: &Mount, request: &str) -> Client {
    let mut client = mount.client();
    let fd = transaction(&mut client, mount);
    let data = request.to_owned();
    client.begin(Op::Write { fd, data });
    client
}

fn tickets(mount: &Mount) -> Vec<Value> {
    mount.locks_json()["tickets"].as_array().expect("tickets").clone()
}

/// the same name asked again within a minute, for the same locks by the same session, resumes it at its old age
#[test]
fn a_ticket_keeps_the_place_in_the_line() {
    let mount = Mount::with(&[("aging", "1h")]);
    let (mut holding, fd) = holder(&mount, "x.lock");
    leave_a_ticket(&mount);
    let mut later = waiter(&mount, "x.lock", 1);
    let mut resumed = begin(&mount, ASK_LONG);
    mount.wait_for_waiters("x.lock", 2);
    holding.close(fd);
    assert!(resumed.finish().is_ok());
    assert!(!later.answered(), "who came after the ticket waits for its turn");
    resumed.kill();
    assert!(later.finish().is_ok());
}

/// (a time-out, Ctrl-C, the end of an agent's tool call)
#[test]
fn a_killed_waiter_leaves_its_ticket() {
    let mount = Mount::with(&[("aging", "1h")]);
    let (mut holding, fd) = holder(&mount, "x.lock");
    let gone = begin(&mount, ASK_LONG);
    mount.wait_for_waiters("x.lock", 1);
    gone.kill();
    wait_until("its ticket is there", || tickets(&mount).len() == 1);
    let mut later = waiter(&mount, "x.lock", 1);
    let mut resumed = begin(&mount, ASK_LONG);
    mount.wait_for_waiters("x.lock", 2);
    holding.close(fd);
    assert!(resumed.finish().is_ok());
    assert!(!later.answered());
}

/// (otherwise EBUSY)
#[test]
fn a_ticket_is_for_its_locks_and_session_alone() {
    let mount = Mount::new();
    let (_holder, _) = holder(&mount, "x.lock");
    leave_a_ticket(&mount);
    let mut client = mount.client();
    for other in [
        "locks=y.lock ticket=t session=s wait=0\n",
        "locks=x.lock,y.lock ticket=t session=s wait=0\n",
        "locks=x.lock ticket=t session=other wait=0\n",
    ] {
        assert_eq!(acquire(&mut client, &mount, other), Err(Errno::EBUSY), "{other}");
    }
    let _waiting = begin(&mount, ASK_LONG);
    mount.wait_for_waiters("x.lock", 1);
    assert_eq!(
        acquire(&mut client, &mount, ASK),
        Err(Errno::EBUSY),
        "somebody waits under it now"
    );
}

/// While absent it is passed over, never granted.
#[test]
fn an_absent_ticket_is_passed_over() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "x.lock");
    leave_a_ticket(&mount);
    let mut later = waiter(&mount, "x.lock", 1);
    holding.close(fd);
    let fd = later.finish().expect("the absent one holds nobody up");
    later.close(fd as i32);
    mount.wait_until_free("x.lock");
    assert_eq!(tickets(&mount).len(), 1, "it is still absent, and was not granted");
}

/// `metrics/locks.json` shows it
#[test]
fn an_absent_ticket_is_shown() {
    let mount = Mount::new();
    let (_holder, _) = holder(&mount, "x.lock");
    leave_a_ticket(&mount);
    let shown = tickets(&mount);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0]["name"], "t");
    assert_eq!(shown[0]["session"], "s");
    assert_eq!(shown[0]["locks"], serde_json::json!(["x.lock"]));
    assert!(shown[0]["expires_ms"].as_u64().is_some_and(|ms| ms <= 60_000));
}

/// `echo 'withdraw NAME' > control` gives it up.
#[test]
fn a_withdrawn_ticket_is_gone() {
    let mount = Mount::with(&[("aging", "1h")]);
    let (mut holding, fd) = holder(&mount, "x.lock");
    leave_a_ticket(&mount);
    let mut later = waiter(&mount, "x.lock", 1);
    assert!(control(&mount, "withdraw t\n").is_ok());
    assert!(tickets(&mount).is_empty());
    assert!(control(&mount, "withdraw t\n").is_err(), "there is none any more");
    let mut again = begin(&mount, ASK_LONG);
    mount.wait_for_waiters("x.lock", 2);
    holding.close(fd);
    assert!(later.finish().is_ok());
    assert!(!again.answered(), "it began anew, at the end of the line");
}

/// resumes it within a minute (`ticketGrace`)
#[test]
fn an_absent_ticket_expires() {
    let mount = Mount::with(&[("ticketGrace", "200ms")]);
    let (_holder, _) = holder(&mount, "x.lock");
    leave_a_ticket(&mount);
    wait_until("it has expired", || tickets(&mount).is_empty());
    let mut other = mount.client();
    let request = "locks=y.lock ticket=t session=another\n";
    assert!(acquire(&mut other, &mount, request).is_ok(), "the name is free again");
}
