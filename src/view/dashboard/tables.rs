//! The words beside the pictures: tiles, the table of windows, and each chart's figures as a table, which is the chart
//! for those who do not see it.

use std::time::Duration;

use serde::Serialize;

use crate::metrics::{Figures, Quantiles, SeriesFigures, StoreState, Window, WindowFigures};
use crate::view::charts::{Chart, count, name_of, ranked, span, waits_by_length};

/// A number at the top of the page.
#[derive(Clone, Debug, Serialize)]
pub struct Tile {
    name: &'static str,
    value: String,
    /// How it is coloured: `warm` deserves a look, `hot` is bad.
    tone: &'static str,
}

/// Rows of text under their headings; the first cell names the row.
#[derive(Debug, Serialize)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// What is so at this moment.
pub fn live_tiles(locks: usize, waiters: usize) -> Vec<Tile> {
    vec![
        tile("locks taken now", count(locks as u64), ""),
        tile(
            "waiting now",
            count(waiters as u64),
            if waiters > 0 { "warm" } else { "" },
        ),
    ]
}

/// What was so of late.
pub fn tiles(figures: &Figures) -> Vec<Tile> {
    let of = |window: Window| &figures.window(window).figures;
    let (hour, day) = (of(Window::Hour), of(Window::Day));
    let tone = |number: u64, tone: &'static str| if number > 0 { tone } else { "" };
    let mut tiles = vec![
        tile("taken, last hour", count(hour.counts.acquires), ""),
        tile("wait p95, last hour", quantile(&hour.wait, hour.wait.p95), ""),
        tile(
            "time-outs, last day",
            count(day.counts.timeouts),
            tone(day.counts.timeouts, "hot"),
        ),
        tile(
            "stale, last day",
            count(day.counts.stale),
            tone(day.counts.stale, "warm"),
        ),
    ];
    if figures.totals.dropped > 0 {
        tiles.push(tile("events not counted", count(figures.totals.dropped), "hot"));
    }
    tiles
}

/// A row for each window, its name first.
pub fn windows(windows: &[WindowFigures]) -> Vec<Vec<String>> {
    let row = |window: &WindowFigures| {
        let SeriesFigures { counts, wait, hold } = &window.figures;
        let waits = [wait.p50, wait.p95, wait.p99, wait.max].map(|value| quantile(wait, value));
        let mut row = vec![
            title(window.window).to_owned(),
            count(counts.acquires),
            count(counts.waits),
        ];
        row.extend(waits);
        row.extend([quantile(hold, hold.p95), count(counts.timeouts), count(counts.stale)]);
        row
    };
    windows.iter().map(row).collect()
}

/// The window as the page calls it.
fn title(window: Window) -> &'static str {
    match window {
        Window::Minute => "minute",
        Window::Hour => "hour",
        Window::Day => "day",
        Window::Week => "7 days",
    }
}

/// A sentence that people should read.
#[derive(Debug, Serialize)]
pub struct Notice {
    kind: &'static str,
    sentence: String,
    /// When it began, in seconds since 1970, if that is known.
    since: Option<i64>,
}

/// The alerts that fire, and what is wrong with the figures themselves.
pub fn notices(figures: &Figures) -> Vec<Notice> {
    let firing = figures.alerts.iter().filter(|alert| alert.firing);
    let mut notices: Vec<Notice> = firing
        .map(|alert| Notice {
            kind: alert.kind.name(),
            sentence: alert.sentence.clone(),
            since: alert.since,
        })
        .collect();
    if let StoreState::Lost(sentence) = &figures.store {
        notices.push(Notice {
            kind: "not-kept",
            sentence: sentence.clone(),
            since: None,
        });
    }
    notices
}

/// The figures of a chart.
pub fn of_chart(chart: Chart, figures: &Figures) -> Table {
    match chart {
        Chart::WaitPercentiles => Table {
            head: vec!["Hour (UTC)", "Waits", "p50", "p95", "p99", "Longest"],
            rows: figures
                .over_time
                .iter()
                .filter(|point| point.figures.counts.waits > 0)
                .rev()
                .map(|point| {
                    let SeriesFigures { counts, wait, .. } = &point.figures;
                    let spans = [wait.p50, wait.p95, wait.p99, wait.max].map(span);
                    [vec![hour(point.start), count(counts.waits)], spans.to_vec()].concat()
                })
                .collect(),
        },
        Chart::WaitDistribution => Table {
            head: vec!["At most", "Waits"],
            rows: waits_by_length(figures)
                .iter()
                .filter(|bucket| bucket.count > 0)
                .map(|bucket| vec![bucket.upto.map_or_else(|| "more".to_owned(), span), count(bucket.count)])
                .collect(),
        },
        Chart::Heatmap => heatmap(figures),
        Chart::Slowest => Table {
            head: vec!["Operation", "Times", "Hold p95", "Wait p95"],
            rows: ranked(&figures.slowest)
                .iter()
                .map(|op| {
                    let SeriesFigures { counts, wait, hold } = &op.figures;
                    let spans = [quantile(hold, hold.p95), quantile(wait, wait.p95)];
                    [vec![name_of(op).to_owned(), count(counts.acquires)], spans.to_vec()].concat()
                })
                .collect(),
        },
        Chart::Holds => Table {
            head: vec!["Lock", "Times", "Held in all", "Hold p95"],
            rows: ranked(&figures.window(Window::Week).locks)
                .iter()
                .map(|lock| {
                    let SeriesFigures { counts, hold, .. } = &lock.figures;
                    let spans = [span(hold.total), quantile(hold, hold.p95)];
                    [vec![name_of(lock).to_owned(), count(counts.acquires)], spans.to_vec()].concat()
                })
                .collect(),
        },
        Chart::Stale => Table {
            head: vec!["Hour (UTC)", "Time-outs", "Stale"],
            rows: figures
                .over_time
                .iter()
                .filter(|point| point.figures.counts.timeouts + point.figures.counts.stale > 0)
                .rev()
                .map(|point| {
                    vec![
                        hour(point.start),
                        count(point.figures.counts.timeouts),
                        count(point.figures.counts.stale),
                    ]
                })
                .collect(),
        },
    }
}

/// The hours in which somebody waited.
fn heatmap(figures: &Figures) -> Table {
    const DAYS: [&str; 7] = [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ];
    let cells = figures.heatmap.iter().zip(DAYS).flat_map(|(day, name)| {
        let hours = day.iter().enumerate().filter(|(_, cell)| cell.waits > 0);
        hours.map(move |(hour, cell)| vec![format!("{name} {hour:02}:00"), count(cell.waits), span(cell.waited)])
    });
    Table {
        head: vec!["Hour (UTC)", "Waits", "Waited in all"],
        rows: cells.collect(),
    }
}

fn tile(name: &'static str, value: String, tone: &'static str) -> Tile {
    Tile { name, value, tone }
}

/// A percentile, or a dash when there was nothing to take it of.
fn quantile(of: &Quantiles, value: Duration) -> String {
    match of.count {
        0 => "–".to_owned(),
        _ => span(value),
    }
}

fn hour(start: i64) -> String {
    jiff::Timestamp::from_second(start).map_or_else(
        |_| String::new(),
        |moment| moment.strftime("%a %Y-%m-%d %H:%M").to_string(),
    )
}
