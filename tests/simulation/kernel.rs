//! The kernel's side: requests that were not answered, the connection that outlives the service, and the rules.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use git_lockfs::adapters::memory::Crash;
use git_lockfs::service::Service;
use git_lockfs::service::api::{Access, Answer, Call, Files};
use git_lockfs::types::{HandleId, NodeId, Unique};

use crate::client::{Client, Dialect, LOCKS, NAMES, Next, ROOT, Req, Stage, mode};
use crate::figures::Figures;
use crate::machine::{Left, Machine, Sent, nobody};
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

    /// The service is killed between two requests.
    pub fn crash(&mut self) {
        match self.random.below(8) {
            0 => self.power_cut(),
            _ => self.die(false, Vec::new()),
        }
        self.send_all();
    }

    /// The same, and nobody gives up meanwhile.
    pub fn crash_at_rest(&mut self) {
        self.figures.crashes += 1;
        self.machine.disk.crash(Crash::Killed, self.seed);
        self.live_again();
        self.send_again();
        self.send_all();
    }

    /// What had left before it died arrives all the same, but its receivers do nothing yet.
    fn die(&mut self, in_write: bool, arrived: Vec<Sent>) {
        self.figures.crashes += 1;
        self.figures.torn += u64::from(in_write);
        let crash = if in_write { Crash::KilledInWrite } else { Crash::Killed };
        let seed = self.random.next();
        self.machine.disk.crash(crash, seed);
        self.live_again();
        if self.random.one_in(6) {
            // The next one dies as it begins.
            let seed = self.random.next();
            self.machine.disk.crash(Crash::KilledInWrite, seed);
            self.live_again();
        }
        // A wake may come after the answer that it is about; who polls has both.
        self.deliver();
        self.arrive(arrived);
        self.give_up_some();
        self.send_again();
    }

    /// The power fails: everybody is gone, and of all that was known only the tokens are.
    fn power_cut(&mut self) {
        self.figures.crashes += 1;
        self.figures.power_cuts += 1;
        if self.line.doubtful.is_none() {
            self.all_came_again();
            self.look_at_tokens();
        }
        let seed = self.random.next();
        self.machine.disk.crash(Crash::PowerCut, seed);
        self.note(|| "the power fails".to_owned());
        let (service, left) = self.machine.next_boot();
        self.service = service;
        self.figures.damaged += u64::from(left == Left::Damaged);
        self.figures.never_begun += u64::from(left == Left::Empty);
        self.clients = clients(self.seed);
        self.unanswered.clear();
        self.decided.clear();
        self.to_send.clear();
        self.polls.clear();
        self.has_returning = false;
        self.line.clear();
        self.tokens.power_cut();
        self.check_nothing_is_left();
    }

    /// The highest tokens that anybody can have seen.
    fn look_at_tokens(&mut self) {
        for text in self.look().into_iter().flatten() {
            let tokens = text.lines().filter_map(|line| line.strip_prefix("token="));
            tokens.for_each(|token| self.tokens.seen(token.parse().expect("a number")));
        }
    }

    fn check_nothing_is_left(&mut self) {
        let seed = self.seed;
        let scratch = (0..CLIENTS).map(|number| format!(".scratch{number}"));
        for name in NAMES.map(str::to_owned).into_iter().chain(scratch) {
            let found = self.read(LOCKS, &name);
            assert_eq!(found, None, "seed {seed}: {name} is gone with the power");
        }
        // Somebody new gets all of them at once, with a token that nobody had.
        let (parent, name) = (ROOT, &b"acquire"[..]);
        let Answer::Entry(entry) = self.ask(Call::Lookup { parent, name }) else {
            panic!("seed {seed}: acquire is there")
        };
        let (node, mode) = (entry.node, mode(Access::Both, false));
        let Answer::Opened(opened) = self.ask(Call::Open { node, mode }) else {
            panic!("seed {seed}: acquire opens")
        };
        let handle = opened.handle;
        let request = format!("locks={} wait=0", NAMES.join(","));
        let (offset, size, data) = (0, 4096, request.as_bytes());
        let written = self.ask(Call::Write { handle, offset, data });
        assert_eq!(written, Answer::Written(data.len() as u32), "seed {seed}");
        let Answer::Data(line) = self.ask(Call::Read { handle, offset, size }) else {
            panic!("seed {seed}: a token")
        };
        let line = String::from_utf8(line).expect("a line");
        let token = line.trim_end().strip_prefix("token=").expect("a token");
        for lock in 0..NAMES.len() {
            self.tokens.given(seed, lock, token.parse().expect("a number"));
        }
        self.ask(Call::Release { handle });
    }

    fn live_again(&mut self) {
        self.note(|| "a new life".to_owned());
        self.service = self.machine.next_life();
        self.has_returning = true;
    }

    /// Some of those who wait are killed while nobody serves them.
    fn give_up_some(&mut self) {
        let waiting: Vec<(Unique, usize)> = self
            .unanswered
            .iter()
            .filter(|(unique, _)| !self.decided.contains(unique))
            .filter(|(_, (number, _))| {
                matches!(
                    self.clients[*number].stage,
                    Stage::Opening | Stage::Locking | Stage::Requesting
                )
            })
            .map(|(unique, (number, _))| (*unique, *number))
            .collect();
        for (unique, number) in waiting {
            if self.random.one_in(8) {
                self.figures.given_up += 1;
                self.note(|| format!("{number} gave {unique} up"));
                self.unanswered.remove(&unique);
                self.line.leaves(unique);
                self.polls.remove(&unique);
                self.clients[number].gave_up = true;
            }
        }
    }

    /// Sends what was not answered again, and as often as the service dies over it.
    fn send_again(&mut self) {
        while !self.sent_again() {
            self.figures.again_in_resend += 1;
            self.live_again();
        }
        self.line.doubtful = None;
        for number in 0..CLIENTS {
            if std::mem::take(&mut self.clients[number].gave_up)
                && let Some(req) = self.clients[number].dies()
            {
                self.to_send.push_back((number, req));
            }
        }
    }

    /// Whether the service lived through it.
    fn sent_again(&mut self) -> bool {
        self.deliver();
        let mut again: Vec<Unique> = self.unanswered.keys().copied().collect();
        self.random.shuffle(&mut again);
        for unique in again {
            // An earlier one may have ended it.
            let Some((_, req)) = self.unanswered.get(&unique).cloned() else {
                continue;
            };
            self.figures.came_again += 1;
            let writes = self.machine.disk.writes();
            let answer = self.service.call(unique, nobody(), req.call());
            self.note(|| format!("{unique} again: {req:?} -> {answer:?}"));
            if self.is_mortal && self.random.one_in(20) {
                // What it decided last is lost on its way.
                let lost = self.machine.recorder.take();
                self.lose(lost, answer.is_some().then_some(unique));
                let is_in_write = self.machine.disk.writes() == writes + 1;
                let crash = if is_in_write {
                    Crash::KilledInWrite
                } else {
                    Crash::Killed
                };
                let seed = self.random.next();
                self.machine.disk.crash(crash, seed);
                return false;
            }
            self.deliver();
            if let Some(answer) = answer {
                self.answered(unique, answer);
            }
        }
        true
    }

    /// A call of somebody who is no client.
    fn ask(&mut self, call: Call<'_>) -> Answer {
        self.next += 2;
        let answer = self.service.call(Unique(self.next - 2), nobody(), call);
        answer.expect("looking never waits")
    }

    /// What a file reads, without what passes with time; `None` when there is none.
    fn read(&mut self, parent: NodeId, name: &str) -> Option<String> {
        let name = name.as_bytes();
        let Answer::Entry(entry) = self.ask(Call::Lookup { parent, name }) else {
            return None;
        };
        let (node, mode) = (entry.node, mode(Access::Read, false));
        let handle = match self.ask(Call::Open { node, mode }) {
            Answer::Opened(opened) => opened.handle,
            other => return Some(format!("{other:?}")),
        };
        let (offset, size) = (0, 1 << 20);
        let Answer::Data(data) = self.ask(Call::Read { handle, offset, size }) else {
            panic!("a text")
        };
        self.ask(Call::Release { handle });
        let text = String::from_utf8(data).expect("text");
        let is_timeless = |line: &&str| {
            !["age", "since", "waits", "estimate"]
                .iter()
                .any(|word| line.contains(word))
        };
        Some(text.lines().filter(is_timeless).collect::<Vec<_>>().join("\n"))
    }

    /// What anybody can see of the locks.
    pub fn look(&mut self) -> Vec<Option<String>> {
        NAMES.map(|name| self.read(LOCKS, name)).into()
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
