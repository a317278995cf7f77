//! Time, medians, and rounds in which every measured call takes its turn.
//!
//! The machine is shared and its clock changes speed, so a figure alone says little. All calls are measured in turns
//! within each round, a ratio is one of the same round, and what is reported is the median over the rounds.

use nix::time::{ClockId, clock_gettime};

use crate::daemon::{Daemon, Spent};

/// Nanoseconds on the clock that all processes share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has it");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Busy until so many nanoseconds have passed: a sleep would let the processor sleep as well.
pub fn spin(nanoseconds: u64) {
    let end = now() + nanoseconds;
    while now() < end {
        std::hint::spin_loop();
    }
}

/// The middle of some figures; of none it is 0.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// A call to be measured.
pub struct Probe<'a> {
    batch: usize,
    /// Makes the call once and tells what counts of it in nanoseconds.
    call: Box<dyn FnMut() -> u64 + 'a>,
    rounds: Vec<Round>,
}

/// What a call cost in one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// The median of the batch, in nanoseconds.
    nanos: f64,
    /// Processor time of the daemon, and the requests it read, per call.
    daemon: Spent,
}

impl<'a> Probe<'a> {
    /// A call that is measured from beginning to end, `batch` times a round.
    pub fn whole(batch: usize, mut call: impl FnMut() + 'a) -> Self {
        Self::part(batch, move || {
            let start = now();
            call();
            now() - start
        })
    }

    /// A call that measures itself.
    pub fn part(batch: usize, call: impl FnMut() -> u64 + 'a) -> Self {
        Self {
            batch,
            call: Box::new(call),
            rounds: Vec::new(),
        }
    }

    fn take_turn(&mut self, daemon: &Daemon) {
        let before = daemon.spent();
        let times: Vec<f64> = (0..self.batch).map(|_| (self.call)() as f64).collect();
        let daemon = daemon.spent().since(before).per(self.batch);
        self.rounds.push(Round {
            nanos: median(times),
            daemon,
        });
    }

    /// Nanoseconds a call.
    pub fn nanos(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.nanos))
    }

    /// How many times as long as another call, each compared within its round.
    pub fn ratio(&self, to: &Probe<'_>) -> f64 {
        let pairs = self.rounds.iter().zip(&to.rounds);
        median(pairs.map(|(own, other)| own.nanos / other.nanos))
    }

    /// What the daemon spent on a call.
    pub fn daemon(&self) -> Spent {
        Spent {
            nanos: median(self.rounds.iter().map(|round| round.daemon.nanos)),
            requests: median(self.rounds.iter().map(|round| round.daemon.requests)),
        }
    }
}

/// Measures the calls in turns. The first round warms everything up and is forgotten.
pub fn in_turns(rounds: usize, daemon: &Daemon, probes: &mut [&mut Probe<'_>]) {
    for round in 0..=rounds {
        for probe in &mut *probes {
            probe.take_turn(daemon);
            if round == 0 {
                probe.rounds.clear();
            }
        }
    }
}
