//! The engine's rules, one sentence a test. `World` is an engine with a clock that the test turns.

mod bounds;
mod endings;
mod events;
mod leases;
mod order;
mod ownership;
mod places;
mod scopes;

use super::*;
use crate::types::{LockName, Mode, Priority, Range, SessionName, TicketName};

pub(super) fn lock(name: &str) -> LockName {
    LockName::parse_lock(name.as_bytes()).expect("test name")
}

pub(super) fn range(start: u64, end: u64) -> Range {
    Range::new(start, end).expect("test range")
}

pub(super) fn session(name: &str) -> SessionName {
    SessionName::parse(name.as_bytes()).expect("test session")
}

pub(super) fn ticket(name: &str) -> TicketName {
    TicketName::parse(name.as_bytes()).expect("test ticket")
}

pub(super) const EX: Mode = Mode::Exclusive;
pub(super) const SH: Mode = Mode::Shared;

/// An engine, the time, and what happened.
pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) millis: u64,
    next: u64,
    log: Vec<Effect>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Settings::default(), Bounds::default())
    }

    pub(super) fn with(settings: Settings, bounds: Bounds) -> Self {
        Self {
            engine: Engine::new(settings, bounds, Token(1)..Token(1_000_000)),
            millis: 0,
            next: 0,
            log: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Moment {
        Moment::at_millis(self.millis)
    }

    pub(super) fn tick(&self, millis: u64) -> Tick {
        Moment::at_millis(millis).mono
    }

    pub(super) fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        let result = self.engine.handle(self.now(), command);
        while let Some(effect) = self.engine.poll_effect() {
            self.log.push(effect);
        }
        result
    }

    /// Turns the clock, waking the engine exactly when it asked to be woken.
    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.millis + millis;
        loop {
            let (mono, boot) = self.engine.next_deadline(self.now());
            let due = mono
                .into_iter()
                .chain(boot)
                .min()
                .map(|tick| tick.0.div_ceil(1_000_000));
            let Some(due) = due.filter(|&due| due <= end) else {
                break;
            };
            self.millis = due.max(self.millis);
            self.run(Command::Advance).expect("time passes");
            let (mono, boot) = self.engine.next_deadline(self.now());
            let again = mono.into_iter().chain(boot).min();
            assert!(again.is_none_or(|tick| tick > self.now().mono), "what is due was done");
        }
        self.millis = end;
        self.run(Command::Advance).expect("time passes");
    }

    pub(super) fn unique(&mut self) -> Unique {
        self.next += 1;
        Unique(self.next)
    }

    pub(super) fn ask(&mut self, name: &str, mode: Mode) -> Ask {
        Ask::new(self.unique(), vec![Claim::whole(lock(name), mode)])
    }

    pub(super) fn ask_all(&mut self, names: &[&str], mode: Mode) -> Ask {
        let claims = names.iter().map(|name| Claim::whole(lock(name), mode)).collect();
        Ask::new(self.unique(), claims)
    }

    /// Takes a lock by open; it must be granted at once.
    pub(super) fn hold(&mut self, name: &str, handle: u64) -> Token {
        let ask = self.ask(name, EX).open(handle);
        self.granted(ask)
    }

    pub(super) fn granted(&mut self, ask: Ask) -> Token {
        match self.run(Command::Acquire(ask.0)) {
            Ok(Reply::Granted(token)) => token,
            other => panic!("not granted: {other:?}"),
        }
    }

    /// Makes a request that must wait.
    pub(super) fn waits(&mut self, ask: Ask) -> Unique {
        let id = ask.0.id;
        assert_eq!(self.run(Command::Acquire(ask.0)), Ok(Reply::Waiting));
        id
    }

    pub(super) fn refused(&mut self, ask: Ask) -> Refusal {
        self.run(Command::Acquire(ask.0)).expect_err("must be refused")
    }

    pub(super) fn close(&mut self, handle: u64) {
        self.run(Command::Close(HandleId(handle))).expect("a close succeeds");
    }

    /// The requests granted since the last look, in order.
    pub(super) fn grants(&mut self) -> Vec<Unique> {
        let granted = |effect: &Effect| match effect {
            Effect::Granted { request, .. } => Some(*request),
            _ => None,
        };
        let found = self.log.iter().filter_map(granted).collect();
        self.log.clear();
        found
    }

    /// Everything that happened since the last look, but not what observers are told.
    pub(super) fn effects(&mut self) -> Vec<Effect> {
        let mut log = std::mem::take(&mut self.log);
        log.retain(|effect| !matches!(effect, Effect::Event(_)));
        log
    }

    pub(super) fn is_held(&self, name: &str) -> bool {
        self.engine.holders(name).next().is_some()
    }
}

/// A request under construction: by open, priority 5, waiting for ever.
pub(super) struct Ask(pub(super) Acquire);

impl Ask {
    fn new(id: Unique, claims: Vec<Claim>) -> Self {
        Self(Acquire {
            id,
            claims,
            taking: Taking::Open(HandleId(1000 + id.0)),
            party: Party {
                tid: id.0 as u32 + 100,
                ..Party::default()
            },
            priority: Priority::new(5).expect("level"),
            wait: Wait::Forever,
            ticket: None,
            lineage: Vec::new(),
        })
    }

    pub(super) fn open(mut self, handle: u64) -> Self {
        self.0.taking = Taking::Open(HandleId(handle));
        self
    }

    pub(super) fn flock(mut self, handle: u64) -> Self {
        self.0.taking = Taking::Flock(HandleId(handle));
        self
    }

    pub(super) fn transaction(mut self, handle: u64) -> Self {
        self.0.taking = Taking::Transaction(HandleId(handle));
        self
    }

    pub(super) fn posix(mut self, owner: u64, handle: u64, bytes: Range) -> Self {
        self.0.taking = Taking::Posix {
            owner,
            handle: HandleId(handle),
        };
        self.0.claims[0].range = bytes;
        self
    }

    pub(super) fn made(mut self, shape: Shape, keepers: &[u64]) -> Self {
        let keepers = keepers.iter().copied().map(ProcessId).collect();
        self.0.taking = Taking::Make(Make {
            handle: None,
            keepers,
            shape,
            text: None,
            owner: None,
            ino: None,
        });
        self.0.wait = Wait::No;
        self
    }

    pub(super) fn now_or_never(mut self) -> Self {
        self.0.wait = Wait::No;
        self
    }

    pub(super) fn until(mut self, tick: Tick) -> Self {
        self.0.wait = Wait::Until(tick);
        self
    }

    pub(super) fn priority(mut self, level: u8) -> Self {
        self.0.priority = Priority::new(level).expect("level");
        self
    }

    pub(super) fn tid(mut self, tid: u32) -> Self {
        self.0.party.tid = tid;
        self
    }

    pub(super) fn by(mut self, process: u64) -> Self {
        self.0.party.process = Some(ProcessId(process));
        self.0.party.solo = true;
        self
    }

    pub(super) fn session(mut self, name: &str) -> Self {
        self.0.party.session = Some(session(name));
        self
    }

    pub(super) fn ticket(mut self, name: &str) -> Self {
        self.0.ticket = Some(ticket(name));
        self
    }

    pub(super) fn lineage(mut self, processes: &[u64]) -> Self {
        self.0.lineage = processes.iter().copied().map(ProcessId).collect();
        self
    }
}
