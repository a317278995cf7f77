//! How long it is held: by an owner whose PID was written.

use libc::{O_CREAT, O_EXCL, O_NONBLOCK, O_WRONLY, SIGKILL, SIGTERM};

use crate::support::sys::Errno;
use crate::support::{Mount, Running, Said, wait_until};

/// A shell that runs a script, says `ready` and stays.
fn staying(mount: &Mount, script: &str) -> Running {
    let shell = mount.spawn_sh(&format!("{script}\necho ready\nwhile :; do sleep 60; done"));
    shell.wait_for_line("ready");
    shell
}

/// "It outlives the redirection: `echo $$ > locks/x.lock || exit 75` holds for the shell"
#[test]
fn a_written_pid_holds_for_the_shell() {
    let mount = Mount::new();
    let mut shell = staying(&mount, "echo $$ > $L/x.lock || exit 75");
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("owner"));
    let mut other = mount.client();
    let refused = other.open(mount.lock("x.lock"), O_WRONLY | O_NONBLOCK);
    assert_eq!(refused, Err(Errno::EAGAIN));
    other.begin_open(mount.lock("x.lock"), O_WRONLY | O_CREAT);
    mount.wait_for_waiters("x.lock", 1);
    shell.kill();
    other.finish().expect("the owner is gone");
}

/// "`$PPID` for its parent"
#[test]
fn a_parents_pid_holds_for_the_parent() {
    let mount = Mount::new();
    let mut parent = staying(&mount, "bash -c 'echo $PPID > $L/x.lock; :'");
    let first = mount.text_of("x.lock").unwrap();
    assert_eq!(first.lines().next(), Some(parent.id().to_string().as_str()));
    parent.kill();
    mount.wait_until_free("x.lock");
}

/// "owner … at `rm`, or when that process exits": also when nobody has asked for its exit status yet.
#[test]
fn an_owner_that_is_a_zombie_has_exited() {
    let mount = Mount::new();
    for signal in [SIGTERM, SIGKILL] {
        let shell = staying(&mount, "echo $$ > $L/x.lock");
        shell.signal(signal);
        wait_until("the owner is a zombie", || shell.state() == 'Z');
        mount.wait_until_free("x.lock");
    }
}

/// "owner: a PID was written into it | at `rm`, or when that process exits": not when its writer does.
#[test]
fn the_process_that_was_written_counts_and_not_the_writer() {
    let mount = Mount::new();
    let mut owner = staying(&mount, ":");
    mount.sh(&format!("echo {} > $L/x.lock", owner.id())).ok();
    assert_eq!(
        mount.field_of("x.lock", "held").as_deref(),
        Some("owner"),
        "the writer is gone"
    );
    owner.kill();
    mount.wait_until_free("x.lock");
}

/// "at `rm`"
#[test]
fn rm_by_the_owner_ends_it() {
    let mount = Mount::new();
    let said = mount.sh("echo $$ > $L/x.lock && rm $L/x.lock && test ! -e $L/x.lock && echo free");
    assert_eq!(said.text(), "free");
}

/// "owner: a PID was written into it", whatever way it was taken
#[test]
fn a_pid_turns_an_exclusive_open_into_an_owner_lock() {
    let mount = Mount::new();
    let mut client = mount.client();
    let fd = client.open(mount.lock("x.lock"), O_WRONLY | O_CREAT | O_EXCL).unwrap();
    let pid = client.pid();
    client.write(fd, &format!("{pid}\n")).unwrap();
    client.close(fd);
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("owner"));
    client.exit();
    mount.wait_until_free("x.lock");
}

/// "A PID *written*": the descriptor that wrote it may stay open or be closed, the lock ends with the owner.
#[test]
fn an_owner_lock_ends_with_the_owner_while_a_descriptor_is_open() {
    let mount = Mount::new();
    let mut owner = staying(&mount, ":");
    let mut writer = mount.client();
    let fd = writer.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    writer.write(fd, &format!("{}\n", owner.id())).unwrap();
    owner.kill();
    mount.wait_until_free("x.lock");
    let mut other = mount.client();
    other
        .open(mount.lock("x.lock"), O_WRONLY | O_CREAT | O_NONBLOCK)
        .unwrap();
    writer.close(fd);
    assert!(mount.taken("x.lock"), "the old descriptor has no part in the new lock");
}

/// "no descriptor or owner lock is ever held by nobody"
#[test]
fn many_owners_that_exit_at_once_leave_nothing() {
    let mount = Mount::new();
    mount
        .sh("for i in $(seq 100); do (exec bash -c 'echo $$ > $L/'$i) & done; wait")
        .ok();
    wait_until("all are free", || mount.listed().is_empty());
}

/// "The PID is read in the writer's PID namespace"
#[test]
fn a_pid_is_read_in_the_writers_namespace() {
    let mount = Mount::new();
    let mut command = mount.command(crate::support::require("unshare"));
    // SAFETY: geteuid cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        command.arg("-r");
    }
    let script = "sleep 60 & echo $! > $L/x.lock && echo took && cat; kill $!; wait; echo over; sleep 60";
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c", script]);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    command.stdin(std::os::fd::OwnedFd::from(theirs));
    let inside = mount.spawn(command);
    inside.wait_for_line("took");
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("owner"));
    drop(ours);
    inside.wait_for_line("over");
    mount.wait_until_free("x.lock");
}
