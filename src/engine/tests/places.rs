//! Places in the line of those who are away: tickets and interrupted waits.

use super::*;

fn cancel(world: &mut World, id: Unique) {
    world.run(Command::Cancel(id)).expect("cancelled");
    world.effects();
}

#[test]
fn an_interrupted_wait_keeps_its_place_for_a_second() {
    for (away, resumes) in [(999, true), (1_000, false)] {
        let mut world = World::new();
        world.hold("x.lock", 1);
        let first = world.ask("x.lock", EX).open(2).tid(77);
        let first = world.waits(first);
        let second = world.ask("x.lock", EX).open(3);
        let second = world.waits(second);
        cancel(&mut world, first);
        world.pass(away);
        let again = world.ask("x.lock", EX).open(4).tid(77);
        let again = world.waits(again);
        world.close(1);
        assert_eq!(world.grants(), [if resumes { again } else { second }], "{away} ms away");
    }
}

#[test]
fn an_absent_waiter_is_passed_over() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let first = world.ask("x.lock", EX).open(2).tid(77);
    let first = world.waits(first);
    let second = world.ask("x.lock", EX).open(3);
    let second = world.waits(second);
    cancel(&mut world, first);
    world.close(1);
    assert_eq!(world.grants(), [second]);
}

#[test]
fn only_the_same_thread_name_and_kind_resumes() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let first = world.ask("x.lock", EX).open(2).tid(77);
    let first = world.waits(first);
    let second = world.ask("x.lock", EX).open(3);
    let second = world.waits(second);
    cancel(&mut world, first);
    let others = [
        world.ask("x.lock", EX).open(4).tid(78),
        world.ask("x.lock", EX).flock(5).tid(77),
    ];
    for ask in others {
        world.waits(ask);
    }
    world.close(1);
    assert_eq!(world.grants(), [second]);
}

#[test]
fn a_resumed_wait_keeps_its_limit_and_a_try_never_waits() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let first = world.ask("x.lock", EX).open(2).tid(77).until(world.tick(5_000));
    let first = world.waits(first);
    world.pass(4_500);
    cancel(&mut world, first);
    let attempt = world.ask("x.lock", EX).open(3).tid(77).now_or_never();
    assert_eq!(world.refused(attempt), Refusal::WouldBlock);
    let again = world.ask("x.lock", EX).open(4).tid(77).until(world.tick(34_500));
    let again = world.waits(again);
    world.pass(500);
    let refused = Effect::Refused {
        request: again,
        refusal: Refusal::TimedOut,
    };
    assert_eq!(world.effects(), [refused]);
}

#[test]
fn a_ticket_keeps_the_place_for_a_minute_whatever_order_the_names_come_in() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let first = world
        .ask_all(&["x.lock", "y.lock"], EX)
        .transaction(2)
        .ticket("t")
        .session("a");
    let first = world.waits(first);
    let second = world.ask("x.lock", EX).open(3);
    world.waits(second);
    cancel(&mut world, first);
    world.pass(59_000);
    let again = world
        .ask_all(&["y.lock", "x.lock"], EX)
        .transaction(4)
        .ticket("t")
        .session("a");
    let again = world.waits(again);
    world.close(1);
    assert_eq!(world.grants(), [again]);
    assert_eq!(world.engine.tickets().count(), 0, "a granted ticket is used up");
}

#[test]
fn a_ticket_is_busy_for_other_locks_other_sessions_and_while_it_waits() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let first = world.ask("x.lock", EX).open(2).ticket("t").session("a");
    let first = world.waits(first);
    let same = world.ask("x.lock", EX).ticket("t").session("a");
    assert_eq!(world.refused(same), Refusal::HeldByOther);
    cancel(&mut world, first);
    let other = world.ask("y.lock", EX).ticket("t").session("a");
    assert_eq!(world.refused(other), Refusal::HeldByOther);
    let stranger = world.ask("x.lock", EX).ticket("t").session("b");
    assert_eq!(world.refused(stranger), Refusal::HeldByOther);
    world.pass(60_000);
    let stranger = world.ask("x.lock", EX).ticket("t").session("b");
    world.waits(stranger);
}

#[test]
fn an_absent_ticket_is_given_up_in_time_or_when_withdrawn() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let ask = world.ask("x.lock", EX).ticket("t").now_or_never();
    assert_eq!(world.refused(ask), Refusal::WouldBlock);
    assert_eq!(world.engine.tickets().count(), 1);
    world.pass(60_000);
    assert_eq!(world.engine.tickets().count(), 0);
    let ask = world.ask("x.lock", EX).ticket("u").open(2);
    let waiting = world.waits(ask);
    world.run(Command::Withdraw(ticket("u"))).expect("withdrawn");
    assert_eq!(world.engine.tickets().count(), 0);
    let refused = Effect::Refused {
        request: waiting,
        refusal: Refusal::TimedOut,
    };
    assert_eq!(world.effects(), [refused]);
    assert_eq!(world.run(Command::Withdraw(ticket("u"))), Err(Refusal::Absent));
}

#[test]
fn a_resumed_ticket_has_its_old_age() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let first = world.ask("x.lock", EX).open(2).ticket("t").priority(5);
    let first = world.waits(first);
    world.pass(1_000);
    cancel(&mut world, first);
    world.pass(8_500);
    let high = world.ask("x.lock", EX).open(3).priority(9);
    world.waits(high);
    let again = world.ask("x.lock", EX).open(4).ticket("t").priority(5);
    let again = world.waits(again);
    world.close(1);
    assert_eq!(
        world.grants(),
        [again],
        "9.5 s old, it has risen from 5 to 9 and came first"
    );
}
