//! The tree as pure functions: which nodes there are, how each file reads, how what is written parses.
//!
//! Testable with strings: it knows no FUSE types, no descriptors, no clocks. Time comes as [`Now`].

pub mod charts;
pub mod dashboard;
pub mod figures;
pub mod help;
pub mod lock_text;
pub mod locks_json;
pub mod nodes;
pub mod requests;
#[cfg(test)]
pub(crate) mod sample;

use crate::types::{Moment, Tick};

/// The moment of a rendering, on the engine's clocks and on the wall.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For ages.
    pub moment: Moment,
    /// For people: nanoseconds since 1970.
    pub wall_ns: i64,
}

impl Now {
    /// What the wall showed at another tick of the monotonic clock.
    pub fn wall_at(&self, tick: Tick) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(self.wall_ns_at(tick).into()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// The same in nanoseconds since 1970.
    pub fn wall_ns_at(&self, tick: Tick) -> i64 {
        // Signed: what is shown may have begun a moment after the call that shows it.
        let after = i128::from(tick.0) - i128::from(self.moment.mono.0);
        self.wall_ns.saturating_add(i64::try_from(after).unwrap_or(i64::MIN))
    }

    /// The same in whole seconds, in the form `2026-11-20T14:40:00Z`.
    pub fn stamp_at(&self, tick: Tick) -> String {
        let seconds = self.wall_at(tick).as_second();
        jiff::Timestamp::from_second(seconds)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_string()
    }
}
