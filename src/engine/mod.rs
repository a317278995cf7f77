//! The arbiter as a value: commands in, effects out.
//!
//! [`Engine::handle`] takes the time and a [`Command`] and answers its caller at once; what follows for
//! others (a waiter is granted, a handle lost its lock) is read with [`Engine::poll_effect`] until it is
//! empty. [`Engine::next_deadline`] says when [`Command::Advance`] is due. Everything else only reads.
//! The same commands at the same times give the same effects, byte for byte.
//!
//! It knows no files, no FUSE, no clock, no thread, no git and no errno. Processes are numbers that the
//! driver pinned; what a number cannot tell (which descriptors a process has) the driver finds out and
//! says with [`Command::Deny`], [`Command::Promote`] and [`Command::Exited`].
//!
//! Rooms: `table` (locks in use, scopes), `queue` (one line, aging), `acquire` (who may have what),
//! `wait` (into the lines and out of them), `install` (a request becomes a grant),
//! `release` (every way a lock ends), `lease` (keepers and time), `dir` (files in mkdir locks), `places` (tickets, interrupted waits),
//! `survive` (a new mount after an unclean end), `deadlock` (circles), `read` (what a reader sees), `event` (what observers are told),
//! `scratch` (small files that are no locks).

mod acquire;
mod command;
mod deadlock;
mod dir;
mod event;
mod grant;
mod install;
mod invariants;
mod lease;
mod places;
mod queue;
mod read;
mod release;
mod scratch;
mod survive;
mod table;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;
mod wait;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use command::{
    Acquire, Actor, Claim, Command, Effect, HolderText, Make, Party, Reply, Shape, Taking, Target, Trace, Wait,
};
pub use dir::FileChange;
pub use event::{Ending, Event, Happening, Subject, Who};
pub use grant::{DirFiles, Extra, Grant, Hold, Lease, Owner, Taker, Way};
pub use places::{Ticket, TicketState};
pub use read::{Availability, Blocker, Holder, TextRule, Waiter};
pub use scratch::{SCRATCH_BYTES_MAX, Scratch, ScratchFile, write_at};

use acquire::Request;
use places::Places;
use queue::Aging;
use table::{Slot, Table};

use crate::types::{GrantId, HandleId, Moment, ProcessId, Refusal, Settings, Tick, Token, Unique};

/// The bounds of the engine's tables; reaching one is refused with ENOSPC.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bounds {
    /// Locks in use.
    pub locks: usize,
    /// Grants, shared ones and byte ranges included.
    pub grants: usize,
    /// Waiting requests.
    pub waiters: usize,
    /// Locks in one request.
    pub claims: usize,
    /// Byte ranges held on one lock.
    pub ranges: usize,
    /// Tickets, waiting and absent.
    pub tickets: usize,
    /// Files in a lock made by mkdir.
    pub dir_files: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            locks: 65_536,
            grants: 131_072,
            waiters: 65_536,
            claims: 64,
            ranges: 1024,
            tickets: 4096,
            dir_files: 16,
        }
    }
}

/// Which waiters a freed lock can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Freed {
    /// A shared holder or a shared waiter left: only a strict waiter at the head can gain.
    Shared,
    /// Anyone can gain.
    Any,
}

/// The arbiter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Engine {
    settings: Settings,
    bounds: Bounds,
    table: Table,
    /// Boxed, as nodes of the map are half empty.
    grants: BTreeMap<GrantId, Box<Grant>>,
    requests: BTreeMap<Unique, Box<Request>>,
    /// What each open handle holds.
    by_handle: BTreeSet<(HandleId, GrantId)>,
    /// The grants that the end of a process concerns.
    by_process: BTreeSet<(ProcessId, GrantId)>,
    waiting_process: BTreeMap<ProcessId, Unique>,
    places: Places,
    /// Wait limits, on the monotonic clock.
    limits: BTreeSet<(Tick, Unique)>,
    /// Ends of leases without a keeper, on the clock that counts suspended time.
    lease_ends: BTreeSet<(Tick, GrantId)>,
    /// Locks whose line can change its order by waiting alone.
    mixed: BTreeSet<Slot>,
    /// When each waiter below the top rises next, on the monotonic clock.
    rises: BTreeSet<(Tick, Unique)>,
    /// Locks whose waiters must be looked at again before the command ends.
    #[serde(skip)]
    dirty: Vec<(Slot, Freed)>,
    /// Locks that may have become idle in this command.
    #[serde(skip)]
    touched: Vec<Slot>,
    #[serde(skip)]
    effects: VecDeque<Effect>,
    drained: bool,
    next_arrival: u64,
    next_grant: u64,
    next_token: Token,
    token_end: Token,
}

impl Engine {
    /// An arbiter with nothing held, which gives tokens from `tokens.start` on and none past `tokens.end`.
    pub fn new(settings: Settings, bounds: Bounds, tokens: std::ops::Range<Token>) -> Self {
        Self {
            settings,
            bounds,
            table: Table::default(),
            grants: BTreeMap::new(),
            requests: BTreeMap::new(),
            by_handle: BTreeSet::new(),
            by_process: BTreeSet::new(),
            waiting_process: BTreeMap::new(),
            places: Places::default(),
            limits: BTreeSet::new(),
            lease_ends: BTreeSet::new(),
            mixed: BTreeSet::new(),
            rises: BTreeSet::new(),
            dirty: Vec::new(),
            touched: Vec::new(),
            effects: VecDeque::new(),
            drained: false,
            next_arrival: 0,
            next_grant: 0,
            next_token: tokens.start,
            token_end: tokens.end,
        }
    }

    /// Carries out a command. A refusal leaves everything as it was.
    pub fn handle(&mut self, now: Moment, command: Command) -> Result<Reply, Refusal> {
        self.advance(now);
        let result = self.apply(now, command);
        self.settle(now);
        if cfg!(any(test, feature = "paranoid")) {
            self.check_invariants(now);
        }
        result
    }

    /// The next thing that follows from the commands so far.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Command::Advance`] is due: on the monotonic clock, and on the one that counts suspended time.
    pub fn next_deadline(&self, _now: Moment) -> (Option<Tick>, Option<Tick>) {
        let limit = self.limits.first().map(|(tick, _)| *tick);
        let rise = self
            .rises
            .first()
            .map(|(tick, _)| *tick)
            .filter(|_| !self.mixed.is_empty());
        let mono = [limit, rise, self.places.next_expiry()].into_iter().flatten().min();
        (mono, self.lease_ends.first().map(|(tick, _)| *tick))
    }

    fn extend_tokens(&mut self, end: Token) -> Result<Reply, Refusal> {
        if self.tokens_left() == 0 {
            self.dirty.extend(self.table.iter().map(|(slot, _)| (slot, Freed::Any)));
        }
        self.token_end = self.token_end.max(end);
        Ok(Reply::Done)
    }

    /// Goes on with tokens that were reserved anew, after the engine was read back from where it was kept. None of
    /// them may lie below what was given before.
    pub fn renew_tokens(&mut self, tokens: std::ops::Range<Token>) {
        self.next_token = self.next_token.max(tokens.start);
        self.token_end = self.next_token.max(tokens.end);
    }

    /// How many tokens are left.
    pub fn tokens_left(&self) -> u64 {
        self.token_end.0 - self.next_token.0
    }

    fn apply(&mut self, now: Moment, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::Acquire(request) => self.acquire(now, request),
            Command::Cancel(id) => self.cancel(now, id, Refusal::Interrupted),
            Command::Deny(id, refusal) => self.cancel(now, id, refusal),
            Command::Promote { request, lineage } => self.promote(request, &lineage),
            Command::Unflock { lock, handle } => self.unflock(now, &lock, handle),
            Command::Unlock {
                lock,
                owner,
                handle,
                range,
            } => self.unlock_range(now, &lock, owner, handle, range),
            Command::Flush { lock, owner } => self.flush(now, &lock, owner),
            Command::Close(handle) => self.close(now, handle),
            Command::Declare {
                target,
                text,
                owner,
                keepers,
            } => self.declare(now, target, text, owner, keepers),
            Command::Note { target, note } => self.note(target, note),
            Command::Spoil(handle) => self.spoil(handle),
            Command::Touch { handle, keepers, mtime } => self.touch(now, handle, keepers, mtime),
            Command::Renew { lock, actor, mtime } => self.renew(now, &lock, &actor, mtime),
            Command::ChangeFile {
                lock,
                file,
                change,
                actor,
            } => self.change_file(&lock, &file, change, &actor),
            Command::Remove { lock, actor } => self.remove(now, &lock, &actor),
            Command::Break { lock, token } => self.break_lock(now, &lock, token),
            Command::ReleaseSession(session) => Ok(self.release_session(now, &session)),
            Command::Withdraw(ticket) => self.withdraw(now, &ticket),
            Command::Drain(drained) => self.drain(drained),
            Command::Configure(settings) => self.configure(now, settings),
            Command::ExtendTokens(end) => self.extend_tokens(end),
            Command::Exited { process, cleanly } => self.exited(now, process, cleanly),
            Command::IdentifyGrant(id, party) => self.identify_grant(id, party),
            Command::OwnedBy(id, party) => self.owned_by(id, party),
            Command::TakerGone(id) => self.taker_gone(id),
            Command::IdentifyRequest(id, party) => self.identify_request(id, party),
            Command::Advance => Ok(Reply::Done),
        }
    }

    /// Lets time pass: wait limits, kept places, ends of leases, aging.
    fn advance(&mut self, now: Moment) {
        while let Some(&(tick, id)) = self.limits.first()
            && tick <= now.mono
        {
            // The request is in `limits`, so it waits and the refusal reaches it.
            let _ = self.cancel(now, id, Refusal::TimedOut);
        }
        self.end_leases(now);
        if self.places.next_expiry().is_some_and(|tick| tick <= now.mono) {
            self.places.drop_expired(now.mono);
        }
        self.settle(now);
        self.raise(now);
    }

    fn drain(&mut self, drained: bool) -> Result<Reply, Refusal> {
        self.drained = drained;
        if !drained {
            self.dirty.extend(self.table.iter().map(|(slot, _)| (slot, Freed::Any)));
        }
        Ok(Reply::Done)
    }

    fn configure(&mut self, now: Moment, settings: Settings) -> Result<Reply, Refusal> {
        // Locks in use keep the scope they were taken under until they are free.
        let has_new_aging = self.settings.aging != settings.aging;
        self.settings = settings;
        if has_new_aging {
            self.reckon_rises(now);
        }
        self.dirty.extend(self.table.iter().map(|(slot, _)| (slot, Freed::Any)));
        Ok(Reply::Done)
    }

    fn aging(&self) -> Aging {
        Aging(self.settings.aging)
    }

    /// The grants that the end of a process concerns.
    fn grants_by(&self, process: ProcessId) -> impl Iterator<Item = GrantId> + '_ {
        let all = (process, GrantId(0))..=(process, GrantId(u64::MAX));
        self.by_process.range(all).map(|(_, id)| *id)
    }

    /// What an open handle holds.
    fn grants_through(&self, handle: HandleId) -> impl Iterator<Item = GrantId> + '_ {
        let all = (handle, GrantId(0))..=(handle, GrantId(u64::MAX));
        self.by_handle.range(all).map(|(_, id)| *id)
    }

    fn new_token(&mut self) -> Token {
        let token = self.next_token;
        self.next_token = Token(token.0 + 1);
        token
    }
}
