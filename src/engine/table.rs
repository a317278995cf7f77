//! The table of locks in use: holders, the line in front, and scopes.
//!
//! A lock has an entry while it is held, waited for, or the parent of one that is; a free lock has none.
//! Entries live in slots so that the rest of the engine names them by a small number.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::command::Claim;
use super::queue::Queue;
use crate::types::{GrantId, LockName, Mode, Range, Settings};

/// The slot of a lock in the table.
pub(super) type Slot = u32;

/// A part of a lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holding {
    pub(super) grant: GrantId,
    pub(super) mode: Mode,
    pub(super) range: Range,
}

/// One lock in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) name: LockName,
    /// The scope it lies in, which its holders hold shared.
    pub(super) parent: Option<Slot>,
    /// Locks in use that have this one as parent.
    pub(super) children: BTreeSet<Slot>,
    pub(super) holders: Vec<Holding>,
    /// How many claims on locks below hold this one shared.
    pub(super) intents: u32,
    pub(super) queue: Queue,
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.intents == 0 && self.queue.is_empty() && self.children.is_empty()
    }
}

/// All locks in use.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Table {
    by_name: BTreeMap<LockName, Slot>,
    /// Boxed, as the list has room to grow.
    slots: Vec<Option<Box<Entry>>>,
    free: Vec<Slot>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn find(&self, name: &str) -> Option<Slot> {
        self.by_name.get(name).copied()
    }

    /// Whether the locks that are not in use yet, and their scopes, fit below `bound`.
    pub(super) fn has_room_for(&self, claims: &[Claim], settings: &Settings, bound: usize) -> bool {
        if self.len() + claims.len() * (1 + Settings::PARENTS_DEPTH_MAX) <= bound {
            return true;
        }
        let mut new = BTreeSet::new();
        for claim in claims {
            let mut name = Some(&claim.lock);
            while let Some(missing) = name.filter(|name| self.find(name.as_str()).is_none()) {
                new.insert(missing);
                name = settings.parent_of(missing.as_str());
            }
        }
        self.len() + new.len() <= bound
    }

    /// The slot of a lock and of all the scopes it lies in; entries that were missing are made.
    pub(super) fn enter(&mut self, name: &LockName, settings: &Settings) -> Slot {
        if let Some(slot) = self.find(name.as_str()) {
            return slot;
        }
        let parent = settings
            .parent_of(name.as_str())
            .map(|parent| self.enter(parent, settings));
        let entry = Entry {
            name: name.clone(),
            parent,
            children: BTreeSet::new(),
            holders: Vec::new(),
            intents: 0,
            queue: Queue::default(),
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as Slot
            }
        };
        self.slots[slot as usize] = Some(Box::new(entry));
        self.by_name.insert(name.clone(), slot);
        if let Some(parent) = parent {
            self[parent].children.insert(slot);
        }
        slot
    }

    /// Drops the entry of a lock that is no longer in use, and then its scope's.
    pub(super) fn leave(&mut self, slot: Slot) {
        let Some(entry) = self.slots[slot as usize].as_ref() else {
            return;
        };
        if !entry.is_idle() {
            return;
        }
        let entry = self.slots[slot as usize]
            .take()
            .expect("the entry was there a line ago");
        self.by_name.remove(entry.name.as_str());
        self.free.push(slot);
        if let Some(parent) = entry.parent {
            self[parent].children.remove(&slot);
            self.leave(parent);
        }
    }

    /// The scopes that a lock lies in, nearest first.
    pub(super) fn ancestors(&self, slot: Slot) -> impl Iterator<Item = Slot> + '_ {
        std::iter::successors(self[slot].parent, |&slot| self[slot].parent)
    }

    /// Every lock in use below this one.
    pub(super) fn descendants(&self, slot: Slot) -> Vec<Slot> {
        let mut found: Vec<Slot> = self[slot].children.iter().copied().collect();
        let mut next = 0;
        while let Some(&child) = found.get(next) {
            found.extend(self[child].children.iter().copied());
            next += 1;
        }
        found
    }

    /// All locks in use, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.by_name.values().map(|&slot| (slot, &self[slot]))
    }
}

impl std::ops::Index<Slot> for Table {
    type Output = Entry;

    fn index(&self, slot: Slot) -> &Entry {
        self.slots[slot as usize].as_deref().expect("slots in use have entries")
    }
}

impl std::ops::IndexMut<Slot> for Table {
    fn index_mut(&mut self, slot: Slot) -> &mut Entry {
        self.slots[slot as usize]
            .as_deref_mut()
            .expect("slots in use have entries")
    }
}
