//! `metrics/locks.json` as a client reads it: who holds, who waits for whom (schema version 1).

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer};

use crate::types::Mode;

/// The schema that this client reads.
const VERSION: u32 = 1;

/// The whole table at one moment.
#[derive(Clone, Debug, Deserialize)]
pub struct Snapshot {
    version: u32,
    /// What becomes of unanswered requests when a worker dies: `resend` or `clone`.
    #[serde(default)]
    pub recovery: Option<String>,
    /// Whether `drain` is in force: nothing new is granted.
    #[serde(default)]
    pub drained: bool,
    /// Every lock that is held or waited for.
    pub locks: Vec<Lock>,
    /// Tickets whose waiter is away.
    #[serde(default)]
    pub tickets: Vec<Ticket>,
    /// Who waits for whom.
    #[serde(default)]
    pub edges: Vec<Edge>,
}

/// One lock.
#[derive(Clone, Debug, Deserialize)]
pub struct Lock {
    /// Its name.
    pub name: String,
    /// Who has it.
    #[serde(default)]
    pub holders: Vec<Holder>,
    /// Who wants it, first in line first.
    #[serde(default)]
    pub waiters: Vec<Waiter>,
}

/// How a lock is held, and so when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// Until the process whose PID was written exits.
    Owner,
    /// Until the last close.
    Descriptor,
    /// Until it is removed or expires.
    Lease,
}

/// One holder.
#[derive(Clone, Debug, Deserialize)]
pub struct Holder {
    /// Its process; 0 when it cannot be seen.
    #[serde(default)]
    pub pid: u32,
    /// Its session.
    pub session: Option<String>,
    /// How it holds.
    pub held: Held,
    /// Shared or exclusive.
    #[serde(deserialize_with = "mode")]
    pub mode: Mode,
    /// Its fencing token.
    pub token: u64,
    /// When it got it, RFC 3339.
    pub since: String,
    /// For how long it has it.
    pub held_ms: u64,
    /// What it does with it.
    pub op: Option<String>,
}

/// One waiter.
#[derive(Clone, Debug, Deserialize)]
pub struct Waiter {
    /// Its process; 0 when it cannot be seen.
    #[serde(default)]
    pub pid: u32,
    /// Its session.
    pub session: Option<String>,
    /// Shared or exclusive.
    #[serde(deserialize_with = "mode")]
    pub mode: Mode,
    /// The priority it asked for.
    pub priority: u8,
    /// The priority it has aged into.
    pub effective_priority: u8,
    /// Its place in the line; 1 is next.
    pub position: u32,
    /// For how long it waits.
    pub waited_ms: u64,
    /// For how long it is willing to; `None` is for ever.
    pub limit_ms: Option<u64>,
    /// Its ticket.
    pub ticket: Option<String>,
    /// What it wants the lock for.
    pub op: Option<String>,
    /// How much longer it will probably wait.
    pub estimated_wait_ms: Option<u64>,
}

/// An absent ticket.
#[derive(Clone, Debug, Deserialize)]
pub struct Ticket {
    /// Its name.
    pub name: String,
    /// The locks it stands in line for.
    pub locks: Vec<String>,
    /// Whose it is.
    pub session: Option<String>,
    /// For how long it is in line.
    pub age_ms: u64,
    /// When it is given up.
    pub expires_ms: u64,
}

/// An edge of the wait-for graph.
#[derive(Clone, Debug, Deserialize)]
pub struct Edge {
    /// The process that waits.
    pub waiter: u32,
    /// The lock in the way.
    pub lock: String,
}

impl Snapshot {
    /// Parses the file.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let snapshot: Self = serde_json::from_slice(text).context("metrics/locks.json could not be read")?;
        if snapshot.version != VERSION {
            bail!(
                "the daemon speaks version {} of metrics/locks.json and this program version {VERSION}: mount anew \
                 with one program",
                snapshot.version
            );
        }
        Ok(snapshot)
    }

    /// The lock of that name, if it is held or waited for.
    pub fn lock(&self, name: &str) -> Option<&Lock> {
        self.locks.iter().find(|lock| lock.name == name)
    }

    /// Those who hold the lock of that name.
    pub fn holders(&self, name: &str) -> &[Holder] {
        self.lock(name).map_or(&[], |lock| &lock.holders)
    }
}

impl Holder {
    /// For how long it holds.
    pub fn age(&self) -> Duration {
        Duration::from_millis(self.held_ms)
    }
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
    let text = String::deserialize(deserializer)?;
    Mode::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no mode")))
}

/// A table with a bit of everything, for the tests of those who show it.
#[cfg(test)]
pub(super) const SAMPLE: &str = r#"{"version":1,"time":"2026-11-20T14:43:12Z","drained":false,
 "locks":[
  {"name":"x.lock","mode":"exclusive",
   "holders":[{"pid":4242,"session":"agent-7","held":"owner","mode":"exclusive","token":918,
               "since":"2026-11-20T14:40:00Z","held_ms":192000,"op":"git merge","range":null}],
   "waiters":[{"pid":4250,"session":null,"mode":"exclusive","priority":8,"effective_priority":9,"position":1,
               "waited_ms":500,"limit_ms":30000,"ticket":null,"op":null,"estimated_wait_ms":1200},
              {"pid":4251,"session":"agent-9","mode":"shared","priority":5,"effective_priority":5,"position":2,
               "waited_ms":61000,"limit_ms":null,"ticket":"t","op":"git fetch","estimated_wait_ms":null}]},
  {"name":"global.lock","mode":"shared",
   "holders":[{"pid":0,"session":null,"held":"lease","mode":"shared","token":917,
               "since":"2026-11-20T14:43:11Z","held_ms":1000,"op":null,"range":null},
              {"pid":77,"session":"sid-70","held":"descriptor","mode":"shared","token":919,
               "since":"2026-11-20T14:43:11Z","held_ms":900,"op":"make","range":null}],
   "waiters":[]}],
 "tickets":[{"name":"t2","locks":["x.lock","y.lock"],"session":"agent-7","age_ms":1000,"expires_ms":59000}],
 "edges":[{"waiter":4250,"holder":4242,"lock":"x.lock"},{"waiter":4251,"holder":4242,"lock":"x.lock"}]}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_reads_as_it_says() {
        let snapshot = Snapshot::parse(SAMPLE.as_bytes()).expect("sample");
        assert_eq!(snapshot.holders("x.lock")[0].token, 918);
        assert_eq!(snapshot.holders("x.lock")[0].held, Held::Owner);
        assert_eq!(snapshot.holders("free.lock").len(), 0);
        assert_eq!(snapshot.lock("x.lock").map(|lock| lock.waiters.len()), Some(2));
    }

    #[test]
    fn another_version_is_refused_in_a_sentence() {
        let error = Snapshot::parse(br#"{"version":2,"locks":[]}"#).unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
        assert!(Snapshot::parse(b"{").is_err());
    }
}
