//! Calls that show who holds a lock wait until that is known, and no longer.

use git_lockfs::service::api::{Answer, Call};
use git_lockfs::types::{Refusal, Settings};

use crate::world::{LOCKS, READ, WRITE, World, by, me, opened};

#[test]
fn attributes_of_a_holder_that_is_not_known_yet_come_later_in_the_form_that_was_asked_for() {
    let mut world = World::bare(Settings::default(), true);
    let _held = world.take(me(), "x.lock");
    let node = world.node(LOCKS, "x.lock");
    let name = &b"user.lockfs.pid"[..];
    let pid = std::process::id().to_string();
    let size = world.park(me(), Call::GetXattr { node, name, room: 0 });
    let value = world.park(me(), Call::GetXattr { node, name, room: 64 });
    let list = world.park(me(), Call::ListXattr { node, room: 1 });
    world.inspect();
    assert_eq!(world.answer_to(size), Answer::Size(pid.len() as u32));
    assert_eq!(world.answer_to(value), Answer::Data(pid.into_bytes()));
    assert_eq!(world.answer_to(list), Answer::Refused(Refusal::TooSmall));
}

#[test]
fn who_reads_a_lock_just_taken_sees_who_has_it() {
    let mut world = World::bare(Settings::default(), true);
    let _held = world.take(me(), "x.lock");
    let node = world.node(LOCKS, "x.lock");
    let stat = world.park(me(), Call::GetAttr { node });
    let open = world.park(me(), Call::Open { node, mode: READ });
    world.inspect();
    assert!(matches!(world.answer_to(stat), Answer::Attr(_)));
    let handle = opened(world.answer_to(open)).expect("reading never waits");
    let Answer::Data(text) = world.read(handle) else {
        panic!("text")
    };
    assert!(text.starts_with(format!("{}:", std::process::id()).as_bytes()));
}

#[test]
fn when_too_many_calls_wait_to_be_answered_the_next_is_answered_with_what_is_known() {
    let world = World::bare(Settings::default(), true);
    let _held = world.take(me(), "x.lock");
    let node = world.node(LOCKS, "x.lock");
    let is_answered = (0..100_000).any(|_| world.send(me(), Call::GetAttr { node }).1.is_some());
    assert!(is_answered, "no call is dropped");
    let control = world.open_root(me(), "control", WRITE);
    let reload = world.write(me(), control, 0, b"reload");
    assert_eq!(reload, Answer::Refused(Refusal::Full));
}

#[test]
fn a_failure_at_one_call_leaves_the_next_ones_their_answers() {
    let mut world = World::bare(Settings::default(), true);
    let _held = world.take(me(), "x.lock");
    let node = world.node(LOCKS, "x.lock");
    let fails = world.park(me(), Call::GetAttr { node });
    let answered = world.park(me(), Call::GetAttr { node });
    *world.recorder.fails_at.lock() = Some(fails);
    world.inspect();
    assert!(matches!(world.answer_to(answered), Answer::Attr(_)));
}

#[test]
fn tokens_never_run_out_however_many_waits_begin() {
    let world = World::new();
    let mut held = world.take(by(0), "x.lock");
    let node = world.node(LOCKS, "x.lock");
    for _ in 0..70_000 {
        let waits = world.park(by(0), Call::Open { node, mode: WRITE });
        world.close(held);
        held = opened(world.answer_to(waits)).expect("granted");
    }
    world.close(held);
    assert!(world.is_free("x.lock"));
}
