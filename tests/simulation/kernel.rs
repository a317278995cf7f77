//! The kernel's side: requests that were not answered, the connection that outlives the service, and the rules.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use git_lockfs::adapters::memory::Crash;
use git_lockfs::adapters::{Confinement, HistoryError, MemoryDisk, Processes, Tokens, Watcher};
use git_lockfs::service::api::{Access, Answer, Call, Caller, Files, Replies};
use git_lockfs::service::{Outside, Service};
use git_lockfs::types::{NodeId, Settings, Unique};
use git_lockfs::view::locks_json::{Recovery, ServedBy};
use parking_lot::Mutex;

use crate::client::{Client, Held, LOCKS, NAMES, Next, Req, Stage, mode};
use crate::random::Random;

const CLIENTS: usize = 7;

/// Keeps what the service sends later, in order.
#[derive(Default)]
struct Recorder(Mutex<Vec<(Unique, Answer)>>);

impl Replies for Recorder {
    fn answer(&self, unique: Unique, answer: Answer) {
        self.0.lock().push((unique, answer));
    }

    fn wake_poll(&self, _: u64) {}
}

pub struct Kernel {
    pub random: Random,
    seed: u64,
    dir: tempfile::TempDir,
    disk: MemoryDisk,
    service: Service,
    recorder: Arc<Recorder>,
    clients: Vec<Client>,
    /// Requests without an answer, and whose they are.
    unanswered: BTreeMap<Unique, (usize, Req)>,
    answered: BTreeSet<Unique>,
    /// Requests whose answer was lost on its way. Their callers are not killed here: whether such an answer arrived can
    /// only be seen by who can look at processes.
    decided: BTreeSet<Unique>,
    next: u64,
    tokens: BTreeMap<usize, u64>,
    /// Who waits for a whole lock by open, in the order in which they came; only those whose coming is known.
    line: Vec<(usize, Unique)>,
    has_returning: bool,
    /// Whether it may die while it carries out a request.
    pub is_mortal: bool,
    /// What clients do next.
    to_send: VecDeque<(usize, Req)>,
    pub granted: usize,
    pub crashes: u64,
    pub torn: u64,
    pub came_again: u64,
    pub given_up: u64,
}

fn nobody() -> Caller {
    Caller {
        tid: 0,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    }
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.set("wait", "forever").expect("a limit");
    settings
}

fn outside(dir: &tempfile::TempDir, recorder: &Arc<Recorder>) -> Outside {
    let watcher = Watcher::new(dir.path()).expect("a watcher");
    let (tokens, first, end) = Tokens::open(&dir.path().join("state")).expect("tokens");
    let owner = nobody();
    Outside {
        processes: Arc::new(Processes::new(watcher.exits())),
        alarm: watcher.alarm(),
        confinement: Confinement::of_self().expect("our own confinement"),
        tokens,
        reserved: first..end,
        history: Err(HistoryError::NotWanted),
        replies: recorder.clone(),
        reload: Box::new(|| Ok(settings())),
        tell_alerts: Box::new(drop),
        mountpoint: dir.path().to_owned(),
        owner: (owner.uid, owner.gid),
        others_allowed: true,
        served_by: Box::new(|| ServedBy {
            worker_pid: 2,
            supervisor_pid: 1,
            recovery: Recovery::Resend,
        }),
    }
}

/// A directory in memory where there is one: tokens are written durably, thousands of times.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().expect("a directory"))
}

impl Kernel {
    pub fn new(seed: u64) -> Self {
        let (dir, disk, recorder) = (directory(), MemoryDisk::default(), Arc::new(Recorder::default()));
        let log = disk.create(b"").expect("there is room");
        let service = Service::new(settings(), outside(&dir, &recorder), Box::new(log));
        Self {
            random: Random(seed),
            seed,
            dir,
            disk,
            service,
            recorder,
            clients: (0..CLIENTS).map(Client::new).collect(),
            unanswered: BTreeMap::new(),
            answered: BTreeSet::new(),
            decided: BTreeSet::new(),
            next: 2,
            tokens: BTreeMap::new(),
            line: Vec::new(),
            has_returning: false,
            is_mortal: true,
            to_send: VecDeque::new(),
            granted: 0,
            crashes: 0,
            torn: 0,
            came_again: 0,
            given_up: 0,
        }
    }

    /// Prints what happens in the history of one seed, to understand a failure: `SIMULATION_SEED=7 cargo test`.
    fn note(&self, what: impl Fn() -> String) {
        if std::env::var("SIMULATION_SEED").is_ok_and(|seed| seed == self.seed.to_string()) {
            eprintln!("{}", what());
        }
    }

    /// Somebody does something: begins, lets go, or has its wait interrupted.
    pub fn step(&mut self) {
        let number = self.random.below(CLIENTS);
        let waiting = self.unanswered.iter().find(|(_, (whose, _))| *whose == number);
        match waiting.map(|(unique, _)| *unique) {
            Some(target) if self.random.one_in(6) => self.interrupt(target),
            Some(_) => {}
            None => {
                let req = self.clients[number].act(&mut self.random);
                self.send(number, req);
            }
        }
    }

    fn interrupt(&mut self, target: Unique) {
        self.all_came_again();
        assert_eq!(
            self.service
                .call(Unique(self.next), nobody(), Call::Interrupt { target }),
            None
        );
        self.next += 2;
        self.deliver();
        self.send_all();
    }

    fn all_came_again(&mut self) {
        if std::mem::take(&mut self.has_returning) {
            self.service.all_came_again();
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
            self.unanswered.insert(unique, (number, req));
            self.carry(unique);
        }
    }

    /// Has the service carry out a request that is not answered.
    fn carry(&mut self, unique: Unique) {
        let (number, req) = self.unanswered[&unique].clone();
        let writes = self.disk.writes();
        let answer = self.service.call(unique, nobody(), req.call());
        self.note(|| format!("{unique} of {number}: {req:?} -> {answer:?}"));
        if self.is_mortal && self.random.one_in(40) {
            // Dead before the answer left; those of others may have.
            let sent = self.recorder.0.lock().len();
            let kept = self.random.below(sent + 1);
            let lost = self.recorder.0.lock().split_off(kept);
            self.decided.extend(lost.into_iter().map(|(unique, _)| unique));
            self.decided.extend(answer.is_some().then_some(unique));
            self.die(kept == 0 && self.disk.writes() == writes + 1);
            return;
        }
        if answer.is_none() {
            self.line.push((self.unanswered[&unique].0, unique));
        }
        self.deliver();
        if let Some(answer) = answer {
            self.answered(unique, answer);
        }
    }

    /// Brings the answers that were sent later.
    fn deliver(&mut self) {
        let sent = std::mem::take(&mut *self.recorder.0.lock());
        for (unique, answer) in sent {
            self.answered(unique, answer);
        }
    }

    fn answered(&mut self, unique: Unique, answer: Answer) {
        self.note(|| format!("{unique} gets {answer:?}"));
        let seed = self.seed;
        assert!(self.answered.insert(unique), "seed {seed}: {unique} is answered twice");
        let (number, _) = self.unanswered.remove(&unique).expect("somebody asked");
        self.line.retain(|(_, waiting)| *waiting != unique);
        let next = self.clients[number].take(answer);
        self.check(number);
        match next {
            Next::Send(req) => self.to_send.push_back((number, req)),
            Next::HasAndSends(req) => {
                self.granted += 1;
                self.to_send.push_back((number, req));
            }
            Next::Has(token) => {
                self.granted += usize::from(token.is_none());
                self.check_token(number, token);
            }
            Next::Rest => {}
        }
    }

    /// Nobody has what this one has.
    fn check(&self, number: usize) {
        let own = &self.clients[number];
        for other in self.clients.iter().filter(|other| other.number != number) {
            let clash = |held: &Held| other.held.iter().any(|theirs| theirs.conflicts(held));
            assert!(
                !own.held.iter().any(clash),
                "seed {}: both have it:\n{own:?}\n{other:?}",
                self.seed
            );
        }
    }

    fn check_token(&mut self, number: usize, token: Option<u64>) {
        let Some(token) = token else { return };
        for held in &self.clients[number].held {
            let last = self.tokens.entry(held.name).or_default();
            assert!(*last < token, "seed {}: token {token} after {last}", self.seed);
            *last = token;
        }
    }

    /// The service is killed between two requests.
    pub fn crash(&mut self) {
        self.die(false);
        self.send_all();
    }

    /// The same, and nobody gives up meanwhile.
    pub fn crash_at_rest(&mut self) {
        self.crashes += 1;
        self.disk.crash(Crash::Killed, self.seed);
        self.live_again();
        self.send_again();
        self.send_all();
    }

    fn die(&mut self, in_write: bool) {
        self.crashes += 1;
        self.torn += u64::from(in_write);
        let crash = if in_write { Crash::KilledInWrite } else { Crash::Killed };
        let seed = self.random.next();
        self.disk.crash(crash, seed);
        // What had left before it died arrives all the same, but its receivers do nothing yet.
        let arrived = std::mem::take(&mut *self.recorder.0.lock());
        self.live_again();
        if self.random.one_in(6) {
            // The next one dies as it begins.
            let seed = self.random.next();
            self.disk.crash(Crash::KilledInWrite, seed);
            self.live_again();
        }
        for (unique, answer) in arrived {
            self.answered(unique, answer);
        }
        self.give_up_some();
        self.send_again();
    }

    fn live_again(&mut self) {
        self.note(|| "a new life".to_owned());
        self.line.clear();
        let (log, replay) = self.disk.open().expect("a crash damages nothing").expect("it is there");
        assert!(replay.same_boot);
        self.recorder = Arc::new(Recorder::default());
        let outside = outside(&self.dir, &self.recorder);
        self.service = Service::replayed(outside, Box::new(log), &replay).expect("it was written whole");
        self.service.start();
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
                self.given_up += 1;
                self.note(|| format!("{number} gave {unique} up"));
                self.unanswered.remove(&unique);
                self.clients[number].gave_up = true;
            }
        }
    }

    fn send_again(&mut self) {
        let mut again: Vec<Unique> = self.unanswered.keys().copied().collect();
        self.random.shuffle(&mut again);
        for unique in again {
            // An earlier one may have ended it.
            let Some((_, req)) = self.unanswered.get(&unique).cloned() else {
                continue;
            };
            self.came_again += 1;
            let answer = self.service.call(unique, nobody(), req.call());
            self.note(|| format!("{unique} again: {req:?} -> {answer:?}"));
            self.deliver();
            if let Some(answer) = answer {
                self.answered(unique, answer);
            }
        }
        for number in 0..CLIENTS {
            if std::mem::take(&mut self.clients[number].gave_up)
                && let Some(req) = self.clients[number].dies()
            {
                self.to_send.push_back((number, req));
            }
        }
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
