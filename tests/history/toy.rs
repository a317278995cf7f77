//! A toy arbiter with a switch for each seeded bug, driven by random schedules: without a fault the checker must be
//! silent on every schedule, with a fault it must speak up.
//!
//! One exclusive lock, owned by PID; PIDs come from a pool so small that they are reused at once.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::checker::{Violation, check};
use crate::record::{Answer, Client, End, Mode, Nanos, Request};

/// What is wrong with the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Every third release is forgotten.
    LostRelease,
    /// The death of an owner is noticed late and by its PID alone: if the PID lives again, so does the owner.
    ReusedPid,
    /// Who gave up is told so, but stays in the line.
    GrantAfterCancel,
}

/// One step of a schedule; operands are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire(usize),
    Try(usize),
    Release,
    Cancel(usize),
    Die(usize),
}

const PIDS: u32 = 4;

/// The arbiter: knows processes by their PID, as a bad one would.
struct Toy {
    fault: Fault,
    holder: Option<Pid>,
    line: VecDeque<Pid>,
    token: u64,
    releases: u32,
}

type Pid = u32;

impl Toy {
    /// Serves the line; tells who got which token.
    fn serve(&mut self) -> Option<(Pid, u64)> {
        if self.holder.is_some() {
            return None;
        }
        let next = self.line.pop_front()?;
        Some((next, self.grant(next)))
    }

    fn grant(&mut self, pid: Pid) -> u64 {
        self.holder = Some(pid);
        self.token += 1;
        self.token
    }

    fn release(&mut self) {
        self.releases += 1;
        if self.fault != Fault::LostRelease || !self.releases.is_multiple_of(3) {
            self.holder = None;
        }
    }

    fn cancel(&mut self, pid: Pid) {
        if self.fault != Fault::GrantAfterCancel {
            self.line.retain(|&p| p != pid);
        }
    }

    /// A process died; `alive_again` says whether its PID is in use by the time somebody looks.
    fn death(&mut self, pid: Pid, alive_again: bool) {
        self.line.retain(|&p| p != pid);
        if self.holder == Some(pid) && !(self.fault == Fault::ReusedPid && alive_again) {
            self.holder = None;
        }
    }
}

/// The world around the toy: which client has which PID, and what each has logged.
struct World {
    toy: Toy,
    now: Nanos,
    clients: BTreeMap<Pid, Client>,
    born: u32,
    /// The open request of each PID, by its index in `log`.
    open: BTreeMap<Pid, usize>,
    log: Vec<Request>,
}

impl World {
    fn new(fault: Fault) -> Self {
        Self {
            toy: Toy {
                fault,
                holder: None,
                line: VecDeque::new(),
                token: 0,
                releases: 0,
            },
            now: 0,
            clients: (0..PIDS).map(|pid| (pid, Client(pid))).collect(),
            born: PIDS,
            open: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    fn tick(&mut self) -> Nanos {
        self.now += 1;
        self.now
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Acquire(pick) => self.acquire(pick, true),
            Step::Try(pick) => self.acquire(pick, false),
            Step::Release => self.release(),
            Step::Cancel(pick) => self.cancel(pick),
            Step::Die(pick) => self.die(pick),
        }
        self.serve();
    }

    fn acquire(&mut self, pick: usize, wait: bool) {
        let pid = pick as Pid % PIDS;
        if self.open.contains_key(&pid) {
            return;
        }
        let called = self.tick();
        let busy = self.toy.holder.is_some() || !self.toy.line.is_empty();
        let answer = if !busy {
            let token = self.toy.grant(pid);
            self.granted(token)
        } else if wait {
            self.toy.line.push_back(pid);
            Answer::Missing
        } else {
            Answer::Busy { returned: self.tick() }
        };
        // What is in the line was seen there at once: order is always proven.
        let queued_by = matches!(answer, Answer::Missing).then(|| self.tick());
        if !matches!(answer, Answer::Busy { .. }) {
            self.open.insert(pid, self.log.len());
        }
        self.log.push(Request {
            client: self.clients[&pid],
            lock: "x.lock".to_owned(),
            mode: Mode::Exclusive,
            priority: 5,
            called,
            queued_by,
            answer,
        });
    }

    fn granted(&mut self, token: u64) -> Answer {
        Answer::Granted {
            returned: self.tick(),
            token: Some(token),
            end: End::Held,
        }
    }

    fn serve(&mut self) {
        while let Some((pid, token)) = self.toy.serve() {
            let answer = self.granted(token);
            match self.open.get(&pid) {
                Some(&at) => self.log[at].answer = answer,
                // Nobody listens any more: the client that gave up never learns of its grant.
                None => return,
            }
        }
    }

    /// Whoever believes that it holds the lock releases it.
    fn release(&mut self) {
        let believer = self
            .open
            .iter()
            .find(|(_, at)| holds(&self.log[**at]))
            .map(|(&pid, &at)| (pid, at));
        let Some((pid, at)) = believer else { return };
        let called = self.tick();
        self.toy.release();
        let returned = self.tick();
        end_section(&mut self.log[at], End::Released { called, returned });
        self.open.remove(&pid);
    }

    fn cancel(&mut self, pick: usize) {
        let waiting: Vec<Pid> = self
            .open
            .iter()
            .filter(|(_, at)| !holds(&self.log[**at]))
            .map(|(&p, _)| p)
            .collect();
        let Some(&pid) = waiting.get(pick % waiting.len().max(1)) else {
            return;
        };
        let asked = self.tick();
        self.toy.cancel(pid);
        let returned = self.tick();
        let at = self.open.remove(&pid).expect("it was picked from the open ones");
        self.log[at].answer = Answer::Cancelled { asked, returned };
    }

    /// A client dies, and a new one gets its PID at once.
    fn die(&mut self, pick: usize) {
        let pid = pick as Pid % PIDS;
        let killed = self.tick();
        self.toy.death(pid, true);
        let reaped = self.tick();
        if let Some(at) = self.open.remove(&pid) {
            if holds(&self.log[at]) {
                end_section(&mut self.log[at], End::Died { killed, reaped });
            } else {
                self.log[at].answer = Answer::Died { killed, reaped };
            }
        }
        self.clients.insert(pid, Client(self.born));
        self.born += 1;
    }

    /// Everybody finishes; who is still waiting then was forgotten.
    fn finish(mut self) -> Vec<Request> {
        for _ in 0..2 * PIDS {
            self.step(Step::Release);
        }
        self.log
    }
}

fn holds(request: &Request) -> bool {
    matches!(request.answer, Answer::Granted { end: End::Held, .. })
}

fn end_section(request: &mut Request, with: End) {
    if let Answer::Granted { end, .. } = &mut request.answer {
        *end = with;
    }
}

fn history(fault: Fault, steps: &[Step]) -> Vec<Request> {
    let mut world = World::new(fault);
    for &step in steps {
        world.step(step);
    }
    world.finish()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<usize>().prop_map(Step::Acquire),
        2 => any::<usize>().prop_map(Step::Try),
        4 => Just(Step::Release),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Die),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn a_correct_arbiter_is_never_blamed(steps in steps()) {
        prop_assert_eq!(check(&history(Fault::None, &steps)), []);
    }
}

/// The violations of the first random schedule on which a faulty arbiter shows.
fn caught(fault: Fault) -> Vec<Violation> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..200 {
        let schedule = steps().new_tree(&mut runner).expect("a schedule").current();
        let violations = check(&history(fault, &schedule));
        if !violations.is_empty() {
            return violations;
        }
    }
    panic!("200 random schedules of an arbiter with {fault:?}, and the checker saw nothing");
}

#[test]
fn an_arbiter_that_loses_releases_is_caught() {
    caught(Fault::LostRelease);
}

#[test]
fn an_arbiter_that_is_fooled_by_a_reused_pid_is_caught() {
    caught(Fault::ReusedPid);
}

#[test]
fn an_arbiter_that_grants_after_a_cancel_is_caught() {
    caught(Fault::GrantAfterCancel);
}
