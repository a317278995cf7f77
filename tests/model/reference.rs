//! The one definition of correctness: an arbiter of lists, written from the rules and not from the engine.
//!
//! It looks at everything, every time. A request is free when no holder and no waiter ahead conflicts
//! with it; whatever is free is granted, until nothing is.

use std::time::Duration;

use git_lockfs::engine::{Owner, Way};
use git_lockfs::types::{Mode, Range, Refusal};

/// A lock by its number; `PARENT` gives the scope that it lies in.
pub type Lock = usize;

/// The locks of the model: two children of git's scope, a child of a child, and one that stands alone.
pub const NAMES: [&str; 7] = [
    "global.lock",
    "ref-a.lock",
    "ref-b.lock",
    "x.lock",
    "issue-1.lock",
    "project.lock",
    "world.lock",
];
const PARENT: [Option<Lock>; 7] = [None, Some(0), Some(0), None, Some(5), Some(6), None];
/// The rules that make it so.
pub const PARENTS: &str = "default issue-*.lock=project.lock project.lock=world.lock";

const AGING: Duration = Duration::from_secs(2);
const LEASE: Duration = Duration::from_secs(300);
const GRACE: Duration = Duration::from_secs(60);
const FRONT: u64 = 11;

pub type Claim = (Lock, Mode, Range);

/// What a lock lives by.
#[derive(Clone, Debug, PartialEq)]
pub enum Life {
    Descriptor,
    Process(u64),
    Lease {
        keepers: Vec<u64>,
        had_keeper: bool,
        made: Duration,
    },
}

/// Something held.
#[derive(Clone, Debug)]
pub struct Held {
    pub lock: Lock,
    pub mode: Mode,
    pub range: Range,
    pub owner: Owner,
    pub way: Way,
    pub life: Life,
    pub taker: u64,
    taker_gone: bool,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub id: u64,
    pub claims: Vec<Claim>,
    pub owner: Owner,
    pub way: Way,
    pub life: Life,
    pub taker: u64,
    pub lineage: Vec<u64>,
    pub level: u64,
    /// `None` tries, `Some(None)` waits for ever.
    pub wait: Option<Option<Duration>>,
    pub ticket: Option<u8>,
}

/// A request in line.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub ask: Ask,
    arrival: u64,
    since: Duration,
    /// Ahead of all levels, in its own locks.
    leads: bool,
    /// Scopes in which it goes ahead of those who wait.
    front: Vec<Lock>,
}

/// A place kept for someone who is away: until when, and the wait.
#[derive(Clone, Debug)]
struct Away {
    until: Duration,
    waiting: Waiting,
}

/// What a request got at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Granted,
    Waiting,
    Refused(Refusal),
}

#[derive(Clone, Debug, Default)]
pub struct Reference {
    pub now: Duration,
    pub held: Vec<Held>,
    pub line: Vec<Waiting>,
    away: Vec<Away>,
    pub drained: bool,
    arrivals: u64,
    /// Requests granted and refused since the last look.
    pub granted: Vec<u64>,
    pub refused: Vec<(u64, Refusal)>,
}

fn scopes(lock: Lock) -> Vec<Lock> {
    std::iter::successors(PARENT[lock], |&above| PARENT[above]).collect()
}

fn is_same(a: Owner, b: Owner) -> bool {
    match (a, b) {
        (Owner::Entry, _) | (_, Owner::Entry) => false,
        (Owner::Posix { owner: a, .. }, Owner::Posix { owner: b, .. }) => a == b,
        _ => a.handle() == b.handle(),
    }
}

fn clash(a: Claim, b: Claim) -> bool {
    a.0 == b.0 && (a.1 == Mode::Exclusive || b.1 == Mode::Exclusive) && a.2.overlaps(b.2)
}

/// The claims and, for each scope above that is not claimed itself, a shared one; `true` marks those.
fn wants(claims: &[Claim]) -> Vec<(Claim, bool)> {
    let mut all: Vec<(Claim, bool)> = claims.iter().map(|&claim| (claim, false)).collect();
    for above in claims.iter().flat_map(|claim| scopes(claim.0)) {
        if !all.iter().any(|(claim, _)| claim.0 == above) {
            all.push(((above, Mode::Shared, Range::WHOLE), true));
        }
    }
    all
}

impl Held {
    fn claim(&self) -> Claim {
        (self.lock, self.mode, self.range)
    }

    fn process(&self) -> Option<u64> {
        match &self.life {
            Life::Descriptor => Some(self.taker),
            Life::Process(process) => Some(*process),
            Life::Lease { keepers, .. } => keepers.first().copied(),
        }
    }
}

impl Reference {
    fn has_holder_in_the_way(&self, ask: &Ask) -> bool {
        wants(&ask.claims).iter().any(|&(want, _)| {
            let in_it = |held: &&Held| clash(held.claim(), want) && !is_same(held.owner, ask.owner);
            let below = |held: &&Held| want.1 == Mode::Exclusive && scopes(held.lock).contains(&want.0);
            self.held.iter().any(|held| in_it(&held) || below(&held))
        })
    }

    fn place(&self, waiting: &Waiting, lock: Lock) -> (u64, std::cmp::Reverse<u64>) {
        let risen = (self.now - waiting.since).as_nanos() / AGING.as_nanos();
        let level = if waiting.leads || waiting.front.contains(&lock) {
            FRONT
        } else {
            (waiting.ask.level + risen as u64).min(10)
        };
        (level, std::cmp::Reverse(waiting.arrival))
    }

    fn has_waiter_ahead(&self, waiting: &Waiting) -> bool {
        let mine = wants(&waiting.ask.claims);
        mine.iter()
            .filter(|(want, _)| !waiting.front.contains(&want.0))
            .any(|&(want, _)| {
                self.line
                    .iter()
                    .filter(|other| other.ask.id != waiting.ask.id)
                    .any(|other| {
                        wants(&other.ask.claims).iter().any(|&(theirs, _)| {
                            let is_ranged = !theirs.2.is_whole() || !want.2.is_whole();
                            clash(theirs, want)
                                && self.place(other, want.0) > self.place(waiting, want.0)
                                && !(is_ranged && is_same(other.ask.owner, waiting.ask.owner))
                        })
                    })
            })
    }

    fn is_free(&self, waiting: &Waiting) -> bool {
        !self.drained && !self.has_holder_in_the_way(&waiting.ask) && !self.has_waiter_ahead(waiting)
    }

    fn own(&self, owner: Owner, lock: Lock) -> impl Iterator<Item = &Held> {
        self.held
            .iter()
            .filter(move |held| held.lock == lock && is_same(held.owner, owner))
    }

    fn holds_all(&self, ask: &Ask) -> bool {
        ask.claims.iter().all(|&(lock, mode, range)| {
            let mut missing = vec![range];
            for held in self.own(ask.owner, lock).filter(|held| held.mode >= mode) {
                missing = missing
                    .iter()
                    .flat_map(|range| range.without(held.range))
                    .flatten()
                    .collect();
            }
            missing.is_empty()
        })
    }

    fn is_mutual(&self, ask: &Ask) -> bool {
        let blocks = |owner, claim: Claim| self.own(owner, claim.0).any(|held| clash(held.claim(), claim));
        self.line
            .iter()
            .filter(|other| other.leads && !is_same(other.ask.owner, ask.owner))
            .any(|other| {
                let pairs = ask
                    .claims
                    .iter()
                    .flat_map(|&mine| other.ask.claims.iter().map(move |&theirs| (mine, theirs)));
                pairs.into_iter().any(|(mine, theirs)| {
                    mine.0 == theirs.0 && blocks(ask.owner, theirs) && blocks(other.ask.owner, mine)
                })
            })
    }

    pub fn acquire(&mut self, ask: Ask) -> Answer {
        let mut place = (self.arrivals, self.now);
        let mut wait = ask.wait;
        if let Some(ticket) = ask.ticket {
            if self.line.iter().any(|waiting| waiting.ask.ticket == Some(ticket)) {
                return Answer::Refused(Refusal::HeldByOther);
            }
            if let Some(away) = self.away.iter().find(|away| away.waiting.ask.ticket == Some(ticket)) {
                if away.waiting.ask.claims != ask.claims {
                    return Answer::Refused(Refusal::HeldByOther);
                }
                place = (away.waiting.arrival, away.waiting.since);
            }
        } else if ask.wait.is_some() {
            let is_it = |away: &Away| {
                let was = &away.waiting.ask;
                was.ticket.is_none() && (was.taker, was.way, &was.claims) == (ask.taker, ask.way, &ask.claims)
            };
            // The newest, should there be several.
            if let Some(index) = self.away.iter().rposition(is_it) {
                let away = self.away[index].waiting.clone();
                self.away.retain(|away| !is_it(away));
                place = (away.arrival, away.since);
                wait = away.ask.wait;
            }
        }
        self.arrivals += 1;
        let extends = ask
            .claims
            .iter()
            .any(|claim| self.own(ask.owner, claim.0).next().is_some());
        let is_related = |scope: Lock| {
            let inside = |held: &&Held| held.lock == scope || scopes(held.lock).contains(&scope);
            self.held
                .iter()
                .filter(inside)
                .any(|held| held.process().is_some_and(|p| ask.lineage.contains(&p)))
        };
        let above = wants(&ask.claims)
            .into_iter()
            .filter(|(_, is_scope)| *is_scope)
            .map(|(want, _)| want.0);
        let front = above.filter(|&scope| extends || is_related(scope)).collect();
        let ask = Ask { wait, ..ask };
        let waiting = Waiting {
            ask,
            arrival: place.0,
            since: place.1,
            leads: extends,
            front,
        };
        let repeats = extends && self.holds_all(&waiting.ask) && !self.has_holder_in_the_way(&waiting.ask);
        if repeats || self.is_free(&waiting) {
            self.forget_ticket(waiting.ask.ticket);
            self.install(waiting.ask);
            return Answer::Granted;
        }
        let refusal = match waiting.ask.wait {
            None => Refusal::WouldBlock,
            Some(_) if waiting.leads && self.is_mutual(&waiting.ask) => Refusal::Deadlock,
            Some(_) => {
                self.forget_ticket(waiting.ask.ticket);
                self.line.push(waiting);
                return Answer::Waiting;
            }
        };
        self.keep_ticket(waiting);
        Answer::Refused(refusal)
    }

    fn forget_ticket(&mut self, ticket: Option<u8>) {
        self.away
            .retain(|away| ticket.is_none() || away.waiting.ask.ticket != ticket);
    }

    fn keep_ticket(&mut self, waiting: Waiting) {
        if waiting.ask.ticket.is_some() {
            self.forget_ticket(waiting.ask.ticket);
            self.away.push(Away {
                until: self.now + GRACE,
                waiting,
            });
        }
    }

    fn install(&mut self, ask: Ask) {
        let (lock, mode, range) = ask.claims[0];
        if ask.way == Way::Flock
            && let Some(held) = self
                .held
                .iter_mut()
                .find(|held| held.lock == lock && held.owner == ask.owner)
        {
            (held.mode, held.way, held.life) = (mode, Way::Flock, Life::Descriptor);
            return;
        }
        if let Owner::Posix { owner, handle } = ask.owner {
            self.cut(lock, owner, range);
            for held in self
                .held
                .iter_mut()
                .filter(|held| held.owner == Owner::Handle(handle) && held.lock == lock)
            {
                held.life = Life::Descriptor;
            }
        }
        for &(lock, mode, range) in &ask.claims {
            let (owner, way, life, taker) = (ask.owner, ask.way, ask.life.clone(), ask.taker);
            self.held.push(Held {
                lock,
                mode,
                range,
                owner,
                way,
                life,
                taker,
                taker_gone: false,
            });
        }
    }

    pub fn cut(&mut self, lock: Lock, key: u64, range: Range) {
        let is_its =
            |held: &Held| held.lock == lock && matches!(held.owner, Owner::Posix { owner, .. } if owner == key);
        let (cut, kept): (Vec<Held>, Vec<Held>) = self.held.drain(..).partition(is_its);
        self.held = kept;
        for held in cut {
            let pieces = held.range.without(range).into_iter().flatten();
            self.held.extend(pieces.map(|range| Held { range, ..held.clone() }));
        }
    }

    pub fn cancel(&mut self, id: u64, refusal: Refusal) {
        let Some(index) = self.line.iter().position(|waiting| waiting.ask.id == id) else {
            return;
        };
        let waiting = self.line.remove(index);
        self.refused.push((id, refusal));
        if waiting.ask.ticket.is_some() {
            self.keep_ticket(waiting);
        } else if refusal == Refusal::Interrupted {
            self.away.push(Away {
                until: self.now + Duration::from_secs(1),
                waiting,
            });
        }
    }

    pub fn withdraw(&mut self, ticket: u8) {
        let present = self.line.iter().find(|waiting| waiting.ask.ticket == Some(ticket));
        if let Some(id) = present.map(|waiting| waiting.ask.id) {
            self.cancel(id, Refusal::TimedOut);
        }
        self.forget_ticket(Some(ticket));
    }

    pub fn exited(&mut self, process: u64, cleanly: bool) {
        let now = self.now;
        self.held.retain(|held| held.life != Life::Process(process));
        for held in &mut self.held {
            held.taker_gone |= held.taker == process;
            if let Life::Lease { keepers, made, .. } = &mut held.life {
                let was_keeper = keepers.first() == Some(&process);
                keepers.retain(|&keeper| keeper != process);
                if was_keeper && !(cleanly && now - *made <= Duration::from_secs(2)) {
                    keepers.clear();
                }
            }
        }
    }

    /// Removes what this process may remove; whether there was any.
    pub fn remove(&mut self, lock: Lock, process: u64) -> bool {
        let before = self.held.len();
        self.held.retain(|held| {
            let is_gone = match &held.life {
                // Whoever called flock or fcntl may have done it for the process that opened the descriptor.
                Life::Descriptor => held.taker_gone && !matches!(held.way, Way::Flock | Way::Posix),
                Life::Process(_) => false,
                Life::Lease {
                    keepers, had_keeper, ..
                } => *had_keeper && keepers.is_empty(),
            };
            held.lock != lock || !(held.process() == Some(process) || held.taker == process || is_gone)
        });
        self.held.len() < before
    }

    /// Lets time pass up to `now` and grants all that is free.
    pub fn settle(&mut self, now: Duration) {
        self.now = now;
        let late = |waiting: &&Waiting| matches!(waiting.ask.wait, Some(Some(limit)) if limit <= now);
        for id in self
            .line
            .iter()
            .filter(late)
            .map(|waiting| waiting.ask.id)
            .collect::<Vec<_>>()
        {
            self.cancel(id, Refusal::TimedOut);
        }
        self.away.retain(|away| now < away.until);
        self.held.retain(
            |held| !matches!(&held.life, Life::Lease { keepers, made, .. } if keepers.is_empty() && *made + LEASE <= now),
        );
        let first_free = |reference: &Self| {
            let free = (0..reference.line.len()).filter(|&index| reference.is_free(&reference.line[index]));
            free.max_by_key(|&index| reference.place(&reference.line[index], reference.line[index].ask.claims[0].0))
        };
        while let Some(index) = first_free(self) {
            let waiting = self.line.remove(index);
            self.granted.push(waiting.ask.id);
            self.install(waiting.ask);
        }
    }
}
