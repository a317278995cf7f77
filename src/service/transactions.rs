//! `acquire`: one request for several locks, and the events that follow.

use std::sync::Arc;

use super::api::Answer;
use super::handles::{Parked, Stage};
use super::inspect::Fresh;
use super::refusals::{Refused, about_lock};
use super::state::State;
use super::{Context, Outcome, Service};
use crate::adapters::processes;
use crate::engine::{Acquire, Command, Reply, Taking, Wait};
use crate::types::{HandleId, Priority, Refusal};
use crate::view::help;
use crate::view::requests::{AcquireRequest, parse_acquire};

impl Service {
    pub(super) fn request(&self, context: &Context, handle: HandleId, data: &[u8]) -> Outcome {
        let request =
            parse_acquire(data).map_err(|error| Refused::new(Refusal::Malformed, format!("acquire: {error}")))?;
        for claim in &request.claims {
            self.bury(context, &claim.lock);
        }
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let acquire = self.acquire_of(context, handle, request);
        let mut state = self.state();
        match state.transaction(handle).map(|transaction| transaction.stage) {
            Some(Stage::Idle) => {}
            Some(_) => {
                return Err(Refused::new(
                    Refusal::Malformed,
                    "acquire: this descriptor has its request; open acquire again",
                ));
            }
            None => return Err(Refused::new(Refusal::BadHandle, "")),
        }
        let names: Vec<_> = acquire.claims.iter().map(|claim| claim.lock.clone()).collect();
        let ticket = acquire.ticket.clone();
        let outcome = match state.command(context.now, Command::Acquire(acquire)) {
            Ok(Reply::Granted(token)) => {
                state.unidentified.push(Fresh::Handle(handle));
                Ok(Some(state.transaction_granted(handle, token, size)))
            }
            Ok(_) => {
                if let Some(transaction) = state.transaction(handle) {
                    transaction.stage = Stage::Waiting;
                }
                state.parked.insert(
                    context.unique,
                    Parked::Acquire {
                        handle,
                        tid: context.caller.tid,
                        size,
                    },
                );
                self.inspect_wait(&mut state, context.unique);
                Ok(None)
            }
            Err(Refusal::HeldByOther) => {
                let name = ticket.map(|ticket| ticket.to_string()).unwrap_or_default();
                let sentence = format!(
                    "acquire: ticket {name} is in use, or was for other locks or another session; echo 'withdraw {name}' > control gives it up"
                );
                Err(Refused::new(Refusal::HeldByOther, sentence))
            }
            Err(refusal) => {
                let in_the_way = names
                    .iter()
                    .find(|lock| state.engine.availability(lock, &[]) != crate::engine::Availability::Free);
                let lock = in_the_way.or(names.first());
                Err(match lock {
                    Some(lock) => about_lock(&state.engine, lock, refusal, context.now),
                    None => Refused::new(refusal, "acquire: refused"),
                })
            }
        };
        self.finish(state, context.now);
        outcome
    }

    /// What the engine is asked, with what the request leaves to the caller's surroundings.
    fn acquire_of(&self, context: &Context, handle: HandleId, request: AcquireRequest) -> Acquire {
        let mut party = self.party(context);
        party.session = request.session;
        party.op = request.op.map(Arc::from);
        if request.ticket.is_some() && party.session.is_none() {
            // A ticket belongs to a session, so it must be known now.
            let pinned = self.processes.pin(context.caller.tid);
            party.session = pinned.and_then(|pinned| processes::session_of(pinned.pid));
        }
        let limit = request.wait.unwrap_or_else(|| {
            let state = self.state();
            state
                .engine
                .settings()
                .wait_limit(request.claims.iter().map(|claim| claim.lock.as_str()))
        });
        let wait = match limit {
            Some(limit) if limit.is_zero() => Wait::No,
            Some(limit) => Wait::Until(context.now.mono.after(limit)),
            None => Wait::Forever,
        };
        let priority = request
            .priority
            .unwrap_or_else(|| Priority::from_nice(processes::nice_of(context.caller.tid)));
        let lineage = if wait == Wait::No {
            self.actor(context).lineage
        } else {
            Vec::new()
        };
        Acquire {
            id: context.unique,
            claims: request.claims,
            taking: Taking::Transaction(handle),
            party,
            priority,
            wait,
            ticket: request.ticket,
            lineage,
        }
    }

    /// A read of an open `acquire`: its help before a request, then the token, then events.
    pub(super) fn read_events(state: &mut State, context: &Context, handle: HandleId, size: u32) -> Outcome {
        let Some(transaction) = state.transaction(handle) else {
            return Err(Refused::new(Refusal::BadHandle, ""));
        };
        transaction.check_kept()?;
        if !transaction.unread.is_empty() {
            return Ok(Some(Answer::Data(transaction.take(size))));
        }
        match transaction.stage {
            Stage::Idle => {
                let rest = help::ACQUIRE
                    .as_bytes()
                    .get(transaction.help_read..)
                    .unwrap_or_default();
                let data: Vec<u8> = rest.iter().copied().take(size as usize).collect();
                transaction.help_read += data.len();
                Ok(Some(Answer::Data(data)))
            }
            Stage::Waiting | Stage::Granted(_) => {
                transaction.readers.push_back((context.unique, size));
                state.parked.insert(context.unique, Parked::Events { handle });
                Ok(None)
            }
        }
    }
}
