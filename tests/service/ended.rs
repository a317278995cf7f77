//! What follows from the end of a wait or a process reaches who waits for it, whatever call it happens in.

use git_lockfs::service::api::{Answer, Call};
use git_lockfs::types::{Refusal, Settings};

use crate::world::{LOCKS, Program, WRITE, World, by, me, opened};

#[test]
fn a_wait_that_ends_while_a_small_file_is_made_is_answered() {
    let mut settings = Settings::default();
    settings.set("wait", "50ms").expect("a span");
    let world = World::bare(settings, true);
    let _held = world.take(by(0), "x.lock");
    let name = &b"dir.lock"[..];
    let Answer::Entry(directory) = world.call(me(), Call::Mkdir { parent: LOCKS, name }) else {
        panic!("free")
    };
    let node = world.node(LOCKS, "x.lock");
    let waits = world.park(by(0), Call::Open { node, mode: WRITE });
    let (parent, name) = (directory.node, &b"note"[..]);
    let make = Call::Create {
        parent,
        name,
        mode: WRITE,
    };
    world.until("the wait is over", || {
        assert!(matches!(world.call(me(), make.clone()), Answer::Created(..)));
        !world.is_parked(waits)
    });
    assert_eq!(world.answer_to(waits), Answer::Refused(Refusal::TimedOut));
}

#[test]
fn the_end_of_an_owner_lets_the_next_one_in() {
    let world = World::new();
    let mut owner = Program::sleeping();
    let held = world.take(me(), "x.lock");
    let text = owner.pid().to_string();
    assert!(matches!(
        world.write(me(), held, 0, text.as_bytes()),
        Answer::Written(_)
    ));
    world.close(held);
    let node = world.node(LOCKS, "x.lock");
    let waits = world.park(by(0), Call::Open { node, mode: WRITE });
    assert!(world.is_parked(waits), "it outlives the redirection");
    owner.end();
    assert!(opened(world.answer_to(waits)).is_ok());
}

#[test]
fn a_refused_pid_leaves_the_file_in_a_directory_as_it_was() {
    let world = World::new();
    let name = &b"x.lock"[..];
    let Answer::Entry(directory) = world.call(me(), Call::Mkdir { parent: LOCKS, name }) else {
        panic!("free")
    };
    let (parent, name) = (directory.node, &b"pid"[..]);
    let Answer::Created(_, opened) = world.call(
        me(),
        Call::Create {
            parent,
            name,
            mode: WRITE,
        },
    ) else {
        panic!("room")
    };
    assert_eq!(
        world.write(me(), opened.handle, 0, b"1\n"),
        Answer::Refused(Refusal::NotYours)
    );
    assert_eq!(world.read(opened.handle), Answer::Data(Vec::new()));
}

#[test]
fn nothing_waits_for_what_a_dead_process_was_made_the_owner_of() {
    let world = World::new();
    for round in 0..100 {
        let name = format!("x{round}.lock");
        let held = world.take(by(0), &name);
        let node = world.node(LOCKS, &name);
        let waits = world.park(by(0), Call::Open { node, mode: WRITE });
        let mut owner = Program::sleeping();
        let pid = owner.pid().to_string();
        std::thread::scope(|scope| {
            scope.spawn(|| owner.end());
            (0..round).for_each(|_| std::thread::yield_now());
            // It may be gone by now, or go just now.
            let _ = world.write(me(), held, 0, pid.as_bytes());
        });
        world.close(held);
        let next = opened(world.answer_to(waits)).expect("granted");
        world.close(next);
    }
}
