//! Runs the same operations on the engine and on the reference and compares all that can be seen.

use std::collections::BTreeSet;
use std::time::Duration;

use git_lockfs::engine::{
    Acquire, Actor, Bounds, Claim, Command, Effect, Engine, Make, Owner, Party, Reply, Shape, Taking, Target, Wait, Way,
};
use git_lockfs::types::{
    HandleId, LockName, Mode, Moment, Priority, ProcessId, Range, Refusal, Settings, Text, Tick, TicketName, Token,
    Unique,
};

use super::ops::{Dialect, Op, WaitFor};
use super::reference::{Answer, Ask, Life, Lock, NAMES, PARENTS, Reference};

const PROCESSES: usize = 5;
/// Of these, each for one lock: the descriptors that flock and fcntl use.
const HANDLES: usize = 14;

/// A holder as both sides see it: lock, mode, owner, bytes.
type Seen = (Lock, Mode, String, u64, u64);

pub struct Harness {
    engine: Engine,
    reference: Reference,
    millis: u64,
    next: u64,
    /// The processes alive; one that exits is replaced by another.
    processes: [u64; PROCESSES],
    /// Handles of flock and fcntl, then those of opens and transactions; closed ones are gone.
    handles: Vec<(HandleId, Option<Lock>)>,
    /// The tokens of all that is held, and the newest ever seen.
    tokens: BTreeSet<Token>,
    last_token: Token,
}

fn name(lock: Lock) -> LockName {
    LockName::parse_lock(NAMES[lock].as_bytes()).expect("model names are valid")
}

fn ticket_name(ticket: u8) -> TicketName {
    TicketName::parse(format!("t{ticket}").as_bytes()).expect("model tickets are valid")
}

fn range((start, length): (u64, u64)) -> Range {
    Range::new(start, start.saturating_add(length)).expect("model ranges are not empty")
}

fn posix_owner(handle: HandleId, fork: bool) -> u64 {
    handle.0 * 2 + u64::from(fork)
}

impl Harness {
    pub fn new() -> Self {
        let mut settings = Settings::default();
        settings.set("parents", PARENTS).expect("model scopes are valid");
        let mut harness = Self {
            engine: Engine::new(settings, Bounds::default(), Token(1)..Token(u64::MAX)),
            reference: Reference::default(),
            millis: 0,
            next: 0,
            processes: [0; PROCESSES],
            handles: Vec::new(),
            tokens: BTreeSet::new(),
            last_token: Token(0),
        };
        for index in 0..PROCESSES {
            harness.processes[index] = harness.fresh();
        }
        for index in 0..HANDLES {
            let handle = HandleId(harness.fresh());
            harness.handles.push((handle, Some(index % NAMES.len())));
        }
        harness
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.millis)
    }

    fn command(&mut self, command: Command) -> Result<Reply, Refusal> {
        let now = Moment::at_millis(self.millis);
        let result = self.engine.handle(now, command);
        self.engine.check_invariants(now);
        result
    }

    /// Runs one operation on both sides and compares.
    pub fn step(&mut self, op: &Op) {
        self.reference.settle(self.now());
        self.apply(op);
        let (mono, boot) = self.engine.next_deadline(Moment::at_millis(self.millis));
        if mono
            .into_iter()
            .chain(boot)
            .any(|tick| tick <= Moment::at_millis(self.millis).mono)
        {
            self.command(Command::Advance).expect("time passes");
        }
        self.reference.settle(self.now());
        self.compare(op);
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Acquire { .. } => self.acquire(op),
            Op::Cancel(index) => {
                if let Some(id) = pick(&self.reference.line, index).map(|waiting| waiting.ask.id) {
                    self.command(Command::Cancel(Unique(id)))
                        .expect("a wait can be cancelled");
                    self.reference.cancel(id, Refusal::Interrupted);
                }
            }
            Op::Close(index) => self.close(index),
            Op::Unflock(index) => {
                let (handle, Some(lock)) = self.handles[index % HANDLES] else {
                    return;
                };
                self.command(Command::Unflock {
                    lock: name(lock),
                    handle,
                })
                .expect("an unlock succeeds");
                self.reference
                    .held
                    .retain(|held| (held.lock, held.owner) != (lock, Owner::Handle(handle)));
            }
            Op::Unlock { handle, fork, bytes } => {
                let (handle, Some(lock)) = self.handles[handle % HANDLES] else {
                    return;
                };
                let (owner, range) = (posix_owner(handle, fork), range(bytes));
                self.command(Command::Unlock {
                    lock: name(lock),
                    owner,
                    handle,
                    range,
                })
                .expect("an unlock succeeds");
                self.reference.cut(lock, owner, range);
            }
            Op::Flush { handle, fork } => {
                let (handle, Some(lock)) = self.handles[handle % HANDLES] else {
                    return;
                };
                let owner = posix_owner(handle, fork);
                self.command(Command::Flush {
                    lock: name(lock),
                    owner,
                })
                .expect("a flush succeeds");
                self.reference.cut(lock, owner, Range::WHOLE);
            }
            Op::Declare { holder, process } => self.declare(holder, process),
            Op::Exited { process, cleanly } => {
                let gone = self.processes[process % PROCESSES];
                self.command(Command::Exited {
                    process: ProcessId(gone),
                    cleanly,
                })
                .expect("an exit is noted");
                self.reference.exited(gone, cleanly);
                self.processes[process % PROCESSES] = self.fresh();
            }
            Op::Remove { lock, process } => {
                let (lock, process) = (lock % NAMES.len(), self.processes[process % PROCESSES]);
                let actor = Actor {
                    tid: 1,
                    uid: 0,
                    lineage: vec![ProcessId(process)],
                };
                let removed = self
                    .command(Command::Remove {
                        lock: name(lock),
                        actor,
                    })
                    .is_ok();
                assert_eq!(self.reference.remove(lock, process), removed, "remove {}", NAMES[lock]);
            }
            Op::Break { holder, right } => self.break_lock(holder, right),
            Op::Withdraw(ticket) => {
                let _ = self.command(Command::Withdraw(ticket_name(ticket)));
                self.reference.withdraw(ticket);
            }
            Op::Drain(drained) => {
                self.command(Command::Drain(drained)).expect("a drain succeeds");
                self.reference.drained = drained;
            }
            Op::Pass(millis) => self.pass(millis),
        }
    }

    fn acquire(&mut self, op: &Op) {
        let Op::Acquire {
            dialect,
            locks,
            shared,
            bytes,
            handle,
            process,
            ancestor,
            level,
            wait,
            ticket,
        } = op
        else {
            return;
        };
        let id = self.fresh();
        let mut process = self.processes[process % PROCESSES];
        let mut locks: Vec<Lock> = locks.iter().map(|lock| lock % NAMES.len()).collect();
        let mut mode = if *shared { Mode::Shared } else { Mode::Exclusive };
        let mut claimed = Range::WHOLE;
        let mut wait = *wait;
        let (own, Some(own_lock)) = self.handles[handle % HANDLES] else {
            return;
        };
        let (mut life, new) = (Life::Descriptor, HandleId(self.fresh()));
        let (taking, way) = match dialect {
            Dialect::Open => {
                mode = Mode::Exclusive;
                self.handles.push((new, None));
                (Taking::Open(new), Way::Open)
            }
            Dialect::Transaction => {
                self.handles.push((new, None));
                (Taking::Transaction(new), Way::Transaction)
            }
            Dialect::Flock => (Taking::Flock(own), Way::Flock),
            Dialect::Posix => {
                let fork = handle % 3 == 0;
                claimed = range(*bytes);
                (
                    Taking::Posix {
                        owner: posix_owner(own, fork),
                        handle: own,
                    },
                    Way::Posix,
                )
            }
            Dialect::Excl | Dialect::Mkdir => {
                (mode, wait) = (Mode::Exclusive, WaitFor::Never);
                let keepers: Vec<u64> = std::iter::once(process)
                    .chain(ancestor.map(|a| self.process(a)))
                    .collect();
                let keepers: Vec<u64> = keepers.into_iter().take(if *shared { 2 } else { 1 }).collect();
                let is_excl = matches!(dialect, Dialect::Excl);
                if is_excl {
                    self.handles.push((new, None));
                }
                let make = Make {
                    handle: is_excl.then_some(new),
                    keepers: keepers.iter().copied().map(ProcessId).collect(),
                    shape: Shape::File,
                    text: None,
                    owner: None,
                    ino: None,
                };
                life = Life::Lease {
                    keepers,
                    had_keeper: true,
                    made: self.now(),
                };
                (Taking::Make(make), Way::Make)
            }
        };
        match dialect {
            Dialect::Flock | Dialect::Posix => locks = vec![own_lock],
            Dialect::Transaction => {
                locks.sort_unstable();
                locks.dedup();
            }
            _ => locks.truncate(1),
        }
        let is_multi = matches!(dialect, Dialect::Transaction);
        let ticket = ticket.filter(|_| is_multi);
        let lineage: Vec<u64> = ancestor.map(|a| vec![process, self.process(a)]).unwrap_or_default();
        if let Taking::Posix { owner, .. } = taking {
            // A lock owner of fcntl is one process, whatever handle it uses.
            process = owner + 1_000_000;
        }
        let owner = match taking {
            Taking::Posix { owner, handle } => Owner::Posix { owner, handle },
            Taking::Open(handle) | Taking::Flock(handle) | Taking::Transaction(handle) => Owner::Handle(handle),
            Taking::Make(ref make) => make.handle.map_or(Owner::Entry, Owner::Handle),
        };
        let limit = |millis| Duration::from_millis(self.millis + millis);
        let ask = Ask {
            id,
            claims: locks.iter().map(|&lock| (lock, mode, claimed)).collect(),
            owner,
            way,
            life,
            taker: process,
            lineage: lineage.clone(),
            level: u64::from(*level),
            wait: match wait {
                WaitFor::Never => None,
                WaitFor::Millis(millis) => Some(Some(limit(millis))),
                WaitFor::Ever => Some(None),
            },
            ticket,
        };
        let acquire = Acquire {
            id: Unique(id),
            claims: locks
                .iter()
                .map(|&lock| Claim {
                    lock: name(lock),
                    mode,
                    range: claimed,
                })
                .collect(),
            taking,
            party: Party {
                tid: process as u32,
                process: Some(ProcessId(process)),
                ..Party::default()
            },
            priority: Priority::new(*level).expect("model levels are valid"),
            wait: match wait {
                WaitFor::Never => Wait::No,
                WaitFor::Millis(millis) => Wait::Until(Tick(limit(millis).as_nanos() as u64)),
                WaitFor::Ever => Wait::Forever,
            },
            ticket: ticket.map(ticket_name),
            lineage: lineage.into_iter().map(ProcessId).collect(),
        };
        let answer = match self.command(Command::Acquire(acquire)) {
            Ok(Reply::Granted(token)) => {
                assert!(token.0 > 0, "a token is a number");
                Answer::Granted
            }
            Ok(Reply::Waiting) => Answer::Waiting,
            Ok(other) => panic!("an acquire is not answered with {other:?}"),
            Err(refusal) => Answer::Refused(refusal),
        };
        assert_eq!(self.reference.acquire(ask), answer, "{op:?}");
        self.reference.settle(self.now());
    }

    fn process(&self, index: usize) -> u64 {
        self.processes[index % PROCESSES]
    }

    fn close(&mut self, index: usize) {
        let index = index % self.handles.len();
        let (handle, lock) = self.handles[index];
        if self
            .reference
            .line
            .iter()
            .any(|waiting| waiting.ask.owner.handle() == Some(handle))
        {
            // A call is under way on that descriptor, so the kernel would not let go of it.
            return;
        }
        self.command(Command::Close(handle)).expect("a close succeeds");
        self.reference
            .held
            .retain(|held| held.owner.handle() != Some(handle) || held.life != Life::Descriptor);
        match lock {
            Some(_) => self.handles[index].0 = HandleId(self.fresh()),
            None => drop(self.handles.swap_remove(index)),
        }
    }

    fn declare(&mut self, holder: usize, process: usize) {
        let process = self.process(process);
        let is_text = |way| matches!(way, Way::Open | Way::Make);
        let open = |handle| self.handles.iter().any(|(known, _)| Some(*known) == handle);
        let mut held = self
            .reference
            .held
            .iter_mut()
            .filter(|held| is_text(held.way) && open(held.owner.handle()));
        let Some(held) = held.nth(holder % 3) else { return };
        held.life = Life::Process(process);
        let target = Target::Handle(held.owner.handle().expect("only handles were looked at"));
        let text = Text::parse(b"1").expect("a PID is a text");
        let declare = Command::Declare {
            target,
            text,
            owner: Some(ProcessId(process)),
            keepers: Vec::new(),
        };
        self.command(declare).expect("an opened lock takes a text");
    }

    fn break_lock(&mut self, holder: usize, right: bool) {
        let is_breakable = |way| !matches!(way, Way::Posix);
        let all = self.reference.held.iter().filter(|held| is_breakable(held.way));
        let all: Vec<(Lock, Owner)> = all.map(|held| (held.lock, held.owner)).collect();
        let Some(&(lock, owner)) = pick(&all, holder) else {
            return;
        };
        let holder = self
            .engine
            .holders(NAMES[lock])
            .find(|holder| holder.grant.owner == owner);
        let Token(token) = holder.expect("both sides hold it").grant.token;
        let token = Token(if right { token } else { u64::MAX });
        let result = self.command(Command::Break {
            lock: name(lock),
            token,
        });
        assert_eq!(result.is_ok(), right, "break {}", NAMES[lock]);
        if right {
            self.reference
                .held
                .retain(|held| (held.lock, held.owner) != (lock, owner));
        }
    }

    /// Lets time pass; the engine must have asked to be woken whenever something changes.
    fn pass(&mut self, millis: u64) {
        let end = self.millis + millis;
        loop {
            let (mono, boot) = self.engine.next_deadline(Moment::at_millis(self.millis));
            let due = mono
                .into_iter()
                .chain(boot)
                .min()
                .map(|tick| tick.0.div_ceil(1_000_000));
            let next = due.filter(|&due| due <= end);
            let mut before = self.reference.clone();
            let quiet_until = next.map_or(end, |due| due.max(self.millis + 1) - 1);
            before.settle(Duration::from_millis(quiet_until));
            assert_eq!(
                before.held.len(),
                self.reference.held.len(),
                "nothing happens before the engine's deadline"
            );
            assert_eq!(
                before.line.len(),
                self.reference.line.len(),
                "nobody moves before the engine's deadline"
            );
            self.millis = next.unwrap_or(end);
            self.command(Command::Advance).expect("time passes");
            self.reference.settle(self.now());
            if next.is_none() {
                return;
            }
        }
    }

    fn compare(&mut self, op: &Op) {
        let (mut granted, mut refused) = (Vec::new(), Vec::new());
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Granted { request, .. } => granted.push(request.0),
                Effect::Refused { request, refusal } => refused.push((request.0, refusal)),
                _ => {}
            }
        }
        let tokens: BTreeSet<Token> = self.engine.grants().map(|grant| grant.token).collect();
        for token in tokens.difference(&self.tokens) {
            assert!(*token > self.last_token, "{token} was given before, {op:?}");
        }
        self.last_token = tokens.last().copied().unwrap_or(self.last_token).max(self.last_token);
        self.tokens = tokens;
        let mut expected = std::mem::take(&mut self.reference.granted);
        granted.sort_unstable();
        expected.sort_unstable();
        assert_eq!(granted, expected, "granted after {op:?}");
        let mut expected = std::mem::take(&mut self.reference.refused);
        refused.sort_unstable();
        expected.sort_unstable();
        assert_eq!(refused, expected, "refused after {op:?}");
        assert_eq!(self.seen_by_engine(), self.seen_by_reference(), "holders after {op:?}");
        for (lock, name) in NAMES.iter().enumerate() {
            let now = Moment::at_millis(self.millis);
            let mut waiters: Vec<u64> = self
                .engine
                .waiters(name, now)
                .iter()
                .map(|waiter| waiter.id().0)
                .collect();
            let line = self.reference.line.iter();
            let mut expected: Vec<u64> = line
                .filter(|waiting| waiting.ask.claims.iter().any(|claim| claim.0 == lock))
                .map(|waiting| waiting.ask.id)
                .collect();
            waiters.sort_unstable();
            expected.sort_unstable();
            assert_eq!(waiters, expected, "waiters for {name} after {op:?}");
        }
    }

    fn seen_by_engine(&self) -> Vec<Seen> {
        let holders = NAMES.iter().enumerate().flat_map(|(lock, name)| {
            self.engine
                .holders(name)
                .map(move |holder| (lock, holder.mode, holder.grant.owner, holder.range))
        });
        seen(holders)
    }

    fn seen_by_reference(&self) -> Vec<Seen> {
        seen(
            self.reference
                .held
                .iter()
                .map(|held| (held.lock, held.mode, held.owner, held.range)),
        )
    }
}

/// Holders in one order, with touching ranges of one owner as one.
fn seen(holders: impl Iterator<Item = (Lock, Mode, Owner, Range)>) -> Vec<Seen> {
    let mut all: Vec<Seen> = holders
        .map(|(lock, mode, owner, r)| (lock, mode, format!("{owner:?}"), r.start(), r.end()))
        .collect();
    all.sort();
    let mut merged: Vec<Seen> = Vec::new();
    for next in all {
        match merged.last_mut() {
            Some(last)
                if (last.0, last.1, &last.2) == (next.0, next.1, &next.2) && last.4.saturating_add(1) >= next.3 =>
            {
                last.4 = last.4.max(next.4);
            }
            _ => merged.push(next),
        }
    }
    merged
}

fn pick<T>(all: &[T], index: usize) -> Option<&T> {
    all.get(index.checked_rem(all.len())?)
}
