//! Calls that wait: each gets one answer, whatever ends the wait.

use git_lockfs::service::api::{Answer, Call};
use git_lockfs::types::{HandleId, Mode, Refusal, Unique};

use crate::world::{BOTH, LOCKS, WRITE, World, by, me, opened};

/// One waiting call of each kind, for x.lock.
pub fn waiters(world: &World) -> Vec<(&'static str, Unique)> {
    let node = world.node(LOCKS, "x.lock");
    let open = world.park(by(0), Call::Open { node, mode: WRITE });
    let (node, handle) = world.lockable(by(0), "x.lock");
    let flock = world.park(by(0), world.flock(node, handle, Some(Mode::Shared), true));
    let handle = world.open_root(by(0), "acquire", BOTH);
    let (offset, data) = (0, &b"locks=x.lock wait=forever"[..]);
    let acquire = world.park(by(0), Call::Write { handle, offset, data });
    vec![("open", open), ("flock", flock), ("acquire", acquire)]
}

#[test]
fn a_signal_ends_every_kind_of_wait() {
    let world = World::new();
    let held = world.take(me(), "x.lock");
    for (kind, unique) in waiters(&world) {
        world.interrupt(unique);
        assert_eq!(world.answer_to(unique), Answer::Refused(Refusal::Interrupted), "{kind}");
        world.interrupt(unique);
        assert!(world.is_parked(unique), "{kind} is answered once");
    }
    world.close(held);
    assert!(world.is_free("x.lock"), "who was interrupted is never granted");
}

#[test]
fn every_kind_of_wait_is_granted_in_its_turn_and_ends_with_its_handle() {
    let world = World::new();
    let held = world.take(me(), "x.lock");
    let waiting = waiters(&world);
    world.close(held);
    let first = opened(world.answer_to(waiting[0].1)).expect("granted");
    assert!(world.is_parked(waiting[1].1) && world.is_parked(waiting[2].1));
    world.close(first);
    assert_eq!(world.answer_to(waiting[1].1), Answer::Done);
    assert!(world.is_parked(waiting[2].1));
    world.close(HandleId(first.0 + 1));
    assert_eq!(world.answer_to(waiting[2].1), Answer::Written(25));
    world.close(HandleId(first.0 + 2));
    assert!(world.is_free("x.lock"));
}

#[test]
fn a_signal_for_what_is_answered_changes_nothing() {
    let world = World::new();
    let (unique, answer) = world.send(
        me(),
        Call::Create {
            parent: LOCKS,
            name: b"x.lock",
            mode: WRITE,
        },
    );
    assert!(matches!(answer, Some(Answer::Created(..))));
    world.interrupt(unique);
    world.interrupt(Unique(u64::MAX));
    assert!(!world.is_free("x.lock"));
}

#[test]
fn a_read_that_came_before_the_grant_gets_the_token() {
    let world = World::new();
    let held = world.take(me(), "x.lock");
    let handle = world.open_root(by(0), "acquire", BOTH);
    let (offset, data) = (0, &b"locks=x.lock"[..]);
    let write = world.park(by(0), Call::Write { handle, offset, data });
    let read = world.park(
        by(0),
        Call::Read {
            handle,
            offset,
            size: 4096,
        },
    );
    world.close(held);
    assert_eq!(world.answer_to(write), Answer::Written(12));
    let Answer::Data(line) = world.answer_to(read) else {
        panic!("a line")
    };
    assert!(line.starts_with(b"token="));
}

#[test]
fn a_read_beside_a_request_that_is_refused_ends_with_it() {
    let world = World::new();
    let _held = world.take(me(), "x.lock");
    let handle = world.open_root(by(0), "acquire", BOTH);
    let (offset, data) = (0, &b"locks=x.lock"[..]);
    let write = world.park(by(0), Call::Write { handle, offset, data });
    let read = world.park(
        by(0),
        Call::Read {
            handle,
            offset,
            size: 4096,
        },
    );
    world.interrupt(write);
    assert_eq!(world.answer_to(write), Answer::Refused(Refusal::Interrupted));
    assert_eq!(world.answer_to(read), Answer::Refused(Refusal::Interrupted));
}

#[test]
fn all_who_read_a_transaction_hear_that_it_is_lost() {
    let world = World::new();
    let handle = world.open_root(me(), "acquire", BOTH);
    assert_eq!(world.write(me(), handle, 0, b"locks=x.lock"), Answer::Written(12));
    let Answer::Data(line) = world.read(handle) else {
        panic!("the token")
    };
    let token = String::from_utf8(line).expect("text")[6..].trim_end().to_owned();
    let read = Call::Read {
        handle,
        offset: 0,
        size: 4096,
    };
    let readers = [world.park(by(0), read.clone()), world.park(by(0), read.clone())];
    let interrupted = world.park(by(0), read);
    world.interrupt(interrupted);
    assert_eq!(world.answer_to(interrupted), Answer::Refused(Refusal::Interrupted));
    let control = world.open_root(me(), "control", WRITE);
    let verb = format!("break x.lock {token} a test");
    assert!(matches!(
        world.write(me(), control, 0, verb.as_bytes()),
        Answer::Written(_)
    ));
    for reader in readers {
        assert_eq!(world.answer_to(reader), Answer::Refused(Refusal::Stale));
    }
    assert_eq!(world.read(handle), Answer::Refused(Refusal::Stale));
}

#[test]
fn a_lost_handle_answers_stale_everywhere_and_its_close_takes_nothing_back() {
    let world = World::new();
    let held = world.take(me(), "x.lock");
    let node = world.node(LOCKS, "x.lock");
    let token = world
        .text("x.lock")
        .lines()
        .find_map(|line| line.strip_prefix("token=").map(str::to_owned));
    let control = world.open_root(me(), "control", WRITE);
    let verb = format!("break x.lock {} a test", token.expect("held"));
    assert!(matches!(
        world.write(me(), control, 0, verb.as_bytes()),
        Answer::Written(_)
    ));
    let next = world.take(me(), "x.lock");
    let stale = Answer::Refused(Refusal::Stale);
    assert_eq!(world.write(me(), held, 0, b"1"), stale);
    assert_eq!(world.read(held), stale);
    assert_eq!(
        world.call(me(), world.flock(node, held, Some(Mode::Exclusive), false)),
        stale
    );
    assert!(world.last_error().contains("a test"), "{}", world.last_error());
    world.close(held);
    assert!(!world.is_free("x.lock"), "the next holder still has it");
    world.close(next);
    assert!(world.is_free("x.lock"));
}

#[test]
fn while_drained_waiters_wait_and_tries_fail() {
    let world = World::new();
    let control = world.open_root(me(), "control", WRITE);
    assert_eq!(world.write(me(), control, 0, b"drain"), Answer::Written(5));
    assert_eq!(
        world.create(me(), "y.lock", crate::world::TRY).err(),
        Some(Refusal::WouldBlock)
    );
    assert_eq!(
        world.create(me(), "y.lock", crate::world::EXCL).err(),
        Some(Refusal::Taken)
    );
    let node = world.node(LOCKS, "x.lock");
    let waits = world.park(by(0), Call::Open { node, mode: WRITE });
    assert_eq!(world.write(me(), control, 0, b"resume"), Answer::Written(6));
    assert!(opened(world.answer_to(waits)).is_ok());
}
