//! Alerts fire, end, and tell whom the user has asked to be told.

use std::fs;

use crate::support::{Mount, Repository, wait_until};

fn alert(mount: &Mount, name: &str) -> String {
    let text = fs::read_to_string(mount.path("metrics/alerts")).expect("alerts reads");
    let line = text.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// Makes a command that writes what it is told, configured in the user's or in the repository's configuration.
fn configured(scope: &str) -> (Repository, std::path::PathBuf) {
    let repository = Repository::new();
    let told = repository.dir().join("told");
    let command = format!(
        "echo $LOCKFS_ALERT $LOCKFS_ALERT_STATE $LOCKFS_ALERT_SENTENCE >> {}",
        told.display()
    );
    let done = repository.git(&["config", scope, "lockfs.alertCommand", &command]);
    assert!(done.status.success(), "{done:?}");
    (repository, told)
}

#[test]
fn a_long_hold_with_a_waiter_is_told_when_it_begins_and_when_it_ends() {
    let (repository, told) = configured("--global");
    let mount = Mount::start(repository, &[("alertHold", "1s")], &[]);
    let holder = mount.spawn_sh("exec 9> $L/x.lock && echo taken && exec sleep 60");
    holder.wait_for_line("taken");
    let waiter = mount.spawn_sh("exec 9> $L/x.lock && echo got && exec sleep 60");
    let told = || fs::read_to_string(&told).unwrap_or_default();
    wait_until("the beginning", || {
        told().contains("long-hold firing x.lock has been held by PID")
    });
    assert!(alert(&mount, "long-hold").contains(" firing "));
    assert!(
        fs::read_to_string(mount.path("metrics/summary"))
            .expect("summary")
            .contains("ALERT long-hold")
    );
    drop(holder);
    waiter.wait_for_line("got");
    wait_until("the end", || told().contains("long-hold ok"));
    assert!(alert(&mount, "long-hold").contains(" ok "));
}

#[test]
fn a_stale_release_is_an_alert_and_a_repository_starts_no_program() {
    let (repository, told) = configured("--local");
    let mount = Mount::start(repository, &[], &[]);
    assert!(alert(&mount, "stale-releases").contains(" ok "));
    assert!(mount.sh("sh -c 'echo $$ > $L/gone.lock'").status.success());
    mount.wait_until_free("gone.lock");
    wait_until("the alert", || alert(&mount, "stale-releases").contains(" firing "));
    assert!(mount.sh("echo flush-metrics > $M/control").status.success());
    assert!(!told.exists(), "what a repository says of itself is no command");
}
