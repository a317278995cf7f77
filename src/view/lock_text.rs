//! How a lock reads: a line a holder, then what is known. The same facts are its extended attributes.

use std::fmt::Write;

use super::Now;
use crate::engine::{Engine, Hold, Holder};
use crate::types::{LockName, Mode};

/// The prefix of our extended attributes.
pub const XATTR_PREFIX: &str = "user.lockfs.";

/// The text of a lock; empty when it is free.
pub fn render(engine: &Engine, lock: &LockName, now: Now) -> Vec<u8> {
    let mut text = String::new();
    let mut note: &[u8] = &[];
    for holder in engine.holders(lock.as_str()) {
        text.push_str(&holder_line(&holder, now));
        text.push('\n');
        note = holder.grant.extra().map_or(note, |extra| &extra.text.note);
    }
    let facts = facts(engine, lock, now);
    if facts.is_empty() {
        return Vec::new();
    }
    text.push('\n');
    for (key, value) in facts {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key}={value}");
    }
    let mut bytes = text.into_bytes();
    if !note.is_empty() {
        bytes.push(b'\n');
        bytes.extend_from_slice(note);
    }
    bytes
}

/// A holder as it is written: the declared line as it came, else `PID:SESSION:TIMESTAMP` as far as known.
fn holder_line(holder: &Holder<'_>, now: Now) -> String {
    let grant = holder.grant;
    if let Some(declared) = grant.extra().and_then(|extra| extra.text.declared.as_ref()) {
        return declared.to_string();
    }
    let seconds = now.wall_at(grant.since).as_second();
    match &grant.party.session {
        Some(session) => format!("{}:{session}:{seconds}", grant.party.pid),
        None => grant.party.pid.to_string(),
    }
}

/// The fields of a lock, in the order they are shown; empty when the lock is free.
pub fn facts(engine: &Engine, lock: &LockName, now: Now) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let newest = engine.holders(lock.as_str()).max_by_key(|holder| holder.grant.token);
    let waiters = engine.waiter_count(lock.as_str());
    match newest {
        Some(holder) => {
            let grant = holder.grant;
            facts.push(("mode", holder.mode.to_string()));
            facts.push(("held", held(&grant.hold).to_owned()));
            facts.push(("token", grant.token.to_string()));
            facts.push(("since", now.stamp_at(grant.since)));
        }
        None if waiters > 0 => facts.push(("held", "waiting".to_owned())),
        None if engine.is_lock_held_below(lock.as_str()) => {
            facts.push(("mode", Mode::Shared.to_string()));
            facts.push(("held", "below".to_owned()));
        }
        None if engine.is_drained() => facts.push(("held", "drained".to_owned())),
        None => match engine.forbidding_scope(lock) {
            Some(scope) => facts.push(("held", format!("scope {scope}"))),
            None => return facts,
        },
    }
    facts.push(("waiters", waiters.to_string()));
    if let Some(op) = newest.and_then(|holder| holder.grant.party.op.as_deref()) {
        facts.push(("op", op.to_owned()));
    }
    facts
}

/// How a lock is held, in one word.
pub fn held(hold: &Hold) -> &'static str {
    match hold {
        Hold::Descriptor => "descriptor",
        Hold::Process(_) => "owner",
        Hold::Lease(_) => "lease",
    }
}

/// The extended attributes of a lock: the fields of its text, and its newest holder's `pid` and `session`.
pub fn attributes(engine: &Engine, lock: &LockName, now: Now) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = facts(engine, lock, now)
        .into_iter()
        .map(|(key, value)| (format!("{XATTR_PREFIX}{key}"), value))
        .collect();
    let newest = engine.holders(lock.as_str()).max_by_key(|holder| holder.grant.token);
    if let Some(holder) = newest {
        let line = holder_line(&holder, now);
        let mut fields = line.split(':');
        for key in ["pid", "session", "timestamp"] {
            let Some(value) = fields.next() else { break };
            found.push((format!("{XATTR_PREFIX}{key}"), value.to_owned()));
        }
    }
    found
}
