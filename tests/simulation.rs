//! The service dies and lives again, thousands of times, without a kernel: a kernel of our own keeps the requests that
//! were not answered and sends them again, and clients know only what they were told.
//!
//! Each history follows from a seed. The journal lies on a disk in memory that tears the last write of a program that is
//! killed in it, and loses what was not written back when the power fails. The rules that are checked know nothing of
//! journals: nobody has a lock that somebody else has, each request is answered once, tokens grow, whoever stood in
//! line is served before whoever came later, and in the end everything is free.

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/kernel.rs"]
mod kernel;
#[path = "simulation/random.rs"]
mod random;

use kernel::Kernel;

/// How many histories of each kind are tried.
const SEEDS: u64 = 2_000;
/// How many steps a history has before everybody lets go.
const STEPS: usize = 120;

/// Runs one history; crashes come once in so many steps on average.
fn history(seed: u64, crash_every: u64) -> Kernel {
    let mut kernel = Kernel::new(seed);
    kernel.is_mortal = crash_every < u64::MAX;
    for _ in 0..STEPS {
        kernel.step();
        if kernel.random.one_in(crash_every) {
            kernel.crash();
        }
    }
    kernel.let_everybody_finish();
    kernel
}

#[test]
fn without_a_crash_the_rules_hold() {
    let mut granted = 0;
    for seed in 0..SEEDS / 10 {
        granted += history(seed, u64::MAX).granted;
    }
    assert!(granted > 1_000, "{granted}: the histories are about something");
}

#[test]
fn no_crash_loses_or_doubles_anything() {
    let (mut granted, mut crashes, mut torn, mut again, mut given_up) = (0, 0, 0, 0, 0);
    for seed in 0..SEEDS {
        let kernel = history(seed, 12);
        granted += kernel.granted;
        crashes += kernel.crashes;
        torn += kernel.torn;
        again += kernel.came_again;
        given_up += kernel.given_up;
    }
    println!("{granted} grants, {crashes} crashes, {torn} in a write, {again} calls again, {given_up} given up");
    assert!(
        granted as u64 > 10 * SEEDS && crashes > 5 * SEEDS && torn > SEEDS && again > SEEDS && given_up > SEEDS / 10
    );
}

#[test]
fn a_new_life_looks_as_the_last_one_did() {
    for seed in 0..SEEDS / 10 {
        let mut kernel = Kernel::new(seed);
        kernel.is_mortal = false;
        for _ in 0..STEPS {
            kernel.step();
        }
        let before = kernel.look();
        kernel.crash_at_rest();
        assert_eq!(kernel.look(), before, "seed {seed}");
        kernel.let_everybody_finish();
    }
}
