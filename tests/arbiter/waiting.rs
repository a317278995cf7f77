//! How a wait behaves while it lasts, and every way in which it ends.

use std::time::{Duration, Instant};

use crate::support::client::Op;
use crate::support::sys::Errno;
use crate::support::{Client, Mount, Said, process_state, wait_until};
use crate::{HANDLE, TAKE, TRY, entry, holder, transaction, waiter};

/// "At once", on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Every call that waits for `x.lock`, begun in a client of its own.
fn one_waiter_of_each_kind(mount: &Mount) -> Vec<(&'static str, Client)> {
    let mut open = mount.client();
    open.begin_open(mount.lock("x.lock"), TAKE);
    let mut flock = mount.client();
    let fd = flock.open(mount.lock("x.lock"), HANDLE).unwrap();
    flock.begin_flock(fd, libc::LOCK_EX);
    let mut door = mount.client();
    let fd = door.open(mount.door("x.lock"), libc::O_RDONLY).unwrap();
    door.begin_flock(fd, libc::LOCK_SH);
    let mut fcntl = mount.client();
    let fd = fcntl.open(mount.lock("x.lock"), HANDLE).unwrap();
    fcntl.begin_fcntl(fd, libc::F_SETLKW, libc::F_WRLCK, 0, 0);
    let mut ofd = mount.client();
    let fd = ofd.open(mount.lock("x.lock"), HANDLE).unwrap();
    ofd.begin_fcntl(fd, libc::F_OFD_SETLKW, libc::F_WRLCK, 0, 0);
    let mut acquire = mount.client();
    let fd = transaction(&mut acquire, mount);
    let data = "locks=x.lock\n".to_owned();
    acquire.begin(Op::Write { fd, data });
    vec![
        ("open", open),
        ("flock", flock),
        ("flock through flock/", door),
        ("fcntl", fcntl),
        ("OFD", ofd),
        ("acquire", acquire),
    ]
}

/// A wait for one lock never delays anything else in the directory.
#[test]
fn a_wait_delays_nothing_else() {
    let mount = Mount::new();
    let (_holder, _) = holder(&mount, "x.lock");
    let waiters = one_waiter_of_each_kind(&mount);
    mount.wait_for_waiters("x.lock", waiters.len());
    let begun = Instant::now();
    let script = "ls -la $L $F $M && stat $L/x.lock && cat $L/x.lock $M/README $M/last-error && test -e $L/x.lock \
        && { : 9> $L/y.lock; } && mkdir $L/z.lock && rmdir $L/z.lock && flock $F/q.lock true \
        && echo flush-metrics > $M/control && ! grep -r nothing-of-this-kind $L";
    mount.sh(script).ok();
    let mut other = mount.client();
    assert!(crate::acquire(&mut other, &mount, "locks=y.lock,z.lock wait=0\n").is_ok());
    assert!(begun.elapsed() < 2 * AT_ONCE, "it took {:?}", begun.elapsed());
}

/// A waiting process sleeps interruptibly (state S, not D).
#[test]
fn a_waiting_process_sleeps_in_state_s() {
    let mount = Mount::new();
    let (_holder, _) = holder(&mount, "x.lock");
    let waiters = one_waiter_of_each_kind(&mount);
    mount.wait_for_waiters("x.lock", waiters.len());
    for (kind, client) in &waiters {
        wait_until(&format!("the waiter in {kind} sleeps in S"), || client.state() == 'S');
    }
}

/// A wait ends with EINTR on a signal, at once, also SIGKILL.
#[test]
fn signals_end_every_kind_of_wait_at_once() {
    let mount = Mount::new();
    let (_holder, _) = holder(&mount, "x.lock");
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let waiters = one_waiter_of_each_kind(&mount);
        mount.wait_for_waiters("x.lock", waiters.len());
        for (kind, client) in &waiters {
            let begun = Instant::now();
            client.signal(signal);
            wait_until(&format!("signal {signal} ends a wait in {kind}"), || {
                matches!(process_state(client.pid()), 'Z' | 'X')
            });
            assert!(
                begun.elapsed() < AT_ONCE,
                "signal {signal} in {kind} took {:?}",
                begun.elapsed()
            );
        }
        mount.wait_for_waiters("x.lock", 0);
    }
}

/// with EINTR on a signal, at once
#[test]
fn a_handled_signal_is_eintr_to_the_caller() {
    let mount = Mount::new();
    let (_holder, _) = holder(&mount, "x.lock");
    let script = r#"
import ctypes, fcntl, os, signal
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGALRM, lambda *_: None)
path = os.environb[b"L"] + b"/x.lock"
def interrupted(call):
    # Again and again: the first signal may come before the call sleeps.
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    result = call()
    number = ctypes.get_errno()
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(result, number)
interrupted(lambda: libc.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
handle = os.open(path, os.O_RDWR | os.O_CREAT)
interrupted(lambda: libc.flock(handle, fcntl.LOCK_EX))
request = os.open(os.environb[b"M"] + b"/acquire", os.O_RDWR)
interrupted(lambda: libc.write(request, b"locks=x.lock\n", 13))
"#;
    assert_eq!(mount.python(script).ok().text(), "-1 4\n-1 4\n-1 4");
    mount.wait_for_waiters("x.lock", 0);
}

/// timeout(1) and `wait=` choose their own.
#[test]
fn timeout_ends_a_wait() {
    let mount = Mount::new();
    let (_holder, _) = holder(&mount, "x.lock");
    let begun = Instant::now();
    let script = "timeout 0.3 bash -c ': > $L/x.lock'; echo $?; timeout 0.3 flock $F/x.lock true; echo $?";
    assert_eq!(mount.sh(script).ok().text(), "124\n124");
    assert!(begun.elapsed() < 2 * AT_ONCE);
}

/// with ETIMEDOUT after the wait limit, which holds for opens and `acquire`; flock(2) and fcntl(2) wait as long as their
/// caller does
#[test]
fn the_limit_ends_opens_and_acquire_but_not_flock() {
    let mount = Mount::with(&[("wait", "1s")]);
    let (mut holding, fd) = holder(&mount, "x.lock");
    let mut flock = mount.client();
    let handle = flock.open(mount.lock("x.lock"), HANDLE).unwrap();
    flock.begin_flock(handle, libc::LOCK_EX);
    mount.wait_for_waiters("x.lock", 1);

    let begun = Instant::now();
    let mut client = mount.client();
    assert_eq!(client.open(mount.lock("x.lock"), TAKE), Err(Errno::ETIMEDOUT));
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(4)).contains(&took),
        "it took {took:?}"
    );
    let refused = crate::acquire(&mut client, &mount, "locks=x.lock\n");
    assert_eq!(refused, Err(Errno::ETIMEDOUT));

    assert!(!flock.answered(), "flock waits as long as its caller does");
    holding.close(fd);
    assert_eq!(flock.finish(), Ok(0));
}

/// 30 s unless configured, per name pattern
#[test]
fn a_pattern_gives_its_names_a_limit_of_their_own() {
    let mount = Mount::with(&[("wait", "60s"), ("waitFor.quick-*.lock", "300ms")]);
    let (_quick, _) = holder(&mount, "quick-1.lock");
    let (mut slow, slow_fd) = holder(&mount, "slow.lock");
    let mut patient = waiter(&mount, "slow.lock", 1);
    let mut hasty = mount.client();
    assert_eq!(hasty.open(mount.lock("quick-1.lock"), TAKE), Err(Errno::ETIMEDOUT));
    assert!(!patient.answered());
    slow.close(slow_fd);
    assert!(patient.finish().is_ok());
}

/// A wait ends with the lock
#[test]
fn a_wait_ends_with_the_lock() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "x.lock");
    let mut waiting = waiter(&mount, "x.lock", 1);
    holding.close(fd);
    assert!(waiting.finish().is_ok());
    let mut third = mount.client();
    assert_eq!(
        third.open(mount.lock("x.lock"), TRY),
        Err(Errno::EAGAIN),
        "the waiter holds it now"
    );
}

/// A wait ended by a signal keeps its place for 1 s for the same process, name and kind (bash opens again after each
/// SIGCHLD)
#[test]
fn bash_keeps_its_place_when_a_child_of_it_exits() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "x.lock");
    let bash = mount.spawn_sh("sleep 100 & echo $!; exec 9> $L/x.lock; echo granted; exec sleep 100");
    mount.wait_for_waiters("x.lock", 1);
    let child: u32 = bash.said().trim().parse().expect("the PID of its child");
    let mut later = waiter(&mount, "x.lock", 2);

    crate::support::sys::kill(child, libc::SIGTERM).unwrap();
    wait_until("bash reaps its child", || process_state(child) == 'X');
    wait_until("bash waits in open again", || sleeps_in(bash.id(), libc::SYS_openat));
    mount.wait_for_waiters("x.lock", 2);
    holding.close(fd);
    bash.wait_for_line("granted");
    assert!(!later.answered(), "who came later waits longer");
}

/// meanwhile it is passed over, never granted
#[test]
fn a_kept_place_holds_nobody_up() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "x.lock");
    // A handled signal ends the open; the process lives on and does not ask again.
    let script = r#"
import ctypes, os, signal
signal.signal(signal.SIGUSR1, lambda *_: None)
ctypes.CDLL(None).open(os.environb[b"L"] + b"/x.lock", os.O_WRONLY | os.O_CREAT, 0o600)
print("gave up", flush=True)
signal.pause()
"#;
    let gone = mount.spawn_python(script);
    mount.wait_for_waiters("x.lock", 1);
    let mut later = waiter(&mount, "x.lock", 2);
    gone.signal(libc::SIGUSR1);
    gone.wait_for_line("gave up");
    let begun = Instant::now();
    holding.close(fd);
    assert!(later.finish().is_ok());
    assert!(
        begun.elapsed() < Duration::from_millis(900),
        "it did not wait for the kept place to end"
    );
}

/// a stopped (SIGSTOP) or dead waiter holds nobody up
#[test]
fn stopped_and_dead_waiters_hold_nobody_up() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "x.lock");
    let mut stopped = waiter(&mount, "x.lock", 1);
    let dead = waiter(&mount, "x.lock", 2);
    let mut last = waiter(&mount, "x.lock", 3);
    stopped.signal(libc::SIGSTOP);
    wait_until("it is stopped", || stopped.state() == 'T');
    dead.kill();
    holding.close(fd);
    assert!(last.finish().is_ok(), "the last is served");
    assert_eq!(stopped.state(), 'T');
    stopped.signal(libc::SIGCONT);
    assert_eq!(stopped.finish(), Err(Errno::EINTR));
}

/// A name exists while its lock is held, leased or waited for
#[test]
fn who_waits_for_whom_is_there_to_read() {
    let mount = Mount::new();
    let (holding, _) = holder(&mount, "x.lock");
    let waiting = waiter(&mount, "x.lock", 1);
    let entry = entry(&mount, "x.lock");
    assert_eq!(entry["holders"][0]["pid"], holding.pid());
    assert_eq!(entry["waiters"][0]["pid"], waiting.pid());
    assert_eq!(entry["waiters"][0]["position"], 1);
    let edges = &mount.locks_json()["edges"];
    assert_eq!(edges[0]["waiter"], waiting.pid());
    assert_eq!(edges[0]["holder"], holding.pid());
}

/// Whether a process sleeps in that system call.
fn sleeps_in(pid: u32, call: i64) -> bool {
    let now = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    process_state(pid) == 'S' && now.split(' ').next() == Some(&call.to_string())
}
