//! Who goes first.

use super::*;

#[test]
fn the_last_close_grants_the_first_in_line() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let (first, second) = (world.ask("x.lock", EX).open(2), world.ask("x.lock", EX).open(3));
    let (first, second) = (world.waits(first), world.waits(second));
    world.close(1);
    assert_eq!(world.grants(), [first]);
    world.close(2);
    assert_eq!(world.grants(), [second]);
    world.close(3);
    assert!(
        world.engine.is_idle() && world.engine.locks_len() == 0,
        "a free lock has no entry"
    );
}

#[test]
fn priority_goes_before_arrival_and_waiting_makes_up_for_it() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let low = world.ask("x.lock", EX).open(2).priority(3);
    world.waits(low);
    world.pass(3_999);
    let high = world.ask("x.lock", EX).open(3).priority(5);
    let high = world.waits(high);
    world.close(1);
    assert_eq!(world.grants(), [high], "3 has risen to 4 only");
    world.close(3);
    world.grants();
    world.close(2);
    world.hold("y.lock", 6);
    let background = world.ask("y.lock", EX).open(7).priority(1);
    let background = world.waits(background);
    world.pass(18_000);
    let urgent = world.ask("y.lock", EX).open(8).priority(10);
    world.waits(urgent);
    world.close(6);
    assert_eq!(
        world.grants(),
        [background],
        "after 18 s even the lowest has risen to 10, and came earlier"
    );
}

#[test]
fn an_old_reader_passes_a_younger_writer_once_its_age_makes_up_for_the_priority() {
    let mut world = World::new();
    let reader = world.ask("x.lock", SH).flock(1);
    world.granted(reader);
    world.hold("y.lock", 9);
    let head = world.ask_all(&["x.lock", "y.lock"], SH).transaction(2).priority(5);
    world.waits(head);
    world.pass(500);
    // Waits for y too, so that the writer can come between it and the lock.
    let old = world.ask_all(&["w.lock", "x.lock"], SH).transaction(5).priority(5);
    world.hold("w.lock", 8);
    let old = world.waits(old);
    let writer = world.ask("x.lock", EX).open(4).priority(10);
    world.waits(writer);
    world.close(8);
    assert_eq!(world.grants(), [], "the writer stands ahead by priority");
    world.pass(9_900);
    assert_eq!(world.grants(), []);
    world.pass(200);
    assert_eq!(
        world.grants(),
        [old],
        "at the top the earlier arrival goes first, on time"
    );
}

#[test]
fn shared_waiters_at_the_head_go_together_and_a_later_one_stays_behind_a_writer() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let asks = [(SH, 2), (SH, 3), (EX, 4), (SH, 5)].map(|(mode, handle)| world.ask("x.lock", mode).flock(handle));
    let [a, b, writer, late] = asks.map(|ask| world.waits(ask));
    world.close(1);
    assert_eq!(world.grants(), [a, b]);
    world.close(2);
    assert_eq!(world.grants(), []);
    world.close(3);
    assert_eq!(world.grants(), [writer]);
    world.close(4);
    assert_eq!(world.grants(), [late]);
}

#[test]
fn several_locks_are_had_together_or_not_at_all() {
    let mut world = World::new();
    world.hold("b.lock", 1);
    let both = world.ask_all(&["a.lock", "b.lock"], EX).transaction(2);
    let both = world.waits(both);
    assert!(!world.is_held("a.lock"), "nothing is taken while it waits");
    let later = world.ask("a.lock", EX).open(3).now_or_never();
    assert_eq!(world.refused(later), Refusal::WouldBlock, "but it stands in both lines");
    world.close(1);
    assert_eq!(world.grants(), [both]);
    assert!(world.is_held("a.lock") && world.is_held("b.lock"));
    world.close(2);
    assert!(world.engine.is_idle());
}

#[test]
fn a_wait_ends_at_its_limit_by_a_signal_or_by_a_denial() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let limited = world.ask("x.lock", EX).until(world.tick(5_000));
    let limited = world.waits(limited);
    let signalled = world.ask("x.lock", EX);
    let signalled = world.waits(signalled);
    let denied = world.ask("x.lock", EX);
    let denied = world.waits(denied);
    world.pass(4_999);
    assert_eq!(world.effects(), []);
    world.pass(1);
    let refused = |request, refusal| Effect::Refused { request, refusal };
    assert_eq!(world.effects(), [refused(limited, Refusal::TimedOut)]);
    world.run(Command::Cancel(signalled)).expect("cancelled");
    world.run(Command::Deny(denied, Refusal::Deadlock)).expect("denied");
    let ends = [
        refused(signalled, Refusal::Interrupted),
        refused(denied, Refusal::Deadlock),
    ];
    assert_eq!(world.effects(), ends);
    world
        .run(Command::Cancel(signalled))
        .expect("a late interrupt is no error");
    world.close(1);
    assert_eq!(world.effects(), [], "who is gone is not granted");
}

#[test]
fn tokens_only_grow() {
    let mut world = World::new();
    let mut last = Token(0);
    for handle in 1..50 {
        let token = world.hold(if handle % 2 == 0 { "x.lock" } else { "y.lock" }, handle);
        assert!(token > last);
        last = token;
        world.close(handle);
    }
}

#[test]
fn while_drained_nothing_new_is_granted_and_waits_go_on() {
    let mut world = World::new();
    world.hold("held.lock", 1);
    world.run(Command::Drain(true)).expect("drained");
    let attempt = world.ask("x.lock", EX).now_or_never();
    assert_eq!(world.refused(attempt), Refusal::WouldBlock);
    let waiting = world.ask("held.lock", EX).open(2);
    let waiting = world.waits(waiting);
    world.close(1);
    assert_eq!(world.grants(), []);
    assert_eq!(world.engine.availability(&lock("free.lock"), &[]), Availability::Taken);
    world.run(Command::Drain(false)).expect("resumed");
    assert_eq!(world.grants(), [waiting]);
}

#[test]
fn the_same_commands_give_the_same_effects() {
    let run = || {
        let mut world = World::new();
        for step in 0..300u64 {
            let name = ["a.lock", "b.lock", "global.lock", "ref-x.lock"][(step % 4) as usize];
            let mode = if step % 3 == 0 { SH } else { EX };
            let ask = world.ask(name, mode).flock(step % 12).priority((step % 10 + 1) as u8);
            let _ = world.run(Command::Acquire(ask.0));
            world.millis += step * 37 % 500;
            if step % 2 == 0 {
                world.close(step * 5 % 12);
            }
        }
        format!("{:?}", world.log)
    };
    assert_eq!(run(), run());
}
