//! The only place that reads clocks.

use std::sync::atomic::{AtomicI64, Ordering};
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

/// What the wall clock showed at ticks of the monotonic clock: the same at every look, until the wall clock is set or
/// the machine was suspended.
#[derive(Debug)]
pub struct WallTime {
    /// From the monotonic clock to the wall, in nanoseconds.
    offset_ns: AtomicI64,
}

/// The two clocks are read one after the other; less between them than this is no sign that the wall clock was set.
const STEP_NS_MIN: i64 = 1_000_000;

impl WallTime {
    /// Reads both clocks.
    pub fn new() -> Self {
        let offset_ns = AtomicI64::new(Self::offset_between(Clock::now().mono, Clock::wall()));
        Self { offset_ns }
    }

    /// What the wall clock shows at this moment of the recent past, in nanoseconds since 1970.
    pub fn at(&self, moment: Moment) -> i64 {
        let wall = Clock::wall();
        let now = Clock::now().mono;
        self.at_reading(moment, wall, now)
    }

    /// The wall was read between `moment` and `now`.
    fn at_reading(&self, moment: Moment, wall: Timestamp, now: Tick) -> i64 {
        let earliest = Self::offset_between(now, wall) - STEP_NS_MIN;
        let latest = Self::offset_between(moment.mono, wall) + STEP_NS_MIN;
        let mut offset = self.offset_ns.load(Ordering::Relaxed);
        if !(earliest..=latest).contains(&offset) {
            offset = Self::offset_between(now, wall);
            self.offset_ns.store(offset, Ordering::Relaxed);
        }
        offset.saturating_add(i64::try_from(moment.mono.0).unwrap_or(i64::MAX))
    }

    fn offset_between(mono: Tick, wall: Timestamp) -> i64 {
        let wall = i64::try_from(wall.as_nanosecond()).unwrap_or(i64::MAX);
        wall.saturating_sub(i64::try_from(mono.0).unwrap_or(i64::MAX))
    }
}

impl Default for WallTime {
    fn default() -> Self {
        Self::new()
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
    fn an_earlier_moment_keeps_its_wall_time_until_the_clock_is_set() {
        const SECOND: u64 = 1_000_000_000;
        let wall = |seconds: i64, ns: i64| Timestamp::new(seconds, i32::try_from(ns).expect("small")).expect("a time");
        let moment = |ns| Moment {
            mono: Tick(ns),
            boot: Tick(ns),
        };
        let offset_ns = AtomicI64::new(WallTime::offset_between(Tick(0), wall(1000, 0)));
        let time = WallTime { offset_ns };
        // However long lies between the readings.
        for late in [0, 1, 999, 500_000, 3_000_000] {
            let now = Tick(5 * SECOND + late);
            let read = wall(1005, i64::try_from(late).expect("small") / 2);
            assert_eq!(time.at_reading(moment(5 * SECOND), read, now), 1005 * 1_000_000_000);
        }
        let set = time.at_reading(moment(6 * SECOND), wall(2006, 0), Tick(6 * SECOND));
        assert_eq!(set, 2006 * 1_000_000_000, "set ahead");
        assert_eq!(
            time.at_reading(moment(5 * SECOND), wall(2006, 10), Tick(6 * SECOND + 10)),
            2005 * 1_000_000_000
        );
        let set = time.at_reading(moment(7 * SECOND), wall(7, 0), Tick(7 * SECOND));
        assert_eq!(set, 7 * 1_000_000_000, "and back");
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
