//! A worker that dies or hangs is replaced, and nobody loses anything.

use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use crate::support::{Said, process_state, sys, wait_until};
use crate::{TAKE, another_worker, daemonised, doctor, holder, kill};

/// holders keep their locks, waiters keep their place and are granted in order; no client sees an error, only a pause
#[test]
fn a_killed_worker_costs_nobody_a_lock_or_a_place() {
    let repository = daemonised();
    let (mut holding, fd) = holder(&repository, "x.lock");
    let token = repository.field_of("x.lock", "token");
    let mut waiting = [repository.client(), repository.client()];
    for (index, client) in waiting.iter_mut().enumerate() {
        client.begin_open(repository.lock("x.lock"), TAKE);
        repository.wait_for_waiters("x.lock", index + 1);
    }
    for _ in 0..3 {
        let worker = repository.worker_pid();
        kill(worker);
        assert!(repository.taken("x.lock"), "whoever asks waits for the next worker");
        another_worker(&repository, worker);
        assert_eq!(repository.field_of("x.lock", "token"), token);
        assert_eq!(repository.waiters("x.lock"), 2);
    }
    holding.close(fd);
    let [first, second] = &mut waiting;
    let fd = first.finish().expect("the first in line is granted");
    assert_eq!(repository.waiters("x.lock"), 1, "the second still waits");
    first.close(i32::try_from(fd).expect("a descriptor"));
    second.finish().expect("then the second");
}

/// A worker that hangs without dying (SIGSTOP, an endless loop) is noticed within 3 s and replaced
#[test]
fn a_stopped_worker_is_replaced() {
    let repository = daemonised();
    let (_holding, _) = holder(&repository, "x.lock");
    let worker = repository.worker_pid();
    sys::kill(worker, libc::SIGSTOP).expect("ours to stop");
    assert!(repository.taken("x.lock"), "the lock is still held");
    assert_ne!(repository.worker_pid(), worker);
    assert!(matches!(process_state(worker), 'X' | 'Z'), "the old one is gone");
    let log = repository.daemon_log();
    assert!(log.contains("the worker is ended"), "{log}");
}

/// The thread that reads what is slow hangs, here in a configuration that never ends; the others work on.
#[test]
fn a_worker_whose_inspector_comes_no_further_is_replaced() {
    let repository = daemonised();
    let (_holding, _) = holder(&repository, "x.lock");
    let (pipe, file) = (repository.dir().join("pipe"), repository.dir().join("file"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    std::fs::write(&file, "[lockfs]\n\twait = 7s\n").expect("a file");
    repository
        .git(&["config", "include.path", pipe.to_str().expect("text")])
        .ok();
    let worker = repository.worker_pid();
    let reload = repository.spawn_sh("echo reload > .git/.git-locks/control");
    // Once somebody reads it, it stays open and silent.
    let mut silent = std::fs::OpenOptions::new();
    silent.write(true).custom_flags(libc::O_NONBLOCK);
    let mut silent_end = None;
    wait_until("the configuration is read", || {
        silent_end = silent.open(&pipe).ok();
        silent_end.is_some()
    });
    std::fs::rename(&file, &pipe).expect("the next one reads a file");
    assert!(repository.taken("x.lock"), "the loop answers");
    another_worker(&repository, worker);
    let log = repository.daemon_log();
    assert!(log.contains("the worker is ended: its inspector"), "{log}");
    reload.finish().ok();
    drop(silent_end);
    assert!(repository.taken("x.lock"));
}

/// The same when nobody calls: timers and the ends of processes are the watcher's.
#[test]
fn a_stopped_worker_is_replaced_while_nobody_calls() {
    let repository = daemonised();
    for _ in 0..2 {
        let worker = repository.worker_pid();
        sys::kill(worker, libc::SIGSTOP).expect("ours to stop");
        another_worker(&repository, worker);
        // The second time when nothing has been done for a while, and the supervisor sleeps, too.
        let supervisor = repository.supervisor_pid();
        wait_until("the supervisor rests", || {
            let before = times_slept(supervisor);
            std::thread::sleep(Duration::from_millis(600));
            times_slept(supervisor) == before
        });
    }
    let log = repository.daemon_log();
    assert_eq!(log.matches("the worker is ended").count(), 2, "{log}");
    repository.lockfs(&["umount"]).ok();
}

/// How often a process has gone to sleep.
fn times_slept(pid: u32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
    line.map(str::to_owned)
}

/// A worker that dies at once again and again: growing pauses, then the supervisor gives up, aborts the connection so
/// that nobody hangs, and says why in the log and in `git lockfs doctor`
#[test]
fn a_worker_that_cannot_live_is_given_up_in_the_end() {
    let repository = daemonised();
    let (_holding, _) = holder(&repository, "x.lock");
    let mut waiting = repository.client();
    waiting.begin_open(repository.lock("x.lock"), TAKE);
    repository.wait_for_waiters("x.lock", 1);
    let mut killed = 0;
    wait_until("the mount is taken down", || {
        if let Some(worker) = repository.worker() {
            // It may have been replaced since its PID was read; then it has been killed before.
            killed += u32::from(sys::kill(worker, libc::SIGKILL).is_ok());
        }
        !repository.is_mounted()
    });
    assert!(killed > 5, "a few deaths are no reason: {killed}");
    waiting.finish().expect_err("the lock cannot be had any more");
    let said = doctor(&repository, 1);
    assert!(said.contains("gave up") && said.contains("SIGKILL"), "{said}");
    let log = repository.daemon_log();
    assert!(log.contains("given up") && log.contains("pause_ms=200"), "{log}");
    repository.lockfs(&["mount"]).ok();
    assert!(!doctor(&repository, 0).contains("gave up"), "that is over");
}

/// kill -9 of both: the next `git lockfs mount` cleans up and mounts, restores owner and lease locks, and keeps each
/// descriptor lock until its opener has exited; fencing tokens never go back
#[test]
fn after_the_death_of_both_the_next_mount_keeps_what_the_living_held() {
    let repository = daemonised();
    let (holding, _) = holder(&repository, "descriptor.lock");
    let (mut owning, fd) = holder(&repository, "owner.lock");
    owning
        .write(fd, &format!("{}:agent-7\n", owning.pid()))
        .expect("its own PID");
    owning.close(fd);
    owning.mkdir(repository.lock("lease.lock")).expect("free");
    let held = ["descriptor.lock", "lease.lock", "owner.lock"];
    let token = |name| {
        repository
            .field_of(name, "token")
            .and_then(|token| token.parse::<u64>().ok())
    };
    let tokens = held.map(token);
    for _ in 0..2 {
        repository.kill_daemon();
        repository.lockfs(&["mount"]).ok();
        assert_eq!(repository.listed(), held);
        assert_eq!(held.map(token), tokens);
    }
    let log = repository.daemon_log();
    assert!(log.contains("kept from the last mount: owner.lock"), "{log}");
    holding.kill();
    repository.wait_until_free("descriptor.lock");
    let (_next, _) = holder(&repository, "descriptor.lock");
    assert!(
        token("descriptor.lock") > tokens.into_iter().max().expect("three"),
        "tokens grow"
    );
    owning.rmdir(repository.lock("lease.lock")).expect("its own");
    owning.kill();
    repository.wait_until_free("owner.lock");
}

/// A journal from a newer version is refused with a clear sentence: also by a mount, for it may know of locks.
#[test]
fn a_mount_refuses_the_journal_of_a_newer_version_and_leaves_it() {
    let repository = daemonised();
    repository.kill_daemon();
    let journal = repository.repo().join(".git/lockfs/journal");
    let old = std::fs::read(&journal).expect("the journal");
    let newer = crate::of_a_newer_version(&old);
    std::fs::write(&journal, &newer).expect("write");
    let output = repository.lockfs(&["mount"]);
    assert_eq!(output.code(), 1, "{}", output.error());
    assert!(output.error().contains("newer version"), "{}", output.error());
    assert!(!repository.is_mounted());
    assert_eq!(std::fs::read(&journal).expect("it is still there"), newer);
    std::fs::write(&journal, &old).expect("write");
    repository.lockfs(&["mount"]).ok();
}

/// Without FUSE_HAS_RESEND (and when forced by an option, for the tests): the cloned-descriptor road
#[test]
fn without_resend_calls_that_wait_end_and_holders_keep_their_locks() {
    let repository = crate::support::Repository::new();
    repository.lockfs(&["mount", "-o", "no_resend"]).ok();
    assert_eq!(repository.locks_json()["recovery"], "clone");
    assert!(doctor(&repository, 0).contains("clone"));
    let (mut holding, fd) = holder(&repository, "x.lock");
    let mut waiting = repository.client();
    waiting.begin_open(repository.lock("x.lock"), TAKE);
    repository.wait_for_waiters("x.lock", 1);
    let worker = repository.worker_pid();
    kill(worker);
    assert_eq!(waiting.finish(), Err(nix::errno::Errno::ECONNABORTED), "nobody hangs");
    another_worker(&repository, worker);
    assert!(repository.taken("x.lock"), "the holder keeps its lock");
    waiting.begin_open(repository.lock("x.lock"), TAKE);
    repository.wait_for_waiters("x.lock", 1);
    holding.close(fd);
    waiting.finish().expect("and releases it as ever");
}

/// A corrupt journal is set aside, never guessed at: then the connection is aborted, and the log says which locks were
/// known
#[test]
fn a_damaged_journal_ends_the_mount_and_names_the_locks() {
    let repository = daemonised();
    let (_holding, _) = holder(&repository, "known.lock");
    holder(&repository, "other.lock");
    repository.wait_until_free("other.lock");
    let mut waiting = repository.client();
    waiting.begin_open(repository.lock("known.lock"), TAKE);
    repository.wait_for_waiters("known.lock", 1);
    let journal = repository.repo().join(".git/lockfs/journal");
    let mut bytes = std::fs::read(&journal).expect("the journal");
    // Not in the last record: one that is cut off by a crash is no damage.
    let at = bytes.len() - 300;
    bytes[at] ^= 1;
    sys::kill(repository.worker_pid(), libc::SIGSTOP).expect("ours to stop");
    std::fs::write(&journal, bytes).expect("damage");
    kill(repository.worker_pid());
    waiting.finish().expect_err("the mount is given up");
    wait_until("it is taken down", || !repository.is_mounted());
    let log = repository.daemon_log();
    assert!(log.contains("damaged") && log.contains("known.lock held by"), "{log}");
    assert!(doctor(&repository, 1).contains("damaged"));
    assert!(!journal.exists(), "it is kept under another name");
    repository.lockfs(&["mount"]).ok();
    assert!(!repository.taken("known.lock"));
}

/// Deaths are counted in a row, not in all.
#[test]
fn a_worker_that_is_killed_now_and_then_is_always_replaced() {
    let repository = daemonised();
    let (_holding, _) = holder(&repository, "x.lock");
    for _ in 0..4 {
        for _ in 0..4 {
            let worker = repository.worker_pid();
            kill(worker);
            another_worker(&repository, worker);
            assert!(repository.taken("x.lock"));
        }
        // One of them must live for a second.
        std::thread::sleep(Duration::from_millis(1050));
    }
    assert!(repository.is_mounted());
}
