//! `git lockfs mount`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getsid};

use crate::support::process::require;
use crate::support::{Mount, Repository, Said, process_state, wait_until};
use crate::{daemonised, daemons, holder, the_daemon, times_mounted, with_linked_worktree};

/// Daemonises by default and returns only when the mount answers
#[test]
fn mount_returns_when_the_mount_answers() {
    let repository = Repository::new();
    let said = repository
        .sh("$LOCKFS mount >/dev/null && { echo one; } 9> $L/x.lock && ls $M && flock -n $F/y.lock echo two")
        .ok()
        .text();
    for name in [
        "one",
        "README",
        "acquire",
        "control",
        "flock",
        "last-error",
        "locks",
        "metrics",
        "two",
    ] {
        assert!(said.lines().any(|line| line == name), "{name}: {said}");
    }
    assert_ne!(the_daemon(&repository), 0);
}

/// the root lists only what works
#[test]
fn the_root_lists_only_what_works() {
    let mount = Mount::new();
    let listed = mount.sh("ls -A $M").ok().text();
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        [
            "README",
            "acquire",
            "control",
            "flock",
            "last-error",
            "locks",
            "metrics"
        ]
    );
    assert!(
        mount.sh("cat $M/README").ok().text().lines().count() > 10,
        "half a page: how to use it"
    );
}

/// closes inherited stdio
#[test]
fn a_reader_of_the_starters_output_sees_its_end() {
    for script in [
        "$LOCKFS mount | cat; echo end",
        "$LOCKFS mount 2>&1 >/dev/null | cat; echo end",
        "$LOCKFS mount 7>&1 >/dev/null 2>&1 | cat; echo end",
        "cat < <($LOCKFS mount); echo end",
    ] {
        let repository = Repository::new();
        assert!(repository.sh(script).ok().text().ends_with("end"), "{script}");
        assert!(repository.is_mounted(), "{script}");
    }
}

/// survives the death of the starting shell's process group
#[test]
fn the_daemon_survives_its_starters() {
    let repository = Repository::new();
    let shell = repository.spawn_sh("$LOCKFS mount >/dev/null; echo mounted; sleep 100");
    shell.wait_for_line("mounted");
    let daemon = the_daemon(&repository);
    let group = Pid::from_raw(shell.id() as i32);
    for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGKILL] {
        // The group may be gone after the first.
        let _ = killpg(group, signal);
    }
    wait_until("the shell is dead", || matches!(process_state(shell.id()), 'Z' | 'X'));
    assert_ne!(
        getsid(Some(Pid::from_raw(daemon as i32))),
        getsid(None),
        "it has a session of its own"
    );
    let (_holder, _) = holder(&repository, "x.lock");
    assert_eq!(the_daemon(&repository), daemon);
}

/// The daemon keeps no directory busy.
#[test]
fn the_daemon_works_outside_the_repository() {
    let repository = daemonised();
    let cwd = fs::read_link(format!("/proc/{}/cwd", the_daemon(&repository))).expect("its directory");
    assert!(!cwd.starts_with(repository.dir()), "{}", cwd.display());
}

/// `-f` stays in the foreground
#[test]
fn in_the_foreground_the_starter_is_the_daemon() {
    let mut mount = Mount::new();
    assert_eq!(the_daemon(&mount), mount.daemon_pid());
    mount.daemon().signal(libc::SIGTERM);
    wait_until("it ends", || mount.daemon().status().is_some());
    assert!(mount.daemon().status().expect("it has ended").success());
    assert!(!mount.is_mounted());
}

/// Exactly one daemon a repository (100 starts at once)
#[test]
fn a_hundred_starts_at_once_give_one_daemon() {
    let repository = Repository::new();
    let script = "for i in $(seq 100); do $LOCKFS mount >/dev/null & started+=($!); done
        for pid in ${started[@]}; do wait $pid || echo failed with $?; done
        : > $L/x.lock && echo works";
    let output = repository.run_within(repository.script("bash", script), Duration::from_secs(60));
    assert_eq!(output.text(), "works", "{}", output.error());
    the_daemon(&repository);
    assert_eq!(times_mounted(&repository), 1);
}

#[test]
fn a_second_mount_says_so() {
    let repository = daemonised();
    let daemon = the_daemon(&repository);
    for arguments in [&["mount"][..], &["mount", "-f"]] {
        let again = repository.lockfs(arguments).ok();
        let said = again.text() + &again.error();
        assert!(said.contains("mounted"), "{arguments:?}: {said}");
    }
    assert_eq!(the_daemon(&repository), daemon);
}

/// a dead mount ("Transport endpoint is not connected") is cleaned and mounted anew
#[test]
fn a_dead_mount_is_cleaned() {
    let mount = Mount::new();
    for _ in 0..3 {
        let (holding, _) = holder(&mount, "x.lock");
        mount.kill_daemon();
        let ls = mount.sh("ls $L");
        assert!(
            ls.error().contains("Transport endpoint is not connected"),
            "{}",
            ls.error()
        );
        mount.lockfs(&["mount"]).ok();
        assert_eq!(times_mounted(&mount), 1);
        assert!(
            mount.taken("x.lock"),
            "its holder lives, and may not know that its descriptor is dead"
        );
        holding.kill();
        mount.wait_until_free("x.lock");
    }
}

/// What is at the mountpoint and in it, with modes and targets.
const LOOK: &str = "find $M $M/ -printf '%p %y %m %s %l\\n' 2>&1; true";

/// the mountpoint must be empty, is opened without following links
#[test]
fn a_mountpoint_with_something_in_it_is_refused() {
    let spoilers = [
        ("a file inside", "mkdir $M && touch $M/precious"),
        ("a hidden file inside", "mkdir $M && touch $M/.precious"),
        ("a link to a directory", "mkdir $T/elsewhere && ln -s $T/elsewhere $M"),
        ("a dangling link", "ln -s $T/nowhere $M"),
        ("a file", "echo precious > $M"),
        ("a fifo", "mkfifo $M"),
    ];
    for (what, spoil) in spoilers {
        let repository = Repository::new();
        repository.sh(spoil).ok();
        let before = repository.sh(LOOK).text();
        let output = repository.lockfs(&["mount"]);
        assert_ne!(output.code(), 0, "{what}");
        assert!(
            output.error().contains(".git-locks"),
            "{what}: it says where: {}",
            output.error()
        );
        assert!(!repository.is_mounted(), "{what}");
        assert_eq!(repository.sh(LOOK).text(), before, "{what}: nothing was touched");
        assert!(daemons(&repository).is_empty(), "{what}");
    }
}

/// is mode 0500 when bare
#[test]
fn the_bare_mountpoint_cannot_be_written_by_mistake() {
    let repository = daemonised();
    repository.lockfs(&["umount"]).ok();
    let bare = fs::symlink_metadata(repository.mountpoint()).expect("it stays");
    assert!(bare.is_dir());
    assert_eq!(bare.permissions().mode() & 0o7777, 0o500);
    repository.lockfs(&["mount"]).ok();
    assert_ne!(
        fs::metadata(repository.mountpoint()).expect("mounted").dev(),
        bare.dev()
    );
}

/// An empty directory may be there already.
#[test]
fn an_empty_mountpoint_of_ours_is_taken() {
    let repository = Repository::new();
    fs::create_dir(repository.mountpoint()).expect("mkdir");
    fs::set_permissions(repository.mountpoint(), Permissions::from_mode(0o755)).expect("chmod");
    repository.lockfs(&["mount"]).ok();
    repository.lockfs(&["umount"]).ok();
    let mode = fs::metadata(repository.mountpoint())
        .expect("it stays")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o500);
}

/// nosuid, nodev, noexec
#[test]
fn the_mount_carries_no_devices_and_runs_nothing() {
    let repository = daemonised();
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mountpoint = repository.mountpoint();
    let line = table
        .lines()
        .find(|line| line.split(' ').nth(4) == mountpoint.to_str())
        .expect("it is mounted");
    let options: Vec<&str> = line.split(' ').nth(5).expect("options").split(',').collect();
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(options.contains(&option), "{option}: {line}");
    }
    let (_, filesystem) = line.split_once(" - ").expect("a separator");
    assert!(filesystem.starts_with("fuse"), "{line}");
    assert!(filesystem.contains(" git-lockfs "), "{line}");
}

/// refused where git's own safe.directory rule refuses
#[test]
fn a_repository_that_git_distrusts_is_refused() {
    let repository = Repository::new();
    let mut command = repository.command(env!("CARGO_BIN_EXE_git-lockfs"));
    // git's own switch to test this rule.
    command.arg("mount").env("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1");
    let output = repository.run(command);
    assert_ne!(output.code(), 0);
    assert!(
        output.error().contains("safe.directory"),
        "git's advice is passed on: {}",
        output.error()
    );
    assert!(!repository.is_mounted());
}

/// Outside of a repository there is nothing to mount.
#[test]
fn outside_of_a_repository_it_says_so() {
    let repository = Repository::new();
    let mut command = repository.command(env!("CARGO_BIN_EXE_git-lockfs"));
    command.arg("mount").current_dir(repository.dir());
    let output = repository.run(command);
    assert_ne!(output.code(), 0);
    assert!(output.error().contains("not a git repository"), "{}", output.error());
}

/// It unmounts itself when the repository is removed.
#[test]
fn it_unmounts_itself_when_the_repository_is_removed() {
    let repository = daemonised();
    let daemon = the_daemon(&repository);
    // rm cannot remove the mountpoint while it is mounted; everything else goes.
    let first = repository.sh("cd $T; rm -rf repo");
    wait_until("it has unmounted itself", || !repository.is_mounted());
    wait_until("the daemon has ended", || matches!(process_state(daemon), 'Z' | 'X'));
    let second = repository.run({
        let mut command = repository.command("rm");
        command.args(["-rf", "repo"]).current_dir(repository.dir());
        command
    });
    second.ok();
    assert!(!repository.repo().exists(), "{}", first.error());
}

/// Without /dev/fuse: one clear sentence on what to do, exit code 69.
#[test]
fn without_dev_fuse_it_says_what_to_do() {
    let repository = Repository::new();
    let mut command = repository.command(require("bwrap"));
    // A /dev of its own, with the devices that every sandbox has; fuse is none of them.
    command
        .args(["--bind", "/", "/", "--dev", "/dev", "--"])
        .args([env!("CARGO_BIN_EXE_git-lockfs"), "mount"]);
    let output = repository.run(command);
    assert_eq!(output.code(), 69, "{}{}", output.text(), output.error());
    assert!(output.error().contains("/dev/fuse"), "{}", output.error());
    assert_eq!(output.error().lines().count(), 1, "one sentence: {}", output.error());
    assert!(!repository.is_mounted());
}

/// `git lockfs mount` in any repository or worktree mounts at `$(git rev-parse --git-common-dir)/.git-locks`
#[test]
fn all_worktrees_have_one_mount() {
    let (mount, linked) = with_linked_worktree();
    mount.lockfs(&["umount"]).ok();
    fs::create_dir(linked.join("sub")).expect("a directory in it");
    let in_linked = |arguments: &[&str]| {
        let mut command = mount.command(env!("CARGO_BIN_EXE_git-lockfs"));
        command.args(arguments).current_dir(linked.join("sub"));
        mount.run(command)
    };
    in_linked(&["mount"]).ok();
    assert!(mount.is_mounted());
    assert_eq!(in_linked(&["path"]).ok().text(), mount.mountpoint().to_str().unwrap());
    assert_eq!(
        mount.lockfs(&["path"]).ok().text(),
        mount.mountpoint().to_str().unwrap()
    );
    mount.lockfs(&["mount"]).ok();
    the_daemon(&mount);
    in_linked(&["umount"]).ok();
    assert!(!mount.is_mounted());
}

/// in any repository: also a bare one, and one whose path needs care
#[test]
fn bare_repositories_and_odd_paths_work() {
    let repository = Repository::new();
    let script = r#"
git init -q --bare "$T/a b, c.git" && cd "$T/a b, c.git" && $LOCKFS mount >/dev/null && locks=$($LOCKFS path)/locks
test "$locks" = "$PWD/.git-locks/locks" && : > "$locks/x.lock" && $LOCKFS run -l y.lock -- true && $LOCKFS umount && echo fine"#;
    let output = repository.sh(script);
    assert_eq!(output.text().lines().last(), Some("fine"), "{}", output.error());
}

/// What hides a mount in a namespace of its own is not taken for it.
#[test]
fn a_hidden_mount_is_not_taken_for_one_that_answers() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root makes a mount namespace of its own");
        return;
    }
    let repository = daemonised();
    let script = "unshare -m sh -c 'mount --bind $R $R && cd $R && $LOCKFS path --check'";
    assert_eq!(repository.sh(script).code(), 69);
    repository.lockfs(&["path", "--check"]).ok();
}
