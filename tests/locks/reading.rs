//! Reading a lock: its text, its extended attributes, and poll(2) on its handles.

use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;

use libc::{LOCK_EX, LOCK_SH, LOCK_UN, O_CREAT, O_RDONLY, O_RDWR, O_WRONLY, POLLIN};

use crate::support::sys::{self, Errno};
use crate::support::{Mount, Op};

/// "`cat locks/x.lock`: a line a holder, exactly in the form that is written, then what is known"
#[test]
fn the_text_of_a_lock_has_the_documented_form() {
    let mount = Mount::new();
    let mut holder = mount.client();
    let fd = holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let line = format!("{}:agent-7:1763647200", holder.pid());
    holder.write(fd, &format!("{line}\n")).unwrap();
    let text = mount.text_of("x.lock").unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(line.as_str()), "{text}");
    assert_eq!(lines.next(), Some(""), "{text}");
    let keys: Vec<&str> = lines.map(|line| line.split_once('=').expect("KEY=VALUE").0).collect();
    let known = ["mode", "held", "token", "since", "waiters", "op"];
    assert_eq!(keys[..4], known[..4], "{text}");
    assert!(keys[4..].iter().all(|key| known[4..].contains(key)), "{text}");
    assert_eq!(mount.field_of("x.lock", "mode").as_deref(), Some("exclusive"));
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("owner"));
    let since = mount.field_of("x.lock", "since").unwrap();
    assert!(
        since.len() == 20 && since.starts_with("20") && since.ends_with('Z'),
        "{since}"
    );
    assert!(text.ends_with('\n'));
}

/// "The session of a plain open is … else `sid-` and its session id."
#[test]
fn a_lock_without_text_shows_its_holder() {
    let mount = Mount::new();
    let mut holder = mount.client();
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    // SAFETY: no memory is involved.
    let session = unsafe { libc::getsid(holder.pid() as i32) };
    let text = mount.text_of("x.lock").unwrap();
    let expected = format!("{}:sid-{session}", holder.pid());
    let first = text.lines().next().unwrap();
    assert!(
        first == expected || first.starts_with(&format!("{expected}:")),
        "{first}"
    );
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("descriptor"));
}

/// "a line a holder"
#[test]
fn shared_holders_have_a_line_each() {
    let mount = Mount::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    for client in [&mut one, &mut two] {
        let fd = client.open(mount.door("x.lock"), O_RDONLY).unwrap();
        client.flock(fd, LOCK_SH).unwrap();
    }
    let text = mount.text_of("x.lock").unwrap();
    let holders: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(holders.len(), 2, "{text}");
    for (line, pid) in holders.iter().zip([one.pid(), two.pid()]) {
        assert!(line.starts_with(&format!("{pid}:")), "{text}");
    }
    assert_eq!(mount.field_of("x.lock", "mode").as_deref(), Some("shared"));
}

/// "waiters=2"
#[test]
fn the_text_counts_the_waiters() {
    let mount = Mount::new();
    let mut holder = mount.client();
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let mut waiters = [mount.client(), mount.client(), mount.client()];
    for (already, waiter) in waiters.iter_mut().enumerate() {
        waiter.begin_open(mount.lock("x.lock"), O_WRONLY | O_CREAT);
        mount.wait_for_waiters("x.lock", already + 1);
    }
    assert_eq!(mount.field_of("x.lock", "waiters").as_deref(), Some("3"));
}

/// "Files are rendered once, at open, and their sizes are true"
#[test]
fn a_text_is_rendered_once_and_its_size_is_true() {
    let mount = Mount::new();
    let (mut holder, mut waiter) = (mount.client(), mount.client());
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let mut file = std::fs::File::open(mount.lock("x.lock")).unwrap();
    let text = mount.text_of("x.lock").unwrap();
    assert_eq!(mount.lock("x.lock").metadata().unwrap().size(), text.len() as u64);
    let mut start = [0; 10];
    file.read_exact(&mut start).unwrap();
    waiter.begin_open(mount.lock("x.lock"), O_WRONLY | O_CREAT);
    mount.wait_for_waiters("x.lock", 1);
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&start) + rest.as_str(),
        text,
        "not torn across two states"
    );
    file.rewind().unwrap();
    let mut again = String::new();
    file.read_to_string(&mut again).unwrap();
    assert_eq!(again, text);
    for place in ["README", "metrics/locks.json", "last-error", "control", "acquire"] {
        let read = std::fs::read(mount.path(place)).unwrap_or_else(|error| panic!("{place}: {error}"));
        if place != "metrics/locks.json" {
            let size = mount.path(place).metadata().unwrap().size();
            assert_eq!(size, read.len() as u64, "{place}");
        }
    }
}

/// "The same fields are xattrs `user.lockfs.*` (getfattr)."
#[test]
fn the_fields_are_extended_attributes() {
    let mount = Mount::new();
    let mut holder = mount.client();
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let listed = sys::listxattr(mount.lock("x.lock")).unwrap();
    for key in ["mode", "held", "token", "since"] {
        let name = format!("user.lockfs.{key}");
        let value = sys::getxattr(mount.lock("x.lock"), &name).unwrap();
        assert_eq!(Some(value), mount.field_of("x.lock", key), "{key}");
        assert!(listed.contains(&name), "{listed:?}");
    }
    let unknown = sys::getxattr(mount.lock("x.lock"), "user.lockfs.nothing");
    assert_eq!(unknown, Err(Errno::ENODATA));
    assert_eq!(
        sys::getxattr(mount.lock("free"), "user.lockfs.mode"),
        Err(Errno::ENOENT)
    );
    let mut command = mount.command(crate::support::require("getfattr"));
    command
        .args(["--only-values", "-n", "user.lockfs.held"])
        .arg(mount.lock("x.lock"));
    assert_eq!(mount.run(command).stdout, b"descriptor");
}

/// "`token` is a fencing token: it only ever grows …, for every exclusive grant."
#[test]
fn the_token_grows_with_every_exclusive_grant() {
    let mount = Mount::new();
    let mut client = mount.client();
    let mut last = 0;
    for round in 0..10 {
        let name = ["x.lock", "y.lock"][round % 2];
        let fd = client.open(mount.lock(name), O_WRONLY | O_CREAT).unwrap();
        let token: u64 = mount.field_of(name, "token").unwrap().parse().unwrap();
        assert!(token > last, "{token} after {last}");
        last = token;
        client.close(fd);
    }
}

/// "poll(2)/select(2) on a handle that holds the lock is readable when someone waits for it"
#[test]
fn a_holder_polls_for_waiters() {
    let mount = Mount::new();
    let (mut holder, mut waiter) = (mount.client(), mount.client());
    let fd = holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let poll = |timeout_ms| Op::Poll {
        fd,
        events: POLLIN,
        timeout_ms,
    };
    assert_eq!(holder.call(poll(0)), Ok(0));
    holder.begin(poll(15_000));
    waiter.begin_open(mount.lock("x.lock"), O_WRONLY | O_CREAT);
    let ready = holder.finish().unwrap();
    assert_ne!(ready & i64::from(POLLIN), 0, "it woke up");
    holder.close(fd);
    waiter.finish().unwrap();
}

/// "on a lockable handle, when the lock could be had"
#[test]
fn a_handle_polls_for_the_lock_to_be_free() {
    let mount = Mount::new();
    let (mut holder, mut other) = (mount.client(), mount.client());
    let held = holder.open(mount.lock("x.lock"), O_RDWR | O_CREAT).unwrap();
    let fd = other.open(mount.lock("x.lock"), O_RDWR | O_CREAT).unwrap();
    let poll = |timeout_ms| Op::Poll {
        fd,
        events: POLLIN,
        timeout_ms,
    };
    assert_ne!(other.call(poll(0)).unwrap() & i64::from(POLLIN), 0, "it is free");
    holder.flock(held, LOCK_EX).unwrap();
    assert_eq!(other.call(poll(0)).unwrap() & i64::from(POLLIN), 0, "it is taken");
    other.begin(poll(15_000));
    holder.flock(held, LOCK_UN).unwrap();
    assert_ne!(other.finish().unwrap() & i64::from(POLLIN), 0, "it woke up");
}
