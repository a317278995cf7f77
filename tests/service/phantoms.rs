//! A CREATE that lost the race: the kernel looks once more, then opens, and there the caller waits.

use std::time::{Duration, Instant};

use git_lockfs::service::api::Call;
use git_lockfs::types::Refusal;

use crate::world::{EXCL, LOCKS, TRY, WRITE, World, by, me, opened};

#[test]
fn a_create_that_lost_the_race_becomes_an_open_that_waits() {
    let world = World::new();
    let held = world.take(me(), "x.lock");
    let late = by(2_000_000_001);
    assert_eq!(world.create(late, "x.lock", WRITE).err(), Some(Refusal::Stale));
    let entry = world.lookup(late, LOCKS, "x.lock").expect("it looks taken");
    let waits = world.park(
        late,
        Call::Open {
            node: entry.node,
            mode: WRITE,
        },
    );
    world.close(held);
    assert!(opened(world.answer_to(waits)).is_ok());
}

#[test]
fn the_name_looks_taken_to_the_one_who_lost_the_race_and_to_nobody_else() {
    let world = World::new();
    let held = world.take(me(), "x.lock");
    let late = by(2_000_000_001);
    assert_eq!(world.create(late, "x.lock", WRITE).err(), Some(Refusal::Stale));
    world.close(held);
    assert_eq!(world.lookup(me(), LOCKS, "x.lock").err(), Some(Refusal::Absent));
    let entry = world.lookup(late, LOCKS, "x.lock").expect("its OPEN is still to come");
    let handle = world.open(late, entry.node, WRITE).expect("free by now");
    world.close(handle);
    assert_eq!(
        world.lookup(late, LOCKS, "x.lock").err(),
        Some(Refusal::Absent),
        "the OPEN came"
    );
}

#[test]
fn a_name_looks_taken_for_a_second_at_most() {
    let world = World::new();
    let held = world.take(me(), "x.lock");
    let late = by(2_000_000_001);
    assert_eq!(world.create(late, "x.lock", WRITE).err(), Some(Refusal::Stale));
    world.close(held);
    let began = Instant::now();
    world.until("the name is free again", || {
        world.lookup(late, LOCKS, "x.lock").is_err()
    });
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn who_does_not_wait_is_told_at_once() {
    let world = World::new();
    let _held = world.take(me(), "x.lock");
    assert_eq!(world.create(by(0), "x.lock", TRY).err(), Some(Refusal::WouldBlock));
    assert_eq!(world.create(by(0), "x.lock", EXCL).err(), Some(Refusal::Taken));
}
