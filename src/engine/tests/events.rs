//! What observers are told: each event once, with its lock, mode, process, session, operation and duration.

use std::time::Duration;

use super::*;

impl World {
    /// What observers were told since the last look, without who: of which lock, in which mode, and what.
    fn told(&mut self) -> Vec<(String, Mode, Happening)> {
        let events = self.events();
        let told = events
            .into_iter()
            .map(|event| (event.lock.to_string(), event.mode, event.what));
        told.filter(|(_, _, what)| *what != Happening::Identified).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        let log = std::mem::take(&mut self.log).into_iter();
        log.filter_map(|effect| match effect {
            Effect::Event(event) => Some(event),
            _ => None,
        })
        .collect()
    }
}

/// A lock by its name, exclusive.
fn of(what: Happening) -> (String, Mode, Happening) {
    ("x.lock".to_owned(), EX, what)
}

fn released(millis: u64, how: Ending) -> Happening {
    let held = Duration::from_millis(millis);
    Happening::Released { held, how }
}

fn acquired(millis: u64) -> Happening {
    let waited = Duration::from_millis(millis);
    Happening::Acquired { waited }
}

#[test]
fn a_grant_a_wait_and_a_release_are_told_with_their_durations() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    world.pass(100);
    let ask = world.ask("x.lock", SH).open(2);
    world.waits(ask);
    world.pass(250);
    world.close(1);
    world.pass(30);
    world.close(2);
    let shared = |what| ("x.lock".to_owned(), SH, what);
    assert_eq!(
        world.told(),
        [
            of(acquired(0)),
            shared(Happening::Waited),
            of(released(350, Ending::Released)),
            shared(acquired(250)),
            shared(released(30, Ending::Released)),
        ]
    );
}

#[test]
fn a_wait_that_ends_without_a_grant_is_told_with_its_duration() {
    let mut world = World::new();
    world.hold("x.lock", 1);
    let limit = world.tick(500);
    let ask = world.ask("x.lock", EX).open(2).until(limit);
    world.waits(ask);
    world.pass(500);
    let waited = Duration::from_millis(500);
    assert_eq!(
        world.told()[1..],
        [of(Happening::Waited), of(Happening::TimedOut { waited })]
    );
    // Two who share it and both want it for themselves would wait for each other.
    let mut world = World::new();
    for handle in [1, 2] {
        let ask = world.ask("x.lock", SH).flock(handle);
        world.granted(ask);
    }
    let first = world.ask("x.lock", EX).flock(1);
    world.waits(first);
    let second = world.ask("x.lock", EX).flock(2);
    assert_eq!(world.refused(second), Refusal::Deadlock);
    let waited = Duration::ZERO;
    assert_eq!(world.told().last(), Some(&of(Happening::Deadlocked { waited })));
}

#[test]
fn an_end_that_the_holder_did_not_choose_is_told_as_what_it_was() {
    let mut world = World::new();
    let token = world.hold("x.lock", 1);
    world.pass(70);
    let stranger = Actor {
        tid: 50,
        uid: 0,
        lineage: vec![ProcessId(9)],
    };
    let remove = Command::Remove {
        lock: lock("x.lock"),
        actor: stranger,
    };
    world.run(remove).expect_err("it is another's");
    let attempts = world.events();
    let attempt = attempts.last().expect("it is told");
    assert_eq!((attempt.what, attempt.who.pid), (Happening::StealAttempt, 50));
    let lock = lock("x.lock");
    world.run(Command::Break { lock, token }).expect("the right token");
    assert_eq!(world.told(), [of(released(70, Ending::Broken))]);

    let made = world.ask("x.lock", EX).made(Shape::Directory, &[7]);
    world.granted(made);
    let gone = Command::Exited {
        process: ProcessId(7),
        cleanly: false,
    };
    world.pass(10);
    world.run(gone).expect("it is watched");
    let lease = world.engine.settings().lease;
    world.pass(u64::try_from(lease.as_millis()).expect("minutes"));
    let told = world.told();
    let Some((_, EX, Happening::Released { held, how })) = told.last() else {
        panic!("it has ended: {told:?}");
    };
    assert_eq!((*how, *held), (Ending::Stale, lease));
}

#[test]
fn who_it_was_is_told_as_far_as_it_is_known() {
    let mut world = World::new();
    let mut ask = world.ask("x.lock", EX).open(1).session("agent-7");
    ask.0.party.pid = 4242;
    ask.0.party.op = Some("git merge".into());
    let who = Who::of(&ask.0.party);
    world.granted(ask);
    world.close(1);
    let events = world.events();
    assert!(events.iter().all(|event| event.who == who), "{events:?}");
    assert_eq!(events.len(), 2);

    // Known later: an event of its own joins the two.
    world.hold("x.lock", 2);
    let acquired = world.events().pop().expect("it is told");
    let Subject::Grant(grant) = acquired.subject else {
        panic!("a grant: {acquired:?}");
    };
    assert_eq!(acquired.who, Who::default());
    let party = Party {
        pid: 4242,
        session: Some(session("agent-7")),
        op: Some("git merge".into()),
        ..Party::default()
    };
    world.run(Command::IdentifyGrant(grant, party)).expect("it holds");
    let identified = world.events().pop().expect("it is told");
    assert_eq!(
        (identified.what, identified.subject),
        (Happening::Identified, acquired.subject)
    );
    assert_eq!(identified.who, who);
}
