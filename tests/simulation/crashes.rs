//! How the service dies, what of it is lost, and how the next life begins.

use git_lockfs::adapters::memory::Crash;
use git_lockfs::service::api::Files;
use git_lockfs::types::Unique;

use super::{CLIENTS, Kernel, clients};
use crate::client::{NAMES, Stage};
use crate::machine::{Left, Sent, nobody};

impl Kernel {
    /// The service is killed between two requests.
    pub fn crash(&mut self) {
        match self.random.below(8) {
            0 => {
                self.all_came_again();
                self.look_at_tokens();
                self.power_cut();
            }
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

    /// It is killed before what it has just done was told; what is for others may have left. `writes` is how many writes
    /// there were before, `own` the call that has its answer now.
    pub(super) fn die_untold(&mut self, writes: u64, own: Option<Unique>) {
        let mut arrived = self.machine.recorder.take();
        let kept = self.random.below(arrived.len() + 1);
        self.lose(arrived.split_off(kept), own);
        let written = self.machine.disk.writes() - writes;
        if self.random.one_in(8) {
            self.power_cut();
            return;
        }
        let is_in_write = kept == 0 && written > 0;
        self.figures.in_snapshot += u64::from(is_in_write && written > 1);
        self.die(is_in_write, arrived);
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

    /// Nobody is left to serve the connection, and it ends. The next mount keeps what was held, whoever has it: here
    /// nobody can say who that is.
    pub fn remount(&mut self) {
        self.all_came_again();
        self.look_at_tokens();
        self.fail(Crash::Killed);
        let (service, kept) = self.machine.next_mount();
        self.service = service;
        let seed = self.seed;
        for (number, name) in NAMES.iter().enumerate() {
            let is_held = self
                .clients
                .iter()
                .flat_map(|client| &client.held)
                .any(|held| held.name == number);
            let is_kept = kept.iter().any(|line| line.starts_with(&format!("{name} held by ")));
            assert_eq!(is_held, is_kept, "seed {seed}: {name}: {kept:?}");
            let refusal = self.try_to_take(&[name]).err();
            assert_eq!(refusal.is_some(), is_held, "seed {seed}: {name}: {refusal:?}");
            self.figures.kept += u64::from(is_held);
        }
    }

    /// What had left before it died arrives all the same, but its receivers do nothing yet.
    fn die(&mut self, in_write: bool, arrived: Vec<Sent>) {
        self.figures.crashes += 1;
        self.figures.torn += u64::from(in_write);
        self.fail(if in_write { Crash::KilledInWrite } else { Crash::Killed });
        self.live_again();
        // A wake may come after the answer that it is about; who polls has both.
        self.deliver();
        self.arrive(arrived);
        self.give_up_some();
        self.send_again();
    }

    fn fail(&mut self, crash: Crash) {
        let seed = self.random.next();
        self.machine.disk.crash(crash, seed);
    }

    /// The power fails: everybody is gone, and of all that was known only the tokens are.
    fn power_cut(&mut self) {
        self.figures.crashes += 1;
        self.figures.power_cuts += 1;
        self.fail(Crash::PowerCut);
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

    /// The next life. It may die as it begins: when it has read the journal, in its first snapshot, or in making good
    /// what happened while nobody looked.
    fn live_again(&mut self) {
        self.has_returning = true;
        self.given.clear();
        while self.is_mortal && self.random.one_in(4) {
            self.figures.as_it_began += 1;
            match self.random.below(3) {
                0 => drop(self.machine.read()),
                1 => drop(self.machine.next_life()),
                _ => self.machine.next_life().start(),
            }
            let told = self.machine.recorder.take();
            self.lose(told, None);
            self.fail(Crash::KilledInWrite);
        }
        self.note(|| "a new life".to_owned());
        self.service = self.machine.next_life();
        self.service.start();
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
            self.given.insert(unique);
            let writes = self.machine.disk.writes();
            let answer = self.service.call(unique, nobody(), req.call());
            self.note(|| format!("{unique} again: {req:?} -> {answer:?}"));
            if self.is_mortal && self.random.one_in(20) {
                // What it decided last is lost on its way.
                let lost = self.machine.recorder.take();
                self.lose(lost, answer.is_some().then_some(unique));
                if self.random.one_in(8) {
                    self.power_cut();
                    return true;
                }
                let is_in_write = self.machine.disk.writes() > writes;
                self.fail(if is_in_write {
                    Crash::KilledInWrite
                } else {
                    Crash::Killed
                });
                return false;
            }
            self.deliver();
            if let Some(answer) = answer {
                self.answered(unique, answer);
            }
        }
        true
    }
}
