//! Places in the line of those who are not there: tickets, and waits that a signal ended a moment ago.
//!
//! An absent waiter stands in no queue, so it is passed over and never granted. What is kept is its
//! arrival and its age; when it comes back for the same locks it stands where it stood.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::{Acquire, Claim, Wait};
use super::grant::Way;
use crate::types::{Refusal, SessionName, Tick, TicketName, Unique};

/// How long a wait that a signal ended keeps its place: bash opens again after each SIGCHLD.
pub(super) const INTERRUPTED_KEEPS: Duration = Duration::from_secs(1);

/// What is kept of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) arrival: u64,
    pub(super) since: Tick,
    /// The limit that the interrupted wait had.
    pub(super) wait: Option<Wait>,
}

/// A wait is resumed by the same thread, for the same locks, in the same way.
type InterruptedKey = (u32, u8, Vec<Claim>);

/// A ticket, waiting or absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// What it is for.
    pub claims: Vec<Claim>,
    /// Whose it is.
    pub session: Option<SessionName>,
    /// Where it stands.
    pub state: TicketState,
}

/// Where a ticket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TicketState {
    /// Its request waits.
    Present(Unique),
    /// Nobody is there; the place is kept until the tick.
    Absent {
        /// When the wait began.
        since: Tick,
        /// When the place is given up.
        expires: Tick,
    },
}

/// All places that are kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Places {
    interrupted: BTreeMap<InterruptedKey, (Tick, Kept)>,
    expiring: VecDeque<(Tick, InterruptedKey)>,
    tickets: BTreeMap<TicketName, (Ticket, u64)>,
    /// When absent tickets are given up.
    absent: BTreeSet<(Tick, TicketName)>,
}

impl Places {
    /// Keeps the place of a wait that a signal ended.
    pub(super) fn keep_interrupted(
        &mut self,
        now: Tick,
        tid: u32,
        way: Way,
        claims: Vec<Claim>,
        kept: Kept,
        bound: usize,
    ) {
        self.drop_expired(now);
        if tid == 0 || self.interrupted.len() >= bound {
            return;
        }
        let expires = now.after(INTERRUPTED_KEEPS);
        let key = (tid, way as u8, claims);
        self.expiring.push_back((expires, key.clone()));
        self.interrupted.insert(key, (expires, kept));
    }

    /// Takes back the place that a request may resume.
    pub(super) fn resume(&mut self, now: Tick, request: &Acquire) -> Result<Option<Kept>, Refusal> {
        if let Some(name) = &request.ticket {
            let Some((ticket, arrival)) = self.tickets.get(name) else {
                return Ok(None);
            };
            let TicketState::Absent { since, expires } = ticket.state else {
                return Err(Refusal::HeldByOther);
            };
            if now >= expires {
                return Ok(None);
            }
            let is_same = ticket.claims == request.claims && ticket.session == request.party.session;
            return if is_same {
                Ok(Some(Kept {
                    arrival: *arrival,
                    since,
                    wait: None,
                }))
            } else {
                Err(Refusal::HeldByOther)
            };
        }
        // A try does not wait, so it neither resumes a wait nor takes its place away.
        if self.interrupted.is_empty() || request.party.tid == 0 || request.wait == Wait::No {
            return Ok(None);
        }
        let key = (
            request.party.tid,
            Way::of(&request.taking) as u8,
            request.claims.clone(),
        );
        Ok(self
            .interrupted
            .remove(&key)
            .filter(|(expires, _)| now < *expires)
            .map(|(_, kept)| kept))
    }

    /// A ticket by its name.
    pub(super) fn ticket(&self, name: &TicketName) -> Option<&Ticket> {
        self.tickets.get(name).map(|(ticket, _)| ticket)
    }

    /// All tickets, by name.
    pub(super) fn tickets(&self) -> impl Iterator<Item = (&TicketName, &Ticket)> {
        self.tickets.iter().map(|(name, (ticket, _))| (name, ticket))
    }

    /// Whether one more ticket of that name fits.
    pub(super) fn has_room_for(&self, name: &TicketName, bound: usize) -> bool {
        self.tickets.contains_key(name) || self.tickets.len() < bound
    }

    pub(super) fn set_ticket(&mut self, name: TicketName, ticket: Ticket, arrival: u64) {
        self.remove_ticket(&name);
        if let TicketState::Absent { expires, .. } = ticket.state {
            self.absent.insert((expires, name.clone()));
        }
        self.tickets.insert(name, (ticket, arrival));
    }

    pub(super) fn remove_ticket(&mut self, name: &TicketName) -> Option<Ticket> {
        let (ticket, _) = self.tickets.remove(name)?;
        if let TicketState::Absent { expires, .. } = ticket.state {
            self.absent.remove(&(expires, name.clone()));
        }
        Some(ticket)
    }

    /// Drops absent tickets whose time is over.
    pub(super) fn drop_expired(&mut self, now: Tick) {
        while let Some((expires, key)) = self.expiring.front()
            && *expires <= now
        {
            if self.interrupted.get(key).is_some_and(|(at, _)| at == expires) {
                self.interrupted.remove(key);
            }
            self.expiring.pop_front();
        }
        while let Some((expires, _)) = self.absent.first()
            && *expires <= now
            && let Some((_, name)) = self.absent.pop_first()
        {
            self.tickets.remove(&name);
        }
    }

    /// When the first absent ticket is given up.
    pub(super) fn next_expiry(&self) -> Option<Tick> {
        self.absent.first().map(|(expires, _)| *expires)
    }
}
