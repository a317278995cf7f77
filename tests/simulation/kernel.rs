//! The kernel's side: requests that were not answered, the connection that outlives the service, and the rules.

mod crashes;
mod looks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use git_lockfs::service::Service;
use git_lockfs::service::api::{Answer, Call, Files};
use git_lockfs::types::{HandleId, Unique};

use crate::client::{Client, Dialect, LOCKS, NAMES, Next, Req, Stage};
use crate::figures::Figures;
use crate::machine::{Machine, Sent, nobody};
use crate::random::Random;
use crate::rules::{Line, TokenRule, check_exclusion};

const CLIENTS: usize = 7;
/// POLLIN of poll(2).
const READABLE: u32 = 1;

pub struct Kernel {
    pub random: Random,
    seed: u64,
    machine: Machine,
    service: Service,
    clients: Vec<Client>,
    /// Requests without an answer, and whose they are.
    unanswered: BTreeMap<Unique, (usize, Req)>,
    answered: BTreeSet<Unique>,
    /// Requests whose answer was lost on its way. Their callers are not killed here: whether such an answer arrived can
    /// only be seen by who can look at processes.
    decided: BTreeSet<Unique>,
    next: u64,
    tokens: TokenRule,
    line: Line,
    /// Polls of requests for several locks, by the request: its handle and whether it was told to look again.
    polls: BTreeMap<Unique, (HandleId, bool)>,
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

    fn interrupt(&mut self, target: Unique) {
        self.all_came_again();
        self.line.leaves(target);
        self.polls.remove(&target);
        let unique = Unique(self.next);
        self.next += 2;
        assert_eq!(self.service.call(unique, nobody(), Call::Interrupt { target }), None);
        self.deliver();
        self.send_all();
    }

    /// Polls an `acquire` whose request waits: nothing can be read yet, and when it can, that is told.
    fn poll(&mut self, number: usize, target: Unique) {
        let client = &self.clients[number];
        if client.dialect != Dialect::Acquire || client.stage != Stage::Requesting {
            return;
        }
        let handle = client.handles[0];
        self.all_came_again();
        let (notify, events) = (Some(target.0), READABLE);
        let ready = self.ask(Call::Poll { handle, notify, events });
        assert_eq!(ready, Answer::Ready(0), "seed {}: {target} waits", self.seed);
        self.polls.insert(target, (handle, false));
    }

    /// No call of a former life comes any more. Who was told to look again, and sees nothing, polls again.
    fn all_came_again(&mut self) {
        if std::mem::take(&mut self.has_returning) {
            self.service.all_came_again();
            self.deliver();
        }
        let is_told = |(target, (_, is_told)): (&Unique, &(HandleId, bool))| is_told.then_some(*target);
        let told: Vec<Unique> = self.polls.iter().filter_map(is_told).collect();
        for target in told {
            self.figures.woken += 1;
            let number = self.unanswered[&target].0;
            self.polls.remove(&target);
            self.poll(number, target);
        }
    }

    /// Sends a request and all that follows from its answer; the service may die on the way.
    fn send(&mut self, number: usize, req: Req) {
        self.to_send.push_back((number, req));
        self.send_all();
    }

    fn send_all(&mut self) {
        while let Some((number, req)) = self.to_send.pop_front() {
            self.all_came_again();
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
        let writes = self.machine.disk.writes();
        let answer = self.service.call(unique, nobody(), req.call());
        self.note(|| format!("{unique}: {req:?} -> {answer:?}"));
        if self.is_mortal && self.random.one_in(40) {
            // Dead before the answer left; what is for others may have left.
            let mut arrived = self.machine.recorder.take();
            let kept = self.random.below(arrived.len() + 1);
            self.lose(arrived.split_off(kept), answer.is_some().then_some(unique));
            self.line.doubtful = Some(unique);
            let is_in_write = kept == 0 && self.machine.disk.writes() == writes + 1;
            match self.random.below(8) {
                0 => self.power_cut(),
                _ => self.die(is_in_write, arrived),
            }
            return;
        }
        self.deliver();
        if let Some(answer) = answer {
            self.answered(unique, answer);
        }
    }

    /// These were decided, and their answers do not arrive.
    fn lose(&mut self, sent: Vec<Sent>, own: Option<Unique>) {
        for sent in sent {
            if let Sent::Answer(lost, _) = sent {
                self.decided.insert(lost);
            }
        }
        self.decided.extend(own);
    }

    /// Brings what was sent later.
    fn deliver(&mut self) {
        let sent = self.machine.recorder.take();
        self.arrive(sent);
    }

    fn arrive(&mut self, sent: Vec<Sent>) {
        for sent in &sent {
            if let Sent::Wake(number) = sent
                && let Some((_, is_told)) = self.polls.get_mut(&Unique(*number))
            {
                *is_told = true;
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
        if let Some((_, is_told)) = self.polls.remove(&unique) {
            assert!(is_told, "seed {seed}: who polls for {unique} was never told to look");
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
