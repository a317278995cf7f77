//! What a next life of the service makes of what it finds: processes that ended, a new mount, a power cut, a full disk.

use std::time::Duration;

use git_lockfs::adapters::Clock;
use git_lockfs::adapters::memory::Crash;
use git_lockfs::service::api::{Answer, Call, Files};
use git_lockfs::types::{Mode, Refusal, Settings, Unique};

use crate::world::{BOTH, LOCKS, Namesake, Program, READ, WRITE, World, by, me, opened};

fn token_of(world: &World, name: &str) -> u64 {
    let text = world.text(name);
    let token = text.lines().find_map(|line| line.strip_prefix("token="));
    token.expect("it is held").parse().expect("a number")
}

/// Takes a lock and says whose it is, as `echo PID > locks/NAME` does.
fn declare(world: &World, name: &str, owner: &Program) {
    let handle = world.take(me(), name);
    let text = owner.pid().to_string();
    assert!(matches!(
        world.write(me(), handle, 0, text.as_bytes()),
        Answer::Written(_)
    ));
    world.close(handle);
}

#[test]
fn an_owner_that_ended_while_nobody_served_has_let_go() {
    let world = World::bare(Settings::default(), true);
    let (mut dead, living) = (Program::sleeping(), Program::sleeping());
    declare(&world, "dead.lock", &dead);
    declare(&world, "living.lock", &living);
    let node = world.node(LOCKS, "dead.lock");
    let waits = world.park(by(0), Call::Open { node, mode: WRITE });
    let world = world.next_life(|| dead.end());
    assert!(
        world.is_parked(waits),
        "the kernel does not know it under its old number"
    );
    let came_again = world.service.call(waits, by(0), Call::Open { node, mode: WRITE });
    assert!(opened(came_again.expect("it was granted meanwhile")).is_ok());
    assert!(!world.is_free("living.lock"));
}

#[test]
fn an_owner_is_watched_on_by_the_next_life() {
    let world = World::bare(Settings::default(), true);
    let mut owner = Program::sleeping();
    declare(&world, "x.lock", &owner);
    let mut world = world.next_life(|| {});
    world.attend();
    let node = world.node(LOCKS, "x.lock");
    let waits = world.park(by(0), Call::Open { node, mode: WRITE });
    owner.end();
    assert!(opened(world.answer_to(waits)).is_ok());
}

#[test]
fn a_wait_whose_caller_was_killed_meanwhile_takes_nothing() {
    let world = World::bare(Settings::default(), true);
    let held = world.take(by(0), "x.lock");
    let node = world.node(LOCKS, "x.lock");
    world.park(by(0), Call::Open { node, mode: WRITE });
    let world = world.next_life(|| {});
    world.close(held);
    assert!(!world.is_free("x.lock"), "it was granted to the one who waited");
    world.service.all_came_again();
    assert!(world.is_free("x.lock"), "who never came again");
}

#[test]
fn what_was_granted_to_one_who_was_killed_before_it_heard_of_it_is_free() {
    let world = World::bare(Settings::default(), true);
    let (mut killed, told) = (Program::sleeping(), Program::sleeping());
    world.take(by(told.pid()), "y.lock");
    // The last thing that this life decides: whether the answer left is not in the journal.
    world.take(by(killed.pid()), "x.lock");
    let mut world = world.next_life(|| killed.end());
    world.service.all_came_again();
    world.inspect();
    world.until("x.lock is free", || world.is_free("x.lock"));
    assert!(!world.is_free("y.lock"), "of this one it is known that it was told");
}

/// The life that would have looked for it may die before it does.
#[test]
fn what_was_granted_to_one_who_was_killed_is_free_also_after_two_deaths() {
    let world = World::bare(Settings::default(), true);
    let mut killed = Program::sleeping();
    world.take(by(killed.pid()), "x.lock");
    let world = world.next_life(|| killed.end());
    world.service.all_came_again();
    let held = world.take(by(0), "y.lock");
    let mut world = world.next_life(|| {});
    world.service.all_came_again();
    world.inspect();
    world.until("x.lock is free", || world.is_free("x.lock"));
    assert!(!world.is_free("y.lock"));
    world.close(held);
}

#[test]
fn who_is_behind_a_transaction_is_told_once_however_often_the_service_dies() {
    let mut world = World::new();
    let handle = world.open_root(me(), "acquire", BOTH);
    assert_eq!(world.write(me(), handle, 0, b"locks=x.lock"), Answer::Written(12));
    assert!(matches!(world.read(handle), Answer::Data(_)), "the token");
    let node = world.node(LOCKS, "x.lock");
    let waiter = Program::sleeping();
    world.park(by(waiter.pid()), Call::Open { node, mode: WRITE });
    let Answer::Data(line) = world.read(handle) else {
        panic!("a line")
    };
    assert!(String::from_utf8_lossy(&line).starts_with(&format!("wanted by={}", waiter.pid())));
    for _ in 0..2 {
        world = world.next_life(|| {});
        world.inspect();
        // The inspector looks at waits in order, and this is answered after those that were there before.
        let held = world.take(by(0), "y.lock");
        let node = world.node(LOCKS, "y.lock");
        let second = Program::sleeping();
        let waits = world.park(by(second.pid()), Call::Open { node, mode: WRITE });
        assert!(world.text("y.lock").contains("waiters=1"));
        assert!(!world.open_root(me(), "README", READ).to_string().is_empty());
        world.close(held);
        let next = opened(world.answer_to(waits)).expect("granted");
        world.close(next);
    }
    let offset = 0;
    let more = world.park(
        me(),
        Call::Read {
            handle,
            offset,
            size: 4096,
        },
    );
    assert!(world.is_parked(more), "nothing new was said");
}

#[test]
fn after_a_mount_that_ended_uncleanly_locks_last_as_long_as_their_owners() {
    let world = World::bare(Settings::default(), true);
    let (mut owner, mut opener, gone) = (Program::sleeping(), Program::sleeping(), Program::sleeping());
    declare(&world, "owner.lock", &owner);
    world.take(by(opener.pid()), "opened.lock");
    let (node, handle) = world.lockable(by(opener.pid()), "flocked.lock");
    let flock = world.flock(node, handle, Some(Mode::Shared), false);
    assert_eq!(world.call(by(opener.pid()), flock), Answer::Done);
    world.take(by(gone.pid()), "gone.lock");
    world.take(by(0), "unseen.lock");
    let node = world.node(LOCKS, "opened.lock");
    world.park(by(0), Call::Open { node, mode: WRITE });
    let before = token_of(&world, "unseen.lock");

    let (mut world, mut kept) = world.next_mount(Crash::Killed, Settings::default(), || drop(gone));
    kept.sort();
    let names: Vec<&str> = kept.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["flocked.lock", "opened.lock", "owner.lock", "unseen.lock"]);
    assert!(world.is_free("gone.lock"));
    world.inspect();
    assert!(world.text("opened.lock").contains("waiters=0"), "nobody waits any more");
    world.attend();
    owner.end();
    opener.end();
    for name in ["owner.lock", "opened.lock", "flocked.lock"] {
        world.until(name, || world.is_free(name));
    }
    world.take(by(0), "opened.lock");
    assert!(token_of(&world, "opened.lock") > before);
    // Nobody can say who has it: anybody who cannot be seen either may remove it.
    let (parent, name) = (LOCKS, &b"unseen.lock"[..]);
    assert_eq!(world.call(by(0), Call::Unlink { parent, name }), Answer::Done);
}

#[test]
fn a_process_with_the_number_of_one_that_is_gone_keeps_nothing() {
    // Somebody else may take the number first; then it is tried with another one.
    for _ in 0..100 {
        let world = World::bare(Settings::default(), true);
        let mut gone = Program::sleeping();
        world.take(by(gone.pid()), "x.lock");
        let taken = Clock::now().mono;
        // /proc counts in hundredths of a second.
        world.until("a tick", || Clock::now().mono.since(taken) > Duration::from_millis(10));
        gone.end();
        let _namesake = match Namesake::of(gone.pid()) {
            Ok(namesake) => namesake,
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => continue,
            Err(error) => {
                eprintln!("skipped: a PID cannot be chosen here ({error})");
                return;
            }
        };
        let (world, kept) = world.next_mount(Crash::Killed, Settings::default(), || {});
        assert_eq!(kept, Vec::<String>::new());
        assert!(world.is_free("x.lock"));
        return;
    }
    panic!("100 PIDs in a row were taken by others");
}

#[test]
fn after_a_power_cut_only_the_tokens_are_left() {
    let world = World::bare(Settings::default(), true);
    world.take(by(0), "x.lock");
    let before = token_of(&world, "x.lock");
    world.disk.write_back();
    let (world, kept) = world.next_mount(Crash::PowerCut, Settings::default(), || {});
    assert_eq!(kept, Vec::<String>::new());
    world.take(by(0), "x.lock");
    assert!(token_of(&world, "x.lock") > before);
}

#[test]
fn settings_are_those_of_the_former_life_whatever_git_says_by_now() {
    let mut settings = Settings::default();
    settings.set("wait", "50ms").expect("a limit");
    let mut world = World::bare(settings, true).next_life(|| {});
    let _held = world.take(by(0), "x.lock");
    let node = world.node(LOCKS, "x.lock");
    let waits = world.park(by(0), Call::Open { node, mode: WRITE });
    world.attend();
    assert_eq!(world.answer_to(waits), Answer::Refused(Refusal::TimedOut));
}

#[test]
fn while_the_disk_is_full_nothing_is_granted_and_everything_can_be_given_back() {
    let mut world = World::bare(Settings::default(), true);
    let held = world.take(by(0), "x.lock");
    let node = world.node(LOCKS, "x.lock");
    let waits = world.park(by(0), Call::Open { node, mode: WRITE });
    world.disk.set_room(Some(0));
    // The first call that meets it is decided but not told; the next ones are refused at once.
    let (first, answer) = world.send(
        by(0),
        Call::Create {
            parent: LOCKS,
            name: b"y.lock",
            mode: WRITE,
        },
    );
    assert_eq!(answer, None);
    assert_eq!(world.create(by(0), "z.lock", WRITE).err(), Some(Refusal::Full));
    world.close(held);
    assert!(world.is_parked(waits), "granted, and not told");
    assert!(world.is_parked(first));
    assert!(world.text("x.lock").contains("token="), "everything can be read");
    world.disk.set_room(None);
    world.attend();
    let next = opened(world.answer_to(waits)).expect("granted");
    assert!(matches!(world.answer_to(first), Answer::Created(..)));
    let world = world.next_life(|| {});
    assert!(
        !world.is_free("x.lock") && !world.is_free("y.lock"),
        "what was told is known"
    );
    world.close(next);
    assert!(world.is_free("x.lock"));
}

#[test]
fn a_call_that_was_refused_leaves_nothing_in_the_journal() {
    let world = World::bare(Settings::default(), true);
    let held = world.take(by(0), "x.lock");
    let writes = world.disk.writes();
    for _ in 0..3 {
        assert_eq!(
            world.create(by(0), "x.lock", crate::world::TRY).err(),
            Some(Refusal::WouldBlock)
        );
        assert!(!world.is_free("x.lock"));
        assert!(matches!(
            world.call(by(0), Call::GetAttr { node: LOCKS }),
            Answer::Attr(_)
        ));
        assert_eq!(world.call(by(0), Call::Flush { handle: held, owner: 7 }), Answer::Done);
        world.interrupt(Unique(1));
    }
    assert_eq!(world.disk.writes(), writes);
}

#[test]
fn without_a_kernel_that_sends_again_what_nobody_has_open_is_closed() {
    let world = World::bare(Settings::default(), true);
    let held = world.take(me(), "x.lock");
    let node = world.node(LOCKS, "x.lock");
    let waits = world.park(by(0), Call::Open { node, mode: WRITE });
    let owner = Program::sleeping();
    declare(&world, "y.lock", &owner);
    let world = world.next_life(|| {});
    world.service.reconcile();
    assert!(
        world.is_free("x.lock"),
        "nobody has a descriptor of it: there is no mount"
    );
    assert!(!world.is_free("y.lock"), "this one lives by its owner");
    assert!(world.is_parked(waits));
    world.close(held);
}
