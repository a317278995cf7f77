//! A decided request becomes a grant: new, converted in place (flock), or cut and joined (fcntl).

use super::acquire::{Request, Want};
use super::command::{Effect, Make, Shape, Taking};
use super::event::{Event, Happening, Subject, Who};
use super::grant::{Extra, Grant, Hold, Lease, Owner, Part, Taker, Way};
use super::table::{Holding, Slot};
use super::{Engine, Freed, HolderText};
use crate::types::{GrantId, Mode, Moment, Token};

/// How many waiters are reported to a new holder at most.
const WANTED_AT_GRANT_MAX: usize = 16;

impl Engine {
    /// Makes the request a holder of all that it wants.
    pub(super) fn install(&mut self, now: Moment, request: Request) -> Token {
        let waited = now.mono.since(request.place.since);
        // A flock(2) that changes what its handle holds keeps that grant.
        let held = match (&request.taking, request.wants.first()) {
            (Taking::Flock(_), Some(want)) => self.own_grant(want.slot, request.owner()),
            _ => None,
        };
        let grant = held.unwrap_or(GrantId(self.next_grant));
        for claim in &request.claims {
            self.effects.push_back(Effect::Event(Event {
                lock: claim.lock.clone(),
                mode: claim.mode,
                who: Who::of(&request.party),
                subject: Subject::Grant(grant),
                what: Happening::Acquired { waited },
            }));
        }
        match request.taking {
            Taking::Flock(_) => {
                if let Some(token) = self.convert(now, &request) {
                    return token;
                }
            }
            Taking::Posix { .. } => return self.install_range(now, request),
            Taking::Open(_) | Taking::Transaction(_) | Taking::Make(_) => {}
        }
        let token = self.new_token();
        self.insert_grant(now, request, token);
        token
    }

    /// Changes the mode of a lock that the handle of a flock(2) already holds.
    fn convert(&mut self, now: Moment, request: &Request) -> Option<Token> {
        let want = request.wants.first()?;
        let id = self.own_grant(want.slot, request.owner())?;
        let mode_before = self.table[want.slot]
            .holders
            .iter()
            .find(|holding| holding.grant == id)?
            .mode;
        let token = if want.mode == Mode::Exclusive && mode_before == Mode::Shared {
            Some(self.new_token())
        } else {
            None
        };
        self.set_hold(id, Hold::Descriptor);
        let grant = self.grants.get_mut(&id)?;
        grant.way = Way::Flock;
        grant.spoiled = false;
        if let Some(token) = token {
            grant.token = token;
            grant.since = now.mono;
        }
        let token = grant.token;
        for part in grant.parts.iter_mut().filter(|part| part.slot == want.slot) {
            part.mode = want.mode;
        }
        for holding in self.table[want.slot]
            .holders
            .iter_mut()
            .filter(|holding| holding.grant == id)
        {
            holding.mode = want.mode;
        }
        self.dirty.push((want.slot, Freed::Any));
        Some(token)
    }

    /// The grant that a handle itself (not a lock owner of fcntl) holds on a lock.
    pub(super) fn own_grant(&self, slot: Slot, owner: Owner) -> Option<GrantId> {
        let holding = self.table[slot]
            .holders
            .iter()
            .find(|holding| self.grants[&holding.grant].owner == owner)?;
        Some(holding.grant)
    }

    /// Sets a byte range: what the same owner held there gives way, neighbours of the same mode join.
    fn install_range(&mut self, now: Moment, mut request: Request) -> Token {
        let owner = request.owner();
        if let Owner::Posix { owner: key, handle } = owner {
            let want = request.wants[0];
            self.cut_ranges(now, want.slot, key, want.range);
            // What the handle took by open becomes a descriptor lock, as with flock.
            if let Some(id) = self.own_grant(want.slot, Owner::Handle(handle)) {
                self.set_hold(id, Hold::Descriptor);
            }
            let joined = self.join_ranges(want.slot, key, want.mode, want.range);
            request.wants[0].range = joined;
        }
        let token = self.new_token();
        self.insert_grant(now, request, token);
        token
    }

    fn insert_grant(&mut self, now: Moment, request: Request, token: Token) {
        let own = |want: &&Want| !want.intent;
        let parts = request.wants.iter().filter(own).map(|want| Part {
            slot: want.slot,
            mode: want.mode,
            range: want.range,
        });
        let mut own_parts = Vec::with_capacity(request.claims.len());
        own_parts.extend(parts);
        let (owner, way) = (request.owner(), Way::of(&request.taking));
        let mut grant = Grant {
            id: GrantId(self.next_grant),
            parts: own_parts,
            token,
            owner,
            way,
            hold: Hold::Descriptor,
            party: request.party,
            maker: None,
            taker: Taker::There,
            since: now.mono,
            shape: Shape::File,
            spoiled: false,
            extra: None,
        };
        self.next_grant += 1;
        if let Taking::Make(make) = request.taking {
            Self::apply_make(&mut grant, now, make);
        }
        self.link_grant(grant);
    }

    fn apply_make(grant: &mut Grant, now: Moment, make: Make) {
        grant.shape = make.shape;
        grant.maker = make.keepers.first().copied();
        grant.hold = match make.owner {
            Some(process) => Hold::Process(process),
            None => {
                let had_keeper = !make.keepers.is_empty();
                Hold::Lease(Lease {
                    keepers: make.keepers,
                    made: now,
                    renewed: now.boot,
                    had_keeper,
                })
            }
        };
        if make.text.is_some() || make.ino.is_some() {
            let text = make.text.map_or_else(HolderText::default, |text| HolderText {
                declared: Some(text.declared),
                note: text.note,
            });
            grant.extra = Some(Box::new(Extra {
                text,
                ino: make.ino,
                ..Extra::default()
            }));
        }
    }

    /// Enters a grant into every index.
    pub(super) fn link_grant(&mut self, grant: Grant) {
        let id = grant.id;
        for part in &grant.parts {
            let holders = &mut self.table[part.slot].holders;
            if holders.is_empty() {
                // Nearly every lock has one holder at a time.
                holders.reserve_exact(1);
            }
            holders.push(Holding {
                grant: id,
                mode: part.mode,
                range: part.range,
            });
            let mut above = self.table[part.slot].parent;
            while let Some(slot) = above {
                self.table[slot].intents += 1;
                above = self.table[slot].parent;
            }
            self.touched.push(part.slot);
        }
        if let Some(handle) = grant.owner.handle() {
            self.by_handle.insert((handle, id));
        }
        self.index_processes(&grant);
        self.index_lease_end(&grant);
        let tell = if grant.way == Way::Transaction {
            grant.owner.handle()
        } else {
            None
        };
        if let Some(handle) = tell {
            for part in &grant.parts {
                let waiters = self.table[part.slot].queue.in_order(self.aging(), Moment::default());
                for waiter in waiters.take(WANTED_AT_GRANT_MAX) {
                    self.effects.push_back(Effect::Wanted {
                        handle,
                        request: waiter.request,
                    });
                }
            }
        }
        self.grants.insert(id, Box::new(grant));
    }
}
