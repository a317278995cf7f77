//! A table whose changes are noted, so that the journal writes what changed and nothing else.

use std::collections::HashMap;
use std::hash::Hash;

/// A table of plain records.
#[derive(Debug)]
pub(super) struct Kept<K, V> {
    records: HashMap<K, V>,
    /// What was put in, taken out or touched since the changes were taken last; may name one twice.
    changed: Vec<K>,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self {
            records: HashMap::new(),
            changed: Vec::new(),
        }
    }
}

impl<K: Copy + Eq + Ord + Hash, V> Kept<K, V> {
    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.records.get(&key)
    }

    /// The record, to be changed: whoever asks for it counts as having changed it.
    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let record = self.records.get_mut(&key)?;
        self.changed.push(key);
        Some(record)
    }

    pub(super) fn insert(&mut self, key: K, record: V) {
        self.changed.push(key);
        self.records.insert(key, record);
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let record = self.records.remove(&key)?;
        self.changed.push(key);
        Some(record)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.records.iter().map(|(key, record)| (*key, record))
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Tells each change once, with what the record is now, and begins anew.
    pub(super) fn take_changes(&mut self, mut tell: impl FnMut(K, Option<&V>)) {
        self.changed.sort_unstable();
        self.changed.dedup();
        for key in self.changed.drain(..) {
            tell(key, self.records.get(&key));
        }
    }

    /// Counts everything as told.
    pub(super) fn forget_changes(&mut self) {
        self.changed.clear();
    }
}
