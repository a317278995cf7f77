//! How a lock is held: shared or exclusive, and over which bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Shared locks go together; an exclusive lock is alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Compatible with other shared locks.
    Shared,
    /// Compatible with nothing.
    Exclusive,
}

impl Mode {
    /// Whether two locks of these modes on the same bytes exclude each other.
    pub fn conflicts(self, other: Self) -> bool {
        self == Self::Exclusive || other == Self::Exclusive
    }

    /// Parses `shared` or `exclusive`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "shared" => Some(Self::Shared),
            "exclusive" => Some(Self::Exclusive),
            _ => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::Exclusive => "exclusive",
        })
    }
}

/// A closed range of bytes; an open, a flock or a mkdir is [`Range::WHOLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct Range {
    start: u64,
    end: u64,
}

impl Range {
    /// Every byte there is: the kernel's `OFFSET_MAX` is the last.
    pub const WHOLE: Self = Self {
        start: 0,
        end: i64::MAX as u64,
    };

    /// The bytes from `start` to `end`, both included; `None` when there are none.
    pub fn new(start: u64, end: u64) -> Option<Self> {
        let end = end.min(Self::WHOLE.end);
        (start <= end).then_some(Self { start, end })
    }

    /// The first byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// The last byte.
    pub fn end(self) -> u64 {
        self.end
    }

    /// Whether this is every byte.
    pub fn is_whole(self) -> bool {
        self == Self::WHOLE
    }

    /// Whether the two share a byte.
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// What is left of this range on either side once `other` is cut out.
    pub fn without(self, other: Self) -> [Option<Self>; 2] {
        if !self.overlaps(other) {
            return [Some(self), None];
        }
        let before = (self.start < other.start).then(|| Self {
            start: self.start,
            end: other.start - 1,
        });
        let after = (other.end < self.end).then(|| Self {
            start: other.end + 1,
            end: self.end,
        });
        [before, after]
    }

    /// The union of two ranges that touch or overlap; `None` when a gap lies between them.
    pub fn joined(self, other: Self) -> Option<Self> {
        let touches = self.start <= other.end.saturating_add(1) && other.start <= self.end.saturating_add(1);
        touches.then(|| Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        })
    }
}

impl From<Range> for (u64, u64) {
    fn from(range: Range) -> Self {
        (range.start, range.end)
    }
}

impl TryFrom<(u64, u64)> for Range {
    type Error = &'static str;

    fn try_from((start, end): (u64, u64)) -> Result<Self, Self::Error> {
        Self::new(start, end).ok_or("a range without a byte")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> Range {
        Range::new(start, end).expect("test range")
    }

    #[test]
    fn cutting_the_middle_leaves_both_sides() {
        assert_eq!(range(0, 9).without(range(3, 5)), [Some(range(0, 2)), Some(range(6, 9))]);
        assert_eq!(range(0, 9).without(range(0, 9)), [None, None]);
        assert_eq!(range(0, 9).without(range(20, 30)), [Some(range(0, 9)), None]);
    }

    #[test]
    fn only_touching_ranges_join() {
        assert_eq!(range(0, 4).joined(range(5, 9)), Some(range(0, 9)));
        assert_eq!(range(0, 3).joined(range(5, 9)), None);
        assert_eq!(Range::WHOLE.joined(range(5, 9)), Some(Range::WHOLE));
    }

    #[test]
    fn an_empty_range_is_none() {
        assert_eq!(Range::new(5, 4), None);
        assert!(
            Range::new(0, u64::MAX).is_some_and(Range::is_whole),
            "the end is clamped to the kernel's last byte"
        );
    }
}
