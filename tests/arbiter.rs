//! The arbiter as a user meets it on a real mount: waiting, order, deadlocks, scopes, `acquire`, `control`, `last-error`,
//! tokens and sessions, and everything malformed.
//!
//! Each test carries the sentence of the contract that it proves.

#[path = "support/mod.rs"]
mod support;

#[path = "arbiter/acquire.rs"]
mod acquire;
#[path = "arbiter/bad_input.rs"]
mod bad_input;
#[path = "arbiter/control.rs"]
mod control;
#[path = "arbiter/crowd.rs"]
mod crowd;
#[path = "arbiter/deadlock.rs"]
mod deadlock;
#[path = "arbiter/malformed.rs"]
mod malformed;
#[path = "arbiter/order.rs"]
mod order;
#[path = "arbiter/poll.rs"]
mod poll;
#[path = "arbiter/reasons.rs"]
mod reasons;
#[path = "arbiter/scopes.rs"]
mod scopes;
#[path = "arbiter/tickets.rs"]
mod tickets;
#[path = "arbiter/tokens.rs"]
mod tokens;
#[path = "arbiter/waiting.rs"]
mod waiting;

use serde_json::Value;

use support::sys::Sys;
use support::{Client, Mount};

/// What the shell's `>` opens with.
const TAKE: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
/// Take it now or EAGAIN.
const TRY: i32 = TAKE | libc::O_NONBLOCK;
/// Take it now or EEXIST.
const EXCL: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
/// A handle, no lock yet.
const HANDLE: i32 = libc::O_RDWR | libc::O_CREAT;

/// A client that holds a lock by an open; the descriptor with it.
fn holder(mount: &Mount, name: &str) -> (Client, i32) {
    let mut client = mount.client();
    let fd = client.open(mount.lock(name), TAKE).expect("a free lock is granted");
    (client, fd)
}

/// A client that waits for a lock in an open, as the `nth` waiter.
fn waiter(mount: &Mount, name: &str, nth: usize) -> Client {
    let mut client = mount.client();
    client.begin_open(mount.lock(name), TAKE);
    mount.wait_for_waiters(name, nth);
    client
}

/// Opens `acquire` for a request.
fn transaction(client: &mut Client, mount: &Mount) -> i32 {
    client
        .open(mount.path("acquire"), libc::O_RDWR)
        .expect("acquire can always be opened")
}

/// One request through `acquire`: the descriptor that holds the locks.
fn acquire(client: &mut Client, mount: &Mount, request: &str) -> Sys<i32> {
    let fd = transaction(client, mount);
    match client.write(fd, request) {
        Ok(_) => Ok(fd),
        Err(errno) => {
            client.close(fd);
            Err(errno)
        }
    }
}

/// The token that the first read of a granted transaction gives.
fn token_of(client: &mut Client, fd: i32) -> u64 {
    let line = client.read(fd, 256).expect("the grant can be read");
    let token = line.strip_prefix("token=").and_then(|rest| rest.strip_suffix('\n'));
    token
        .and_then(|t| t.parse().ok())
        .unwrap_or_else(|| panic!("token=N, not {line:?}"))
}

/// One write to `control` by a process of its own.
fn control(mount: &Mount, line: &str) -> Sys<i64> {
    let mut client = mount.client();
    let fd = client
        .open(mount.path("control"), libc::O_WRONLY)
        .expect("control opens");
    client.write(fd, line)
}

/// The entry of a lock in `metrics/locks.json`; null when it has none.
fn entry(mount: &Mount, name: &str) -> Value {
    let table = mount.locks_json();
    let locks = table["locks"].as_array().expect("locks");
    locks
        .iter()
        .find(|lock| lock["name"] == name)
        .cloned()
        .unwrap_or(Value::Null)
}
