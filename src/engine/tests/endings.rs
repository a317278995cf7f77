//! Every way a lock ends that is not the last close: rm, break, sessions, processes; and circles.

use super::*;

fn actor(uid: u32, lineage: &[u64]) -> Actor {
    Actor {
        tid: 50,
        uid,
        lineage: lineage.iter().copied().map(ProcessId).collect(),
    }
}

fn remove(world: &mut World, name: &str, actor: Actor) -> Result<Reply, Refusal> {
    world.run(Command::Remove {
        lock: lock(name),
        actor,
    })
}

fn declared(pid: u32) -> crate::types::Text {
    crate::types::Text::parse(format!("{pid}\n").as_bytes()).expect("text")
}

fn declare(world: &mut World, handle: u64, owner: Option<u64>) -> Result<Reply, Refusal> {
    world.run(Command::Declare {
        target: Target::Handle(HandleId(handle)),
        text: declared(owner.unwrap_or(0) as u32),
        owner: owner.map(ProcessId),
        keepers: Vec::new(),
    })
}

#[test]
fn a_declared_owner_outlives_the_descriptor_and_its_exit_releases() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    declare(&mut world, 1, Some(10)).expect("declared");
    let waiter = world.ask("x.lock", EX).open(2);
    let waiter = world.waits(waiter);
    world.close(1);
    assert_eq!(world.grants(), []);
    world
        .run(Command::Exited {
            process: ProcessId(11),
            cleanly: true,
        })
        .expect("another");
    assert_eq!(world.grants(), []);
    world
        .run(Command::Exited {
            process: ProcessId(10),
            cleanly: false,
        })
        .expect("the owner");
    assert_eq!(world.grants(), [waiter]);
}

#[test]
fn a_lost_lock_is_reported_to_a_handle_that_is_still_open() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    declare(&mut world, 1, Some(10)).expect("declared");
    world
        .run(Command::Exited {
            process: ProcessId(10),
            cleanly: true,
        })
        .expect("gone");
    let lost = Effect::Lost {
        handle: HandleId(1),
        lock: lock("x.lock"),
    };
    assert_eq!(world.effects(), [lost]);
}

#[test]
fn a_refused_text_makes_the_lock_end_with_its_handle_whatever_the_way() {
    let mut world = World::new();
    let mut made = world.ask("x.lock", EX).made(Shape::File, &[10]);
    if let Taking::Make(make) = &mut made.0.taking {
        make.handle = Some(HandleId(1));
    }
    world.granted(made);
    world.run(Command::Spoil(HandleId(1))).expect("spoiled");
    world.close(1);
    assert!(!world.is_held("x.lock"));
}

#[test]
fn a_text_on_a_handle_that_holds_by_flock_is_a_note() {
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).flock(1);
    world.granted(ask);
    assert_eq!(world.engine.text_rule(HandleId(1)), TextRule::Note);
    assert_eq!(declare(&mut world, 1, Some(10)), Err(Refusal::Malformed));
    let note = Command::Note {
        target: Target::Handle(HandleId(1)),
        note: b"busy".to_vec(),
    };
    world.run(note).expect("noted");
    let grant = world.engine.grants_of(HandleId(1)).next().expect("held");
    assert_eq!(
        grant.extra().map(|extra| extra.text.note.clone()),
        Some(b"busy".to_vec())
    );
    assert_eq!(world.engine.text_rule(HandleId(2)), TextRule::Nothing);
}

#[test]
fn rm_is_for_the_holder_and_its_descendants_while_it_lives() {
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).open(1).by(10);
    world.granted(ask);
    assert_eq!(remove(&mut world, "x.lock", actor(0, &[20])), Err(Refusal::HeldByOther));
    assert_eq!(remove(&mut world, "x.lock", actor(1000, &[10])), Err(Refusal::NotYours));
    assert_eq!(remove(&mut world, "free.lock", actor(0, &[10])), Err(Refusal::Absent));
    assert_eq!(
        remove(&mut world, "x.lock", actor(0, &[11, 10])),
        Ok(Reply::Released(1))
    );
    let ask = world.ask("y.lock", EX).open(2).by(10);
    world.granted(ask);
    world
        .run(Command::Exited {
            process: ProcessId(10),
            cleanly: true,
        })
        .expect("gone");
    assert!(world.is_held("y.lock"), "a background child still has the descriptor");
    assert_eq!(remove(&mut world, "y.lock", actor(0, &[20])), Ok(Reply::Released(1)));
}

#[test]
fn removing_one_lock_of_a_transaction_leaves_the_others() {
    let mut world = World::new();
    let ask = world
        .ask_all(&["global.lock", "worktree-a.lock", "z.lock"], EX)
        .transaction(1)
        .by(10);
    world.granted(ask);
    remove(&mut world, "global.lock", actor(0, &[10])).expect("removed");
    assert!(!world.is_held("global.lock") && world.is_held("worktree-a.lock") && world.is_held("z.lock"));
    world.close(1);
    assert!(world.engine.is_idle());
}

#[test]
fn break_needs_the_token_of_the_holder_that_was_meant() {
    let mut world = World::new();
    let token = world.hold("x.lock", 1);
    let wrong = Command::Break {
        lock: lock("x.lock"),
        token: Token(token.0 + 1),
    };
    assert_eq!(world.run(wrong), Err(Refusal::HeldByOther));
    let absent = Command::Break {
        lock: lock("free.lock"),
        token,
    };
    assert_eq!(world.run(absent), Err(Refusal::Absent));
    let right = Command::Break {
        lock: lock("x.lock"),
        token,
    };
    assert_eq!(world.run(right), Ok(Reply::Released(1)));
    let lost = Effect::Lost {
        handle: HandleId(1),
        lock: lock("x.lock"),
    };
    assert_eq!(world.effects(), [lost]);
    world.close(1);
}

#[test]
fn release_session_ends_its_locks_and_its_absent_tickets_only() {
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).open(1).session("a");
    world.granted(ask);
    let ask = world.ask("y.lock", EX).open(2).session("b");
    world.granted(ask);
    let absent = world.ask("y.lock", EX).session("a").ticket("t").now_or_never();
    world.refused(absent);
    let waiting = world.ask("y.lock", EX).session("a").ticket("u").open(3);
    let waiting = world.waits(waiting);
    assert_eq!(world.run(Command::ReleaseSession(session("a"))), Ok(Reply::Released(1)));
    assert!(!world.is_held("x.lock") && world.is_held("y.lock"));
    assert_eq!(
        world
            .engine
            .tickets()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["u"]
    );
    world.close(2);
    assert_eq!(world.grants(), [waiting]);
}

#[test]
fn a_transaction_is_told_who_waits_for_what_it_holds() {
    let mut world = World::new();
    let ask = world.ask_all(&["worktree-a.lock", "z.lock"], EX).transaction(1);
    world.granted(ask);
    for name in ["z.lock", "global.lock"] {
        let waiter = world.ask(name, EX);
        let waiter = world.waits(waiter);
        assert_eq!(
            world.effects(),
            [Effect::Wanted {
                handle: HandleId(1),
                request: waiter
            }],
            "{name}"
        );
    }
}

#[test]
fn a_single_threaded_process_that_waits_for_itself_is_a_circle() {
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).open(1).by(10);
    world.granted(ask);
    let again = world.ask("x.lock", EX).open(2).by(10);
    let again = world.waits(again);
    assert_eq!(world.engine.circle(again, world.now()).map(|path| path.len()), Some(1));
    let other = world.ask("x.lock", EX).open(3).by(11);
    let other = world.waits(other);
    assert_eq!(world.engine.circle(other, world.now()), None);
}

#[test]
fn a_circle_runs_over_holders_and_over_waiters_ahead() {
    let mut world = World::new();
    for (process, name) in [(10, "x.lock"), (11, "y.lock")] {
        let ask = world.ask(name, EX).open(process).by(process);
        world.granted(ask);
    }
    let first = world.ask("y.lock", EX).by(10);
    let first = world.waits(first);
    assert_eq!(world.engine.circle(first, world.now()), None);
    let second = world.ask("x.lock", EX).by(11);
    let second = world.waits(second);
    assert_eq!(world.engine.circle(second, world.now()).map(|path| path.len()), Some(2));

    // A waiter ahead in the line counts, whatever its process is.
    let mut world = World::new();
    let ask = world.ask("x.lock", EX).open(1).by(10);
    world.granted(ask);
    world.hold("y.lock", 2);
    let both = world.ask_all(&["x.lock", "y.lock"], EX).transaction(3);
    world.waits(both);
    let behind = world.ask("y.lock", EX).open(4).by(10);
    let behind = world.waits(behind);
    assert_eq!(world.engine.circle(behind, world.now()).map(|path| path.len()), Some(1));
}

#[test]
fn threads_just_wait() {
    let mut world = World::new();
    let mut ask = world.ask("x.lock", EX).open(1).by(10);
    ask.0.party.solo = false;
    world.granted(ask);
    let mut again = world.ask("x.lock", EX).open(2).by(10);
    again.0.party.solo = false;
    let again = world.waits(again);
    assert_eq!(world.engine.circle(again, world.now()), None);
}

#[test]
fn a_long_line_is_walked_once_for_a_circle() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let ask = world.ask("y.lock", EX).open(2).by(10);
    world.granted(ask);
    for process in 100..1100 {
        let ask = world.ask("x.lock", EX).by(process);
        let _ = world.engine.handle(Moment::default(), Command::Acquire(ask.0));
    }
    let last = world.ask("x.lock", EX).by(10);
    let last = world.waits(last);
    assert_eq!(world.engine.circle(last, world.now()), None);
}
