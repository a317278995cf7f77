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
/// And some in each phase: about a request, and in the worker's own housekeeping.
const PHASES: [&str; 6] = [
    "before-journal",
    "after-journal",
    "before-reply",
    "after-reply",
    "in-compaction",
    "in-replay",
];
/// How often each phase is hit.
const ROUNDS: usize = 3;
/// From one kill to the next, on average.
const PAUSE: Nanos = LENGTH.as_nanos() as Nanos / (KILLS + ROUNDS * PHASES.len() + 4) as Nanos;

/// No two exclusive sections overlap, none is lost, every waiter is served, in order, and the tokens grow.
#[test]
fn a_minute_of_kills_leaves_a_history_without_a_flaw() {
    let mount = Crashing::with(&[("lease", "0"), ("wait", "40s")]);
    let mut contest = Contest::begin(&mount, CLIENTS, LENGTH);
    let (mut kills, mut phases) = (0, PHASES.iter().cycle().take(ROUNDS * PHASES.len()));
    let mut next = now() + PAUSE;
    while contest.goes_on() {
        contest.watch();
        if now() < next {
            continue;
        }
        next = now() + PAUSE / 2 + contest.below(PAUSE);
        if kills < KILLS && contest.below(2) == 0 {
            mount.kill_worker();
            kills += 1;
        } else if let Some(phase) = phases.next() {
            die_in(&mount, phase);
        }
        contest.replace_one();
    }
    for phase in phases {
        die_in(&mount, phase);
    }
    while kills < KILLS {
        wait_until("a worker serves", || mount.worker().is_some());
        mount.kill_worker();
        kills += 1;
    }
    let tally = contest.judge();
    assert!(
        tally.granted >= 1000
            && tally.with_token >= 500
            && tally.busy >= 100
            && tally.cancelled >= 5
            && tally.died >= 20
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
