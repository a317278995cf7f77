//! The service dies and lives again, thousands of times in hundreds of histories, without a kernel: a kernel of our own
//! keeps the requests that were not answered and sends them again, and clients know only what they were told.
//!
//! Each history follows from a seed. The journal lies on a disk in memory that tears the last write of a program that is
//! killed in it, and loses what was not written back when the power fails. The rules that are checked know nothing of
//! journals: nobody has a lock that somebody else has, each request is answered once, tokens grow, whoever stood in
//! line is served before whoever came later, and in the end everything is free.

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/figures.rs"]
mod figures;
#[path = "simulation/kernel.rs"]
mod kernel;
#[path = "simulation/machine.rs"]
mod machine;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/rules.rs"]
mod rules;

use figures::Figures;
use kernel::Kernel;

/// How many histories with crashes are tried; `SIMULATION_SEEDS` asks for more.
const SEEDS: u64 = 400;
/// In how many parts they are tried.
const PARTS: u64 = 4;
/// How many steps a history has before everybody lets go.
const STEPS: usize = 120;

/// Once in how many steps the service is killed between them, on average; it also dies within them.
const CRASH_EVERY: u64 = 12;

/// Runs one history up to where everybody could let go.
fn history(seed: u64, is_mortal: bool) -> Kernel {
    let mut kernel = Kernel::new(seed);
    kernel.is_mortal = is_mortal;
    for _ in 0..STEPS {
        kernel.step();
        if is_mortal && kernel.random.one_in(CRASH_EVERY) {
            kernel.crash();
        }
    }
    kernel
}

#[test]
fn without_a_crash_the_rules_hold() {
    let mut granted = 0;
    for seed in 0..SEEDS / 4 {
        let mut kernel = history(seed, false);
        kernel.let_everybody_finish();
        granted += kernel.figures.granted;
    }
    assert!(granted > 1_000, "{granted}: the histories are about something");
}

/// One part of the histories with crashes; several tests share them, to run side by side.
fn crashing(part: u64) {
    let asked = std::env::var("SIMULATION_SEEDS").ok();
    let count = asked.and_then(|count| count.parse().ok()).unwrap_or(SEEDS);
    let mut sum = Figures::default();
    let mut histories = 0;
    for seed in (0..count).filter(|seed| seed % PARTS == part) {
        let mut kernel = history(seed, true);
        kernel.let_everybody_finish();
        sum += kernel.figures;
        histories += 1;
    }
    println!("{histories} histories: {sum:?}");
    let is_about_something = sum.granted > 10 * histories
        && sum.crashes > 5 * histories
        && sum.torn > histories / 2
        && sum.in_snapshot > histories / 8
        && sum.as_it_began > 2 * histories
        && sum.power_cuts > histories / 2
        && sum.damaged > histories / 20
        && sum.power_cuts > sum.damaged + histories / 4
        && sum.again_in_resend > histories / 4
        && sum.came_again > histories
        && sum.given_up > histories / 2
        && sum.compared > histories
        && sum.woken > histories / 4
        && sum.resumed > histories / 4;
    assert!(is_about_something, "the histories are about something: {sum:?}");
}

#[test]
fn no_crash_loses_or_doubles_anything_in_the_first_quarter() {
    crashing(0);
}

#[test]
fn no_crash_loses_or_doubles_anything_in_the_second_quarter() {
    crashing(1);
}

#[test]
fn no_crash_loses_or_doubles_anything_in_the_third_quarter() {
    crashing(2);
}

#[test]
fn no_crash_loses_or_doubles_anything_in_the_last_quarter() {
    crashing(3);
}

#[test]
fn a_new_life_looks_as_the_last_one_did() {
    for seed in 0..SEEDS / 4 {
        let mut kernel = history(seed, false);
        let before = kernel.look();
        kernel.crash_at_rest();
        assert_eq!(kernel.look(), before, "seed {seed}");
        kernel.let_everybody_finish();
    }
}

#[test]
fn a_new_mount_keeps_what_is_held_and_frees_the_rest() {
    let mut kept = 0;
    for seed in 0..SEEDS / 4 {
        let mut kernel = history(seed, true);
        kernel.remount();
        kept += kernel.figures.kept;
    }
    assert!(kept > SEEDS / 8, "{kept}: the histories are about something");
}
