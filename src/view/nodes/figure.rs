//! The files in `metrics/by-lock/NAME/`.

use serde::{Deserialize, Serialize};

/// The figures of one lock, a file each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Figure {
    /// Half of the waits were no longer, in milliseconds.
    WaitP50,
    /// 95 of 100.
    WaitP95,
    /// 99 of 100.
    WaitP99,
    /// 95 of 100 holds were no longer.
    HoldP95,
    /// How often it was granted.
    Acquires,
    /// How many requests for it gave up.
    Timeouts,
    /// How often it was released because its holder was gone.
    Stale,
    /// How many wait for it now.
    Waiters,
}

impl Figure {
    /// All of them, in the order that `ls -U` shows.
    pub const ALL: [Self; 8] = [
        Self::WaitP50,
        Self::WaitP95,
        Self::WaitP99,
        Self::HoldP95,
        Self::Acquires,
        Self::Timeouts,
        Self::Stale,
        Self::Waiters,
    ];

    /// The name of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::WaitP50 => "wait_p50_ms",
            Self::WaitP95 => "wait_p95_ms",
            Self::WaitP99 => "wait_p99_ms",
            Self::HoldP95 => "hold_p95_ms",
            Self::Acquires => "acquires",
            Self::Timeouts => "timeouts",
            Self::Stale => "stale",
            Self::Waiters => "waiters",
        }
    }

    /// The figure of that name.
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|figure| figure.name().as_bytes() == name)
    }
}
