//! Calls that show who holds a lock wait until that is known, and no longer.

use git_lockfs::service::api::{Answer, Call};
use git_lockfs::types::Settings;

use crate::world::{LOCKS, READ, World, me, opened};

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
    assert_eq!(
        world.answer_to(list),
        Answer::Refused(git_lockfs::types::Refusal::TooSmall)
    );
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
