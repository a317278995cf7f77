//! EDEADLK: when waiting would last for ever, and only then.

use crate::support::sys::Errno;
use crate::support::{Mount, Said, wait_until};
use crate::{HANDLE, TAKE, acquire, holder, waiter};

/// EDEADLK goes to one waiter of a circle in the wait-for graph
#[test]
fn one_of_two_that_wait_for_each_other_is_refused() {
    let mount = Mount::new();
    let (mut one, _) = holder(&mount, "x.lock");
    let (mut two, held_by_two) = holder(&mount, "y.lock");
    one.begin_open(mount.lock("y.lock"), TAKE);
    mount.wait_for_waiters("y.lock", 1);
    assert_eq!(
        two.open(mount.lock("x.lock"), TAKE),
        Err(Errno::EDEADLK),
        "it would close the circle"
    );
    assert!(!one.answered());
    two.close(held_by_two);
    assert!(one.finish().is_ok(), "the other goes on");
}

/// All of these arbitrate in one place
#[test]
fn a_circle_through_several_dialects_is_seen() {
    let mount = Mount::new();
    let mut by_flock = mount.client();
    let x = by_flock.open(mount.lock("x.lock"), HANDLE).unwrap();
    assert_eq!(by_flock.flock(x, libc::LOCK_EX), Ok(0));
    let mut by_fcntl = mount.client();
    let y = by_fcntl.open(mount.door("y.lock"), libc::O_RDWR).unwrap();
    assert_eq!(by_fcntl.fcntl(y, libc::F_SETLK, libc::F_WRLCK, 0, 0), Ok(0));
    let mut by_acquire = mount.client();
    acquire(&mut by_acquire, &mount, "locks=z.lock\n").unwrap();

    let y_of_first = by_flock.open(mount.lock("y.lock"), HANDLE).unwrap();
    by_flock.begin_flock(y_of_first, libc::LOCK_SH);
    mount.wait_for_waiters("y.lock", 1);
    let z_of_second = by_fcntl.open(mount.lock("z.lock"), HANDLE).unwrap();
    by_fcntl.begin_fcntl(z_of_second, libc::F_SETLKW, libc::F_WRLCK, 0, 0);
    mount.wait_for_waiters("z.lock", 1);
    assert_eq!(acquire(&mut by_acquire, &mount, "locks=x.lock\n"), Err(Errno::EDEADLK));
    assert!(!by_flock.answered() && !by_fcntl.answered());
}

/// queue order included
#[test]
fn a_circle_through_the_order_of_a_queue_is_seen() {
    let mount = Mount::with(&[("aging", "1h")]);
    let mut sharing = mount.client();
    let x = sharing.open(mount.lock("x.lock"), HANDLE).unwrap();
    assert_eq!(sharing.flock(x, libc::LOCK_SH), Ok(0));
    let (mut owner_of_z, _) = holder(&mount, "z.lock");
    // Waits for the one that shares x, and is ahead of all that come.
    let mut ahead = waiter(&mount, "x.lock", 1);
    sharing.begin_open(mount.lock("z.lock"), TAKE);
    mount.wait_for_waiters("z.lock", 1);
    // Compatible with the holder of x, but behind the exclusive waiter: z's owner would wait for itself.
    let handle = owner_of_z.open(mount.lock("x.lock"), HANDLE).unwrap();
    assert_eq!(owner_of_z.flock(handle, libc::LOCK_SH), Err(Errno::EDEADLK));
    assert!(!ahead.answered() && !sharing.answered());
}

/// to a waiter whose own descriptor table has the handle that holds the lock; opens are never re-entrant
#[test]
fn a_process_that_waits_for_its_own_descriptor_is_refused() {
    let mount = Mount::new();
    let (mut client, fd) = holder(&mount, "x.lock");
    assert_eq!(client.open(mount.lock("x.lock"), TAKE), Err(Errno::EDEADLK));
    let handle = client.open(mount.lock("x.lock"), HANDLE).unwrap();
    assert_eq!(client.flock(handle, libc::LOCK_EX), Err(Errno::EDEADLK));
    client.close(fd);
    assert_eq!(client.flock(handle, libc::LOCK_EX), Ok(0), "nothing was left behind");
}

/// to a waiter whose own descriptor table has the handle that holds the lock
#[test]
fn a_subshell_with_a_copy_of_the_descriptor_is_refused() {
    let mount = Mount::new();
    let script = "exec 9> $L/x.lock; (: > $L/x.lock) 2>&1; \
        (exec 9>&-; timeout 0.3 flock $L/x.lock true); echo $?";
    let said = mount.sh(script).ok().text();
    assert!(said.contains("Resource deadlock avoided"), "{said}");
    assert!(said.ends_with("124"), "without the copy it just waits: {said}");
}

/// to a waiter whose own descriptor table has the handle that holds the lock: also one that has lost its ancestors
#[test]
fn an_orphan_with_a_copy_of_the_descriptor_is_refused() {
    let mount = Mount::new();
    let script = r#"
import os, time
path = os.environ["L"] + "/x.lock"
held = os.open(path, os.O_WRONLY | os.O_CREAT)
says, tells = os.pipe()
if os.fork() == 0:
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent: time.sleep(0.001)
        try: os.open(path, os.O_WRONLY); answer = b"granted"
        except OSError as error: answer = os.strerror(error.errno).encode()
        os.write(tells, answer)
    os._exit(0)
os.wait()
print(os.read(says, 100).decode())
"#;
    assert_eq!(mount.python(script).ok().text(), "Resource deadlock avoided");
}

/// to a waiter whose own descriptor table has the handle that holds the lock: wherever it came from
#[test]
fn a_descriptor_that_a_stranger_handed_over_counts() {
    let mount = Mount::new();
    let script = r#"
import os, socket, time
path = os.environ["L"] + "/x.lock"
here, there = socket.socketpair()
if os.fork() == 0:
    held = os.open(path, os.O_WRONLY | os.O_CREAT)
    socket.send_fds(here, [b"x"], [held])
    here.recv(1)
    os._exit(0)
if os.fork() == 0:
    _, fds, _, _ = socket.recv_fds(there, 1, 1)
    try: os.open(path, os.O_WRONLY); answer = "granted"
    except OSError as error: answer = os.strerror(error.errno)
    print(answer, flush=True)
    there.send(b"x")
    os._exit(0)
os.wait(), os.wait()
"#;
    assert_eq!(mount.python(script).ok().text(), "Resource deadlock avoided");
}

/// and to a single-threaded process that waits for what it holds itself
#[test]
fn a_single_threaded_owner_cannot_wait_for_itself() {
    let mount = Mount::new();
    let script = "echo $$ > $L/x.lock && : > $L/x.lock";
    let output = mount.sh(script);
    assert_ne!(output.code(), 0);
    assert!(
        output.error().contains("Resource deadlock avoided"),
        "{}",
        output.error()
    );
}

/// Threads and unrelated processes just wait.
#[test]
fn a_thread_waits_for_what_another_thread_owns() {
    let mount = Mount::new();
    let script = r#"
import os, threading
path = os.environ["L"] + "/x.lock"
with open(path, "w") as lock:
    lock.write(f"{os.getpid()}\n")
def take():
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    print("had it", flush=True)
thread = threading.Thread(target=take)
thread.start()
input()
os.unlink(path)
thread.join()
"#;
    let mut command = mount.script("python3", script);
    command.stdin(std::process::Stdio::piped());
    // Its standard input stays open until we drop it.
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let input = child.stdin.take();
    let process = crate::support::Running::adopt(child);
    mount.wait_for_waiters("x.lock", 1);
    let waiting = crate::entry(&mount, "x.lock")["waiters"][0]["pid"].clone();
    assert_eq!(
        waiting,
        process.id(),
        "the thread of the owner waits, and is not refused"
    );
    {
        use std::io::Write;
        input.expect("piped").write_all(b"\n").expect("it reads");
    }
    let mut process = process;
    wait_until("it ends", || process.status().is_some());
    assert!(process.status().expect("it has ended").success());
}

/// Threads and unrelated processes just wait.
#[test]
fn a_chain_without_a_circle_just_waits() {
    let mount = Mount::new();
    let (mut first, fd) = holder(&mount, "a.lock");
    let (mut second, second_fd) = holder(&mount, "b.lock");
    second.begin_open(mount.lock("a.lock"), TAKE);
    mount.wait_for_waiters("a.lock", 1);
    let mut third = waiter(&mount, "b.lock", 1);
    first.close(fd);
    let a = second.finish().expect("a is granted");
    second.close(a as i32);
    second.close(second_fd);
    assert!(third.finish().is_ok());
}
