//! Alerts fire, end, and tell whom the user has asked to be told.

use std::fs;
use std::path::PathBuf;

use crate::support::{Mount, Repository, wait_until};

fn alert(mount: &Mount, name: &str) -> String {
    let text = fs::read_to_string(mount.path("metrics/alerts")).expect("alerts reads");
    let line = text.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// A command that writes what it is told to a file, configured in the user's or in the repository's configuration.
fn configure(repository: &Repository, scope: &str, before: &str) -> PathBuf {
    let told = repository.dir().join(format!("told{scope}"));
    let command = format!(
        "{before} echo $LOCKFS_ALERT $LOCKFS_ALERT_STATE $LOCKFS_ALERT_SENTENCE >> {}",
        told.display()
    );
    let done = repository.git(&["config", scope, "lockfs.alertCommand", &command]);
    assert!(done.status.success(), "{done:?}");
    told
}

#[test]
fn a_long_hold_with_a_waiter_is_told_when_it_begins_and_when_it_ends() {
    let repository = Repository::new();
    let told = configure(&repository, "--global", "");
    let mount = Mount::start(repository, &[("alertHold", "1s")], &[]);
    let holder = mount.spawn_sh("exec 9> $L/x.lock && echo taken && exec sleep 60");
    holder.wait_for_line("taken");
    let waiter = mount.spawn_sh("exec 9> $L/x.lock && echo got && exec sleep 60");
    let told = || fs::read_to_string(&told).unwrap_or_default();
    wait_until("the beginning", || {
        told().contains("long-hold firing the lock x.lock has been held by PID")
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
fn nobody_hears_of_the_end_before_the_beginning() {
    let repository = Repository::new();
    let gate = repository.dir().join("gate");
    let before = format!("echo begins $LOCKFS_ALERT_STATE >> {0}.log; cat {0};", gate.display());
    let told = configure(&repository, "--global", &before);
    assert!(repository.sh("mkfifo $T/gate").status.success());
    let mount = Mount::start(repository, &[("alertHold", "1s")], &[]);
    let holder = mount.spawn_sh("exec 9> $L/x.lock && echo taken && exec sleep 60");
    holder.wait_for_line("taken");
    let waiter = mount.spawn_sh("exec 9> $L/x.lock && echo got && exec sleep 60");
    let log = || fs::read_to_string(gate.with_extension("log")).unwrap_or_default();
    wait_until("it is told", || log() == "begins firing\n");
    drop(holder);
    waiter.wait_for_line("got");
    wait_until("the end", || alert(&mount, "long-hold").contains(" ok "));
    // Time enough to begin for one that did not wait: it asks git twice.
    for _ in 0..10 {
        mount.git(&["config", "--get", "lockfs.alertCommand"]);
    }
    assert_eq!((log().as_str(), told.exists()), ("begins firing\n", false));
    fs::write(&gate, "").expect("a reader");
    wait_until("the next is told", || log() == "begins firing\nbegins ok\n");
    let said = fs::read_to_string(&told).expect("the first is done");
    assert!(
        said.starts_with("long-hold firing") && said.lines().count() == 1,
        "{said}"
    );
    fs::write(&gate, "").expect("a reader");
    wait_until("the end is told", || {
        fs::read_to_string(&told).is_ok_and(|told| told.contains("long-hold ok"))
    });
}

#[test]
fn a_stale_release_is_an_alert_and_a_repository_starts_no_program() {
    let repository = Repository::new();
    // git itself would take the repository's word over the user's.
    let by_repository = configure(&repository, "--local", "");
    let by_user = configure(&repository, "--global", "");
    let mount = Mount::start(repository, &[], &[]);
    assert!(alert(&mount, "stale-releases").contains(" ok "));
    assert!(mount.sh("sh -c 'echo $$ > $L/gone.lock'").status.success());
    mount.wait_until_free("gone.lock");
    wait_until("the alert", || alert(&mount, "stale-releases").contains(" firing "));
    wait_until("it is told", || by_user.exists());
    assert!(
        !by_repository.exists(),
        "what a repository says of itself is no command"
    );
}
