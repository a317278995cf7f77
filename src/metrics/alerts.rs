//! What somebody should look at: four conditions, each firing or not, and since when.

use std::fmt;
use std::time::Duration;

use super::totals::Totals;
use super::windows::Windows;
use crate::types::LockName;

/// How far back alerts look, in minutes.
const MINUTES: i64 = 5;

/// A condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertKind {
    /// Requests wait long.
    SlowWaits,
    /// A lock has been held long while others wait for it.
    LongHold,
    /// Locks were released because their holders were gone.
    StaleReleases,
    /// Events came faster than they could be folded.
    DroppedEvents,
}

impl AlertKind {
    /// All of them, in the order that they are shown.
    pub const ALL: [Self; 4] = [
        Self::SlowWaits,
        Self::LongHold,
        Self::StaleReleases,
        Self::DroppedEvents,
    ];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::SlowWaits => "slow-waits",
            Self::LongHold => "long-hold",
            Self::StaleReleases => "stale-releases",
            Self::DroppedEvents => "dropped-events",
        }
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When an alert fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// The 95th percentile of the waits of the last 5 minutes is over this.
    pub wait: Duration,
    /// A lock with waiters has been held longer than this.
    pub hold: Duration,
    /// So many stale releases, or more, in the last 5 minutes.
    pub stale: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(5),
            hold: Duration::from_secs(60),
            stale: 1,
        }
    }
}

/// The lock that has been held longest of those that others wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongHold {
    /// The lock.
    pub lock: LockName,
    /// How long.
    pub held: Duration,
    /// By which process; 0 when it is not known.
    pub pid: u32,
    /// How many wait for it.
    pub waiters: usize,
}

/// An alert as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Which condition.
    pub kind: AlertKind,
    /// Whether it holds now.
    pub firing: bool,
    /// Since when it holds, or when it ended, in seconds since 1970; `None` when it never held.
    pub since: Option<i64>,
    /// What it was about when it was looked at last.
    pub sentence: String,
}

/// All alerts.
#[derive(Clone, Debug)]
pub struct Alerts {
    all: [Alert; 4],
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            all: AlertKind::ALL.map(|kind| Alert {
                kind,
                firing: false,
                since: None,
                sentence: String::new(),
            }),
        }
    }
}

impl Alerts {
    /// Looks at everything; `now` in seconds since 1970. Says which alerts began or ended.
    pub fn look(
        &mut self,
        windows: &Windows,
        totals: &Totals,
        longest: Option<&LongHold>,
        thresholds: &Thresholds,
        now: i64,
    ) -> Vec<Alert> {
        let recent = windows.minutes(MINUTES, now);
        let mut changed = Vec::new();
        for alert in &mut self.all {
            let found = match alert.kind {
                AlertKind::SlowWaits => {
                    let p95 = recent.wait.quantiles().p95;
                    let sentence = || format!("the 95th percentile of the waits of the last 5 minutes is {p95:.1?}");
                    (p95 > thresholds.wait).then(sentence)
                }
                AlertKind::LongHold => longest.filter(|longest| longest.held > thresholds.hold).map(|longest| {
                    let LongHold {
                        lock,
                        held,
                        pid,
                        waiters,
                    } = longest;
                    format!(
                        "the lock {lock} has been held by PID {pid} for {} s, {waiters} wait for it",
                        held.as_secs()
                    )
                }),
                AlertKind::StaleReleases => {
                    let stale = recent.counts.stale;
                    let sentence = || format!("{stale} released in the last 5 minutes because the holder was gone");
                    (stale >= thresholds.stale).then(sentence)
                }
                AlertKind::DroppedEvents => {
                    let recently = totals.dropped_at.is_some_and(|at| now - at / 1000 <= MINUTES * 60);
                    let sentence = || {
                        format!(
                            "{} events were dropped since the start; the figures lack them",
                            totals.dropped
                        )
                    };
                    recently.then(sentence)
                }
            };
            if found.is_some() != alert.firing {
                alert.firing = found.is_some();
                alert.since = Some(now);
                alert.sentence = found.unwrap_or_else(|| std::mem::take(&mut alert.sentence));
                changed.push(alert.clone());
            } else if let Some(sentence) = found {
                alert.sentence = sentence;
            }
        }
        changed
    }

    /// How they stand, in the order of [`AlertKind::ALL`].
    pub fn all(&self) -> &[Alert] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Kind, Record};
    use super::*;
    use crate::types::Mode;

    const NOW: i64 = 1_763_649_600;

    fn names(alerts: &[Alert]) -> Vec<(&str, bool)> {
        alerts.iter().map(|alert| (alert.kind.name(), alert.firing)).collect()
    }

    fn record(kind: Kind, seconds: u64) -> Record {
        Record {
            at: NOW * 1000,
            kind,
            lock: LockName::parse(b"x.lock").ok(),
            mode: Mode::Exclusive,
            pid: 1,
            session: None,
            op: None,
            span: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn each_fires_on_its_condition_and_ends_with_it() {
        let (mut windows, mut totals, mut alerts) = (Windows::new(NOW), Totals::default(), Alerts::default());
        let limits = Thresholds::default();
        let mut longest = LongHold {
            lock: LockName::parse(b"x.lock").expect("name"),
            held: Duration::from_secs(60),
            pid: 7,
            waiters: 2,
        };
        windows.count(&record(Kind::Acquire, 5));
        let quiet = alerts.look(&windows, &totals, Some(&longest), &limits, NOW);
        assert_eq!(quiet, [], "thresholds are passed, not reached");
        windows.count(&record(Kind::Acquire, 6));
        windows.count(&record(Kind::Stale, 1));
        totals.dropped(3, NOW * 1000);
        longest.held = Duration::from_secs(61);
        let began = alerts.look(&windows, &totals, Some(&longest), &limits, NOW);
        let all = ["slow-waits", "long-hold", "stale-releases", "dropped-events"];
        assert_eq!(names(&began), all.map(|name| (name, true)));
        assert!(
            began[1]
                .sentence
                .starts_with("the lock x.lock has been held by PID 7 for 61 s, 2 wait"),
            "{began:?}"
        );
        assert_eq!(
            alerts.look(&windows, &totals, Some(&longest), &limits, NOW + 1),
            [],
            "told once"
        );
        let later = NOW + 6 * 60;
        windows.advance(later);
        let ended = alerts.look(&windows, &totals, None, &limits, later);
        assert_eq!(names(&ended), all.map(|name| (name, false)));
        assert!(alerts.all().iter().all(|alert| alert.since == Some(later)));
    }
}
