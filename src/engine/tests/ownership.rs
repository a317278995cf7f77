//! What never conflicts with itself: flock, fcntl and opens through one handle or lock owner.

use super::*;

const WHOLE: Range = Range::WHOLE;

fn unlock(world: &mut World, owner: u64, handle: u64, bytes: Range) -> Result<Reply, Refusal> {
    world.run(Command::Unlock {
        lock: lock("x.lock"),
        owner,
        handle: HandleId(handle),
        range: bytes,
    })
}

fn ranges(world: &World) -> Vec<(u64, u64, Mode)> {
    let holders = world.engine.holders("x.lock");
    let mut found: Vec<_> = holders.map(|h| (h.range.start(), h.range.end(), h.mode)).collect();
    found.sort_unstable();
    found
}

#[test]
fn an_upgrade_keeps_the_shared_lock_and_stands_ahead_of_conflicting_waiters() {
    let mut world = World::new();
    for handle in [1, 2] {
        let ask = world.ask("x.lock", SH).flock(handle);
        world.granted(ask);
    }
    let writer = world.ask("x.lock", EX).open(3).priority(10);
    let writer = world.waits(writer);
    let upgrade = world.ask("x.lock", EX).flock(1).priority(1);
    let upgrade = world.waits(upgrade);
    assert_eq!(world.engine.holders("x.lock").count(), 2, "the shared lock is kept");
    world.close(2);
    assert_eq!(world.grants(), [upgrade]);
    world.close(1);
    assert_eq!(world.grants(), [writer]);
}

#[test]
fn of_two_upgraders_the_second_is_a_deadlock_and_a_try_is_not() {
    let mut world = World::new();
    for handle in [1, 2] {
        let ask = world.ask("x.lock", SH).flock(handle);
        world.granted(ask);
    }
    let first = world.ask("x.lock", EX).flock(1);
    let first = world.waits(first);
    let attempt = world.ask("x.lock", EX).flock(2).now_or_never();
    assert_eq!(world.refused(attempt), Refusal::WouldBlock);
    let second = world.ask("x.lock", EX).flock(2);
    assert_eq!(world.refused(second), Refusal::Deadlock);
    world.close(2);
    assert_eq!(world.grants(), [first]);
}

#[test]
fn a_downgrade_or_a_repeated_lock_never_waits_for_those_who_wait_for_it() {
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).flock(1);
    let token = world.granted(ask);
    let writer = world.ask("x.lock", EX).flock(2).priority(10);
    let writer = world.waits(writer);
    let again = world.ask("x.lock", EX).flock(1);
    assert_eq!(world.granted(again), token, "it is the same grant");
    world.run(Command::Drain(true)).expect("drained");
    let down = world.ask("x.lock", SH).flock(1);
    assert_eq!(world.granted(down), token, "also while drained: it takes nothing new");
    world.run(Command::Drain(false)).expect("resumed");
    let again = world.ask("x.lock", SH).flock(1);
    world.granted(again);
    assert_eq!(world.grants(), []);
    world.close(1);
    assert_eq!(world.grants(), [writer]);
}

#[test]
fn a_downgrade_lets_shared_waiters_in() {
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).flock(1);
    world.granted(ask);
    let reader = world.ask("x.lock", SH).flock(2);
    let reader = world.waits(reader);
    let down = world.ask("x.lock", SH).flock(1);
    world.granted(down);
    assert_eq!(world.grants(), [reader]);
}

#[test]
fn opens_are_never_re_entrant_but_a_handles_own_flock_is() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let open = world.ask("x.lock", EX).open(2).now_or_never();
    assert_eq!(world.refused(open), Refusal::WouldBlock);
    let flock = world.ask("x.lock", EX).flock(1).now_or_never();
    world.granted(flock);
    world
        .run(Command::Unflock {
            lock: lock("x.lock"),
            handle: HandleId(1),
        })
        .expect("unlocked");
    assert!(!world.is_held("x.lock"));
}

#[test]
fn flock_on_a_handle_made_by_excl_makes_it_a_descriptor_lock() {
    let mut world = World::new();
    let mut made = world.ask("x.lock", EX).made(Shape::File, &[10]);
    if let Taking::Make(make) = &mut made.0.taking {
        make.handle = Some(HandleId(1));
    }
    world.granted(made);
    let flock = world.ask("x.lock", EX).flock(1);
    world.granted(flock);
    world.close(1);
    assert!(!world.is_held("x.lock"), "it went with its handle");
}

#[test]
fn disjoint_ranges_do_not_conflict_and_a_whole_lock_conflicts_with_all() {
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).posix(7, 1, range(0, 9));
    world.granted(ask);
    let ask = world.ask("x.lock", EX).posix(8, 2, range(10, 19));
    world.granted(ask);
    for ask in [
        world.ask("x.lock", SH).posix(8, 2, range(9, 9)),
        world.ask("x.lock", SH).flock(3),
    ] {
        assert_eq!(world.refused(ask.now_or_never()), Refusal::WouldBlock);
    }
    let conflict = world.engine.range_conflict(
        "x.lock",
        Owner::Posix {
            owner: 8,
            handle: HandleId(2),
        },
        SH,
        range(0, 30),
    );
    assert_eq!(conflict.map(|holder| holder.range), Some(range(0, 9)));
}

#[test]
fn ranges_are_cut_and_joined_as_fcntl_does() {
    let mut world = World::new();
    for bytes in [range(0, 9), range(10, 19)] {
        let ask = world.ask("x.lock", EX).posix(7, 1, bytes);
        world.granted(ask);
    }
    assert_eq!(ranges(&world), [(0, 19, EX)], "neighbours join");
    let ask = world.ask("x.lock", SH).posix(7, 1, range(5, 6));
    world.granted(ask);
    assert_eq!(ranges(&world), [(0, 4, EX), (5, 6, SH), (7, 19, EX)]);
    unlock(&mut world, 7, 1, range(3, 8)).expect("unlocked");
    assert_eq!(ranges(&world), [(0, 2, EX), (9, 19, EX)]);
    world
        .run(Command::Flush {
            lock: lock("x.lock"),
            owner: 8,
        })
        .expect("flushed");
    assert_eq!(ranges(&world).len(), 2, "another owner's close is none of its business");
    world
        .run(Command::Flush {
            lock: lock("x.lock"),
            owner: 7,
        })
        .expect("flushed");
    assert_eq!(ranges(&world), []);
}

#[test]
fn an_unlocked_byte_goes_to_the_waiter_that_needs_it() {
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).posix(7, 1, WHOLE);
    world.granted(ask);
    let far = world.ask("x.lock", EX).posix(8, 2, range(100, 100));
    let far = world.waits(far);
    let near = world.ask("x.lock", EX).posix(9, 3, range(5, 5));
    let near = world.waits(near);
    unlock(&mut world, 7, 1, range(0, 9)).expect("unlocked");
    assert_eq!(world.grants(), [near]);
    unlock(&mut world, 7, 1, WHOLE).expect("unlocked");
    assert_eq!(world.grants(), [far]);
}

#[test]
fn whoever_holds_a_range_takes_more_ahead_of_those_who_wait_for_it() {
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).posix(7, 1, range(0, 9));
    world.granted(ask);
    let writer = world.ask("x.lock", EX).flock(2).priority(10);
    let writer = world.waits(writer);
    let more = world.ask("x.lock", EX).posix(7, 1, range(20, 29)).priority(1);
    world.granted(more);
    let over = world.ask("x.lock", SH).posix(7, 1, range(0, 29));
    world.granted(over);
    assert_eq!(ranges(&world), [(0, 29, SH)]);
    unlock(&mut world, 7, 1, WHOLE).expect("unlocked");
    assert_eq!(world.grants(), [writer]);
}

#[test]
fn two_owners_that_want_each_others_bytes_do_not_both_wait() {
    let mut world = World::new();
    for (owner, bytes) in [(7, range(0, 0)), (8, range(1, 1))] {
        let ask = world.ask("x.lock", EX).posix(owner, owner, bytes);
        world.granted(ask);
    }
    let first = world.ask("x.lock", EX).posix(7, 7, range(1, 1));
    world.waits(first);
    let second = world.ask("x.lock", EX).posix(8, 8, range(0, 0));
    assert_eq!(world.refused(second), Refusal::Deadlock);
}

#[test]
fn an_ofd_lock_goes_with_its_handle_and_a_posix_lock_with_any_close() {
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).posix(70, 1, range(0, 9));
    world.granted(ask);
    world.close(2);
    assert!(world.is_held("x.lock"));
    world.close(1);
    assert!(!world.is_held("x.lock"), "what was set through a handle goes with it");
}

#[test]
fn a_forked_childs_posix_lock_conflicts_even_through_the_same_handle() {
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).posix(7, 1, WHOLE);
    world.granted(ask);
    let child = world.ask("x.lock", EX).posix(8, 1, WHOLE).now_or_never();
    assert_eq!(world.refused(child), Refusal::WouldBlock);
    let same = world.ask("x.lock", EX).posix(7, 2, WHOLE).now_or_never();
    world.granted(same);
}

#[test]
fn poll_on_a_handle_tells_whether_the_lock_could_be_had() {
    let mut world = World::new();
    let name = lock("x.lock");
    assert!(world.engine.could_have(&name, HandleId(1)));
    let ask = world.ask("x.lock", SH).flock(1);
    world.granted(ask);
    assert!(world.engine.could_have(&name, HandleId(1)));
    assert!(!world.engine.could_have(&name, HandleId(2)));
}
