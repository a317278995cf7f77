//! The other subcommands: `status`, `path`, `break`, `release`, `doctor`, `completions`.

use serde_json::Value;

use crate::support::sys::Errno;
use crate::support::{Mount, Repository, Said, wait_until};
use crate::{TAKE, holder};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `status` (table; `--json`)
#[test]
fn status_shows_who_holds_and_who_waits() {
    let mount = Mount::new();
    let empty = mount.lockfs(&["status"]).ok();
    assert!(!empty.text().contains(".lock"), "{}", empty.text());

    let (holding, _) = holder(&mount, "x.lock");
    let mut waiting = mount.client();
    waiting.begin_open(mount.lock("x.lock"), TAKE);
    mount.wait_for_waiters("x.lock", 1);
    let table = mount.lockfs(&["status"]).ok().text();
    for word in [
        "x.lock",
        &holding.pid().to_string(),
        &waiting.pid().to_string(),
        "exclusive",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert!(
        table.lines().all(|line| line.chars().count() <= 80),
        "it fits a terminal:\n{table}"
    );

    let shown = json(&mount.lockfs(&["status", "--json"]).ok().text());
    assert_eq!(shown["version"], 1);
    assert_eq!(shown["locks"][0]["name"], "x.lock");
    assert_eq!(shown["locks"][0]["holders"][0]["pid"], holding.pid());
    assert_eq!(shown["locks"][0]["waiters"][0]["pid"], waiting.pid());
}

/// `--watch`
#[test]
fn status_can_watch() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "first.lock");
    let watching = mount.spawn_sh("exec $LOCKFS status --watch");
    wait_until("it shows what is", || watching.said().contains("first.lock"));
    holding.close(fd);
    let (_second, _) = holder(&mount, "second.lock");
    wait_until("it shows what comes", || watching.said().contains("second.lock"));
    watching.signal(libc::SIGINT);
    let mut watching = watching;
    wait_until("Ctrl-C ends it", || watching.status().is_some());
}

/// 69 when no daemon answers
#[test]
fn without_a_daemon_they_exit_69() {
    let repository = Repository::new();
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["break", "x.lock"],
        &["release", "x.lock"],
        &["release", "--session", "s"],
        &["path", "--check"],
    ] {
        let output = repository.lockfs(arguments);
        assert_eq!(output.code(), 69, "{arguments:?}: {}", output.error());
        assert!(output.error().contains("mount"), "{arguments:?}: {}", output.error());
    }
}

/// `path`
#[test]
fn path_prints_the_place_also_when_nothing_is_mounted() {
    let repository = Repository::new();
    let expected = repository.mountpoint();
    assert_eq!(repository.lockfs(&["path"]).ok().text(), expected.to_str().unwrap());
    repository.lockfs(&["mount"]).ok();
    assert_eq!(
        repository.lockfs(&["path", "--check"]).ok().text(),
        expected.to_str().unwrap()
    );
}

/// `break`
#[test]
fn break_takes_a_lock_from_its_holder() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "x.lock");
    let token: u64 = mount.field_of("x.lock", "token").unwrap().parse().unwrap();
    let wrong = mount.lockfs(&["break", "x.lock", "--token", &(token + 1).to_string()]);
    assert_ne!(wrong.code(), 0, "another token hits nobody");
    assert!(mount.taken("x.lock"));

    let output = mount.lockfs(&["break", "x.lock", "--reason", "the build hangs"]).ok();
    let said = output.text() + &output.error();
    assert!(said.contains(&holding.pid().to_string()), "it says who it was: {said}");
    assert!(!mount.taken("x.lock"));
    assert_eq!(holding.write(fd, "1\n"), Err(Errno::ESTALE));
    assert_ne!(mount.lockfs(&["break", "x.lock"]).code(), 0, "nobody holds it");
}

/// `release`
#[test]
fn release_is_for_ones_own_locks() {
    let mount = Mount::new();
    mount
        .sh("mkdir $L/x.lock && $LOCKFS release x.lock && echo $$ > $L/y.lock && $LOCKFS release y.lock")
        .ok();
    assert!(!mount.taken("x.lock") && !mount.taken("y.lock"));

    let (holding, _) = holder(&mount, "z.lock");
    let refused = mount.lockfs(&["release", "z.lock"]);
    assert_ne!(refused.code(), 0);
    assert!(
        refused.error().contains(&holding.pid().to_string()),
        "who holds it: {}",
        refused.error()
    );
    assert!(mount.taken("z.lock"));
    assert_ne!(mount.lockfs(&["release", "free.lock"]).code(), 0);
}

/// `release` of a session
#[test]
fn a_session_is_released_whole() {
    let mount = Mount::new();
    let running =
        mount.spawn_sh("$LOCKFS run -l a.lock -l b.lock --session agent-7 -- bash -c 'echo in; exec sleep 100'");
    running.wait_for_line("in");
    let (_other, _) = holder(&mount, "c.lock");
    mount.lockfs(&["release", "--session", "agent-7"]).ok();
    assert_eq!(mount.listed(), ["c.lock"]);
}

/// `doctor` (what this machine lacks, what is wrong with the mount, …, and the command that fixes each; `--json`)
#[test]
fn doctor_tells_what_is_wrong() {
    let mount = Mount::new();
    let well = mount.lockfs(&["doctor"]);
    assert_eq!(well.code(), 0, "{}", well.text());
    assert!(well.text().contains("/dev/fuse"), "{}", well.text());
    let shown = json(&mount.lockfs(&["doctor", "--json"]).ok().text());
    assert!(shown.is_object() || shown.is_array());

    mount.kill_daemon();
    let dead = mount.lockfs(&["doctor"]);
    assert_eq!(dead.code(), 1, "{}", dead.text());
    assert!(
        dead.text().contains("git lockfs mount"),
        "the command that fixes it: {}",
        dead.text()
    );
    json(&mount.lockfs(&["doctor", "--json"]).text());
}

/// `doctor`: a bad setting is named
#[test]
fn doctor_names_a_bad_setting() {
    let repository = Repository::new();
    repository.git(&["config", "lockfs.wiat", "5s"]);
    let output = repository.lockfs(&["doctor"]);
    assert_eq!(output.code(), 1);
    assert!(output.text().contains("wiat"), "{}", output.text());
}

/// `doctor`: what a sandbox lacks for mounting is no failure where a mount made outside works.
#[test]
fn doctor_asks_no_device_of_a_sandbox_with_a_mount() {
    let mount = Mount::new();
    let mut command = mount.command(crate::support::process::require("bwrap"));
    command
        .args(["--bind", "/", "/", "--dev", "/dev", "--"])
        .args([env!("CARGO_BIN_EXE_git-lockfs"), "doctor"]);
    let output = mount.run(command);
    assert_eq!(output.code(), 0, "{}", output.text());
    assert!(output.text().contains("warn  device"), "{}", output.text());
}

/// All commands work from a directory inside the mount, where git itself stops at the boundary of the filesystem.
#[test]
fn commands_work_from_inside_the_mount() {
    let mount = Mount::new();
    let said = mount
        .sh("cd $L && $LOCKFS path --check && $LOCKFS run -l x.lock -- $LOCKFS status && $LOCKFS run -- true")
        .ok()
        .text();
    assert!(
        said.starts_with(&format!("{}\n", mount.mountpoint().display())),
        "{said}"
    );
    assert!(said.contains("x.lock"), "{said}");
}

/// `doctor`: sandboxes
#[test]
fn doctor_sees_a_missing_device() {
    let repository = Repository::new();
    let mut command = repository.command(crate::support::process::require("bwrap"));
    command
        .args(["--bind", "/", "/", "--dev", "/dev", "--"])
        .args([env!("CARGO_BIN_EXE_git-lockfs"), "doctor"]);
    let output = repository.run(command);
    assert_eq!(output.code(), 1, "{}", output.text());
    assert!(output.text().contains("/dev/fuse"), "{}", output.text());
}

/// `completions`
#[test]
fn completions_are_valid_shell() {
    let repository = Repository::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = repository.lockfs(&["completions", shell]).ok().text();
        assert!(script.contains("umount"), "{shell}");
        if shell != "fish" {
            std::fs::write(repository.dir().join("completions"), script).unwrap();
            repository.sh(&format!("{shell} -n $T/completions")).ok();
        }
    }
    assert_ne!(repository.lockfs(&["completions", "cmd.exe"]).code(), 0);
}

/// `completions`: bash knows the words of each subcommand, for `git-lockfs` and, called as git's own completion does it,
/// for `git lockfs`.
#[test]
fn bash_completes_subcommands_and_their_options() {
    let repository = Repository::new();
    let script = r#"
        . <($LOCKFS completions bash)
        for try in "um" "run --se" "completions z"; do
            words=(git lockfs $try) cword=$((${#words[@]} - 1)) __git_cmd_idx=1 COMPREPLY=()
            _git_lockfs
            echo "git: ${COMPREPLY[*]}"
            COMP_WORDS=(git-lockfs $try) COMP_CWORD=$((cword - 1)) COMPREPLY=()
            $(complete -p git-lockfs | grep -o '_[a-z]*lockfs') git-lockfs "${words[cword]}" "${words[cword - 1]}"
            echo "own: ${COMPREPLY[*]}"
        done"#;
    let said = repository.sh(script).ok().text();
    let expected = ["umount", "--session", "zsh"].map(|word| format!("git: {word}\nown: {word}"));
    assert_eq!(said, expected.join("\n"));
}

/// An unknown subcommand, or none, is a mistake that is told.
#[test]
fn mistakes_are_told() {
    let repository = Repository::new();
    for arguments in [
        &[][..],
        &["mont"],
        &["mount", "--colour"],
        &["break"],
        &["release"],
        &["run"],
    ] {
        let output = repository.lockfs(arguments);
        assert_ne!(output.code(), 0, "{arguments:?}");
        assert!(!output.error().is_empty(), "{arguments:?}");
    }
    assert!(
        repository
            .lockfs(&["--version"])
            .ok()
            .text()
            .contains(env!("CARGO_PKG_VERSION"))
    );
    assert!(repository.lockfs(&["-h"]).ok().text().contains("umount"));
}

/// As `git lockfs`: git finds the program by its name.
#[test]
fn git_finds_it_as_a_subcommand() {
    let mount = Mount::new();
    let script = "PATH=$(dirname $LOCKFS):$PATH; git lockfs path && git lockfs run -l x.lock -- git lockfs status";
    let said = mount.sh(script).ok().text();
    assert!(said.contains("x.lock"), "{said}");
}
