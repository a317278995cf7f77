//! What must hold after every command; run by tests, and by a build with the feature `paranoid`.

use super::Engine;
use super::grant::Hold;
use crate::types::{Mode, Moment};

impl Engine {
    /// Asserts that the engine's indexes agree and that no rule is broken.
    pub fn check_invariants(&self, now: Moment) {
        self.check_exclusion();
        self.check_indexes();
        self.check_nobody_waits_in_vain(now);
    }

    fn check_exclusion(&self) {
        for (_, entry) in self.table.iter() {
            for (index, a) in entry.holders.iter().enumerate() {
                for b in &entry.holders[index + 1..] {
                    let conflict = a.mode.conflicts(b.mode) && a.range.overlaps(b.range);
                    let same = self.grants[&a.grant].owner.is_same(self.grants[&b.grant].owner);
                    assert!(!conflict || same, "{} is held twice: {a:?} and {b:?}", entry.name);
                }
            }
            let exclusive = entry.holders.iter().find(|holding| holding.mode == Mode::Exclusive);
            if let Some(holding) = exclusive
                && entry.intents > 0
            {
                let own_parts = self.grants[&holding.grant].parts.len();
                assert!(
                    own_parts > entry.intents as usize,
                    "{} is held alone while locks below it are held",
                    entry.name
                );
            }
        }
    }

    fn check_indexes(&self) {
        for (slot, entry) in self.table.iter() {
            for holding in &entry.holders {
                let grant = &self.grants[&holding.grant];
                assert!(
                    grant
                        .parts
                        .iter()
                        .any(|part| part.slot == slot && part.mode == holding.mode && part.range == holding.range),
                    "a holder of {} has the part in its grant",
                    entry.name
                );
            }
            let below = self.table.descendants(slot);
            let held_below: usize = below.iter().map(|&slot| self.table[slot].holders.len()).sum();
            assert_eq!(
                entry.intents as usize, held_below,
                "{} counts the holders below it",
                entry.name
            );
            let is_used =
                !entry.holders.is_empty() || entry.intents > 0 || !entry.queue.is_empty() || !entry.children.is_empty();
            assert!(is_used, "{} is free and has no entry", entry.name);
        }
        for (handle, id) in &self.by_handle {
            let owner = self.grants[id].owner;
            assert_eq!(owner.handle(), Some(*handle), "a handle lists its own grants");
        }
        for (process, id) in &self.by_process {
            assert!(self.grants.contains_key(id), "{process} lists grants that exist");
        }
        for (_, id) in &self.lease_ends {
            let is_unkept = matches!(&self.grants[id].hold, Hold::Lease(lease) if lease.keepers.is_empty());
            assert!(is_unkept, "only leases that nobody keeps end by time");
        }
        for (limit, id) in &self.limits {
            assert_eq!(self.requests[id].limit(), Some(*limit), "a limit is its request's");
        }
    }

    fn check_nobody_waits_in_vain(&self, now: Moment) {
        for request in self.requests.values() {
            assert!(
                self.obstacle(request, now).is_some(),
                "request {} waits for nothing",
                request.id
            );
        }
    }
}
