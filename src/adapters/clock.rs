//! The only place that reads clocks.

use std::time::SystemTime;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::types::{Moment, Tick};

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The present moment on the two clocks that decide anything; two vDSO reads, no system call.
    pub fn now() -> Moment {
        Moment {
            mono: read(ClockId::CLOCK_MONOTONIC),
            boot: read(ClockId::CLOCK_BOOTTIME),
        }
    }

    /// The wall clock: shown to people, never used to decide when something ends.
    pub fn wall() -> Timestamp {
        // A clock set outside jiff's years -9999..9999 still gets an answer, as it is only shown.
        Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

fn read(clock: ClockId) -> Tick {
    let time = clock_gettime(clock).expect("both clocks exist since Linux 2.6.39");
    let seconds = u64::try_from(time.tv_sec()).expect("these clocks count from boot");
    let nanoseconds = u64::try_from(time.tv_nsec()).expect("nanoseconds are never negative");
    Tick(seconds * 1_000_000_000 + nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_never_go_back_and_boottime_is_never_behind() {
        let mut before = Clock::now();
        for _ in 0..10_000 {
            let now = Clock::now();
            assert!(now.mono >= before.mono && now.boot >= before.boot, "{before:?} {now:?}");
            assert!(
                now.boot >= now.mono,
                "boottime counts what monotonic counts, and suspension: {now:?}"
            );
            before = now;
        }
    }

    #[test]
    fn the_wall_clock_is_that_of_the_system() {
        let system = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let wall = u64::try_from(Clock::wall().as_second()).expect("after 1970");
        assert!(wall.abs_diff(system) <= 1);
    }
}
