//! `metrics/summary.json` as `top` reads it (version 1): a line a window, and the alerts that fire.

use std::time::Duration;

use serde::Deserialize;

use crate::view::charts::{count, span};

/// The version that is read here.
const VERSION: u32 = 1;

/// The figures of the past.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    version: u32,
    windows: Vec<Window>,
    alerts: Vec<Alert>,
}

#[derive(Clone, Debug, Deserialize)]
struct Window {
    window: String,
    acquires: u64,
    timeouts: u64,
    stale: u64,
    wait: Quantiles,
    hold: Quantiles,
}

#[derive(Clone, Debug, Deserialize)]
struct Quantiles {
    count: u64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct Alert {
    firing: bool,
    sentence: String,
}

impl Summary {
    /// Parses the file; `None` when it is of another version, for `top` shows the locks also without figures.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let summary: Self = serde_json::from_slice(text).ok()?;
        (summary.version == VERSION).then_some(summary)
    }

    /// A heading, and a line for each window.
    pub fn lines(&self) -> Vec<String> {
        let heading = format!(
            "{:<5}{:>10}{:>11}{:>11}{:>11}{:>11}{:>10}{:>7}",
            "LAST", "TAKEN", "WAIT p50", "p95", "p99", "HOLD p95", "TIMEOUTS", "STALE"
        );
        let line = |window: &Window| {
            let Quantiles {
                p50_ms, p95_ms, p99_ms, ..
            } = window.wait;
            let [p50, p95, p99] = [p50_ms, p95_ms, p99_ms].map(|millis| shown(&window.wait, millis));
            let hold = shown(&window.hold, window.hold.p95_ms);
            format!(
                "{:<5}{:>10}{p50:>11}{p95:>11}{p99:>11}{hold:>11}{:>10}{:>7}",
                window.window,
                count(window.acquires),
                count(window.timeouts),
                count(window.stale),
            )
        };
        std::iter::once(heading).chain(self.windows.iter().map(line)).collect()
    }

    /// What somebody should look at.
    pub fn alerts(&self) -> impl Iterator<Item = &str> {
        let firing = self.alerts.iter().filter(|alert| alert.firing);
        firing.map(|alert| alert.sentence.as_str())
    }
}

/// A percentile, or a dash when there was nothing to take it of.
fn shown(of: &Quantiles, millis: f64) -> String {
    let duration = Duration::try_from_secs_f64(millis / 1e3).ok();
    match duration {
        Some(duration) if of.count > 0 => span(duration),
        _ => "-".to_owned(),
    }
}

/// An hour with waits and an alert, for the tests of those who show it.
#[cfg(test)]
pub(super) const SAMPLE: &str = r#"{"version":1,"time":"2026-11-20T14:43:12Z","held":2,"waiters":2,"dropped":0,
 "store":"kept","windows":[{"window":"1h","seconds":3600,"acquires":5740,"releases":5738,"waits":637,"timeouts":3,
 "stale":1,"deadlocks":0,"breaks":0,"steal_attempts":0,
 "wait":{"count":5740,"total_ms":900.0,"p50_ms":0.0,"p95_ms":15.2,"p99_ms":5700.0,"max_ms":6000.0},
 "hold":{"count":0,"total_ms":0.0,"p50_ms":0.0,"p95_ms":0.0,"p99_ms":0.0,"max_ms":0.0},"locks":[],"operations":[]}],
 "alerts":[{"alert":"slow-waits","firing":true,"since":"2026-11-20T14:40:00Z","sentence":"requests wait long"},
           {"alert":"long-hold","firing":false,"since":null,"sentence":"it was so once"}]}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_line_of_a_terminal() {
        let summary = Summary::parse(SAMPLE.as_bytes()).expect("sample");
        let lines = summary.lines();
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        let words: Vec<&str> = lines[1].split(' ').filter(|word| !word.is_empty()).collect();
        assert_eq!(
            words,
            ["1h", "5\u{202f}740", "0", "15", "ms", "5.7", "s", "-", "3", "1"]
        );
        assert_eq!(summary.alerts().collect::<Vec<_>>(), ["requests wait long"]);
    }

    #[test]
    fn another_version_is_not_guessed_at() {
        assert!(Summary::parse(SAMPLE.replace("\"version\":1", "\"version\":2").as_bytes()).is_none());
        assert!(Summary::parse(b"{}").is_none());
    }
}
