//! How the service dies, what of it is lost, and how the next life begins.

use git_lockfs::adapters::memory::Crash;
use git_lockfs::service::api::Files;
use git_lockfs::types::Unique;

use super::{CLIENTS, Kernel, clients};
use crate::client::Stage;
use crate::machine::{Left, Sent, nobody};

impl Kernel {
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
    pub(super) fn die(&mut self, in_write: bool, arrived: Vec<Sent>) {
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
    pub(super) fn power_cut(&mut self) {
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

    pub(super) fn live_again(&mut self) {
        self.note(|| "a new life".to_owned());
        self.service = self.machine.next_life();
        self.has_returning = true;
    }

    /// Some of those who wait are killed while nobody serves them.
    pub(super) fn give_up_some(&mut self) {
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
    pub(super) fn send_again(&mut self) {
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
    pub(super) fn sent_again(&mut self) -> bool {
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
}
