//! The history outlives the daemon, however it ends, and a disk that is full costs figures, never a lock.

use std::fs;

use serde_json::Value;

use crate::support::{Mount, Repository, sys, wait_until};

fn summary(repository: &Repository) -> Value {
    let text = fs::read_to_string(repository.path("metrics/summary.json")).expect("summary.json reads");
    serde_json::from_str(&text).expect("summary.json is JSON")
}

/// Takes and releases a lock so often, and waits until that is counted.
fn use_lock(repository: &Repository, times: u64) {
    let before = summary(repository)["windows"][3]["releases"]
        .as_u64()
        .expect("a number");
    let script = format!("for i in $(seq {times}); do flock $F/x.lock true || exit; done");
    assert!(repository.sh(&script).status.success());
    wait_until("the releases", || {
        summary(repository)["windows"][3]["releases"] == before + times
    });
}

/// What every window says of `x.lock`, without what one cell more or less may change.
fn known(repository: &Repository) -> Vec<Value> {
    let json = summary(repository);
    let windows = json["windows"].as_array().expect("windows");
    // The last minute is a matter of seconds.
    windows
        .iter()
        .skip(1)
        .map(|window| window["locks"][0].clone())
        .collect()
}

#[test]
fn what_was_counted_is_there_after_a_restart() {
    let mount = Mount::new();
    wait_until("the history", || summary(&mount)["store"] == "kept");
    use_lock(&mount, 20);
    let before = known(&mount);
    assert_eq!(before.len(), 3);
    assert!(mount.lockfs(&["umount"]).status.success());
    assert!(mount.lockfs(&["mount"]).status.success());
    wait_until("the history", || summary(&mount)["store"] == "kept");
    assert_eq!(known(&mount), before);
    use_lock(&mount, 3);
    assert_eq!(known(&mount)[2]["releases"], 23);
    assert!(mount.lockfs(&["umount"]).status.success());
}

#[test]
fn a_killed_daemon_loses_nothing_that_was_flushed() {
    let mount = Mount::new();
    wait_until("the history", || summary(&mount)["store"] == "kept");
    use_lock(&mount, 10);
    assert!(mount.sh("echo flush-metrics > $M/control").status.success());
    let before = known(&mount);
    mount.kill_daemon();
    assert!(mount.lockfs(&["mount"]).status.success());
    wait_until("the history", || summary(&mount)["store"] == "kept");
    assert_eq!(known(&mount), before);
    assert!(mount.lockfs(&["umount"]).status.success());
}

#[test]
fn a_worker_that_hands_over_writes_its_figures_first() {
    let mount = Mount::new();
    wait_until("the history", || summary(&mount)["store"] == "kept");
    use_lock(&mount, 2);
    assert!(mount.sh("echo flush-metrics > $M/control").status.success());
    // The next would be written 10 s after that.
    use_lock(&mount, 5);
    let before = known(&mount);
    assert!(mount.lockfs(&["restart"]).status.success());
    wait_until("the history", || summary(&mount)["store"] == "kept");
    assert_eq!(known(&mount), before);
    assert!(mount.lockfs(&["umount"]).status.success());
}

/// The value of a counter of the running worker.
fn counter(repository: &Repository, name: &str) -> u64 {
    let page = fs::read_to_string(repository.path("metrics/metrics.prom")).expect("metrics.prom reads");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.expect("it is there").parse().expect("a number")
}

#[test]
fn the_next_worker_counts_its_replay_once_and_goes_on_with_figures_events_and_page() {
    let mount = Mount::new();
    wait_until("the history", || summary(&mount)["store"] == "kept");
    use_lock(&mount, 10);
    assert!(mount.sh("echo flush-metrics > $M/control").status.success());
    let before = known(&mount);
    assert_eq!(counter(&mount, "lockfs_replays_total"), 0);
    let tail = mount.spawn_sh("exec tail -n 1 -f $M/metrics/events.csv");
    wait_until("the last line", || tail.said().contains(",release,"));
    let killed = mount.worker_pid();
    sys::kill(killed, libc::SIGKILL).expect("ours to kill");
    wait_until("another worker serves", || {
        mount.worker().is_some_and(|worker| worker != killed)
    });
    wait_until("the history", || summary(&mount)["store"] == "kept");
    assert_eq!(known(&mount), before, "nothing is lost, and nothing counted twice");
    use_lock(&mount, 3);
    assert_eq!(known(&mount)[2]["releases"], 13);
    assert_eq!(counter(&mount, "lockfs_replays_total"), 1);
    let events = fs::read_to_string(mount.path("metrics/events.csv")).expect("events.csv reads");
    let kinds = |kind: &str| {
        events
            .lines()
            .filter(|line| line.split(',').nth(1) == Some(kind))
            .count()
    };
    assert_eq!((kinds("replay"), kinds("release")), (1, 3), "{events}");
    wait_until("tail goes on", || tail.said().lines().count() == 1 + 7);
    let told = tail.said();
    let since: Vec<&str> = told.lines().skip(1).collect();
    assert_eq!(
        since,
        events.lines().skip(1).collect::<Vec<_>>(),
        "each line whole, and once"
    );
    let live = fs::read_to_string(mount.path("metrics/live.js")).expect("live.js reads");
    assert!(live.contains("x.lock"), "{live}");
    assert!(mount.lockfs(&["umount"]).status.success());
}

/// "a full disk (metrics stop and say so; locks go on)"
#[test]
fn on_a_full_disk_the_history_stops_and_says_so_and_locks_go_on() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can mount a disk that is full");
        return;
    }
    let repository = Repository::new();
    // Only the history is on that disk: the daemon's journal grants nothing that it cannot write down.
    let state = repository.repo().join(".git/lockfs");
    let disk = repository.dir().join("disk");
    let tmpfs = repository.sh(&format!(
        "mkdir -m 700 {0} {1} && mount -t tmpfs -o size=1m,mode=700 lockfs-test {1} && ln -s {1}/history.db {0}/",
        state.display(),
        disk.display()
    ));
    assert!(tmpfs.status.success(), "{tmpfs:?}");
    let mounted = Disk(&repository, disk);
    assert!(repository.lockfs(&["mount"]).status.success());
    wait_until("the history", || summary(&repository)["store"] == "kept");
    let filled = repository.sh(&format!("cat /dev/zero > {}/filler", mounted.1.display()));
    assert!(!filled.status.success(), "it ends when the disk is full");
    use_lock(&repository, 5);
    assert!(!repository.sh("echo flush-metrics > $M/control").status.success());
    let said = fs::read_to_string(repository.path("last-error")).expect("last-error reads");
    let json = summary(&repository);
    assert!(
        json["store"].as_str().is_some_and(|store| store.contains("full")),
        "{json}"
    );
    assert!(said.is_empty() || said.contains("full"), "{said}");
    let table = fs::read_to_string(repository.path("metrics/summary")).expect("summary reads");
    assert!(table.contains("history is not kept"), "{table}");
    use_lock(&repository, 5);
    fs::remove_file(mounted.1.join("filler")).expect("room again");
    assert!(repository.sh("echo flush-metrics > $M/control").status.success());
    assert_eq!(summary(&repository)["store"], "kept");
    assert!(repository.lockfs(&["umount"]).status.success());
}

/// A disk of a test; goes with it.
struct Disk<'a>(&'a Repository, std::path::PathBuf);

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // Both may be done already, and a test that failed is to say why, not this.
        let _ = self.0.lockfs(&["umount", "--force"]);
        let _ = self.0.sh(&format!("umount {}", self.1.display()));
    }
}
