//! `git lockfs fetch` is single-flight: callers who ask together share one fetch.

use std::time::Duration;

use super::support::{Mount, Running, Said, wait_until};
use super::{with_file, written};

/// A repository whose remote counts its fetches and lets none end before `$T/go` is there.
fn with_slow_remote() -> Mount {
    let mount = Mount::start(with_file(), &[], &[]);
    let script = r#"set -e
git clone -q --bare . ../upstream; git clone -q ../upstream ../other
printf '#!/bin/sh\necho x >> "$T/count"; until [ -e "$T/go" ]; do sleep 0.02; done; [ ! -e "$T/broken" ] || exit 1; exec git-upload-pack "$@"\n' > $T/serve
chmod +x $T/serve
git remote add origin ../upstream; git config remote.origin.uploadpack "$T/serve"
git -C ../other commit -q --allow-empty -m new; git -C ../other push -q
git worktree add -q -b topic ../linked"#;
    mount.sh(script).ok();
    mount
}

fn count(mount: &Mount) -> usize {
    written(mount, "count").lines().count()
}

/// Waiters in the line for any fetch.
fn waiting(mount: &Mount) -> usize {
    let json = mount.locks_json();
    let locks = json["locks"].as_array().cloned().unwrap_or_default();
    let fetches = locks
        .iter()
        .filter(|lock| lock["name"].as_str().is_some_and(|name| name.starts_with("fetch-")));
    fetches.map(|lock| lock["waiters"].as_array().map_or(0, Vec::len)).sum()
}

fn start(mount: &Mount, args: &str, callers: usize) -> Vec<Running> {
    let start = |_| mount.spawn_sh(&format!("exec 2>&1; exec $LOCKFS fetch {args}"));
    (0..callers).map(start).collect()
}

fn finish(running: Vec<Running>, code: i32) {
    for mut caller in running {
        let output = caller.finish_within(Duration::from_secs(20));
        assert_eq!(output.status.code(), Some(code), "{}", output.text());
    }
}

#[test]
fn callers_who_ask_together_share_one_fetch() {
    let mount = with_slow_remote();
    let first = start(&mount, "-q", 1);
    wait_until("it is under way", || count(&mount) == 1);
    let others = start(&mount, "-q", 4);
    wait_until("the others wait for it", || waiting(&mount) == 4);
    std::fs::write(mount.dir().join("go"), "").expect("a file");
    finish(first, 0);
    finish(others, 0);
    assert_eq!(count(&mount), 1);
    assert_eq!(mount.git(&["log", "-1", "--format=%s", "origin/main"]).text(), "new");
    finish(start(&mount, "-q", 1), 0);
    assert_eq!(count(&mount), 2, "who asks later fetches");
}

#[test]
fn who_wants_it_fresh_shares_only_a_later_one() {
    let mount = with_slow_remote();
    let first = start(&mount, "-q", 1);
    wait_until("it is under way", || count(&mount) == 1);
    let others = start(&mount, "--fresh -v -q", 3);
    wait_until("the others wait for it", || waiting(&mount) == 3);
    std::fs::write(mount.dir().join("go"), "").expect("a file");
    finish(first, 0);
    finish(others, 0);
    assert_eq!(count(&mount), 2, "one more for all three");
}

#[test]
fn a_failure_is_shared_too_and_other_fetches_are_not() {
    let mount = with_slow_remote();
    std::fs::write(mount.dir().join("broken"), "").expect("a file");
    let first = start(&mount, "-q", 1);
    wait_until("it is under way", || count(&mount) == 1);
    let others = start(&mount, "-q", 2);
    let different = start(&mount, "-q origin main", 1);
    wait_until("the others wait for it", || waiting(&mount) >= 2);
    std::fs::write(mount.dir().join("go"), "").expect("a file");
    finish(first, 128);
    finish(others, 128);
    finish(different, 128);
    assert_eq!(count(&mount), 2);
}

/// FETCH_HEAD belongs to a worktree; a shared fetch leaves it where it is needed.
#[test]
fn fetch_head_is_there_for_who_named_a_refspec() {
    let mount = with_slow_remote();
    let first = start(&mount, "-q origin main", 1);
    wait_until("it is under way", || count(&mount) == 1);
    let other = mount
        .spawn_sh("exec 2>&1; cd ../linked && $LOCKFS fetch -v -q origin main && git log -1 --format=%s FETCH_HEAD");
    wait_until("it waits", || waiting(&mount) == 1);
    std::fs::write(mount.dir().join("go"), "").expect("a file");
    finish(first, 0);
    other.wait_for_line("new");
    assert!(other.said().contains("shared the fetch of process"), "{}", other.said());
    assert_eq!(count(&mount), 1);
}
