//! The figures as tables to read: `summary`, `slowest`, `alerts`. No line is longer than 80 columns.

use std::fmt::Write;
use std::time::Duration;

use super::Live;
use crate::metrics::{Figures, NamedFigures, Quantiles, StoreState, Window};
use crate::view::Now;

/// How wide a terminal is that everything fits into.
const COLUMNS: usize = 80;
/// How many locks and operations the summary lists.
const LISTED_MAX: usize = 10;
/// The widest name in a table, in characters.
const NAME_WIDTH: usize = 28;

/// `summary`.
pub fn summary(figures: &Figures, live: &Live, now: Now) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "git-lockfs                                             {:>25}",
        now.stamp_at(now.moment.mono)
    );
    let _ = writeln!(out, "{} held, {} waiting", live.held, live.waiters);
    if let Some(longest) = &live.longest {
        let _ = writeln!(
            out,
            "longest held with waiters: {} for {} by PID {}, {} waiting",
            short(longest.lock.as_str()),
            span(longest.held),
            longest.pid,
            longest.waiters
        );
    }
    let firing: Vec<_> = figures.alerts.iter().filter(|alert| alert.firing).collect();
    for alert in &firing {
        wrapped(&mut out, &format!("ALERT {}: {}", alert.kind, alert.sentence));
    }
    if let StoreState::Lost(why) = &figures.store {
        wrapped(&mut out, &format!("history is not kept: {why}"));
    }
    if figures.totals.dropped > 0 {
        let _ = writeln!(
            out,
            "{} events were dropped; the figures lack them",
            figures.totals.dropped
        );
    }
    let _ = writeln!(
        out,
        "\n{:<8}{:>9}{:>8}{:>9}{:>7}{:>10}{:>8}{:>8}{:>8}",
        "", "acquires", "waits", "timeouts", "stale", "wait p50", "p95", "p99", "max"
    );
    for window in &figures.windows {
        let (counts, wait) = (&window.figures.counts, &window.figures.wait);
        let _ = writeln!(
            out,
            "last {:<3}{:>9}{:>8}{:>9}{:>7}{:>10}{:>8}{:>8}{:>8}",
            window.window.name(),
            count(counts.acquires),
            count(counts.waits),
            count(counts.timeouts),
            count(counts.stale),
            span(wait.p50),
            span(wait.p95),
            span(wait.p99),
            span(wait.max)
        );
    }
    let day = figures.window(Window::Day);
    table(&mut out, "lock, last 24h", &day.locks);
    table(&mut out, "operation, last 24h", &day.ops);
    out
}

/// `slowest`.
pub fn slowest(figures: &Figures) -> String {
    let mut out = String::new();
    table(&mut out, "operation, last 7d", &figures.slowest);
    out.trim_start_matches('\n').to_owned()
}

fn table(out: &mut String, title: &str, entries: &[NamedFigures]) {
    if entries.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n{title:<NAME_WIDTH$}{:>9}{:>10}{:>8}{:>9}{:>8}{:>8}",
        "acquires", "wait p95", "max", "hold p50", "p95", "max"
    );
    for entry in entries.iter().take(LISTED_MAX) {
        let Quantiles { p95, max, .. } = entry.figures.wait;
        let hold = &entry.figures.hold;
        let name = match entry.name.as_str() {
            "" => "(not known)",
            name => name,
        };
        let _ = writeln!(
            out,
            "{:<NAME_WIDTH$}{:>9}{:>10}{:>8}{:>9}{:>8}{:>8}",
            short(name),
            count(entry.figures.counts.acquires),
            span(p95),
            span(max),
            span(hold.p50),
            span(hold.p95),
            span(hold.max)
        );
    }
    if entries.len() > LISTED_MAX {
        let _ = writeln!(out, "and {} more", entries.len() - LISTED_MAX);
    }
}

/// `alerts`: a line each, `NAME firing|ok SINCE SENTENCE`.
pub fn alerts(figures: &Figures) -> String {
    let mut out = String::new();
    for alert in &figures.alerts {
        let state = if alert.firing { "firing" } else { "ok" };
        let since = alert.since.map_or_else(|| "-".to_owned(), stamp);
        let sentence = if alert.firing { alert.sentence.as_str() } else { "" };
        let _ = writeln!(
            out,
            "{}",
            format!("{:<15} {state:<7} {since:<20} {sentence}", alert.kind.name()).trim_end()
        );
    }
    out
}

/// A time in seconds since 1970 as `2026-11-20T14:40:00Z`.
pub fn stamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

/// Milliseconds to the microsecond, without an end of zeros.
pub fn millis(span: Duration) -> String {
    let micros = span.as_micros();
    let text = format!("{}.{:03}", micros / 1000, micros % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A span in at most 6 characters: `0`, `85us`, `1.2ms`, `340ms`, `5.0s`, `3m12s`, `7h05m`, `12d`.
fn span(span: Duration) -> String {
    let micros = span.as_micros();
    match micros {
        0 => "0".to_owned(),
        1..1_000 => format!("{micros}us"),
        1_000..10_000 => format!("{:.1}ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{}ms", micros / 1_000),
        1_000_000..60_000_000 => format!("{:.1}s", micros as f64 / 1e6),
        _ => match span.as_secs() {
            seconds @ 0..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
            seconds @ 3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
            seconds => format!("{}d", seconds / 86_400),
        },
    }
}

/// A number in at most 6 characters.
fn count(count: u64) -> String {
    match count {
        0..1_000_000 => count.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1}M", count as f64 / 1e6),
        _ => format!("{:.1}G", count as f64 / 1e9),
    }
}

/// Writes a sentence in lines of at most 80 columns.
fn wrapped(out: &mut String, sentence: &str) {
    let mut column = 0;
    for word in sentence.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > COLUMNS {
            out.push_str("\n   ");
            column = 3;
        }
        if column > 0 {
            out.push(' ');
            column += 1;
        }
        // A word that is longer than a line is broken.
        for c in word.chars() {
            if column == COLUMNS {
                out.push('\n');
                column = 0;
            }
            out.push(c);
            column += 1;
        }
    }
    out.push('\n');
}

/// A name that leaves a blank before the next column.
fn short(name: &str) -> String {
    if name.chars().count() < NAME_WIDTH {
        return name.to_owned();
    }
    let mut short: String = name.chars().take(NAME_WIDTH - 2).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_stay_short() {
        let spans = [
            0,
            85,
            1_240,
            340_000,
            5_000_000,
            192_000_000,
            25_500_000_000,
            1_100_000_000_000,
        ];
        let shown = spans.map(|micros| span(Duration::from_micros(micros)));
        assert_eq!(shown, ["0", "85us", "1.2ms", "340ms", "5.0s", "3m12s", "7h05m", "12d"]);
        assert_eq!(millis(Duration::from_micros(12_340)), "12.34");
        assert_eq!(millis(Duration::from_secs(2)), "2000");
    }

    #[test]
    fn long_sentences_are_broken_into_lines() {
        let mut out = String::new();
        wrapped(&mut out, &format!("the lock {} has been held long", "x".repeat(200)));
        assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
        assert_eq!(
            out.replace("\n   ", " ").replace('\n', "").split_whitespace().count(),
            7
        );
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(short("x.lock"), "x.lock");
        assert_eq!(short(&"é".repeat(100)).chars().count(), NAME_WIDTH - 1);
    }
}
