//! Keepers and time.

use super::*;

fn exited(world: &mut World, process: u64, cleanly: bool) {
    let exit = Command::Exited {
        process: ProcessId(process),
        cleanly,
    };
    world.run(exit).expect("an exit is noted");
}

fn made(world: &mut World, keepers: &[u64]) {
    let ask = world.ask("x.lock", EX).made(Shape::File, keepers);
    world.granted(ask);
}

#[test]
fn a_lease_lasts_while_its_keeper_lives() {
    let mut world = World::new();
    made(&mut world, &[10]);
    world.pass(3_600_000);
    assert!(world.is_held("x.lock"), "nobody alive is robbed by age");
    exited(&mut world, 10, true);
    assert!(!world.is_held("x.lock"), "its five minutes were over long ago");
}

#[test]
fn five_minutes_count_from_the_making_or_the_renewal() {
    let mut world = World::new();
    made(&mut world, &[10]);
    world.pass(3_000);
    exited(&mut world, 10, true);
    world.pass(200_000);
    let actor = Actor {
        tid: 50,
        uid: 0,
        lineage: vec![ProcessId(99)],
    };
    let renew = Command::Renew {
        lock: lock("x.lock"),
        actor,
        mtime: Some((7, 8)),
    };
    world.run(renew).expect("the keeper is gone, so anyone may");
    world.pass(299_999);
    assert!(world.is_held("x.lock"));
    world.pass(1);
    assert!(!world.is_held("x.lock"));
}

#[test]
fn a_keeper_that_exits_at_once_of_its_own_will_hands_over_to_its_ancestors() {
    let mut world = World::new();
    made(&mut world, &[10, 11, 12]);
    world.pass(1_000);
    exited(&mut world, 10, true);
    world.pass(1_000);
    exited(&mut world, 11, true);
    world.pass(3_600_000);
    assert!(world.is_held("x.lock"), "12 keeps it");
    exited(&mut world, 12, true);
    assert!(!world.is_held("x.lock"));
}

#[test]
fn a_keeper_that_dies_by_a_signal_or_later_hands_over_to_nobody() {
    for (after, cleanly) in [(0, false), (2_001, true)] {
        let mut world = World::new();
        made(&mut world, &[10, 11]);
        world.pass(after);
        exited(&mut world, 10, cleanly);
        world.pass(300_000 - after - 1);
        assert!(world.is_held("x.lock"));
        world.pass(1);
        assert!(!world.is_held("x.lock"), "after {after} ms, cleanly: {cleanly}");
    }
}

#[test]
fn an_ancestor_that_dies_before_its_turn_is_passed_over() {
    let mut world = World::new();
    made(&mut world, &[10, 11, 12]);
    exited(&mut world, 11, false);
    exited(&mut world, 10, true);
    world.pass(3_600_000);
    assert!(world.is_held("x.lock"), "12 keeps it");
}

#[test]
fn without_a_keeper_that_we_can_see_time_alone_counts_and_strangers_may_not_remove() {
    let mut world = World::new();
    made(&mut world, &[]);
    let actor = Actor {
        tid: 50,
        uid: 0,
        lineage: vec![ProcessId(99)],
    };
    let stranger = Command::Remove {
        lock: lock("x.lock"),
        actor,
    };
    assert_eq!(
        world.run(stranger),
        Err(Refusal::HeldByOther),
        "unknown counts as alive"
    );
    world.pass(300_000);
    assert!(!world.is_held("x.lock"));
}

#[test]
fn the_end_of_a_lease_grants_the_first_in_line() {
    let mut world = World::new();
    made(&mut world, &[]);
    let waiter = world.ask("x.lock", EX).open(1);
    let waiter = world.waits(waiter);
    world.pass(299_999);
    assert_eq!(world.grants(), []);
    world.pass(1);
    assert_eq!(world.grants(), [waiter]);
}

#[test]
fn leases_count_suspended_time_and_waits_do_not() {
    let mut world = World::new();
    made(&mut world, &[]);
    let waiter = world.ask("x.lock", EX).open(1).until(world.tick(30_000));
    let waiter = world.waits(waiter);
    let woken = Moment {
        mono: world.tick(1_000),
        boot: world.tick(400_000),
    };
    world.engine.handle(woken, Command::Advance).expect("time passes");
    let granted = |effect: &Effect| matches!(effect, Effect::Granted { request, .. } if *request == waiter);
    let effects: Vec<Effect> = std::iter::from_fn(|| world.engine.poll_effect()).collect();
    assert!(effects.iter().any(granted), "{effects:?}");
}

#[test]
fn touching_a_handle_that_took_its_lock_by_open_makes_it_a_lease() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let touch = Command::Touch {
        handle: HandleId(1),
        keepers: vec![ProcessId(10)],
        mtime: Some((5, 6)),
    };
    world.run(touch).expect("touched");
    world.close(1);
    assert!(world.is_held("x.lock"));
    let holder = world.engine.holders("x.lock").next().expect("held");
    assert_eq!(holder.grant.extra().and_then(|extra| extra.mtime), Some((5, 6)));
}

#[test]
fn a_text_without_a_pid_makes_an_opened_lock_a_lease() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let text = crate::types::Text::parse(b"0\nnote").expect("text");
    let target = Target::Handle(HandleId(1));
    let declare = Command::Declare {
        target,
        text,
        owner: None,
        keepers: vec![ProcessId(10)],
    };
    world.run(declare).expect("declared");
    world.close(1);
    assert!(world.is_held("x.lock"));
}

#[test]
fn a_directory_lock_has_small_files_for_its_keeper_only() {
    let mut world = World::new();
    let ask = world.ask("d.lock", EX).made(Shape::Directory, &[10]);
    world.granted(ask);
    let mut change = |file: &str, change: FileChange, process: u64| {
        let actor = Actor {
            tid: 50,
            uid: 0,
            lineage: vec![ProcessId(process)],
        };
        world.run(Command::ChangeFile {
            lock: lock("d.lock"),
            file: lock(file),
            change,
            actor,
        })
    };
    assert_eq!(change("a", FileChange::Create, 99), Err(Refusal::HeldByOther));
    assert_eq!(change("a", FileChange::Create, 10), Ok(Reply::Done));
    assert_eq!(change("a", FileChange::Create, 10), Err(Refusal::Taken));
    let write = FileChange::Write {
        offset: 4090,
        data: vec![b'x'; 7],
    };
    assert_eq!(change("a", write, 10), Err(Refusal::TooLong));
    let write = FileChange::Write {
        offset: 1,
        data: b"hi".to_vec(),
    };
    assert_eq!(change("a", write, 10), Ok(Reply::Done));
    assert_eq!(change("a", FileChange::Rename(lock("b")), 10), Ok(Reply::Done));
    assert_eq!(change("a", FileChange::Remove, 10), Err(Refusal::Absent));
    for index in 0..15 {
        assert_eq!(change(&format!("f{index}"), FileChange::Create, 10), Ok(Reply::Done));
    }
    assert_eq!(change("one-more", FileChange::Create, 10), Err(Refusal::Full));
    let (_, files) = world.engine.directory("d.lock").expect("a directory");
    assert_eq!(files.get("b"), Some(&b"\0hi".to_vec()));
}

#[test]
fn that_a_lease_or_a_descriptors_lock_passes_on_is_told_until_nobody_is_left() {
    let mut world = World::new();
    let passed = |world: &mut World| {
        let effects = world.effects();
        let passes = effects.iter().filter(|effect| matches!(effect, Effect::Passed(_)));
        passes.count()
    };
    made(&mut world, &[10, 11]);
    let ask = world.ask("y.lock", EX).flock(1).by(12);
    world.granted(ask);
    let ask = world.ask("z.lock", EX).open(2).by(13);
    world.granted(ask);
    assert_eq!(passed(&mut world), 0);
    for (process, expected) in [(10, 1), (11, 0), (12, 1), (13, 0)] {
        exited(&mut world, process, true);
        assert_eq!(passed(&mut world), expected, "{process}");
    }
}
