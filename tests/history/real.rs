//! The real run: 16 client processes in a contest on a real mount, judged by the checker.

use std::time::Duration;

use crate::client::now;
use crate::contest::Contest;
use crate::record::Nanos;
use crate::support::Mount;

/// A client dies about that often.
const KILL_EVERY: Nanos = 60_000_000;

/// Exclusion, order, an answer for every waiter and growing tokens, among processes that also die while they hold and
/// while they wait. A lease ends with its keeper here, so that the dead leave nothing behind.
#[test]
fn sixteen_processes_leave_a_history_without_a_flaw() {
    let mount = Mount::with(&[("lease", "0"), ("wait", "20s")]);
    let mut contest = Contest::begin(&mount, 16, Duration::from_secs(5));
    let mut next_kill = now() + 10 * KILL_EVERY;
    while contest.goes_on() {
        contest.watch();
        if now() >= next_kill {
            contest.replace_one();
            next_kill = now() + KILL_EVERY / 2 + contest.below(KILL_EVERY);
        }
    }
    let tally = contest.judge();
    // A history in which little happened would prove little.
    assert!(
        tally.granted >= 500
            && tally.with_token >= 300
            && tally.busy >= 50
            && tally.cancelled >= 5
            && tally.died >= 10
            && tally.seen >= 50,
        "too little happened to prove anything: {tally:?}"
    );
}
