//! Random operations. Every operand is an index, taken modulo what there is, so that any sequence is legal.

use proptest::prelude::*;

/// How a lock is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Dialect {
    Open,
    Flock,
    Posix,
    Transaction,
    Excl,
    Mkdir,
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    Acquire {
        dialect: Dialect,
        locks: Vec<usize>,
        shared: bool,
        bytes: (u64, u64),
        handle: usize,
        process: usize,
        /// Whose descendant asks, besides itself.
        ancestor: Option<usize>,
        level: u8,
        wait: WaitFor,
        ticket: Option<u8>,
    },
    Cancel(usize),
    Close(usize),
    Unflock(usize),
    Unlock {
        handle: usize,
        fork: bool,
        bytes: (u64, u64),
    },
    Flush {
        handle: usize,
        fork: bool,
    },
    Declare {
        holder: usize,
        process: usize,
    },
    Exited {
        process: usize,
        cleanly: bool,
    },
    Remove {
        lock: usize,
        process: usize,
    },
    Break {
        holder: usize,
        right: bool,
    },
    Withdraw(u8),
    Drain(bool),
    Pass(u64),
}

/// An operand, taken modulo whatever it points into; small, so that failures shrink well.
fn index() -> impl Strategy<Value = usize> {
    0..64usize
}

/// How long a request waits, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum WaitFor {
    Never,
    Millis(u64),
    Ever,
}

fn bytes() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![1 => Just((0, u64::MAX)), 3 => (0..12u64, 0..6u64)]
}

fn acquire() -> impl Strategy<Value = Op> {
    use Dialect::*;
    let dialect = prop_oneof![
        4 => Just(Open), 4 => Just(Flock), 4 => Just(Posix), 3 => Just(Transaction), 1 => Just(Excl), 1 => Just(Mkdir)
    ];
    let wait = prop_oneof![
        2 => Just(WaitFor::Never), 3 => (0..20_000u64).prop_map(WaitFor::Millis), 3 => Just(WaitFor::Ever)
    ];
    let who = (index(), index(), proptest::option::weighted(0.3, index()));
    let how = (1..=10u8, wait, proptest::option::weighted(0.15, 0..3u8));
    (
        dialect,
        proptest::collection::vec(index(), 1..4),
        any::<bool>(),
        bytes(),
        who,
        how,
    )
        .prop_map(
            |(dialect, locks, shared, bytes, (handle, process, ancestor), (level, wait, ticket))| Op::Acquire {
                dialect,
                locks,
                shared,
                bytes,
                handle,
                process,
                ancestor,
                level,
                wait,
                ticket,
            },
        )
}

/// Any operation; requests and closes are the most frequent.
pub fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        14 => acquire(),
        3 => index().prop_map(Op::Cancel),
        8 => index().prop_map(Op::Close),
        2 => index().prop_map(Op::Unflock),
        2 => (index(), any::<bool>(), bytes()).prop_map(|(handle, fork, bytes)| Op::Unlock { handle, fork, bytes }),
        1 => (index(), any::<bool>()).prop_map(|(handle, fork)| Op::Flush { handle, fork }),
        1 => (index(), index()).prop_map(|(holder, process)| Op::Declare { holder, process }),
        1 => (index(), any::<bool>()).prop_map(|(process, cleanly)| Op::Exited { process, cleanly }),
        2 => (index(), index()).prop_map(|(lock, process)| Op::Remove { lock, process }),
        2 => (index(), any::<bool>()).prop_map(|(holder, right)| Op::Break { holder, right }),
        1 => (0..3u8).prop_map(Op::Withdraw),
        1 => prop_oneof![1 => Just(true), 3 => Just(false)].prop_map(Op::Drain),
        4 => prop_oneof![4 => 0..4_000u64, 1 => 0..90_000u64, 1 => 0..400_000u64].prop_map(Op::Pass),
    ]
}
