//! How long it is held: by a descriptor.

use libc::{F_SETLK, F_WRLCK, LOCK_EX, LOCK_SH, LOCK_UN, O_CREAT, O_RDWR, O_WRONLY, SIGKILL};

use crate::support::{Mount, Op, Said, wait_until};

/// "descriptor: `>` without writing; flock; fcntl | at the last close of every copy of the descriptor"
#[test]
fn a_lock_ends_at_the_last_close_of_every_copy() {
    let mount = Mount::new();
    let mut client = mount.client();
    let fd = client.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let copy = client.call(Op::Dup { fd }).unwrap() as i32;
    client.close(fd);
    assert!(mount.taken("x.lock"), "a copy is open");
    client.close(copy);
    assert!(!mount.taken("x.lock"));
    let fd = client.open(mount.lock("y.lock"), O_RDWR | O_CREAT).unwrap();
    client.flock(fd, LOCK_EX).unwrap();
    let copy = client.call(Op::Dup { fd }).unwrap() as i32;
    client.close(fd);
    assert!(mount.taken("y.lock"), "flock belongs to all copies");
    client.close(copy);
    assert!(!mount.taken("y.lock"));
}

/// "(a background child may have one: start it with `9>&-`)"
#[test]
fn a_background_child_keeps_the_lock_unless_it_closes_its_copy() {
    let mount = Mount::new();
    let said = mount.sh(
        "exec 9>$L/x.lock; sleep 60 & exec 9>&-; test -e $L/x.lock && echo kept; kill $!; wait
test -e $L/x.lock || echo free
# The child closes its copy when it gets to run.
exec 9>$L/y.lock; sleep 60 9>&- & exec 9>&-; while test -e $L/y.lock; do :; done; echo free beside it",
    );
    assert_eq!(said.text(), "kept\nfree\nfree beside it");
}

/// "… or LOCK_UN"
#[test]
fn an_unlock_ends_it() {
    let mount = Mount::new();
    let mut client = mount.client();
    let fd = client.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    client.flock(fd, LOCK_UN).unwrap();
    assert!(!mount.taken("x.lock"), "also what an open took");
    client.flock(fd, LOCK_SH).expect("the handle can take it again");
    assert!(mount.taken("x.lock"));
    client.flock(fd, LOCK_UN).unwrap();
    assert!(!mount.taken("x.lock"));
}

/// "so also when the processes die, however they die"
#[test]
fn a_killed_holder_leaves_nothing() {
    let mount = Mount::new();
    let mut holder = mount.client();
    for number in 0..50 {
        holder
            .open(mount.lock(&format!("open-{number}")), O_WRONLY | O_CREAT)
            .unwrap();
        let fd = holder.open(mount.door(&format!("flock-{number}")), O_RDWR).unwrap();
        holder.flock(fd, LOCK_EX).unwrap();
        let fd = holder
            .open(mount.lock(&format!("fcntl-{number}")), O_RDWR | O_CREAT)
            .unwrap();
        holder.fcntl(fd, F_SETLK, F_WRLCK, number, 1).unwrap();
    }
    assert_eq!(mount.listed().len(), 150);
    holder.signal(SIGKILL);
    wait_until("all are free", || mount.listed().is_empty());
}

/// "at the last close of every copy of the descriptor … so also when the processes die"
#[test]
fn a_copy_in_another_process_keeps_it_when_the_opener_dies() {
    let mount = Mount::new();
    let mut holder = mount.client();
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let child = holder.call(Op::Fork).unwrap() as u32;
    holder.kill();
    assert!(mount.taken("x.lock"), "the child has a copy");
    crate::support::sys::kill(child, SIGKILL).unwrap();
    mount.wait_until_free("x.lock");
}

/// "FLUSH comes at every close of every duplicate, with or without data. Act on RELEASE only"
#[test]
fn closing_a_duplicate_many_times_changes_nothing() {
    let mount = Mount::new();
    let mut client = mount.client();
    let fd = client.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    for _ in 0..20 {
        let copy = client.call(Op::Dup { fd }).unwrap() as i32;
        client.close(copy);
        assert!(mount.taken("x.lock"));
    }
    client.close(fd);
    assert!(!mount.taken("x.lock"));
}

/// "LOCK_UN" of one handle leaves the share of another.
#[test]
fn each_shared_holder_ends_for_itself() {
    let mount = Mount::new();
    let mut client = mount.client();
    let a = client.open(mount.lock("x.lock"), O_RDWR | O_CREAT).unwrap();
    let b = client.open(mount.door("x.lock"), O_RDWR).unwrap();
    client.flock(a, LOCK_SH).unwrap();
    client.flock(b, LOCK_SH).unwrap();
    client.flock(a, LOCK_UN).unwrap();
    assert!(mount.taken("x.lock"));
    client.close(b);
    assert!(!mount.taken("x.lock"));
}

/// `exec 9<>x; flock 9`: flock(1) takes the lock and is gone; the shell that opened the descriptor has it.
#[test]
fn what_a_child_took_is_the_openers_and_kept_from_strangers() {
    let mount = Mount::new();
    let mut other = mount.client();
    // At once; and after a wait, in which flock(1) became known.
    for (name, waits) in [("quick.lock", false), ("late.lock", true)] {
        let fd = other.open(mount.lock("late.lock"), O_WRONLY | O_CREAT).unwrap();
        let script = format!(
            "exec 9<> $F/{name}; flock 9; echo ready
until test -e $T/{name}; do sleep 0.02 9>&-; done; rm $L/{name} && echo removed"
        );
        let shell = mount.spawn_sh(&script);
        if waits {
            mount.wait_for_waiters(name, 1);
            let json = mount.locks_json();
            assert_ne!(json["locks"][0]["waiters"][0]["pid"], 0, "it is known who waits");
        }
        other.close(fd);
        shell.wait_for_line("ready");
        let said = mount.sh(&format!("rm $L/{name}"));
        assert!(said.error().contains("resource busy"), "{name}: {}", said.error());
        assert_eq!(
            mount.sh(&format!("flock -n $F/{name} true")).code(),
            1,
            "{name} is held"
        );
        let text = mount.text_of(name).expect("it is held");
        assert!(text.starts_with(&format!("{}:", shell.id())), "{name}: {text}");
        assert!(text.contains("\nop=bash\n"), "{name}: {text}");
        mount.sh(&format!(": > $T/{name}")).ok();
        assert_eq!(shell.finish().ok().text(), "ready\nremoved", "{name}");
    }
}
