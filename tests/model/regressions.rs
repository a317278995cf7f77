//! What random operations found once, by name.

use super::harness::Harness;
use super::ops::{Dialect, Op, WaitFor};

fn acquire(dialect: Dialect, handle: usize, shared: bool, bytes: (u64, u64), level: u8, wait: WaitFor) -> Op {
    Op::Acquire {
        dialect,
        locks: vec![handle],
        shared,
        bytes,
        handle,
        process: 0,
        ancestor: None,
        level,
        wait,
        ticket: None,
    }
}

fn agree(ops: &[Op]) {
    let mut harness = Harness::new();
    for op in ops {
        harness.step(op);
    }
}

#[test]
fn regression_two_waits_of_one_owner_are_granted_by_priority() {
    // The later, more urgent one is for a part of what the earlier one asks for: the order decides the outcome.
    let whole = (0, u64::MAX);
    agree(&[
        acquire(Dialect::Flock, 2, false, whole, 5, WaitFor::Never),
        acquire(Dialect::Posix, 9, false, whole, 1, WaitFor::Ever),
        acquire(Dialect::Posix, 9, true, (0, 0), 2, WaitFor::Ever),
        Op::Close(2),
    ]);
}

#[test]
fn regression_a_repeated_flock_keeps_its_token_while_others_get_theirs() {
    let whole = (0, u64::MAX);
    agree(&[
        acquire(Dialect::Open, 3, false, whole, 5, WaitFor::Never),
        acquire(Dialect::Flock, 10, false, whole, 2, WaitFor::Ever),
        acquire(Dialect::Posix, 10, false, whole, 2, WaitFor::Ever),
        acquire(Dialect::Flock, 10, false, whole, 1, WaitFor::Ever),
        Op::Close(14),
    ]);
}

#[test]
fn regression_two_waits_of_one_owner_are_granted_by_priority_also_where_one_leads_in_the_scope() {
    let whole = (0, u64::MAX);
    let mut descendant = acquire(Dialect::Posix, 2, true, (0, 0), 1, WaitFor::Ever);
    if let Op::Acquire { ancestor, .. } = &mut descendant {
        *ancestor = Some(0);
    }
    agree(&[
        // The scope of both.
        acquire(Dialect::Transaction, 0, false, whole, 1, WaitFor::Never),
        acquire(Dialect::Posix, 2, false, whole, 6, WaitFor::Ever),
        descendant,
        Op::Break { holder: 0, right: true },
    ]);
}
