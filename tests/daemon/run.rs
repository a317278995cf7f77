//! `git lockfs run`: a command under locks.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Mount, Repository, Said, process_state, sys, wait_until};
use crate::{holder, with_linked_worktree};

fn code(mount: &Mount, arguments: &[&str]) -> i32 {
    mount.lockfs(&[&["run"], arguments].concat()).code()
}

fn first_holder(mount: &Mount, name: &str) -> Value {
    let table = mount.locks_json();
    let locks = table["locks"].as_array().expect("locks");
    let lock = locks.iter().find(|lock| lock["name"] == name);
    lock.map_or(Value::Null, |lock| lock["holders"][0].clone())
}

/// exit code of CMD
#[test]
fn the_exit_code_is_that_of_the_command() {
    let mount = Mount::new();
    assert_eq!(code(&mount, &["-l", "x.lock", "--", "true"]), 0);
    assert_eq!(code(&mount, &["-l", "x.lock", "--", "bash", "-c", "exit 7"]), 7);
    assert_eq!(
        code(&mount, &["-l", "x.lock", "--", "bash", "-c", "kill -TERM $$"]),
        128 + 15
    );
    assert_eq!(
        code(&mount, &["-l", "x.lock", "--", "bash", "-c", "kill -KILL $$"]),
        128 + 9
    );
    assert_eq!(code(&mount, &["-l", "x.lock", "--", "no-such-program"]), 127);
    assert_eq!(code(&mount, &["-l", "x.lock", "--", "/etc/passwd"]), 126);
    assert!(!mount.taken("x.lock"), "releases on every way out");
}

/// The command has the terminal's descriptors, and its arguments as they are.
#[test]
fn the_command_runs_as_without_it() {
    let mount = Mount::new();
    let script =
        r#"echo in | $LOCKFS run -l x.lock -- bash -c 'cat; echo "$1"; echo err >&2; pwd' _ "a  b" 2>/dev/null"#;
    let said = mount.sh(script).ok().text();
    assert_eq!(said, format!("in\na  b\n{}", mount.repo().display()));
}

/// The locks are held while the command runs
#[test]
fn the_lock_is_held_while_the_command_runs() {
    let mount = Mount::new();
    let script = "$LOCKFS run -l x.lock -l y.lock --session agent-7 --op 'git merge' -- bash -c 'ls $L; cat $L/x.lock; flock -n $F/y.lock true || echo busy'";
    let said = mount.sh(script).ok().text();
    for expected in ["x.lock\ny.lock\n", ":agent-7", "op=git merge", "mode=exclusive", "busy"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!mount.taken("x.lock") && !mount.taken("y.lock"));
}

/// [-s|-x]
#[test]
fn shared_runs_go_side_by_side() {
    let mount = Mount::new();
    let script = "$LOCKFS run -s -l x.lock -- $LOCKFS run -n -s -l x.lock --session other -- echo both";
    assert_eq!(mount.sh(script).ok().text(), "both");
    let running = mount.spawn_sh("$LOCKFS run -s -l x.lock -- bash -c 'echo in; sleep 100'");
    running.wait_for_line("in");
    assert_eq!(code(&mount, &["-n", "-s", "-l", "x.lock", "--", "true"]), 0);
    assert_eq!(code(&mount, &["-n", "-l", "x.lock", "--", "true"]), 75);
}

/// Without -l it is the scope of the current worktree.
#[test]
fn the_default_lock_is_that_of_the_worktree() {
    let (mount, linked) = with_linked_worktree();
    let said = mount.sh("$LOCKFS run -- ls $L").ok().text();
    assert!(said.contains("main-worktree.lock"), "{said}");
    let mut command = mount.script("bash", "mkdir -p sub && cd sub && $LOCKFS run -- ls $L");
    command.current_dir(linked);
    let said = mount.run(command).ok().text();
    assert!(said.contains("worktree-linked.lock"), "{said}");
}

/// 75 when the lock could not be had
#[test]
fn who_could_not_have_it_exits_75_and_says_why() {
    let mount = Mount::new();
    let (holding, _) = holder(&mount, "x.lock");
    for arguments in [
        &["-n", "-l", "x.lock", "--", "touch", "ran"][..],
        &["-w", "200ms", "-l", "free.lock", "-l", "x.lock", "--", "touch", "ran"],
        &["-w", "0", "-l", "x.lock", "--", "touch", "ran"],
    ] {
        let output = mount.lockfs(&[&["run"], arguments].concat());
        assert_eq!(output.code(), 75, "{arguments:?}: {}", output.error());
        assert!(output.error().contains("x.lock"), "{}", output.error());
        assert!(
            output.error().contains(&holding.pid().to_string()),
            "who holds it: {}",
            output.error()
        );
    }
    assert!(!mount.repo().join("ran").exists(), "the command did not run");
    assert!(!mount.taken("free.lock"));
}

/// 69 when no daemon answers
#[test]
fn without_a_daemon_it_exits_69() {
    let repository = Repository::new();
    let output = repository.lockfs(&["run", "-l", "x.lock", "--", "touch", "ran"]);
    assert_eq!(output.code(), 69);
    assert!(
        output.error().contains("git lockfs mount"),
        "it says what to do: {}",
        output.error()
    );
    assert!(!repository.repo().join("ran").exists());

    let mount = Mount::new();
    mount.kill_daemon();
    assert_eq!(
        code(&mount, &["-l", "x.lock", "--", "true"]),
        69,
        "a dead mount is no daemon either"
    );
}

/// a background child of CMD does not keep the lock
#[test]
fn a_background_child_does_not_keep_the_lock() {
    let mount = Mount::new();
    let said = mount
        .sh("$LOCKFS run -l x.lock -- bash -c 'sleep 100 >/dev/null 2>&1 & echo $!'")
        .ok()
        .text();
    let child: u32 = said.trim().parse().expect("a PID");
    assert!(!matches!(process_state(child), 'Z' | 'X'), "it lives on");
    assert!(!mount.taken("x.lock"));
}

/// signals passed through
#[test]
fn signals_reach_the_command() {
    let mount = Mount::new();
    for (signal, name) in [
        (libc::SIGTERM, "TERM"),
        (libc::SIGHUP, "HUP"),
        (libc::SIGUSR1, "USR1"),
        (libc::SIGINT, "INT"),
    ] {
        let script = format!(
            "exec $LOCKFS run -l x.lock -- bash -c \
             'trap \"kill \\$!; echo got; exit 5\" {name}; sleep 100 & echo ready; wait'"
        );
        let mut running = mount.spawn_sh(&script);
        running.wait_for_line("ready");
        running.signal(signal);
        let output = running.finish_within(Duration::from_secs(10));
        assert_eq!(output.status.code(), Some(5), "SIG{name}: {}", output.error());
        assert!(output.text().ends_with("got"), "SIG{name}: {}", output.text());
        assert!(!mount.taken("x.lock"));
    }
}

/// releases on every way out
#[test]
fn a_killed_run_releases() {
    let mount = Mount::new();
    let mut running = mount.spawn_sh("exec $LOCKFS run -l x.lock -- bash -c 'echo $$; exec sleep 100'");
    wait_until("it runs", || running.said().ends_with('\n'));
    let command: u32 = running.said().trim().parse().expect("a PID");
    running.kill();
    mount.wait_until_free("x.lock");
    wait_until("the command has got its SIGTERM", || {
        matches!(process_state(command), 'X' | 'Z')
    });
}

/// Ctrl-C ends the wait
#[test]
fn a_signal_ends_the_wait() {
    let mount = Mount::new();
    let (_holder, _) = holder(&mount, "x.lock");
    let mut waiting = mount.spawn_sh("exec $LOCKFS run -l x.lock -- touch ran");
    mount.wait_for_waiters("x.lock", 1);
    let begun = Instant::now();
    waiting.signal(libc::SIGINT);
    let output = waiting.finish_within(Duration::from_secs(10));
    assert!(!output.status.success());
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(!mount.repo().join("ran").exists());
    mount.wait_for_waiters("x.lock", 0);
}

/// CMD is terminated when the lock is lost
#[test]
fn the_command_is_terminated_when_its_lock_is_lost() {
    let mount = Mount::new();
    let mut running = mount.spawn_sh("exec $LOCKFS run -l x.lock -- bash -c 'echo $$; exec sleep 100'");
    wait_until("it runs", || running.said().ends_with('\n'));
    let command: u32 = running.said().trim().parse().expect("a PID");
    let token = &first_holder(&mount, "x.lock")["token"];
    mount
        .sh(&format!("echo break x.lock {token} for a test > $M/control"))
        .ok();
    let output = running.finish_within(Duration::from_secs(15));
    assert_eq!(output.status.code(), Some(75), "{}", output.error());
    for said in ["x.lock", "for a test"] {
        assert!(
            output.error().contains(said),
            "what was lost and why: {}",
            output.error()
        );
    }
    assert!(matches!(process_state(command), 'X' | 'Z'));
}

/// CMD is terminated when the lock is lost: so also when the daemon dies
#[test]
fn the_command_is_terminated_when_the_daemon_dies() {
    let mount = Mount::new();
    let mut running = mount.spawn_sh("exec $LOCKFS run -l x.lock -- bash -c 'echo in; exec sleep 100'");
    running.wait_for_line("in");
    mount.kill_daemon();
    let output = running.finish_within(Duration::from_secs(15));
    assert_eq!(output.status.code(), Some(75), "{}", output.error());
}

/// nested `run` inside a held lock does not deadlock with itself
#[test]
fn nested_runs_do_not_deadlock() {
    let mount = Mount::new();
    for script in [
        "$LOCKFS run -l x.lock -- $LOCKFS run -l x.lock -- echo in",
        "$LOCKFS run -l x.lock -- $LOCKFS run -l x.lock -l y.lock -- echo in",
        "$LOCKFS run -l x.lock -- $LOCKFS run -s -l x.lock -- echo in",
        "$LOCKFS run -s -l x.lock -- $LOCKFS run -s -l x.lock -- echo in",
        "$LOCKFS run -l global.lock -- $LOCKFS run -- echo in",
        "$LOCKFS run -l global.lock -- $LOCKFS run -l worktree-a.lock -- echo in",
        "$LOCKFS run -- $LOCKFS run -l stash.lock -- echo in",
        "$LOCKFS run -l a.lock -- $LOCKFS run -l b.lock -- $LOCKFS run -l a.lock -l b.lock -- echo in",
    ] {
        let output = mount.sh(script);
        assert_eq!(output.text(), "in", "{script}: {}", output.error());
        assert_eq!(mount.listed(), [""; 0], "{script}");
    }
    let upgrade = mount.sh("$LOCKFS run -s -l x.lock -- $LOCKFS run -x -l x.lock -- echo in");
    assert_eq!(
        upgrade.code(),
        75,
        "shared does not become exclusive within: {}",
        upgrade.text()
    );
}

/// nested: what runs within still excludes its siblings
#[test]
fn siblings_within_a_run_exclude_each_other() {
    let mount = Mount::new();
    let script = r#"$LOCKFS run -l global.lock -- bash -c '
for i in 1 2 3 4 5 6 7 8; do
  $LOCKFS run -l worktree-a.lock -- bash -c "n=\$(cat $T/count 2>/dev/null || echo 0); echo \$((n + 1)) > $T/count" &
done; wait; cat $T/count'"#;
    assert_eq!(mount.sh(script).ok().text(), "8");
}

/// While it waits more than a second it says on stderr, once and at changes: who holds it, since when and for what, the
/// place in line, the estimated wait, and the command that resumes or withdraws.
#[test]
fn who_waits_long_is_told_for_whom() {
    let mount = Mount::new();
    let mut holding = mount
        .spawn_sh("exec $LOCKFS run -l x.lock --session agent-7 --op 'git merge' -- bash -c 'echo in; exec sleep 100'");
    holding.wait_for_line("in");
    let pid = first_holder(&mount, "x.lock")["pid"].to_string();
    let waiting = mount.spawn_sh("exec 2>&1; exec $LOCKFS run -l x.lock --ticket mine -- echo ran");
    let told = |word: &str| waiting.said().contains(word);
    wait_until("it says who holds it", || {
        told("x.lock") && told(&pid) && told("agent-7") && told("git merge")
    });
    wait_until("it says how to withdraw", || told("withdraw") && told("mine"));
    let lines = waiting.said().lines().count();
    holding.kill();
    waiting.wait_for_line("ran");
    assert!(
        waiting.said().lines().count() <= lines + 4,
        "it does not repeat itself: {}",
        waiting.said()
    );
}

/// once and at changes: the end of the wait is told by what comes after it
#[test]
fn the_end_of_a_wait_is_no_change_in_the_line() {
    let mount = Mount::new();
    let (_holding, _) = crate::holder(&mount, "x.lock");
    let refused = mount.lockfs(&["run", "-l", "x.lock", "-w", "2s", "--", "true"]);
    assert_eq!(refused.code(), 75);
    assert_eq!(refused.error().matches("waiting for").count(), 1, "{}", refused.error());
}

/// --ticket: the place in the line outlives the command that waited
#[test]
fn a_ticket_keeps_the_place_of_a_run() {
    let mount = Mount::with(&[("aging", "1h")]);
    let (mut holding, fd) = holder(&mount, "x.lock");
    assert_eq!(
        code(
            &mount,
            &[
                "-w",
                "200ms",
                "--ticket",
                "t",
                "--session",
                "s",
                "-l",
                "x.lock",
                "--",
                "true"
            ]
        ),
        75
    );
    let later = mount.spawn_sh("$LOCKFS run -l x.lock -- echo later >> $T/order; echo done");
    mount.wait_for_waiters("x.lock", 1);
    let resumed =
        mount.spawn_sh("$LOCKFS run --ticket t --session s -l x.lock -- bash -c 'echo resumed >> $T/order'; echo done");
    mount.wait_for_waiters("x.lock", 2);
    holding.close(fd);
    resumed.wait_for_line("done");
    later.wait_for_line("done");
    let order = std::fs::read_to_string(mount.dir().join("order")).expect("both ran");
    assert_eq!(order, "resumed\nlater\n");
}

/// The fencing token is in the environment of the command.
#[test]
fn the_command_knows_its_token() {
    let mount = Mount::new();
    let script = "$LOCKFS run -l x.lock -- bash -c 'echo $GIT_LOCKFS_TOKEN; getfattr --only-values -n user.lockfs.token $L/x.lock'";
    let said = mount.sh(script).ok().text();
    let (known, true_one) = said.split_once('\n').expect("two tokens");
    assert_eq!(known, true_one.trim());
    assert!(known.parse::<u64>().is_ok());
}

/// Malformed arguments are refused before anything runs.
#[test]
fn malformed_arguments_run_nothing() {
    let mount = Mount::new();
    for arguments in [
        &["-l", "a b", "--", "touch", "ran"][..],
        &["-l", ".hidden", "--", "touch", "ran"],
        &["-l", "ref-a%2fb.lock", "--", "touch", "ran"],
        &["-l", "", "--", "touch", "ran"],
        &["-w", "5", "-l", "x.lock", "--", "touch", "ran"],
        &["-w", "soon", "-l", "x.lock", "--", "touch", "ran"],
        &["-p", "0", "-l", "x.lock", "--", "touch", "ran"],
        &["-p", "11", "-l", "x.lock", "--", "touch", "ran"],
        &["-s", "-x", "-l", "x.lock", "--", "touch", "ran"],
        &["-n", "-w", "5s", "-l", "x.lock", "--", "touch", "ran"],
        &["--session", "a b", "-l", "x.lock", "--", "touch", "ran"],
        &["--session", "a:b", "-l", "x.lock", "--", "touch", "ran"],
        &["--ticket", "a/b", "-l", "x.lock", "--", "touch", "ran"],
        &["--colour", "-l", "x.lock", "--", "touch", "ran"],
        &["-l", "x.lock"],
        &["-l", "x.lock", "--"],
    ] {
        let output = mount.lockfs(&[&["run"], arguments].concat());
        assert!(
            !matches!(output.code(), 0 | 69 | 75),
            "{arguments:?}: {}",
            output.code()
        );
        assert!(!output.error().is_empty(), "{arguments:?}");
    }
    assert!(!mount.repo().join("ran").exists());
    assert_eq!(mount.listed(), [""; 0]);
}

/// A stopped run goes on where it was.
#[test]
fn a_stopped_run_goes_on() {
    let mount = Mount::new();
    mount.sh("mkfifo $T/fifo").ok();
    let mut running = mount.spawn_sh("exec $LOCKFS run -l x.lock -- bash -c 'echo in; read -r _ < $T/fifo; echo out'");
    running.wait_for_line("in");
    sys::kill(running.id(), libc::SIGSTOP).unwrap();
    wait_until("it is stopped", || running.state() == 'T');
    assert!(mount.taken("x.lock"));
    sys::kill(running.id(), libc::SIGCONT).unwrap();
    mount.sh("echo > $T/fifo").ok();
    let output = running.finish_within(Duration::from_secs(10));
    assert!(output.status.success(), "{}", output.error());
    assert!(output.text().ends_with("out"));
}
