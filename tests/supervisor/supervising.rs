//! A supervisor that dies is replaced by its worker, which goes on meanwhile.

use crate::support::{Said, sys, wait_until};
use crate::{TAKE, daemonised, holder, kill};

/// `git lockfs status --json` gives `worker_pid` and `supervisor_pid`
#[test]
fn status_names_both_processes() {
    let repository = daemonised();
    let text = repository.lockfs(&["status", "--json"]).ok().text();
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(status["worker_pid"], repository.worker_pid());
    assert_eq!(status["supervisor_pid"], repository.supervisor_pid());
    let doctor = repository.lockfs(&["doctor"]).ok().text();
    for pid in [repository.worker_pid(), repository.supervisor_pid()] {
        assert!(doctor.contains(&pid.to_string()), "{doctor}");
    }
    assert!(doctor.contains("recovery"), "{doctor}");
}

/// `kill -9` of the supervisor: the worker notices and starts another
#[test]
fn a_killed_supervisor_is_replaced_while_locks_are_held_and_waited_for() {
    let repository = daemonised();
    let (worker, mut supervisor) = (repository.worker_pid(), repository.supervisor_pid());
    let (mut holding, fd) = holder(&repository, "x.lock");
    let mut waiting = repository.client();
    waiting.begin_open(repository.lock("x.lock"), TAKE);
    repository.wait_for_waiters("x.lock", 1);
    for _ in 0..3 {
        kill(supervisor);
        wait_until("another supervisor keeps the mount", || {
            repository.supervisor().is_some_and(|now| now != supervisor)
        });
        supervisor = repository.supervisor_pid();
        wait_until("the status names it", || {
            repository.locks_json()["supervisor_pid"] == supervisor
        });
        assert_eq!(repository.worker_pid(), worker, "the worker has gone on");
    }
    assert!(repository.taken("x.lock"));
    holding.close(fd);
    let got = waiting.finish().expect("it is granted");
    waiting.close(i32::try_from(got).expect("a descriptor"));
    repository.wait_until_free("x.lock");
    // The last supervisor knows the mount and the worker as well as the first one did.
    repository.lockfs(&["umount"]).ok();
    assert!(!repository.is_mounted());
    wait_until("both have ended", || {
        repository.supervisor().is_none() && repository.worker().is_none()
    });
}

/// A stopped supervisor is no hindrance to anybody.
#[test]
fn a_stopped_supervisor_stops_nobody() {
    let repository = daemonised();
    let supervisor = repository.supervisor_pid();
    sys::kill(supervisor, libc::SIGSTOP).expect("ours to stop");
    holder(&repository, "x.lock");
    repository.wait_until_free("x.lock");
    sys::kill(supervisor, libc::SIGCONT).expect("ours to go on");
    repository.lockfs(&["umount"]).ok();
    assert!(!repository.is_mounted());
}
