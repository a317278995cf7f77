//! How a mount ends: never under a holder, unless forced; and nobody ever hangs.

use std::time::Duration;

use crate::support::{Mount, Repository, Said, process_state, sys, wait_until};
use crate::{TAKE, daemonised, holder, the_daemon};

#[track_caller]
fn assert_refused(mount: &Repository, name: &str, word: &str) {
    let output = mount.lockfs(&["umount"]);
    assert_eq!(output.code(), 75, "{}{}", output.text(), output.error());
    assert!(output.error().contains(name), "it names the lock: {}", output.error());
    assert!(output.error().contains(word), "it names the holder: {}", output.error());
    assert!(mount.is_mounted());
    assert!(mount.taken(name));
}

/// `umount` and SIGTERM refuse while locks are held and name the holders
#[test]
fn umount_refuses_while_a_lock_is_held() {
    let repository = daemonised();
    let (mut holding, fd) = holder(&repository, "x.lock");
    assert_refused(&repository, "x.lock", &holding.pid().to_string());
    holding.close(fd);
    repository.wait_until_free("x.lock");

    holding.mkdir(repository.lock("lease.lock")).unwrap();
    assert_refused(&repository, "lease.lock", &holding.pid().to_string());
    holding.rmdir(repository.lock("lease.lock")).unwrap();

    let fd = holding.open(repository.lock("owner.lock"), TAKE).unwrap();
    holding.write(fd, &format!("{}:agent-7\n", holding.pid())).unwrap();
    holding.close(fd);
    assert_refused(&repository, "owner.lock", "agent-7");
    holding.kill();
    repository.wait_until_free("owner.lock");
    let daemon = the_daemon(&repository);
    repository.lockfs(&["umount"]).ok();
    assert!(!repository.is_mounted());
    wait_until("the daemon has ended", || matches!(process_state(daemon), 'Z' | 'X'));
}

/// SIGTERM refuse while locks are held and name the holders
#[test]
fn sigterm_is_refused_while_a_lock_is_held() {
    let mut mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "x.lock");
    let pid = holding.pid().to_string();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        mount.daemon().signal(signal);
        wait_until("the refusal names the holder", || {
            let log = mount.daemon_log();
            log.contains("x.lock") && log.contains(&pid)
        });
        assert!(mount.daemon().status().is_none(), "it goes on after signal {signal}");
        assert!(mount.taken("x.lock"));
    }
    holding.close(fd);
    mount.wait_until_free("x.lock");
    mount.daemon().signal(libc::SIGTERM);
    wait_until("it ends", || mount.daemon().status().is_some());
    assert!(!mount.is_mounted());
}

/// A handle without a lock holds nothing, so it keeps nobody.
#[test]
fn idle_handles_do_not_keep_the_mount() {
    let repository = daemonised();
    let mut idle = repository.client();
    idle.open(repository.lock("x.lock"), libc::O_RDWR | libc::O_CREAT)
        .unwrap();
    idle.open(repository.door("y.lock"), libc::O_RDONLY).unwrap();
    repository.lockfs(&["umount"]).ok();
    assert!(!repository.is_mounted());
}

/// `--force` breaks them; nobody ever hangs.
#[test]
fn force_breaks_holders_and_waiters() {
    let repository = daemonised();
    let (mut holding, fd) = holder(&repository, "x.lock");
    let mut waiting = repository.client();
    waiting.begin_open(repository.lock("x.lock"), TAKE);
    repository.wait_for_waiters("x.lock", 1);
    let mut flocking = repository.client();
    let handle = flocking.open(repository.lock("x.lock"), libc::O_RDWR).unwrap();
    flocking.begin_flock(handle, libc::LOCK_EX);
    repository.wait_for_waiters("x.lock", 2);
    repository.lockfs(&["umount", "--force"]).ok();
    assert!(!repository.is_mounted());
    assert!(waiting.finish().is_err(), "it is answered, and not granted");
    assert!(flocking.finish().is_err());
    assert!(holding.write(fd, "1\n").is_err(), "what it had is gone");
    holding.close(fd);
}

/// nobody ever hangs: not beside a daemon that is killed
#[test]
fn a_killed_daemon_leaves_nobody_hanging() {
    let mount = Mount::new();
    let (_holding, _) = holder(&mount, "x.lock");
    let mut waiting = mount.client();
    waiting.begin_open(mount.lock("x.lock"), TAKE);
    mount.wait_for_waiters("x.lock", 1);
    mount.kill_daemon();
    assert!(waiting.finish().is_err());
    mount.lockfs(&["umount"]).ok();
    assert!(!mount.is_mounted(), "a dead mount is cleaned");
}

/// nobody ever hangs: not with a daemon that does not answer
#[test]
fn a_stopped_daemon_can_be_forced_off() {
    let repository = daemonised();
    // Both: a worker alone would be replaced.
    let daemon = [the_daemon(&repository), repository.worker_pid()];
    for pid in daemon {
        sys::kill(pid, libc::SIGSTOP).unwrap();
        wait_until("it is stopped", || process_state(pid) == 'T');
    }
    let run = |arguments: &[&str]| {
        let mut command = repository.command(env!("CARGO_BIN_EXE_git-lockfs"));
        command.args(arguments);
        repository.run_within(command, Duration::from_secs(60))
    };
    assert_ne!(run(&["status"]).code(), 0, "it says that nobody answers");
    run(&["umount", "--force"]).ok();
    assert!(!repository.is_mounted());
    for pid in daemon {
        wait_until("it is gone", || matches!(process_state(pid), 'Z' | 'X'));
    }
    repository.lockfs(&["mount"]).ok();
    holder(&repository, "x.lock");
}

/// A repository that is moved takes its mount along: it serves there, and leaves nothing behind when it ends.
#[test]
fn a_moved_repository_is_served_and_unmounted_where_it_is() {
    for end in ["$LOCKFS umount", "kill $(head -n 1 $T/moved/.git/lockfs/daemon.lock)"] {
        let repository = daemonised();
        let script = format!(
            "mv $R $T/moved && cd $T/moved && $LOCKFS run -l x.lock -- true &&
             while test -e .git/.git-locks/locks/x.lock; do :; done && {end} &&
             for i in $(seq 500); do grep -q $T/moved/ /proc/self/mountinfo || break; sleep 0.01; done
             ! grep $T/moved/ /proc/self/mountinfo; code=$?; cd /; mv $T/moved $R; exit $code"
        );
        repository.sh(&script).ok();
    }
}

/// umount in another mount namespace, which has a copy of the mount
#[test]
fn umount_takes_off_the_copy_of_a_mount_namespace() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root makes a mount namespace of its own");
        return;
    }
    let repository = daemonised();
    repository
        .sh("unshare -m sh -c '$LOCKFS umount && ! grep $M /proc/self/mountinfo'")
        .ok();
    assert!(!repository.is_mounted());
}

/// Nothing mounted is what umount wanted.
#[test]
fn umount_of_nothing_says_so() {
    let repository = Repository::new();
    let output = repository.lockfs(&["umount"]).ok();
    assert!((output.text() + &output.error()).contains("not mounted"));
}

/// Mounting and unmounting again and again leaves nothing behind.
#[test]
fn it_can_come_and_go_many_times() {
    let repository = Repository::new();
    for _ in 0..10 {
        repository
            .sh("$LOCKFS mount >/dev/null && { : > $L/x.lock; } && $LOCKFS umount")
            .ok();
        assert!(!repository.is_mounted());
    }
    assert!(crate::daemons(&repository).is_empty());
}
