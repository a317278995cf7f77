//! A new mount after the old one ended uncleanly: what outlives it, and how.
//!
//! With a connection end its calls, so nobody waits any more; and its descriptors are dead, though their owners may not
//! know it yet and go on as if they held what they were given. So a lock that lived by a descriptor is kept until the
//! process that had it is gone. Of whom nobody can say who it is, time decides, as with a lease that nobody keeps.

use std::collections::BTreeSet;

use super::Engine;
use super::event::Ending;
use super::grant::{Hold, Lease};
use crate::types::{GrantId, Moment, Settings, Unique};

impl Engine {
    /// Ends what ended with the mount, and among the locks that lived by a descriptor those that are named: whoever had
    /// them is gone. From now on these settings count.
    pub fn survive(&mut self, now: Moment, settings: Settings, gone: &BTreeSet<GrantId>) {
        self.drained = true;
        for id in self.requests.keys().copied().collect::<Vec<Unique>>() {
            if let Some(request) = self.take_request(id) {
                self.keep_ticket(now, &request);
            }
        }
        self.settle(now);
        self.waiting_process.clear();
        self.by_handle.clear();
        for id in self.grants.keys().copied().collect::<Vec<GrantId>>() {
            if gone.contains(&id) {
                self.release(now, id, Ending::Stale);
            } else {
                self.outlive(now, id);
            }
        }
        self.drained = false;
        // Nothing can be refused here, and nobody waits for an effect.
        let _ = self.configure(now, settings);
        self.end_leases(now);
        self.settle(now);
        self.effects.clear();
    }

    fn outlive(&mut self, now: Moment, id: GrantId) {
        let Some(grant) = self.grants.get_mut(&id) else { return };
        let lives_by_descriptor = grant.hold == Hold::Descriptor || grant.spoiled;
        grant.spoiled = false;
        if !lives_by_descriptor {
            return;
        }
        let hold = match grant.party.process {
            Some(process) => Hold::Process(process),
            None => Hold::Lease(Lease {
                keepers: Vec::new(),
                made: now,
                renewed: now.boot,
                had_keeper: true,
            }),
        };
        self.set_hold(id, hold);
    }
}
