//! The figures are those of what happened.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use crate::support::{Mount, require, wait_until};

fn read(mount: &Mount, name: &str) -> String {
    fs::read_to_string(mount.path("metrics").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn summary(mount: &Mount) -> Value {
    serde_json::from_str(&read(mount, "summary.json")).expect("summary.json is JSON")
}

/// Holds a lock for a moment, by `git lockfs run` with an operation, so often.
fn use_lock(mount: &Mount, lock: &str, op: &str, times: usize) {
    let script = format!(
        "for i in $(seq {times}); do exec 9<>$M/acquire; echo 'locks={lock} op=\"{op}\"' >&9 || exit; exec 9>&-; done"
    );
    let done = mount.sh(&script);
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn every_grant_and_release_is_counted_by_lock_and_by_operation() {
    let mount = Mount::new();
    use_lock(&mount, "a.lock", "git merge x", 20);
    use_lock(&mount, "b.lock", "git rebase -i", 7);
    wait_until("the last release", || summary(&mount)["windows"][0]["releases"] == 27);
    let json = summary(&mount);
    for window in json["windows"].as_array().expect("windows") {
        let name = window["window"].as_str().expect("a name");
        assert_eq!(window["acquires"], 27, "{name}");
        assert_eq!(window["hold"]["count"], 27, "{name}");
        let of = |list: &str, name: &str| {
            let list = window[list].as_array().expect("a list");
            list.iter()
                .find(|entry| entry["name"] == name)
                .map(|entry| entry["acquires"].clone())
        };
        assert_eq!(of("locks", "a.lock"), Some(20.into()));
        assert_eq!(of("operations", "git rebase"), Some(7.into()));
        assert_eq!(of("operations", "git merge"), Some(20.into()));
    }
    assert_eq!(json["dropped"], 0);
    assert_eq!(read(&mount, "by-lock/a.lock/acquires"), "20\n");
    assert_eq!(read(&mount, "by-lock/a.lock/waiters"), "0\n");
    assert!(!mount.path("metrics/by-lock/never.lock").exists());
    assert!(read(&mount, "slowest").contains("git rebase"));
}

#[test]
fn a_wait_shows_in_every_file() {
    let mount = Mount::new();
    let holder = mount.spawn_sh("exec 9> $L/x.lock && echo taken && exec sleep 60");
    holder.wait_for_line("taken");
    let waiter = mount.spawn_sh("exec 9> $L/x.lock && echo got");
    mount.wait_for_waiters("x.lock", 1);
    assert_eq!(read(&mount, "by-lock/x.lock/waiters"), "1\n");
    assert!(read(&mount, "summary").contains("1 held, 1 waiting"));
    drop(holder);
    waiter.wait_for_line("got");
    let json = summary(&mount);
    let wait = &json["windows"][0]["wait"];
    assert_eq!(json["windows"][0]["waits"], 1);
    let max = wait["max_ms"].as_f64().expect("a number");
    assert!(max > 0.0 && wait["p99_ms"] == wait["max_ms"], "{wait}");
    let heat: Value = serde_json::from_str(&read(&mount, "heatmap.json")).expect("JSON");
    let waits: u64 = heat["waits"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|day| day.as_array().into_iter().flatten())
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(waits, 1);
}

#[test]
fn the_summary_fits_eighty_columns() {
    let mount = Mount::new();
    use_lock(&mount, &format!("{}.lock", "x".repeat(200)), "git merge", 1);
    use_lock(&mount, "ref-refs%2Fheads%2Fmain.lock", &"y".repeat(90), 1);
    for file in ["summary", "slowest", "alerts"] {
        let text = read(&mount, file);
        let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty() && !text.is_empty(), "{file}: {long:#?}");
    }
}

#[test]
fn promtool_accepts_the_page_of_prometheus() {
    require("promtool");
    let mount = Mount::new();
    assert!(mount.sh("flock \"$F/back\\\\slash{}.lock\" true").status.success());
    let page = read(&mount, "metrics.prom");
    assert!(
        page.contains("lockfs_lock_wait_seconds_count{lock=\"back\\\\slash{}.lock\"} 1"),
        "{page}"
    );
    let said = mount.sh("promtool check metrics < $M/metrics/metrics.prom");
    let words = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && words.is_empty(), "{words}");
}

#[test]
fn the_files_are_read_only_and_their_sizes_true() {
    let mount = Mount::new();
    use_lock(&mount, "a.lock", "git merge", 3);
    for file in ["summary", "events.csv", "by-lock/a.lock/acquires", "charts/heatmap.svg"] {
        let opened = fs::OpenOptions::new()
            .append(true)
            .open(mount.path("metrics").join(file));
        let refused = opened.map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(ErrorKind::PermissionDenied), "{file}");
    }
    assert!(!mount.sh("rm $M/metrics/events.csv").status.success());
    wait_until("the last release", || summary(&mount)["windows"][0]["releases"] == 3);
    for file in [
        "summary",
        "slowest",
        "alerts",
        "heatmap.json",
        "events.csv",
        "by-lock/a.lock/acquires",
    ] {
        let path = mount.path("metrics").join(file);
        assert_eq!(
            fs::metadata(&path).expect("stat").len(),
            read(&mount, file).len() as u64,
            "{file}"
        );
        assert!(is_read_only(&path), "{file}");
    }
}

fn is_read_only(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().readonly())
}

/// "figures against a recorded run computed independently (percentiles within 1 %)": the recording is `events.csv`.
#[test]
fn the_percentiles_are_those_of_the_recorded_events() {
    let mount = Mount::new();
    let script = "for i in $(seq 60); do flock $F/x.lock true & flock $F/y.lock sleep 0.0$((i % 7)) & done; wait";
    assert!(mount.sh(script).status.success());
    wait_until("the last release", || summary(&mount)["windows"][3]["releases"] == 120);
    let events = read(&mount, "events.csv");
    let week = &summary(&mount)["windows"][3];
    for lock in ["x.lock", "y.lock"] {
        let list = week["locks"].as_array().expect("locks");
        let shown = list.iter().find(|entry| entry["name"] == lock).expect("it was used");
        for (kind, figure) in [("acquire", "wait"), ("release", "hold")] {
            let mut spans: Vec<f64> = events
                .lines()
                .map(|line| line.split(',').collect::<Vec<_>>())
                .filter(|fields| fields[1] == kind && fields[2] == lock)
                .map(|fields| fields[3].parse().expect("a number"))
                .collect();
            spans.sort_by(f64::total_cmp);
            assert_eq!(spans.len(), 60, "{lock} {kind}");
            for (name, quantile) in [("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99), ("max_ms", 1.0)] {
                let exact = spans[(quantile * spans.len() as f64).ceil() as usize - 1];
                let found = shown[figure][name].as_f64().expect("a number");
                assert!(
                    (found - exact).abs() <= exact * 0.01,
                    "{lock} {figure} {name}: {found}, not {exact}"
                );
            }
        }
    }
}
