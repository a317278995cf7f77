//! The kernel's side: requests that were not answered, the connection that outlives the service, and the rules.

mod crashes;
mod looks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use git_lockfs::service::Service;
use git_lockfs::service::api::{Answer, Call, Files};
use git_lockfs::types::Unique;

use crate::client::{Client, Dialect, LOCKS, NAMES, Next, Req, Stage};
use crate::figures::Figures;
use crate::machine::{Machine, Sent, nobody};
use crate::random::Random;
use crate::rules::{Line, TokenRule, check_exclusion};

const CLIENTS: usize = 7;
/// POLLIN of poll(2).
const READABLE: u32 = 1;

/// How far somebody is who polls.
#[derive(Clone, Copy, Debug, Default)]
struct Polled {
    /// It has heard that there is nothing to read.
    is_answered: bool,
    /// It was told to look again.
    is_told: bool,
}

pub struct Kernel {
    pub random: Random,
    seed: u64,
    machine: Machine,
    service: Service,
    clients: Vec<Client>,
    /// Requests without an answer, and whose they are.
    unanswered: BTreeMap<Unique, (usize, Req)>,
    answered: BTreeSet<Unique>,
    /// Requests that this life was given: the kernel knows no others by their numbers.
    given: BTreeSet<Unique>,
    /// Requests whose answer was lost on its way. Their callers are not killed here: whether such an answer arrived can
    /// only be seen by who can look at processes.
    decided: BTreeSet<Unique>,
    next: u64,
    tokens: TokenRule,
    line: Line,
    /// Polls of requests for several locks, by the request.
    polls: BTreeMap<Unique, Polled>,
    has_returning: bool,
    /// Whether it may die while it carries out a request.
    pub is_mortal: bool,
    /// What clients do next.
    to_send: VecDeque<(usize, Req)>,
    pub figures: Figures,
}

/// The programs of one boot; in every second history some ask for priorities.
fn clients(seed: u64) -> Vec<Client> {
    (0..CLIENTS).map(|number| Client::new(number, seed % 2 == 1)).collect()
}

impl Kernel {
    pub fn new(seed: u64) -> Self {
        let mut machine = Machine::new();
        let service = machine.first_life();
        Self {
            random: Random(seed),
            seed,
            machine,
            service,
            clients: clients(seed),
            unanswered: BTreeMap::new(),
            answered: BTreeSet::new(),
            given: BTreeSet::new(),
            decided: BTreeSet::new(),
            next: 2,
            tokens: TokenRule::default(),
            line: Line::default(),
            polls: BTreeMap::new(),
            has_returning: false,
            is_mortal: true,
            to_send: VecDeque::new(),
            figures: Figures::default(),
        }
    }

    /// Prints what happens in the history of one seed, to understand a failure: `SIMULATION_SEED=7 cargo test`.
    fn note(&self, what: impl Fn() -> String) {
        if std::env::var("SIMULATION_SEED").is_ok_and(|seed| seed == self.seed.to_string()) {
            eprintln!("{}", what());
        }
    }

    /// Somebody does something: begins, lets go, or has its wait interrupted or polled.
    pub fn step(&mut self) {
        if self.random.one_in(12) {
            self.machine.disk.write_back();
        }
        self.send_all();
        let number = self.random.below(CLIENTS);
        let waiting = self.unanswered.iter().find(|(_, (whose, _))| *whose == number);
        match waiting.map(|(unique, _)| *unique) {
            Some(target) if self.random.one_in(6) => self.interrupt(target),
            Some(target) if self.random.one_in(3) => self.poll(number, target),
            Some(_) => {}
            None => {
                let req = self.clients[number].act(&mut self.random);
                self.send(number, req);
            }
        }
    }

    /// A signal ends a wait. As long as the wait has no answer, the kernel says so again whenever its call has come again.
    fn interrupt(&mut self, target: Unique) {
        self.line.leaves(target);
        self.polls.remove(&target);
        let unique = Unique(self.next);
        self.next += 2;
        while self.unanswered.contains_key(&target) {
            let writes = self.machine.disk.writes();
            let answer = self.service.call(unique, nobody(), Call::Interrupt { target });
            assert_eq!(answer, None);
            if self.is_mortal && self.random.one_in(10) {
                self.die_untold(writes, None);
            } else {
                self.deliver();
                assert!(
                    !self.unanswered.contains_key(&target),
                    "seed {}: {target} waits on",
                    self.seed
                );
            }
        }
        self.send_all();
    }

    /// Polls an `acquire` whose request waits: nothing can be read yet, and when it can, that is told.
    fn poll(&mut self, number: usize, target: Unique) {
        let client = &self.clients[number];
        if client.dialect != Dialect::Acquire || client.stage != Stage::Requesting {
            return;
        }
        let handle = client.handles[0];
        let unique = Unique(self.next);
        self.next += 2;
        self.polls.insert(target, Polled::default());
        while self.polls.contains_key(&target) {
            let writes = self.machine.disk.writes();
            let (notify, events) = (Some(target.0), READABLE);
            let call = Call::Poll { handle, notify, events };
            let answer = self.service.call(unique, nobody(), call);
            self.note(|| format!("{unique}: a poll for {target} -> {answer:?}"));
            if self.is_mortal && self.random.one_in(20) {
                self.die_untold(writes, Some(unique));
                continue;
            }
            assert_eq!(answer, Some(Answer::Ready(0)), "seed {}: {target} waits", self.seed);
            if let Some(polled) = self.polls.get_mut(&target) {
                polled.is_answered = true;
            }
            break;
        }
    }

    /// No call of a former life comes any more. Who was told to look again, and sees nothing, polls again.
    fn all_came_again(&mut self) {
        loop {
            if std::mem::take(&mut self.has_returning) {
                self.service.all_came_again();
                self.deliver();
            }
            let told = self.polls.iter().find(|(_, polled)| polled.is_told);
            let Some(target) = told.map(|(target, _)| *target) else {
                break;
            };
            self.figures.woken += 1;
            let number = self.unanswered[&target].0;
            self.poll(number, target);
        }
    }

    /// Sends a request and all that follows from its answer; the service may die on the way.
    fn send(&mut self, number: usize, req: Req) {
        self.to_send.push_back((number, req));
        self.send_all();
    }

    fn send_all(&mut self) {
        loop {
            self.all_came_again();
            let Some((number, req)) = self.to_send.pop_front() else {
                break;
            };
            let unique = Unique(self.next);
            self.next += 2;
            if let Some(wish) = self.clients[number].wishes(&req, unique.0) {
                self.figures.resumed += u64::from(wish.earliest < unique.0);
                self.line.comes(unique, wish);
            }
            self.unanswered.insert(unique, (number, req));
            self.carry(unique);
        }
    }

    /// Has the service carry out a request that is not answered.
    fn carry(&mut self, unique: Unique) {
        let (_, req) = self.unanswered[&unique].clone();
        self.given.insert(unique);
        let writes = self.machine.disk.writes();
        let answer = self.service.call(unique, nobody(), req.call());
        self.note(|| format!("{unique}: {req:?} -> {answer:?}"));
        let written = self.machine.disk.writes() - writes;
        assert!(
            written <= 2,
            "seed {}: {req:?} is one record, and a snapshot at times",
            self.seed
        );
        if self.is_mortal && self.random.one_in(40) {
            self.line.doubtful = Some(unique);
            self.die_untold(writes, answer.is_some().then_some(unique));
            return;
        }
        self.deliver();
        if let Some(answer) = answer {
            self.answered(unique, answer);
        }
    }

    /// Brings what was sent later.
    fn deliver(&mut self) {
        let sent = self.machine.recorder.take();
        for sent in &sent {
            if let Sent::Answer(unique, _) = sent {
                let (seed, is_known) = (self.seed, self.given.contains(unique));
                assert!(is_known, "seed {seed}: {unique} is answered before it came again");
            }
        }
        self.arrive(sent);
    }

    fn arrive(&mut self, sent: Vec<Sent>) {
        for sent in &sent {
            if let Sent::Wake(number) = sent
                && let Some(polled) = self.polls.get_mut(&Unique(*number))
            {
                polled.is_told = true;
            }
        }
        for sent in sent {
            if let Sent::Answer(unique, answer) = sent {
                self.answered(unique, answer);
            }
        }
    }

    fn answered(&mut self, unique: Unique, answer: Answer) {
        self.note(|| format!("{unique} gets {answer:?}"));
        let seed = self.seed;
        assert!(self.answered.insert(unique), "seed {seed}: {unique} is answered twice");
        let (number, _) = self.unanswered.remove(&unique).expect("somebody asked");
        if let Some(polled) = self.polls.remove(&unique).filter(|polled| polled.is_answered) {
            assert!(
                polled.is_told,
                "seed {seed}: who polls for {unique} was never told to look"
            );
        }
        let wish = self.line.leaves(unique);
        let next = self.clients[number].take(answer);
        check_exclusion(seed, &self.clients, number);
        let is_granted = !self.clients[number].held.is_empty();
        if let Some(wish) = wish.filter(|_| is_granted) {
            self.figures.granted += 1;
            self.figures.compared += self.line.check(seed, unique, &wish);
        }
        match next {
            Next::Send(req) | Next::HasAndSends(req) => self.to_send.push_back((number, req)),
            Next::Has(Some(token)) => {
                for held in &self.clients[number].held {
                    self.tokens.given(seed, held.name, token);
                }
            }
            Next::Has(None) | Next::Rest => {}
        }
    }

    /// Everybody goes on until nobody waits and nobody holds; then everything must be free.
    pub fn let_everybody_finish(&mut self) {
        for round in 0.. {
            if round == 1_000 {
                let look = self.look();
                panic!(
                    "seed {}: somebody waits for ever: {look:#?}\n{:?}",
                    self.seed, self.clients
                );
            }
            let mut is_idle = self.unanswered.is_empty();
            for number in 0..CLIENTS {
                if self.clients[number].stage == Stage::Holding {
                    is_idle = false;
                    let req = self.clients[number].act(&mut self.random);
                    self.send(number, req);
                }
            }
            self.all_came_again();
            self.deliver();
            self.send_all();
            if is_idle {
                break;
            }
        }
        for name in NAMES {
            let text = self.read(LOCKS, name);
            assert_eq!(text, None, "seed {}: {name} is free in the end", self.seed);
        }
    }
}
