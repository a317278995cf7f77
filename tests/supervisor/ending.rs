//! A worker that cannot go on: nobody waits for it for ever.

use crate::support::{Said, sys, wait_until};
use crate::{TAKE, daemonised, holder, kill};

/// aborts the connection so that nobody hangs, and says why in the log and in `git lockfs doctor`
#[test]
fn a_mount_that_is_given_up_leaves_nobody_waiting_and_says_why() {
    let repository = daemonised();
    let (_holding, _) = holder(&repository, "x.lock");
    let mut waiting = repository.client();
    waiting.begin_open(repository.lock("x.lock"), TAKE);
    repository.wait_for_waiters("x.lock", 1);
    kill(repository.worker_pid());
    waiting.finish().expect_err("the lock cannot be had any more");
    wait_until("the mount is taken down", || !repository.is_mounted());
    let doctor = repository.lockfs(&["doctor"]);
    assert_eq!(doctor.code(), 1);
    assert!(doctor.text().contains("gave up"), "{}", doctor.text());
    assert!(doctor.text().contains("signal: 9"), "{}", doctor.text());
    assert!(repository.daemon_log().contains("given up"));
    repository.lockfs(&["mount"]).ok();
    assert!(
        !repository.lockfs(&["doctor"]).ok().text().contains("gave up"),
        "that is over"
    );
}

/// A worker that hangs without dying (SIGSTOP, an endless loop) is noticed within 3 s
#[test]
fn a_stopped_worker_is_noticed() {
    let repository = daemonised();
    let worker = repository.worker_pid();
    sys::kill(worker, libc::SIGSTOP).expect("ours to stop");
    wait_until("it is gone", || repository.worker() != Some(worker));
    assert!(
        repository.daemon_log().contains("the worker is ended"),
        "{}",
        repository.daemon_log()
    );
}
