//! The engine alone, on one core: take and release a second, and bytes a lock and a waiter.
//!
//! Run with `cargo bench --bench engine`. Each figure is the median of several rounds in one run.

#[path = "counting.rs"]
mod counting;

use std::time::Instant;

use git_lockfs::engine::{Acquire, Bounds, Claim, Command, Engine, Party, Reply, Taking, Wait};
use git_lockfs::types::{HandleId, LockName, Mode, Moment, Priority, ProcessId, Settings, Token, Unique};

const OTHERS: u64 = 10_000;
const ROUNDS: usize = 9;
const PAIRS: u64 = 100_000;

fn name(text: &str) -> LockName {
    LockName::parse_lock(text.as_bytes()).expect("bench names are valid")
}

fn engine() -> Engine {
    Engine::new(Settings::default(), Bounds::default(), Token(1)..Token(u64::MAX))
}

fn acquire(id: u64, lock: &LockName, handle: u64) -> Command {
    Command::Acquire(Acquire {
        id: Unique(id),
        claims: vec![Claim::whole(lock.clone(), Mode::Exclusive)],
        taking: Taking::Open(HandleId(handle)),
        party: Party {
            tid: 7,
            pid: 7,
            process: Some(ProcessId(id)),
            solo: true,
            ..Party::default()
        },
        priority: Priority::MAX,
        wait: Wait::Forever,
        ticket: None,
        lineage: Vec::new(),
    })
}

fn drain(engine: &mut Engine) {
    while engine.poll_effect().is_some() {}
}

fn run(engine: &mut Engine, command: Command, expected: &str) {
    let reply = engine
        .handle(Moment::at_millis(1), command)
        .expect("bench commands succeed");
    let is_expected = match expected {
        "granted" => matches!(reply, Reply::Granted(_)),
        _ => reply == Reply::Waiting,
    };
    assert!(is_expected, "{reply:?}, not {expected}");
    drain(engine);
}

fn with_held(prefix: &str) -> Engine {
    let mut engine = engine();
    for index in 0..OTHERS {
        run(
            &mut engine,
            acquire(index, &name(&format!("{prefix}{index}.lock")), index),
            "granted",
        );
    }
    engine
}

fn with_waiters(locks: u64) -> Engine {
    let mut engine = engine();
    for lock in 0..locks {
        run(
            &mut engine,
            acquire(lock, &name(&format!("w{lock}.lock")), lock),
            "granted",
        );
    }
    for index in 0..OTHERS {
        let lock = name(&format!("w{}.lock", index % locks));
        run(&mut engine, acquire(locks + index, &lock, locks + index), "waiting");
    }
    engine
}

/// Pairs a second: the median of the rounds.
fn pairs(engine: &mut Engine, lock: &LockName) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for id in 0..PAIRS {
                let id = 1_000_000 + id;
                engine
                    .handle(Moment::at_millis(2), acquire(id, lock, id))
                    .expect("the lock is free");
                drain(engine);
                engine
                    .handle(Moment::at_millis(2), Command::Close(HandleId(id)))
                    .expect("a close succeeds");
                drain(engine);
            }
            PAIRS as f64 / start.elapsed().as_secs_f64()
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn bytes_each(make: impl FnOnce() -> Engine) -> usize {
    let before = counting::live();
    let engine = make();
    let bytes = counting::live() - before;
    drop(engine);
    bytes / OTHERS as usize
}

fn main() {
    let alone = name("x.lock");
    let child = name("ref-x.lock");
    println!("{:<52} {:>14}", "take+release, one core", "pairs/s");
    let mut cases: Vec<(&str, Engine, &LockName)> = vec![
        ("nothing else held", engine(), &alone),
        ("nothing else held, below a scope", engine(), &child),
        ("10,000 other locks held", with_held("o"), &alone),
        (
            "10,000 other locks held below the same scope",
            with_held("ref-o"),
            &child,
        ),
        ("10,000 waiters on one other lock", with_waiters(1), &alone),
        ("10,000 waiters on 1,000 other locks", with_waiters(1_000), &alone),
    ];
    let mut first = None;
    for (what, engine, lock) in &mut cases {
        let rate = pairs(engine, lock);
        let ratio = first.get_or_insert(rate);
        println!("{what:<52} {rate:>14.0}   {:.2} x the time of the first", *ratio / rate);
    }
    println!("\n{:<52} {:>14}", "memory", "bytes each");
    println!("{:<52} {:>14}", "a held lock", bytes_each(|| with_held("o")));
    println!(
        "{:<52} {:>14}",
        "a held lock below a scope",
        bytes_each(|| with_held("ref-o"))
    );
    println!("{:<52} {:>14}", "a waiter", bytes_each(|| with_waiters(1)));
}
