//! Time as a value: the engine is told what time it is and never asks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds on one clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tick(pub u64);

impl Tick {
    /// The end of time.
    pub const NEVER: Self = Self(u64::MAX);

    /// This tick and a span later; saturates.
    pub fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// The span since an earlier tick; zero when that one is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// One moment on the two clocks the engine needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// CLOCK_MONOTONIC: waits, ages, latencies.
    pub mono: Tick,
    /// CLOCK_BOOTTIME, which also counts suspended time: leases.
    pub boot: Tick,
}

impl Moment {
    /// The moment at which both clocks show `millis` (for tests and models).
    pub fn at_millis(millis: u64) -> Self {
        let tick = Tick(millis.saturating_mul(1_000_000));
        Self { mono: tick, boot: tick }
    }
}

/// The longest span a user can ask for: a year, in seconds.
const SPAN_SECONDS_MAX: u64 = 366 * 24 * 3600;

/// Parses a span of time such as `0`, `300ms`, `5s` or `1m 30s`; a bare number other than 0 has no unit and is refused.
pub fn parse_span(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let span = humantime::parse_duration(text).ok()?;
    (span.as_secs() <= SPAN_SECONDS_MAX).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_need_a_unit() {
        assert_eq!(parse_span("0"), Some(Duration::ZERO));
        assert_eq!(parse_span("300ms"), Some(Duration::from_millis(300)));
        assert_eq!(parse_span("5s"), Some(Duration::from_secs(5)));
        for bad in ["", "5", "-1s", "5 parsecs", "forever", "1e9s", "99999999999h", "999y"] {
            assert_eq!(parse_span(bad), None, "{bad:?} is no span");
        }
    }

    #[test]
    fn ticks_saturate() {
        assert_eq!(Tick::NEVER.after(Duration::from_secs(1)), Tick::NEVER);
        assert_eq!(Tick(5).since(Tick(9)), Duration::ZERO);
    }
}
