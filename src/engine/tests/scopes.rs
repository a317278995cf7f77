//! Parents and children.

use super::*;

#[test]
fn children_run_side_by_side_and_global_is_alone() {
    let mut world = World::new();
    world.hold("worktree-a.lock", 1);
    world.hold("worktree-b.lock", 2);
    world.hold("other.lock", 9);
    let global = world.ask("global.lock", EX).open(3);
    let global = world.waits(global);
    let child = world.ask("ref-x.lock", EX).now_or_never();
    assert_eq!(
        world.refused(child),
        Refusal::WouldBlock,
        "a child stands behind the waiter for the scope"
    );
    world.close(1);
    assert_eq!(world.grants(), []);
    world.close(2);
    assert_eq!(world.grants(), [global], "names outside the scope do not matter");
    let child = world.ask("ref-x.lock", EX).open(4);
    let child = world.waits(child);
    world.close(3);
    assert_eq!(world.grants(), [child]);
}

#[test]
fn a_shared_holder_of_the_scope_leaves_room_for_children() {
    let mut world = World::new();
    let reader = world.ask("global.lock", SH).flock(1);
    world.granted(reader);
    world.hold("worktree-a.lock", 2);
}

#[test]
fn scopes_nest_as_configured() {
    let mut settings = Settings::default();
    settings
        .set("parents", "issue-*.lock=project.lock project.lock=world.lock")
        .expect("rules");
    let mut world = World::with(settings, Bounds::default());
    world.hold("issue-1.lock", 1);
    for above in ["project.lock", "world.lock"] {
        let ask = world.ask(above, EX).now_or_never();
        assert_eq!(world.refused(ask), Refusal::WouldBlock, "{above}");
    }
    assert_eq!(world.engine.holders_below("world.lock").count(), 1);
    world.close(1);
    world.hold("world.lock", 2);
    assert_eq!(
        world.engine.availability(&lock("issue-1.lock"), &[]),
        Availability::Taken
    );
    assert_eq!(
        world.engine.forbidding_scope(&lock("issue-1.lock")),
        Some(&lock("world.lock"))
    );
}

#[test]
fn a_scope_and_its_child_in_one_request_do_not_exclude_each_other() {
    let mut world = World::new();
    let both = world.ask_all(&["worktree-a.lock", "global.lock"], EX).transaction(1);
    world.granted(both);
    world.close(1);
    assert!(world.engine.is_idle());
}

#[test]
fn a_descendant_of_a_holder_goes_ahead_of_those_who_wait_for_the_scope() {
    let mut world = World::new();
    let parent = world.ask("worktree-a.lock", EX).open(1).by(10);
    world.granted(parent);
    let global = world.ask("global.lock", EX).open(2).priority(10);
    let global = world.waits(global);
    let child = world.ask("ref-x.lock", EX).open(3).lineage(&[11, 10]);
    world.granted(child);
    let later = world.ask("ref-y.lock", EX).open(4).lineage(&[12]);
    let later = world.waits(later);
    assert!(world.engine.waits_behind_scope(later, world.now()));
    assert_eq!(
        world.engine.availability(&lock("ref-z.lock"), &[ProcessId(10)]),
        Availability::Free
    );
    assert_eq!(
        world.engine.availability(&lock("ref-z.lock"), &[]),
        Availability::BehindScope
    );
    world
        .run(Command::Promote {
            request: later,
            lineage: vec![ProcessId(12), ProcessId(10)],
        })
        .expect("promoted");
    assert_eq!(world.grants(), [later], "also when its ancestors are known only later");
    for handle in [1, 3, 4] {
        world.close(handle);
    }
    assert_eq!(world.grants(), [global]);
}

#[test]
fn an_upgrade_below_a_scope_does_not_wait_for_those_who_wait_for_it() {
    let mut world = World::new();
    let reader = world.ask("ref-x.lock", SH).flock(1);
    world.granted(reader);
    let global = world.ask("global.lock", EX).open(2).priority(10);
    let global = world.waits(global);
    let upgrade = world.ask("ref-x.lock", EX).flock(1);
    world.granted(upgrade);
    world.close(1);
    assert_eq!(world.grants(), [global]);
}

#[test]
fn locks_in_use_keep_their_scope_until_they_are_free() {
    let mut world = World::new();
    world.hold("worktree-a.lock", 1);
    let mut settings = Settings::default();
    settings.set("parents", "").expect("none");
    world.run(Command::Configure(settings)).expect("configured");
    let global = world.ask("global.lock", EX).now_or_never();
    assert_eq!(world.refused(global), Refusal::WouldBlock);
    world.close(1);
    world.hold("worktree-a.lock", 2);
    world.hold("global.lock", 3);
}
