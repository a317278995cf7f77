//! Where settings come from, and that they reach the mount.

use crate::support::sys::Errno;
use crate::support::{Mount, Repository, Said, wait_until};
use crate::{TAKE, holder};

/// Mounts with these arguments, environment and configuration; whether an open then waits at most briefly.
fn is_hasty(arguments: &[&str], environment: &[(&str, &str)], configuration: &[(&str, &str)]) -> bool {
    let repository = Repository::new();
    for (key, value) in configuration {
        repository.git(&["config", key, value]);
    }
    let mut command = repository.command(env!("CARGO_BIN_EXE_git-lockfs"));
    command.arg("mount").args(arguments).envs(environment.iter().copied());
    repository.run(command).ok();
    let (_holder, _) = holder(&repository, "x.lock");
    let mut waiting = repository.client();
    waiting.begin_open(repository.lock("x.lock"), TAKE);
    repository.wait_for_waiters("x.lock", 1);
    let table = repository.locks_json();
    let limit = &table["locks"][0]["waiters"][0]["limit_ms"];
    if limit.as_u64() != Some(300) {
        return false;
    }
    assert_eq!(waiting.finish(), Err(Errno::ETIMEDOUT));
    true
}

/// `git config` keys under `lockfs.`, each with an environment variable and, for mount, an option
#[test]
fn each_source_of_a_setting_reaches_the_mount() {
    assert!(is_hasty(&[], &[], &[("lockfs.wait", "300ms")]), "git config");
    assert!(
        is_hasty(&[], &[("GIT_LOCKFS_WAIT", "300ms")], &[("lockfs.wait", "1h")]),
        "the environment overrides"
    );
    assert!(
        is_hasty(
            &["--wait", "300ms"],
            &[("GIT_LOCKFS_WAIT", "2h")],
            &[("lockfs.wait", "1h")]
        ),
        "the option overrides"
    );
    assert!(is_hasty(&["-o", "wait=300ms"], &[], &[]), "-o");
    assert!(
        is_hasty(&["-o", "wait=1h,waitFor.x.*=300ms"], &[], &[]),
        "-o with a pattern"
    );
    assert!(
        is_hasty(&[], &[], &[("LOCKFS.Wait", "300ms")]),
        "git does not care for case"
    );
    assert!(!is_hasty(&[], &[], &[("lockfs.wait", "1h")]));
}

/// `--lease`
#[test]
fn the_option_sets_the_lease() {
    let mount = Mount::start(Repository::new(), &[], &["--lease", "100ms"]);
    let mut keeper = mount.client();
    keeper.mkdir(mount.lock("x.lock")).unwrap();
    assert!(mount.taken("x.lock"));
    keeper.kill();
    wait_until("the lease has ended", || !mount.taken("x.lock"));
}

/// `-o` options in FUSE custom
#[test]
fn the_usual_mount_options_are_understood() {
    let repository = Repository::new();
    repository
        .lockfs(&["mount", "-o", "rw,nosuid,nodev,noexec,noatime,aging=5s"])
        .ok();
    assert!(repository.is_mounted());
}

/// `reload`: a daemon reads the configuration of its repository, whoever asks.
#[test]
fn settings_of_a_linked_worktree_are_those_of_the_repository() {
    let (mount, linked) = crate::with_linked_worktree();
    let mut command = mount.command("git");
    command.args(["config", "lockfs.wait", "300ms"]).current_dir(linked);
    mount.run(command).ok();
    mount.sh("echo reload > $M/control").ok();
    let (_holder, _) = holder(&mount, "x.lock");
    let mut waiting = mount.client();
    assert_eq!(waiting.open(mount.lock("x.lock"), TAKE), Err(Errno::ETIMEDOUT));
}
