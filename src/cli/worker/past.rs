//! What a worker goes on from: the journal of those before it.
//!
//! A journal that cannot be gone on from is never guessed at. The holders and waiters of this mount rely on it, so a
//! later worker gives the mount up; a first one sets it aside and begins with nothing held, and the log says what was
//! known.

use anyhow::{Context, Result};

use super::{EXIT_HOPELESS, ReadSettings};
use crate::adapters::{Journal, JournalError};
use crate::cli::failure::failure;
use crate::cli::place::Place;
use crate::ports::Replay;
use crate::service::{self, Outside, ReplayError, Service, known_locks};

/// The service of a first worker of a mount, or of a later one.
pub fn begin(place: &Place, life: u32, settings: &ReadSettings, outside: Outside) -> Result<Service> {
    if life == 1 {
        return first(place, settings, outside);
    }
    let (journal, replay) = match Journal::open(&place.state_dir) {
        Ok(Some(opened)) => opened,
        Ok(None) => return Err(hopeless("the journal is gone")),
        Err(error @ JournalError::File { .. }) => return Err(error.into()),
        Err(error) => {
            tell_damage(&error);
            return Err(hopeless(error));
        }
    };
    if replay.snapshot.is_empty() {
        // The workers before this one died before they served anybody.
        let settings = settings().map_err(anyhow::Error::msg)?;
        return Ok(Service::new(settings, outside, Box::new(journal)));
    }
    Service::replayed(outside, Box::new(journal), &replay).map_err(|error| {
        if let ReplayError::Malformed { .. } = error {
            tell_known(&replay);
            set_aside(place);
        }
        hopeless(error)
    })
}

/// A new mount. Whoever held a lock when the last one ended uncleanly, and lives, keeps it.
fn first(place: &Place, settings: &ReadSettings, outside: Outside) -> Result<Service> {
    let settings = settings().map_err(anyhow::Error::msg)?;
    let Some((journal, replay)) = left_behind(place)? else {
        let journal = Journal::create(&place.state_dir, b"").context("the journal could not be begun")?;
        return Ok(Service::new(settings, outside, Box::new(journal)));
    };
    let (service, kept) = Service::survived(settings, outside, Box::new(journal), &replay)?;
    for lock in kept {
        tracing::warn!("kept from the last mount: {lock}");
    }
    Ok(service)
}

/// What the last mount has left to go on from. A journal that was damaged is set aside; one of a newer program, which may
/// know of locks that are held, is left alone, and nothing is mounted.
fn left_behind(place: &Place) -> Result<Option<(Journal, Replay)>> {
    let (journal, replay) = match Journal::open(&place.state_dir) {
        Ok(Some(opened)) => opened,
        Ok(None) => return Ok(None),
        Err(error @ JournalError::Corrupt { .. }) => {
            tell_damage(&error);
            tracing::error!("{error}; the mount begins with nothing held");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    match service::check_replay(&replay) {
        Ok(()) => Ok(Some((journal, replay))),
        Err(ReplayError::Empty) => Ok(None),
        Err(error @ ReplayError::Malformed { .. }) => {
            tell_known(&replay);
            set_aside(place);
            tracing::error!("{error}; the mount begins with nothing held");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether this program could go on from the journal of a worker that still runs; else, why not. Changes nothing.
pub fn examine(place: &Place) -> Result<()> {
    match Journal::examine(&place.state_dir)? {
        Some(replay) if !replay.snapshot.is_empty() => Ok(service::check_replay(&replay)?),
        _ => Ok(()),
    }
}

/// An error that the next worker would meet, too.
fn hopeless(reason: impl std::fmt::Display) -> anyhow::Error {
    failure(EXIT_HOPELESS, format!("nobody can go on from the journal: {reason}"))
}

fn tell_damage(error: &JournalError) {
    if let JournalError::Corrupt {
        legible: Some(replay), ..
    } = error
    {
        tell_known(replay);
    }
}

/// Says which locks were known: somebody must look after what they protected.
fn tell_known(replay: &Replay) {
    let known = known_locks(replay);
    if known.is_empty() {
        tracing::error!("no lock was known before the damage");
    }
    for lock in known {
        tracing::error!("known before the damage: {lock}");
    }
}

fn set_aside(place: &Place) {
    match Journal::set_aside(&place.state_dir) {
        Ok(kept) => tracing::error!("the journal is kept as {}", kept.display()),
        Err(error) => tracing::error!("the journal could not be set aside: {error}"),
    }
}
