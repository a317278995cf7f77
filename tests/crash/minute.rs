//! The proof: clients of every dialect fight for a minute while the worker is killed again and again, at random moments
//! and in each phase of its work, and the history is judged.

use std::time::Duration;

use crate::Crashing;
use crate::client::now;
use crate::contest::Contest;
use crate::record::Nanos;
use crate::support::wait_until;

const CLIENTS: usize = 32;
const LENGTH: Duration = Duration::from_secs(60);
/// Kills at random moments.
const KILLS: usize = 30;
/// And one in each phase: about a request, and in the worker's own housekeeping.
const PHASES: [&str; 6] = [
    "before-journal",
    "after-journal",
    "before-reply",
    "after-reply",
    "in-compaction",
    "in-replay",
];
/// How long a worker serves at least and at most, in nanoseconds. Most live longer than a second, or the daemon would
/// give up: it cannot know that they are killed.
const LIFE_MIN: Nanos = 600_000_000;
const LIFE_MAX: Nanos = 2_000_000_000;

/// No two exclusive sections overlap, none is lost, every waiter is served, in order, and the tokens grow.
#[test]
fn a_minute_of_kills_leaves_a_history_without_a_flaw() {
    // How a client has ended that dies with the worker nobody knows, and its parent keeps what it took by mkdir, except
    // if that adopts orphans, as a program of this name does. The parent is this process, whose main thread names it.
    std::fs::write("/proc/self/comm", "tini").expect("a process may name itself");
    let mount = Crashing::with(&[("lease", "0"), ("wait", "40s")]);
    let mut contest = Contest::begin(&mount, CLIENTS, LENGTH);
    let mut phases = PHASES.iter();
    let mut kills = 0;
    let mut next = now() + LIFE_MAX;
    while contest.goes_on() || kills < KILLS || phases.len() > 0 {
        contest.watch();
        if now() < next {
            continue;
        }
        // One in five hits a phase, until all were hit.
        let phase = if contest.below(5) == 0 || kills >= KILLS {
            phases.next()
        } else {
            None
        };
        if let Some(phase) = phase {
            die_in(&mount, phase);
        } else if kills < KILLS {
            mount.kill_worker();
            kills += 1;
        }
        // Returns when the next worker has noticed.
        contest.replace_one();
        next = now() + LIFE_MIN + contest.below(LIFE_MAX - LIFE_MIN);
    }
    let tally = contest.judge();
    assert!(
        tally.granted >= 1000
            && tally.with_token >= 500
            && tally.busy >= 100
            && tally.cancelled >= 5
            && tally.died >= 10
            && tally.seen >= 100,
        "too little happened to prove anything: {tally:?}"
    );
}

/// Has the worker die in that phase, and returns when it has.
fn die_in(mount: &Crashing, phase: &str) {
    mount.die_at(phase);
    match phase {
        "in-compaction" => mount.die_at("compact-soon"),
        "in-replay" => mount.kill_worker(),
        _ => {}
    }
    wait_until(phase, || {
        // Something for it to do, should the clients have ended.
        let (client, _) = mount.holder("phase.lock");
        client.kill();
        mount.has_died_at(phase)
    });
    if phase == "in-compaction" {
        std::fs::remove_file(mount.faults.join("compact-soon")).expect("it is ours");
    }
}
