//! The rules, which know nothing of journals: who may have what, in which order, and with which tokens.

use std::collections::BTreeMap;

use git_lockfs::types::{Mode, Range, Unique};

use crate::client::Client;

/// A part of a lock that a client has, or wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub name: usize,
    pub mode: Mode,
    pub range: Range,
}

impl Held {
    /// Said anew here, and not asked of the types that the program uses: they may be wrong.
    fn conflicts(&self, other: &Self) -> bool {
        let both_share = self.mode == Mode::Shared && other.mode == Mode::Shared;
        let is_apart = self.range.end() < other.range.start() || other.range.end() < self.range.start();
        self.name == other.name && !both_share && !is_apart
    }
}

/// What a request is to take, and where in the line it stands.
#[derive(Clone, Debug)]
pub struct Wish {
    pub claims: Vec<Held>,
    /// Whether it waits for it, if need be.
    pub waits: bool,
    pub rank: u8,
    /// The span in which it arrived.
    pub earliest: u64,
    pub latest: u64,
}

impl Wish {
    fn is_surely_behind(&self, other: &Self) -> bool {
        other.rank > self.rank || (other.rank == self.rank && other.latest < self.earliest)
    }

    fn conflicts(&self, other: &Self) -> bool {
        let clash = |held: &Held| other.claims.iter().any(|theirs| theirs.conflicts(held));
        self.claims.iter().any(clash)
    }
}

/// What was asked for and is not decided, as far as anybody outside knows.
#[derive(Debug, Default)]
pub struct Line {
    wishes: BTreeMap<Unique, Wish>,
    /// The call that was carried out when the service died: it may have to come again to stand in the line.
    pub doubtful: Option<Unique>,
}

impl Line {
    pub fn comes(&mut self, unique: Unique, wish: Wish) {
        self.wishes.insert(unique, wish);
    }

    pub fn leaves(&mut self, unique: Unique) -> Option<Wish> {
        self.wishes.remove(&unique)
    }

    /// Everybody is gone.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Nobody is granted what somebody ahead waits for. Returns how many wait for it behind.
    pub fn check(&self, seed: u64, unique: Unique, granted: &Wish) -> u64 {
        let mut behind = 0;
        for (other, wish) in &self.wishes {
            if wish.waits && granted.conflicts(wish) && self.doubtful != Some(*other) {
                behind += 1;
                assert!(
                    !granted.is_surely_behind(wish),
                    "seed {seed}: {unique} went past {other}: {granted:?} {wish:?}"
                );
            }
        }
        behind
    }
}

/// Tokens grow: those of one lock always, and all of them over a power cut.
#[derive(Debug, Default)]
pub struct TokenRule {
    last: BTreeMap<usize, u64>,
    highest: u64,
    /// The highest that was given before the power failed.
    floor: u64,
}

impl TokenRule {
    /// A lock was granted with this token.
    pub fn given(&mut self, seed: u64, name: usize, token: u64) {
        let last = self.last.entry(name).or_default();
        assert!(*last < token, "seed {seed}: token {token} after {last}");
        *last = token;
        assert!(
            self.floor < token,
            "seed {seed}: token {token}, and {} before the power cut",
            self.floor
        );
        self.seen(token);
    }

    /// Somebody holds something with this token.
    pub fn seen(&mut self, token: u64) {
        self.highest = self.highest.max(token);
    }

    pub fn power_cut(&mut self) {
        self.floor = self.highest;
    }
}

/// Nobody has what this one has.
pub fn check_exclusion(seed: u64, clients: &[Client], number: usize) {
    let own = &clients[number];
    for other in clients.iter().filter(|other| other.number != number) {
        let clash = |held: &Held| other.held.iter().any(|theirs| theirs.conflicts(held));
        assert!(
            !own.held.iter().any(clash),
            "seed {seed}: both have it:\n{own:?}\n{other:?}"
        );
    }
}
