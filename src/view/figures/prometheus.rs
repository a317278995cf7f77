//! `metrics.prom`: Prometheus' text format, for node_exporter's textfile collector or a scraper of files.
//!
//! Written by hand: the libraries for it write OpenMetrics, which names counters otherwise, from registries that live
//! as long as the program; here everything is rendered from the figures at once.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::Live;
use crate::metrics::{BOUNDS_MICROS, Figures, Quantiles, Window};

struct Page {
    out: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail, here as below.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let separator = if at == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{separator}{label}=\"{}\"", escaped(text));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{end} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, counts: &[u64], total: Duration) {
        self.family(name, "histogram", help);
        let mut below = 0;
        for (count, bound) in counts.iter().zip(BOUNDS_MICROS.map(Some).into_iter().chain([None])) {
            below += count;
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |micros| (micros as f64 / 1e6).to_string());
            self.sample(&format!("{name}_bucket"), &[("le", &bound)], below);
        }
        self.sample(&format!("{name}_sum"), &[], total.as_secs_f64());
        self.sample(&format!("{name}_count"), &[], below);
    }
}

/// The whole page.
pub fn render(figures: &Figures, live: &Live) -> String {
    let mut page = Page { out: String::new() };
    let (totals, counts) = (&figures.totals, &figures.totals.counts);
    page.single("lockfs_locks_held", "gauge", "Locks that are held now.", live.held);
    page.single(
        "lockfs_waiting_requests",
        "gauge",
        "Requests that wait now.",
        live.waiters,
    );
    let counters = [
        ("acquires", "Locks granted.", counts.acquires),
        ("releases", "Holds that have ended, in whatever way.", counts.releases),
        ("waits", "Requests that had to wait.", counts.waits),
        ("timeouts", "Requests that gave up at their limit.", counts.timeouts),
        (
            "stale_releases",
            "Locks released because their holder was gone.",
            counts.stale,
        ),
        (
            "deadlocks",
            "Requests refused because they would have waited for ever.",
            counts.deadlocks,
        ),
        ("breaks", "Locks taken away from their holder.", counts.breaks),
        (
            "steal_attempts",
            "Refused attempts to end somebody else's lock.",
            counts.steal_attempts,
        ),
        (
            "replays",
            "Times that a worker went on from the journal of one before it.",
            counts.replays,
        ),
        (
            "git_commit_validation_warnings",
            "Commits with other files than they were about to have.",
            totals.commit_warnings,
        ),
        (
            "dropped_events",
            "Events that came too fast to be counted here.",
            totals.dropped,
        ),
    ];
    for (name, help, value) in counters {
        page.single(&format!("lockfs_{name}_total"), "counter", help, value);
    }
    page.histogram(
        "lockfs_wait_seconds",
        "How long requests waited that were granted or gave up.",
        &totals.wait.counts,
        totals.wait.total,
    );
    page.histogram(
        "lockfs_hold_seconds",
        "How long locks were held.",
        &totals.hold.counts,
        totals.hold.total,
    );
    by_lock(&mut page, figures);
    page.family("lockfs_alert_firing", "gauge", "Whether an alert fires now.");
    for alert in &figures.alerts {
        page.sample(
            "lockfs_alert_firing",
            &[("alert", alert.kind.name())],
            u8::from(alert.firing),
        );
    }
    page.out
}

/// What each lock has, under its name: quantiles of the last hour, sums and counts since the start.
fn by_lock(page: &mut Page, figures: &Figures) {
    type Pick = fn(&crate::metrics::SeriesFigures) -> Quantiles;
    let hour = figures.window(Window::Hour);
    let summaries: [(&str, &str, Pick); 2] = [
        (
            "lockfs_lock_wait_seconds",
            "How long requests for a lock waited; quantiles of the last hour.",
            |of| of.wait,
        ),
        (
            "lockfs_lock_hold_seconds",
            "How long a lock was held; quantiles of the last hour.",
            |of| of.hold,
        ),
    ];
    for (name, help, pick) in summaries {
        page.family(name, "summary", help);
        for (lock, totals) in &figures.totals.locks {
            let recent = hour.lock(lock).map(pick).unwrap_or_default();
            for (quantile, span) in [("0.5", recent.p50), ("0.95", recent.p95), ("0.99", recent.p99)] {
                let value = if recent.count == 0 {
                    f64::NAN
                } else {
                    span.as_secs_f64()
                };
                page.sample(name, &[("lock", lock), ("quantile", quantile)], value);
            }
            let counts = &totals.counts;
            let (sum, count) = if name.contains("wait") {
                (totals.waited, counts.acquires + counts.timeouts + counts.deadlocks)
            } else {
                (totals.held, counts.releases)
            };
            page.sample(&format!("{name}_sum"), &[("lock", lock)], sum.as_secs_f64());
            page.sample(&format!("{name}_count"), &[("lock", lock)], count);
        }
    }
}

/// A label's value as the format has it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
