//! Priority 1 to 10; 10 goes first.

use serde::{Deserialize, Serialize};

/// A level from 1 (background) to 10 (a person waits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

impl Priority {
    /// The highest level a request can ask for or age into.
    pub const MAX: Self = Self(10);
    /// The lowest level.
    pub const MIN: Self = Self(1);

    /// `level` if it lies within 1..=10.
    pub fn new(level: u8) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&level).then_some(Self(level))
    }

    /// The level of a plain open by a process of that nice value (nice(1), -20..=19).
    pub fn from_nice(nice: i32) -> Self {
        Self(match nice {
            ..=0 => 10,
            1..=4 => 8,
            5..=9 => 5,
            10..=14 => 3,
            15.. => 1,
        })
    }

    /// The level as a number.
    pub fn level(self) -> u8 {
        self.0
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

impl TryFrom<u8> for Priority {
    type Error = &'static str;

    fn try_from(level: u8) -> Result<Self, Self::Error> {
        Self::new(level).ok_or("a priority outside 1 to 10")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nice_maps_to_the_documented_levels() {
        let levels: Vec<u8> = [-20, 0, 1, 4, 5, 9, 10, 14, 15, 19]
            .into_iter()
            .map(|n| Priority::from_nice(n).level())
            .collect();
        assert_eq!(levels, [10, 10, 8, 8, 5, 5, 3, 3, 1, 1]);
    }

    #[test]
    fn levels_outside_one_to_ten_do_not_exist() {
        assert_eq!(Priority::new(0), None);
        assert_eq!(Priority::new(11), None);
        assert_eq!(Priority::new(10), Some(Priority::MAX));
    }
}
