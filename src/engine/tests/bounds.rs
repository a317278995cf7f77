//! Every table has a bound, and reaching it is refused without harm.

use super::*;

fn bounded(change: impl FnOnce(&mut Bounds)) -> World {
    let mut bounds = Bounds::default();
    change(&mut bounds);
    World::with(Settings::default(), bounds)
}

#[test]
fn locks_are_bounded_with_their_scopes_but_those_in_use_can_still_be_asked_for() {
    let mut world = bounded(|bounds| bounds.locks = 2);
    world.hold("a.lock", 1);
    let child = world.ask("ref-x.lock", EX).open(2);
    assert_eq!(world.refused(child), Refusal::Full, "a child needs its scope too");
    world.hold("b.lock", 3);
    let third = world.ask("c.lock", EX).open(4);
    assert_eq!(world.refused(third), Refusal::Full);
    let waiter = world.ask("a.lock", EX).open(5);
    let waiter = world.waits(waiter);
    world.close(1);
    assert_eq!(world.grants(), [waiter]);
}

#[test]
fn grants_waiters_and_claims_are_bounded() {
    let mut world = bounded(|bounds| bounds.grants = 1);
    let reader = world.ask("x.lock", SH).flock(1);
    world.granted(reader);
    let reader = world.ask("x.lock", SH).flock(2);
    assert_eq!(world.refused(reader), Refusal::Full);

    let mut world = bounded(|bounds| bounds.waiters = 1);
    world.hold("x.lock", 1);
    let first = world.ask("x.lock", EX);
    world.waits(first);
    let second = world.ask("x.lock", EX);
    assert_eq!(world.refused(second), Refusal::Full);
    let attempt = world.ask("x.lock", EX).now_or_never();
    assert_eq!(
        world.refused(attempt),
        Refusal::WouldBlock,
        "a try needs no place in line"
    );

    let mut world = bounded(|bounds| bounds.claims = 2);
    let three = world.ask_all(&["a.lock", "b.lock", "c.lock"], EX).transaction(1);
    assert_eq!(world.refused(three), Refusal::Full);
}

#[test]
fn ranges_are_bounded_also_when_an_unlock_would_split_one() {
    let mut world = bounded(|bounds| bounds.ranges = 2);
    let whole = world.ask("x.lock", EX).posix(7, 1, Range::WHOLE);
    world.granted(whole);
    let unlock = |at| Command::Unlock {
        lock: lock("x.lock"),
        owner: 7,
        handle: HandleId(1),
        range: range(at, at),
    };
    assert_eq!(world.run(unlock(10)), Ok(Reply::Done));
    assert_eq!(world.run(unlock(20)), Err(Refusal::Full));
    assert_eq!(world.run(unlock(0)), Ok(Reply::Done), "cutting an end needs no room");
    let more = world.ask("x.lock", EX).posix(8, 2, range(10, 10));
    assert_eq!(world.refused(more), Refusal::Full);
    assert_eq!(world.engine.holders("x.lock").count(), 2);
}

#[test]
fn tickets_are_bounded() {
    let mut world = bounded(|bounds| bounds.tickets = 1);
    world.hold("x.lock", 1);
    let first = world.ask("x.lock", EX).ticket("a").now_or_never();
    world.refused(first);
    let second = world.ask("x.lock", EX).ticket("b").now_or_never();
    assert_eq!(world.refused(second), Refusal::Full);
    let again = world.ask("x.lock", EX).ticket("a");
    world.waits(again);
}

#[test]
fn no_grant_is_made_without_a_token_reserved_for_it() {
    let mut world = World::new();
    world.engine = Engine::new(Settings::default(), Bounds::default(), Token(1)..Token(2));
    world.hold("x.lock", 1);
    let ask = world.ask("x.lock", EX);
    assert_eq!(world.refused(ask), Refusal::Full, "the last token is gone");
    world.run(Command::ExtendTokens(Token(3))).expect("they are reserved");
    let first = world.ask("x.lock", EX).open(2);
    let first = world.waits(first);
    let second = world.ask("x.lock", EX).open(3);
    let second = world.waits(second);
    world.close(1);
    assert_eq!(world.grants(), [first]);
    world.close(2);
    assert_eq!(world.grants(), [], "it waits until tokens are reserved");
    world.run(Command::ExtendTokens(Token(10))).expect("they are reserved");
    assert_eq!(world.grants(), [second]);
}

#[test]
fn a_request_without_locks_or_with_one_twice_is_malformed() {
    let mut world = World::new();
    let none = world.ask_all(&[], EX);
    assert_eq!(world.refused(none), Refusal::Malformed);
    let twice = world.ask_all(&["a.lock", "a.lock"], EX);
    assert_eq!(world.refused(twice), Refusal::Malformed);
    assert_eq!(world.engine.locks_len(), 0);
}
