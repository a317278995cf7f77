//! Every schedule of three owners, two locks and five steps: most bugs of fairness and exclusion need no more.
//!
//! After each step the engine keeps its invariants and agrees with the naive arbiter of the model test
//! about who holds and who waits. Owners are interchangeable, so a new one acts only after those before it.

#[allow(dead_code, reason = "the model test uses the rest")]
#[path = "model/reference.rs"]
mod reference;

use std::time::Duration;

use git_lockfs::engine::{Acquire, Bounds, Claim, Command, Engine, Owner, Party, Reply, Taking, Wait, Way};
use git_lockfs::types::{
    HandleId, LockName, Mode, Moment, Priority, ProcessId, Range, Refusal, Settings, Token, Unique,
};

use reference::{Answer, Ask, Life, Lock, NAMES, PARENTS, Reference};

const OWNERS: u64 = 3;
const STEPS: u64 = 5;

/// What an owner does in one step.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Waits for one lock.
    Wait(Lock, Mode),
    /// Tries one lock.
    Try(Lock),
    /// Waits for both at once.
    Both,
    /// Lets go of one lock.
    Release(Lock),
    /// Lets go of both that were taken at once.
    ReleaseBoth,
    /// A signal ends its wait.
    Cancel,
}

#[derive(Clone)]
struct World {
    locks: [Lock; 2],
    engine: Engine,
    reference: Reference,
    steps: u64,
    schedule: Vec<(u64, Step)>,
}

/// The handle of an owner on a lock; `None` is the one for both.
fn handle(owner: u64, lock: Option<Lock>) -> HandleId {
    HandleId(owner * 100 + lock.map_or(50, |lock| lock as u64))
}

fn name(lock: Lock) -> LockName {
    LockName::parse_lock(NAMES[lock].as_bytes()).expect("model names are valid")
}

impl World {
    fn new(locks: [Lock; 2]) -> Self {
        let mut settings = Settings::default();
        settings.set("parents", PARENTS).expect("model scopes are valid");
        Self {
            locks,
            engine: Engine::new(settings, Bounds::default(), Token(1)..Token(u64::MAX)),
            reference: Reference::default(),
            steps: 0,
            schedule: Vec::new(),
        }
    }

    /// What an owner could do now.
    fn choices(&self, owner: u64) -> Vec<Step> {
        if self.reference.line.iter().any(|waiting| waiting.ask.taker == owner) {
            return vec![Step::Cancel];
        }
        let holds = |way, lock: Option<Lock>| {
            let mut held = self
                .reference
                .held
                .iter()
                .filter(|held| held.taker == owner && held.way == way);
            held.any(|held| lock == Some(held.lock) || lock.is_none())
        };
        let mut choices = Vec::new();
        for lock in self.locks {
            choices.extend([Step::Wait(lock, Mode::Exclusive), Step::Wait(lock, Mode::Shared)]);
            // Where nobody else holds anything, trying is waiting.
            if self.reference.held.iter().any(|held| held.taker != owner) {
                choices.push(Step::Try(lock));
            }
            if holds(Way::Flock, Some(lock)) {
                choices.push(Step::Release(lock));
            }
        }
        choices.push(if holds(Way::Transaction, None) {
            Step::ReleaseBoth
        } else {
            Step::Both
        });
        choices
    }

    fn take(&mut self, owner: u64, locks: &[Lock], mode: Mode, wait: bool) {
        let id = self.steps;
        let is_both = locks.len() > 1;
        let handle = handle(owner, locks.first().copied().filter(|_| !is_both));
        let (taking, way) = if is_both {
            (Taking::Transaction(handle), Way::Transaction)
        } else {
            (Taking::Flock(handle), Way::Flock)
        };
        let acquire = Acquire {
            id: Unique(id),
            claims: locks.iter().map(|&lock| Claim::whole(name(lock), mode)).collect(),
            taking,
            // Without a thread to know it by, an interrupted wait keeps no place.
            party: Party {
                process: Some(ProcessId(owner)),
                ..Party::default()
            },
            priority: Priority::MAX,
            wait: if wait { Wait::Forever } else { Wait::No },
            ticket: None,
            lineage: Vec::new(),
        };
        let ask = Ask {
            id,
            claims: locks.iter().map(|&lock| (lock, mode, Range::WHOLE)).collect(),
            owner: Owner::Handle(handle),
            way,
            life: Life::Descriptor,
            taker: owner,
            lineage: Vec::new(),
            level: 10,
            wait: wait.then_some(None),
            ticket: None,
        };
        let answer = match self.command(Command::Acquire(acquire)) {
            Ok(Reply::Granted(_)) => Answer::Granted,
            Ok(_) => Answer::Waiting,
            Err(refusal) => Answer::Refused(refusal),
        };
        assert_eq!(self.reference.acquire(ask), answer, "{:?}", self.schedule);
    }

    fn command(&mut self, command: Command) -> Result<Reply, Refusal> {
        let result = self.engine.handle(Moment::at_millis(0), command);
        self.engine.check_invariants(Moment::at_millis(0));
        result
    }

    fn act(&mut self, owner: u64, step: Step) {
        self.steps += 1;
        self.schedule.push((owner, step));
        match step {
            Step::Wait(lock, mode) => self.take(owner, &[lock], mode, true),
            Step::Try(lock) => self.take(owner, &[lock], Mode::Exclusive, false),
            Step::Both => self.take(owner, &self.locks.clone(), Mode::Exclusive, true),
            Step::Release(lock) => self.release(handle(owner, Some(lock))),
            Step::ReleaseBoth => self.release(handle(owner, None)),
            Step::Cancel => {
                let waiting = self.reference.line.iter().find(|waiting| waiting.ask.taker == owner);
                let id = waiting.expect("only who waits can be cancelled").ask.id;
                self.command(Command::Cancel(Unique(id)))
                    .expect("a wait can be cancelled");
                self.reference.cancel(id, Refusal::TimedOut);
            }
        }
        self.reference.settle(Duration::ZERO);
        self.compare();
    }

    fn release(&mut self, handle: HandleId) {
        self.command(Command::Close(handle)).expect("a close succeeds");
        self.reference.held.retain(|held| held.owner != Owner::Handle(handle));
    }

    fn compare(&mut self) {
        while self.engine.poll_effect().is_some() {}
        for lock in self.locks {
            let name = NAMES[lock];
            let holders = self
                .engine
                .holders(name)
                .map(|holder| (holder.grant.owner.handle(), holder.mode));
            let mut holders: Vec<_> = holders.collect();
            let held = self.reference.held.iter().filter(|held| held.lock == lock);
            let mut held: Vec<_> = held.map(|held| (held.owner.handle(), held.mode)).collect();
            holders.sort();
            held.sort();
            assert_eq!(holders, held, "{name} after {:?}", self.schedule);
            let waiters = self.engine.waiters(name, Moment::at_millis(0)).len();
            let line = self.reference.line.iter();
            let line = line
                .filter(|waiting| waiting.ask.claims.iter().any(|claim| claim.0 == lock))
                .count();
            assert_eq!(waiters, line, "{name} after {:?}", self.schedule);
        }
    }

    /// Tries everything that can happen from here on; says how many schedules that were.
    fn explore(&self) -> u64 {
        if self.steps == STEPS {
            return 1;
        }
        let acted = self.schedule.iter().map(|(owner, _)| owner + 1).max().unwrap_or(0);
        let mut schedules = 0;
        for owner in 0..OWNERS.min(acted + 1) {
            for step in self.choices(owner) {
                let mut world = self.clone();
                world.act(owner, step);
                schedules += world.explore();
            }
        }
        schedules
    }
}

#[test]
fn every_schedule_on_two_locks_that_stand_alone_agrees_with_the_reference() {
    assert!(
        World::new([3, 6]).explore() > 50_000,
        "the worlds are explored, not skipped"
    );
}

#[test]
fn every_schedule_on_a_scope_and_its_child_agrees_with_the_reference() {
    assert!(
        World::new([0, 1]).explore() > 50_000,
        "the worlds are explored, not skipped"
    );
}
