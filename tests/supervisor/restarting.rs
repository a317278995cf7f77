//! `git lockfs restart`: the same road on purpose.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use crate::support::{Repository, Said, wait_until};
use crate::{TAKE, daemonised, holder, of_a_newer_version};

/// The most restarts under load.
const RESTARTS: u32 = 15;
/// How long a restart may take on a machine with much else to do.
const RESTART_MAX: Duration = Duration::from_secs(60);

/// with nothing lost
#[test]
fn a_restart_keeps_holders_and_waiters() {
    let repository = daemonised();
    let (mut holding, fd) = holder(&repository, "x.lock");
    let mut waiting = repository.client();
    waiting.begin_open(repository.lock("x.lock"), TAKE);
    repository.wait_for_waiters("x.lock", 1);
    for _ in 0..3 {
        let (supervisor, worker) = (repository.supervisor_pid(), repository.worker_pid());
        let said = repository.lockfs(&["restart"]).ok();
        assert_eq!(said.text() + &said.error(), "", "quiet success");
        assert_ne!(repository.worker_pid(), worker, "another worker serves");
        assert_eq!(
            repository.supervisor_pid(),
            supervisor,
            "the same process keeps the mount"
        );
        assert_eq!(repository.waiters("x.lock"), 1);
    }
    let log = repository.daemon_log();
    assert_eq!(
        log.matches("retired").count(),
        3,
        "each left a snapshot to another program: {log}"
    );
    holding.close(fd);
    waiting.finish().expect("it is granted");
    repository.lockfs(&["umount", "--force"]).ok();
    wait_until("both have ended", || {
        repository.supervisor().is_none() && repository.worker().is_none()
    });
}

/// and a test does it under load
#[test]
fn a_restart_under_load_is_only_a_pause() {
    let repository = daemonised();
    std::fs::write(repository.dir().join("count"), "0\n").expect("a file");
    let script = "for i in $(seq 60); do
            { read n < $T/count && echo $((n + 1)) > $T/count; } 9> $L/x.lock || echo failed
            flock $F/x.lock sh -c 'read n < $T/count; echo $((n + 1)) > $T/count' || echo failed
        done; echo end";
    let mut clients: Vec<_> = (0..4).map(|_| repository.spawn_sh(script)).collect();
    let mut restarts = 0;
    while restarts < RESTARTS && clients.iter_mut().any(|client| client.status().is_none()) {
        run(&repository, Path::new(env!("CARGO_BIN_EXE_git-lockfs")), "restart").ok();
        restarts += 1;
    }
    assert!(restarts > 1, "{restarts}");
    for mut client in clients {
        let output = client.finish_within(Duration::from_secs(60));
        assert_eq!((output.text().as_str(), output.error().as_str()), ("end", ""));
    }
    let count = std::fs::read_to_string(repository.dir().join("count")).expect("the count");
    assert_eq!(count.trim(), "480", "no two were ever in there together");
}

/// A copy of the program, from which a daemon can be started and which can be replaced.
fn installed(repository: &Repository) -> PathBuf {
    let program = repository.dir().join("git-lockfs");
    install(
        &program,
        &std::fs::read(env!("CARGO_BIN_EXE_git-lockfs")).expect("the program"),
    );
    program
}

/// As a package manager does it: a new file takes the name.
fn install(program: &Path, bytes: &[u8]) {
    let new = program.with_extension("new");
    std::fs::write(&new, bytes).expect("write");
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("chmod");
    std::fs::rename(&new, program).expect("rename");
}

fn run(repository: &Repository, program: &Path, argument: &str) -> Output {
    let mut command = repository.command(program);
    command.arg(argument);
    repository.run_within(command, RESTART_MAX)
}

/// The PIDs in daemon.lock, and the program that each runs.
fn programs(repository: &Repository) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(repository.repo().join(".git/lockfs/daemon.lock")).expect("daemon.lock");
    let exe = |pid: &str| std::fs::read_link(format!("/proc/{}/exe", pid.trim())).expect("it runs");
    text.lines().map(exe).collect()
}

/// for an upgrade of the binary
#[test]
fn a_restart_takes_the_program_that_is_installed_now() {
    let repository = Repository::new();
    let program = installed(&repository);
    run(&repository, &program, "mount").ok();
    let (holding, _) = holder(&repository, "x.lock");
    assert_eq!(programs(&repository), [program.clone(), program.clone()]);
    installed(&repository);
    let gone = |path: &PathBuf| path.to_string_lossy().ends_with("(deleted)");
    assert!(
        programs(&repository).iter().all(gone),
        "the old one goes on until it is told"
    );
    // A worker that dies meanwhile is replaced by what is known to work.
    let worker = repository.sh("sed -n 2p .git/lockfs/daemon.lock").ok().text();
    repository.sh("kill -9 $(sed -n 2p .git/lockfs/daemon.lock)").ok();
    wait_until("another worker serves", || {
        repository.sh("sed -n 2p .git/lockfs/daemon.lock").text() != worker
    });
    assert!(repository.taken("x.lock"));
    assert!(programs(&repository).iter().all(gone));
    run(&repository, &program, "restart").ok();
    wait_until("both run the new program", || {
        programs(&repository) == [program.clone(), program.clone()]
    });
    assert!(repository.taken("x.lock"));
    holding.kill();
    repository.wait_until_free("x.lock");
    run(&repository, &program, "umount").ok();
    assert!(!repository.is_mounted());
}

/// A signal that comes while the supervisor becomes the new program is attended to by that one.
#[test]
fn a_signal_right_after_a_restart_is_not_lost() {
    let repository = Repository::new();
    for _ in 0..10 {
        repository.lockfs(&["mount"]).ok();
        repository
            .sh("$LOCKFS restart && kill $(head -n 1 .git/lockfs/daemon.lock)")
            .ok();
        wait_until("it is unmounted", || !repository.is_mounted());
    }
}

/// A program that cannot do it is refused before anything is ended.
#[test]
fn a_restart_to_something_else_is_refused_and_the_old_worker_stays() {
    let repository = Repository::new();
    let program = installed(&repository);
    run(&repository, &program, "mount").ok();
    let before = repository.locks_json()["worker_pid"].clone();
    for other in [
        "#!/bin/sh\nexit 0\n",
        "no program at all",
        "#!/bin/sh\nexec sleep 100\n",
    ] {
        install(&program, other.as_bytes());
        let output = run(&repository, Path::new(env!("CARGO_BIN_EXE_git-lockfs")), "restart");
        assert_eq!(output.code(), 1, "{other}: {}", output.error());
        assert!(output.error().contains("not restarted"), "{}", output.error());
        assert_eq!(repository.locks_json()["worker_pid"], before, "{other}");
    }
}

/// A journal from a newer version is refused with a clear sentence, and the old worker stays.
#[test]
fn a_journal_of_a_newer_version_is_refused() {
    let repository = daemonised();
    let (_holding, _) = holder(&repository, "x.lock");
    let worker = repository.worker_pid();
    let journal = repository.repo().join(".git/lockfs/journal");
    let old = std::fs::read(&journal).expect("the journal");
    std::fs::write(&journal, of_a_newer_version(&old)).expect("write");
    let output = repository.lockfs(&["restart"]);
    assert_eq!(output.code(), 1, "{}", output.error());
    assert!(output.error().contains("newer version"), "{}", output.error());
    assert_eq!(repository.worker_pid(), worker);
    assert!(repository.taken("x.lock"));
    std::fs::write(&journal, &old).expect("write");
    repository.lockfs(&["restart"]).ok();
    assert!(repository.taken("x.lock"));
}

/// Without a daemon: exit code 69, and what to do.
#[test]
fn without_a_daemon_there_is_nothing_to_restart() {
    let repository = Repository::new();
    let output = repository.lockfs(&["restart"]);
    assert_eq!(output.code(), 69);
    assert!(output.error().contains("git lockfs mount"), "{}", output.error());
}
