//! "events.csv: it only grows, so that `tail -f` follows it": what happens is a line, once and in order.

use std::fs;

use crate::support::{Mount, wait_until};

/// The lines of `events.csv` below its header, without time and duration: `type,lock,operation`.
pub(crate) fn events(mount: &Mount) -> Vec<String> {
    let text = fs::read_to_string(mount.path("metrics/events.csv")).expect("events.csv reads");
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("timestamp,metric_type,lock_file,duration_ms,operation")
    );
    let short = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(fields.len(), 5, "{line}");
        assert!(
            fields[0].ends_with('Z') && fields[0].len() == "2026-11-20T14:40:00.123Z".len(),
            "{line}"
        );
        assert!(fields[3].parse::<f64>().is_ok_and(|duration| duration >= 0.0), "{line}");
        [fields[1], fields[2], fields[4]].join(",")
    };
    lines.map(short).collect()
}

#[test]
fn a_lock_that_is_taken_and_released_is_two_lines_with_the_operation() {
    let mount = Mount::new();
    let done = mount.sh("exec 9<>$M/acquire; echo 'locks=a.lock op=\"git merge secret\"' >&9; read -r token <&9");
    assert!(done.status.success(), "{done:?}");
    wait_until("the release", || events(&mount).len() == 2);
    assert_eq!(events(&mount), ["acquire,a.lock,git merge", "release,a.lock,git merge"]);
    let all = fs::read_to_string(mount.path("metrics/events.csv")).expect("events.csv reads");
    assert!(!all.contains("secret"));
}

#[test]
fn waits_timeouts_and_attempts_are_told() {
    let mount = Mount::new();
    let holder = mount.spawn_sh("exec 9> $L/a.lock && echo taken && exec sleep 60");
    holder.wait_for_line("taken");
    let gave_up = mount.sh("exec 9<>$M/acquire; echo 'locks=a.lock wait=100ms' >&9");
    assert!(!gave_up.status.success());
    assert!(!mount.sh("rm $L/a.lock").status.success());
    let told = events(&mount);
    let kinds: Vec<&str> = told.iter().filter_map(|line| line.split(',').next()).collect();
    assert_eq!(kinds, ["acquire", "wait", "timeout", "steal-attempt"], "{told:?}");
    assert!(told[0].ends_with(",sleep"), "{told:?}");
}

#[test]
fn stale_and_broken_locks_are_told() {
    let mount = Mount::new();
    assert!(mount.sh("sh -c 'echo $$ > $L/gone.lock'").status.success());
    mount.wait_until_free("gone.lock");
    let holder = mount.spawn_sh("exec 9> $L/b.lock && echo taken && exec sleep 60");
    holder.wait_for_line("taken");
    let token = mount.field_of("b.lock", "token").expect("a token");
    assert!(
        !mount
            .sh("echo 'break b.lock 1 wrong token' > $M/control")
            .status
            .success()
    );
    assert!(
        mount
            .sh(&format!("echo 'break b.lock {token} test' > $M/control"))
            .status
            .success()
    );
    let told = events(&mount);
    let kinds: Vec<&str> = told.iter().filter_map(|line| line.split(',').next()).collect();
    assert_eq!(
        kinds,
        ["acquire", "stale", "acquire", "steal-attempt", "break"],
        "{told:?}"
    );
}

#[test]
fn tail_follows_and_a_reader_keeps_its_offsets() {
    let mount = Mount::new();
    let tail = mount.spawn_sh("exec tail -n +1 -f $M/metrics/events.csv");
    wait_until("the header", || tail.said().contains("timestamp"));
    for round in 1..4 {
        assert!(mount.sh("flock $F/x.lock true").status.success());
        wait_until("two more lines", || tail.said().lines().count() == 1 + 2 * round);
    }
    let lines: Vec<String> = tail.said().lines().skip(1).map(str::to_owned).collect();
    let now = fs::read_to_string(mount.path("metrics/events.csv")).expect("events.csv reads");
    assert_eq!(lines, now.lines().skip(1).collect::<Vec<_>>());
}
