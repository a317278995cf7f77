//! `metrics/locks.json`: who holds, who waits for whom. The schema is versioned and documented in git-lockfs(5).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Now, lock_text};
use crate::engine::{Blocker, Engine, Holder, TicketState, Waiter};
use crate::predict::HoldTimes;
use crate::types::{LockName, TicketName, Unique, name_of_told};

/// The version of the schema.
const VERSION: u32 = 1;

/// The processes that serve the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ServedBy {
    /// Answers the requests.
    pub worker_pid: u32,
    /// Keeps the mount when the worker dies; 0 while there is none.
    pub supervisor_pid: u32,
    /// How a worker's death is made up for.
    pub recovery: Recovery,
}

/// What becomes of the requests that a worker had read and not answered when it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recovery {
    /// The kernel sends them again to the next worker (Linux 6.9).
    Resend,
    /// They end with an error.
    Clone,
}

/// The whole of it.
#[derive(Serialize)]
struct Document {
    version: u32,
    time: String,
    #[serde(flatten)]
    served_by: ServedBy,
    drained: bool,
    locks: Vec<Lock>,
    tickets: Vec<AbsentTicket>,
    edges: Vec<EdgeView>,
}

#[derive(Serialize)]
pub(super) struct Lock {
    pub(super) name: String,
    pub(super) mode: Option<String>,
    pub(super) holders: Vec<HolderView>,
    pub(super) waiters: Vec<WaiterView>,
}

#[derive(Serialize)]
pub(super) struct HolderView {
    pub(super) pid: u32,
    pub(super) session: Option<String>,
    pub(super) held: &'static str,
    pub(super) mode: String,
    pub(super) token: u64,
    pub(super) since: String,
    pub(super) held_ms: u64,
    pub(super) op: Option<String>,
    pub(super) range: Option<[u64; 2]>,
}

#[derive(Serialize)]
pub(super) struct WaiterView {
    pub(super) pid: u32,
    pub(super) session: Option<String>,
    pub(super) mode: String,
    pub(super) priority: u8,
    pub(super) effective_priority: u8,
    pub(super) position: usize,
    pub(super) waited_ms: u64,
    pub(super) limit_ms: Option<u64>,
    pub(super) ticket: Option<String>,
    pub(super) op: Option<String>,
    pub(super) estimated_wait_ms: Option<u64>,
}

#[derive(Serialize)]
struct AbsentTicket {
    name: String,
    locks: Vec<String>,
    session: Option<String>,
    age_ms: u64,
    expires_ms: u64,
}

#[derive(Serialize)]
struct EdgeView {
    waiter: u32,
    holder: u32,
    lock: String,
}

/// The whole document.
pub fn render(engine: &Engine, usual: &HoldTimes, served_by: ServedBy, now: Now) -> Vec<u8> {
    let mut waiting = BTreeMap::new();
    let document = Document {
        version: VERSION,
        time: now.stamp_at(now.moment.mono),
        served_by,
        drained: engine.is_drained(),
        locks: locks_and_waits(engine, usual, now, &mut waiting),
        tickets: engine
            .tickets()
            .filter_map(|(name, ticket)| absent(name, ticket, now))
            .collect(),
        edges: edges(engine, &waiting, now),
    };
    // Numbers and strings only: serialising cannot fail.
    let mut bytes = serde_json::to_vec(&document).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// The locks of the document.
pub(super) fn locks(engine: &Engine, usual: &HoldTimes, now: Now) -> Vec<Lock> {
    locks_and_waits(engine, usual, now, &mut BTreeMap::new())
}

fn locks_and_waits(
    engine: &Engine,
    usual: &HoldTimes,
    now: Now,
    waiting: &mut BTreeMap<Unique, (u32, LockName)>,
) -> Vec<Lock> {
    let names: Vec<LockName> = engine.locks_in_use().cloned().collect();
    names
        .iter()
        .map(|name| lock(engine, usual, name, now, waiting))
        .collect()
}

fn lock(
    engine: &Engine,
    usual: &HoldTimes,
    name: &LockName,
    now: Now,
    waiting: &mut BTreeMap<Unique, (u32, LockName)>,
) -> Lock {
    let holders: Vec<Holder<'_>> = engine.holders(name.as_str()).collect();
    let waiters = engine.waiters(name.as_str(), now.moment);
    for waiter in &waiters {
        waiting
            .entry(waiter.id())
            .or_insert_with(|| (waiter.party().pid, name.clone()));
    }
    let held_for = holders
        .iter()
        .map(|holder| now.moment.mono.since(holder.grant.since))
        .min();
    let usual = usual.usual(name);
    let wait_of = |position: usize| {
        let rest = usual?.saturating_sub(held_for.unwrap_or_default());
        Some(millis(rest + usual? * u32::try_from(position - 1).unwrap_or(u32::MAX)))
    };
    Lock {
        name: name.to_string(),
        mode: holders
            .iter()
            .map(|holder| holder.mode)
            .max()
            .map(|mode| mode.to_string()),
        holders: holders.iter().map(|holder| holder_view(holder, now)).collect(),
        waiters: waiters
            .iter()
            .enumerate()
            .map(|(index, waiter)| waiter_view(waiter, index + 1, wait_of(index + 1), now))
            .collect(),
    }
}

fn holder_view(holder: &Holder<'_>, now: Now) -> HolderView {
    let grant = holder.grant;
    let declared = grant.extra().and_then(|extra| extra.text.declared.as_ref());
    HolderView {
        pid: declared.map_or(grant.party.pid, |declared| declared.pid),
        session: grant.party.session.as_ref().map(ToString::to_string),
        held: lock_text::held(&grant.hold),
        mode: holder.mode.to_string(),
        token: grant.token.0,
        since: now.stamp_at(grant.since),
        held_ms: millis(now.moment.mono.since(grant.since)),
        op: grant.party.op.as_deref().and_then(name_of_told),
        range: (!holder.range.is_whole()).then(|| [holder.range.start(), holder.range.end()]),
    }
}

fn waiter_view(waiter: &Waiter<'_>, position: usize, estimated_wait_ms: Option<u64>, now: Now) -> WaiterView {
    let party = waiter.party();
    WaiterView {
        pid: party.pid,
        session: party.session.as_ref().map(ToString::to_string),
        mode: waiter.mode.to_string(),
        priority: waiter.priority(),
        effective_priority: waiter.level,
        position,
        waited_ms: millis(now.moment.mono.since(waiter.since())),
        limit_ms: waiter.limit().map(|limit| millis(limit.since(waiter.since()))),
        ticket: waiter.ticket().map(ToString::to_string),
        op: party.op.as_deref().and_then(name_of_told),
        estimated_wait_ms,
    }
}

fn absent(name: &TicketName, ticket: &crate::engine::Ticket, now: Now) -> Option<AbsentTicket> {
    let TicketState::Absent { since, expires } = ticket.state else {
        return None;
    };
    Some(AbsentTicket {
        name: name.to_string(),
        locks: ticket.claims.iter().map(|claim| claim.lock.to_string()).collect(),
        session: ticket.session.as_ref().map(ToString::to_string),
        age_ms: millis(now.moment.mono.since(since)),
        expires_ms: millis(expires.since(now.moment.mono)),
    })
}

/// Who waits for whom: a holder, or a waiter ahead.
fn edges(engine: &Engine, waiting: &BTreeMap<Unique, (u32, LockName)>, now: Now) -> Vec<EdgeView> {
    /// A long line is not drawn in full: each waiter shows what is nearest.
    const EDGES_PER_WAITER_MAX: usize = 8;
    const WAITERS_WITH_EDGES_MAX: usize = 256;
    let mut edges = Vec::new();
    for (id, (pid, lock)) in waiting.iter().take(WAITERS_WITH_EDGES_MAX) {
        for blocker in engine.blockers(*id, now.moment, EDGES_PER_WAITER_MAX) {
            let holder = match blocker {
                Blocker::Holder(grant) => grant.party.pid,
                Blocker::Waiter(_, party) => party.pid,
            };
            edges.push(EdgeView {
                waiter: *pid,
                holder,
                lock: lock.to_string(),
            });
        }
    }
    edges
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Acquire, Bounds, Claim, Command, Effect, Party, Taking, Wait};
    use crate::types::{HandleId, Mode, Moment, Priority, Settings, Token};

    /// An engine and what it has taught about holds.
    struct World(Engine, HoldTimes);

    impl World {
        fn run(&mut self, millis: u64, command: Command) {
            self.0.handle(Moment::at_millis(millis), command).expect("it is done");
            while let Some(effect) = self.0.poll_effect() {
                if let Effect::Event(event) = effect {
                    self.1.observe(&event);
                }
            }
        }

        fn open(&mut self, millis: u64, handle: u64) {
            let name = LockName::parse(b"x.lock").expect("a name");
            let request = Acquire {
                id: Unique(handle),
                claims: vec![Claim::whole(name, Mode::Exclusive)],
                taking: Taking::Open(HandleId(handle)),
                party: Party::default(),
                priority: Priority::new(5).expect("level"),
                wait: Wait::Forever,
                ticket: None,
                lineage: Vec::new(),
            };
            self.run(millis, Command::Acquire(request));
        }

        fn close(&mut self, millis: u64, handle: u64) {
            self.run(millis, Command::Close(HandleId(handle)));
        }

        fn estimates(&self, millis: u64) -> Vec<Option<u64>> {
            let now = Now {
                moment: Moment::at_millis(millis),
                wall_ns: 0,
            };
            let all = locks(&self.0, &self.1, now);
            let waiters = all.iter().flat_map(|lock| &lock.waiters);
            waiters.map(|waiter| waiter.estimated_wait_ms).collect()
        }
    }

    #[test]
    fn a_wait_is_estimated_from_what_earlier_holds_took() {
        let engine = Engine::new(Settings::default(), Bounds::default(), Token(1)..Token(99));
        let mut world = World(engine, HoldTimes::default());
        world.open(0, 1);
        world.open(0, 2);
        assert_eq!(world.estimates(0), [None], "nobody has let go of it yet");
        world.close(1000, 1);
        world.open(1000, 3);
        world.open(1000, 4);
        // What is left of the second's usual second, and a second for each that stands before.
        assert_eq!(world.estimates(1400), [Some(600), Some(1600)]);
        assert_eq!(
            world.estimates(5000),
            [Some(0), Some(1000)],
            "it takes longer than usual"
        );
    }
}
