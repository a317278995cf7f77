//! `acquire`: one request for several locks.

use std::time::{Duration, Instant};

use crate::support::client::Op;
use crate::support::sys::Errno;
use crate::support::{Client, Mount, Said};
use crate::{HANDLE, TAKE, TRY, acquire, entry, holder, token_of, transaction, waiter};

fn begin(mount: &Mount, request: &str) -> (Client, i32) {
    let mut client = mount.client();
    let fd = transaction(&mut client, mount);
    let data = request.to_owned();
    client.begin(Op::Write { fd, data });
    (client, fd)
}

/// The shell example of the contract, word for word.
#[test]
fn the_shell_takes_several_locks_in_one_line() {
    let mount = Mount::new();
    let script = r#"cd $M
        exec 9<> acquire
        echo 'locks=global.lock,issue-71.lock mode=exclusive wait=5s priority=8 session=agent-7 op="git merge"' >&9 || exit 75
        read -r grant <&9
        echo "$$ $grant"; ls locks; cat locks/issue-71.lock"#;
    let said = mount.sh(script).ok().text();
    let (pid, rest) = said.split_once(' ').unwrap();
    let (grant, rest) = rest.split_once('\n').unwrap();
    assert!(
        grant.strip_prefix("token=").is_some_and(|t| t.parse::<u64>().is_ok()),
        "{grant}"
    );
    for expected in [
        "global.lock\n",
        "issue-71.lock\n",
        &format!("{pid}:agent-7"),
        "mode=exclusive",
        "held=descriptor",
        "op=git merge",
    ] {
        assert!(rest.contains(expected), "{expected} is in {rest}");
    }
    mount.wait_until_free("global.lock");
    assert_eq!(mount.listed(), [""; 0], "all go at its last close");
}

/// JSON with the same keys is taken too.
#[test]
fn json_is_taken_too() {
    let mount = Mount::new();
    let mut client = mount.client();
    let request = r#"{"locks":["a.lock","b.lock"],"mode":"shared","wait":"5s","priority":8,"session":"agent-7","op":"git merge secret"}"#;
    let fd = acquire(&mut client, &mount, &format!("{request}\n")).unwrap();
    token_of(&mut client, fd);
    for name in ["a.lock", "b.lock"] {
        let holder = &entry(&mount, name)["holders"][0];
        assert_eq!(holder["pid"], client.pid());
        assert_eq!(holder["mode"], "shared");
        assert_eq!(holder["session"], "agent-7");
        assert_eq!(holder["op"], "git merge", "arguments may carry secrets");
        assert_eq!(mount.field_of(name, "op").as_deref(), Some("git merge secret"));
    }
}

/// Keys: locks (required), mode (exclusive|shared)
#[test]
fn shared_requests_go_together() {
    let mount = Mount::new();
    let mut one = mount.client();
    let mut two = mount.client();
    acquire(&mut one, &mount, "locks=x.lock mode=shared\n").unwrap();
    acquire(&mut two, &mount, "locks=x.lock mode=shared wait=0\n").unwrap();
    let mut three = mount.client();
    assert_eq!(acquire(&mut three, &mount, "locks=x.lock wait=0\n"), Err(Errno::EAGAIN));
}

/// all locks are taken together or none
#[test]
fn all_or_none() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "b.lock");
    let mut client = mount.client();
    let refused = acquire(&mut client, &mount, "locks=a.lock,b.lock,c.lock wait=0\n");
    assert_eq!(refused, Err(Errno::EAGAIN));
    assert_eq!(mount.listed(), ["b.lock"]);
    let refused = acquire(&mut client, &mount, "locks=a.lock,b.lock,c.lock wait=200ms\n");
    assert_eq!(refused, Err(Errno::ETIMEDOUT));
    assert_eq!(mount.listed(), ["b.lock"]);
    holding.close(fd);
    acquire(&mut client, &mount, "locks=a.lock,b.lock,c.lock wait=5s\n").unwrap();
    assert_eq!(mount.listed(), ["a.lock", "b.lock", "c.lock"]);
}

/// in an order that cannot deadlock
#[test]
fn opposite_orders_do_not_deadlock() {
    let mount = Mount::new();
    let script = r#"
for pair in a.lock,b.lock,c.lock c.lock,b.lock,a.lock b.lock,a.lock c.lock,a.lock; do
  (for i in $(seq 25); do exec 9<> $M/acquire; echo "locks=$pair" >&9 || echo refused; exec 9>&-; done) &
done
wait"#;
    assert_eq!(mount.sh(script).ok().text(), "");
}

/// wait (0, a time, `forever`)
#[test]
fn the_request_chooses_its_wait() {
    let mount = Mount::with(&[("wait", "200ms")]);
    let (mut holding, fd) = holder(&mount, "x.lock");
    let (mut forever, _) = begin(&mount, "locks=x.lock wait=forever\n");
    mount.wait_for_waiters("x.lock", 1);
    let mut client = mount.client();
    let begun = Instant::now();
    assert_eq!(
        acquire(&mut client, &mount, "locks=x.lock wait=0\n"),
        Err(Errno::EAGAIN)
    );
    assert!(begun.elapsed() < Duration::from_secs(1));
    let begun = Instant::now();
    assert_eq!(
        acquire(&mut client, &mount, "locks=x.lock wait=700ms\n"),
        Err(Errno::ETIMEDOUT)
    );
    assert!(begun.elapsed() >= Duration::from_millis(650), "longer than the default");
    assert_eq!(
        client.open(mount.lock("x.lock"), TAKE),
        Err(Errno::ETIMEDOUT),
        "the default holds for others"
    );
    assert!(!forever.answered());
    holding.close(fd);
    assert!(forever.finish().is_ok());
}

/// hold the descriptor; all go at its last close
#[test]
fn every_copy_of_the_descriptor_holds() {
    let mount = Mount::new();
    let mut client = mount.client();
    let fd = acquire(&mut client, &mount, "locks=a.lock,b.lock\n").unwrap();
    let copy = client.call(Op::Dup { fd }).unwrap() as i32;
    client.close(fd);
    let mut other = mount.client();
    assert_eq!(other.open(mount.lock("a.lock"), TRY), Err(Errno::EAGAIN));
    client.close(copy);
    mount.wait_until_free("a.lock");
    mount.wait_until_free("b.lock");
}

/// Later reads of the descriptor wait for events, one a line: `wanted by=4250 mode=exclusive priority=10` when someone
/// waits for what you hold.
#[test]
fn the_holder_reads_who_wants_its_lock() {
    let mount = Mount::new();
    let mut holding = mount.client();
    let fd = acquire(&mut holding, &mount, "locks=x.lock,y.lock\n").unwrap();
    token_of(&mut holding, fd);
    holding.begin(Op::Read { fd, max: 4096 });
    assert!(!holding.answered(), "nobody wants it yet: the read waits");
    let first = waiter(&mount, "x.lock", 1);
    let count = holding.finish().expect("the waiting read is answered");
    let expected = format!("wanted by={} mode=exclusive priority=10\n", first.pid());
    assert_eq!(count, expected.len() as i64);

    let mut second = mount.client();
    let handle = second.open(mount.lock("y.lock"), HANDLE).unwrap();
    second.begin_flock(handle, libc::LOCK_SH);
    mount.wait_for_waiters("y.lock", 1);
    let line = holding.read(fd, 4096).unwrap();
    let expected = format!("wanted by={} mode=shared priority=", second.pid());
    assert!(line.starts_with(&expected) && line.ends_with('\n'), "{line:?}");
}

/// Later reads of the descriptor wait for events: a signal ends them, and the locks stay.
#[test]
fn a_waiting_read_can_be_killed_and_blocks_nobody() {
    let mount = Mount::new();
    let script = "exec 9<> $M/acquire; echo locks=x.lock >&9; read -r grant <&9; echo \"$grant\"; timeout 0.3 head -n 1 <&9; \
        echo $?; test -e $L/x.lock && echo still; timeout 0.3 cat <&9; echo $?";
    let said = mount.sh(script).ok().text();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("token="), "{said}");
    assert_eq!(lines[1..], ["124", "still", "124"]);
}

/// many processes may wait in it at once
#[test]
fn many_processes_wait_in_it_at_once() {
    let mount = Mount::with(&[("aging", "1h")]);
    let (mut holding, fd) = holder(&mount, "x.lock");
    let mut line: Vec<(Client, i32)> = Vec::new();
    for nth in 1..=8 {
        line.push(begin(&mount, "locks=x.lock wait=forever\n"));
        mount.wait_for_waiters("x.lock", nth);
    }
    for (client, _) in &line {
        assert_eq!(client.state(), 'S');
    }
    let (gone, _) = line.remove(3);
    gone.kill();
    mount.wait_for_waiters("x.lock", 7);
    holding.close(fd);
    for (mut client, fd) in line {
        assert!(client.finish().is_ok());
        token_of(&mut client, fd);
        client.close(fd);
    }
}

/// a transaction file opened O_RDWR, after its request (O_RDONLY it reads as its help text)
#[test]
fn reading_it_shows_how_to_use_it() {
    let mount = Mount::new();
    let help = mount
        .sh("cat $M/acquire; cp $M/acquire $T/copy; cat $T/copy")
        .ok()
        .text();
    for key in ["locks", "mode", "wait", "priority", "session", "op", "ticket"] {
        assert!(help.contains(key), "the help names {key}: {help}");
    }
    assert_eq!(mount.listed(), [""; 0]);
}

/// write one request
#[test]
fn one_descriptor_carries_one_request() {
    let mount = Mount::new();
    let mut client = mount.client();
    let fd = acquire(&mut client, &mount, "locks=x.lock\n").unwrap();
    assert!(
        client.write(fd, "locks=y.lock\n").is_err(),
        "a second one would be lost silently"
    );
    assert_eq!(mount.listed(), ["x.lock"]);
}

/// A malformed request is refused whole; the descriptor can carry a better one.
#[test]
fn a_refused_request_takes_nothing() {
    let mount = Mount::new();
    let mut client = mount.client();
    let fd = transaction(&mut client, &mount);
    assert_eq!(client.write(fd, "locks=x.lock mode=mine\n"), Err(Errno::EINVAL));
    assert_eq!(mount.listed(), [""; 0]);
}
