//! A stretch of time: a series for each lock and for each operation in it, bounded in number.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::Record;
use super::series::{Counts, Series, Spread};

/// How many locks have figures of their own in one cell; those of more are kept together.
pub const LOCKS_MAX: usize = 256;
/// The same for operations.
pub const OPS_MAX: usize = 64;
/// The name under which those of more are kept: no lock can have it.
pub const OTHERS: &str = "(all others)";

/// Figures by name.
pub type ByName = BTreeMap<Arc<str>, Series>;

/// What happened in a stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// By lock.
    pub locks: ByName,
    /// By operation; those that are not known under the empty name. Together they are all that happened.
    pub ops: ByName,
}

impl Cell {
    /// Counts one record.
    pub fn count(&mut self, record: &Record) {
        if let Some(lock) = &record.lock {
            series(&mut self.locks, lock.as_str(), LOCKS_MAX).count(record);
        }
        series(&mut self.ops, record.op.as_deref().unwrap_or_default(), OPS_MAX).count(record);
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        for (name, other) in &other.locks {
            series(&mut self.locks, name, LOCKS_MAX).add(other);
        }
        for (name, other) in &other.ops {
            series(&mut self.ops, name, OPS_MAX).add(other);
        }
    }

    /// All together.
    pub fn sum(&self) -> Series {
        let mut sum = Series::default();
        self.ops.values().for_each(|series| sum.add(series));
        sum
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// The series of a name; that of all others when there are too many.
pub fn series<'a>(all: &'a mut ByName, name: &str, max: usize) -> &'a mut Series {
    // Looked up first, as nearly every name is there and a new key would be allocated each time.
    let name = if all.contains_key(name) || all.len() < max {
        name
    } else {
        OTHERS
    };
    if !all.contains_key(name) {
        all.insert(Arc::from(name), Series::default());
    }
    all.get_mut(name).expect("it was put there a line ago")
}

/// A cell that is over: its distributions in their small form.
#[derive(Clone, Debug, Default)]
pub struct PackedCell {
    /// By lock.
    pub locks: Vec<PackedSeries>,
    /// By operation.
    pub ops: Vec<PackedSeries>,
}

/// A series of a cell that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedSeries {
    /// The lock or operation.
    pub name: Arc<str>,
    /// How often what happened.
    pub counts: Counts,
    /// The waits, packed.
    pub wait: Box<[u8]>,
    /// The holds, packed.
    pub hold: Box<[u8]>,
}

impl PackedCell {
    /// Packs a cell.
    pub fn of(cell: &Cell) -> Self {
        let pack = |all: &ByName| {
            let packed = all.iter().map(|(name, series)| PackedSeries {
                name: Arc::clone(name),
                counts: series.counts,
                wait: series.wait.pack().into(),
                hold: series.hold.pack().into(),
            });
            packed.collect()
        };
        Self {
            locks: pack(&cell.locks),
            ops: pack(&cell.ops),
        }
    }

    /// Adds it to a cell.
    pub fn add_to(&self, cell: &mut Cell) {
        for packed in &self.locks {
            packed.add_to(series(&mut cell.locks, &packed.name, LOCKS_MAX));
        }
        for packed in &self.ops {
            packed.add_to(series(&mut cell.ops, &packed.name, OPS_MAX));
        }
    }

    /// How much memory it takes.
    pub fn bytes(&self) -> usize {
        let all = self.locks.iter().chain(&self.ops);
        size_of::<Self>() + all.map(PackedSeries::bytes).sum::<usize>()
    }

    /// All together.
    pub fn sum(&self) -> Series {
        let mut sum = Series::default();
        self.ops.iter().for_each(|packed| packed.add_to(&mut sum));
        sum
    }
}

impl PackedSeries {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.wait.len() + self.hold.len()
    }

    /// The series. What was packed by another version and cannot be read is left out, the counts never.
    pub fn unpack(&self) -> Series {
        Series {
            counts: self.counts,
            wait: Spread::unpack(&self.wait).unwrap_or_default(),
            hold: Spread::unpack(&self.hold).unwrap_or_default(),
        }
    }

    /// Adds it to a series.
    pub fn add_to(&self, series: &mut Series) {
        series.add(&self.unpack());
    }
}
