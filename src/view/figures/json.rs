//! `summary.json` and `heatmap.json`. The schemas are versioned and documented in git-lockfs(5).

use std::time::Duration;

use serde::Serialize;

use super::{Live, text};
use crate::metrics::{Counts, Figures, NamedFigures, Quantiles, SeriesFigures, StoreState, WindowFigures};

/// The version of both schemas.
const VERSION: u32 = 1;
/// How many locks and operations a window lists.
const LISTED_MAX: usize = 100;
/// The rows of the heatmap.
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

#[derive(Serialize)]
struct Summary<'a> {
    version: u32,
    time: String,
    held: usize,
    waiters: usize,
    dropped: u64,
    store: &'a str,
    windows: Vec<WindowView<'a>>,
    alerts: Vec<AlertView<'a>>,
}

#[derive(Serialize)]
struct WindowView<'a> {
    window: &'static str,
    seconds: i64,
    #[serde(flatten)]
    figures: FiguresView,
    locks: Vec<NamedView<'a>>,
    operations: Vec<NamedView<'a>>,
}

#[derive(Serialize)]
struct NamedView<'a> {
    name: &'a str,
    #[serde(flatten)]
    figures: FiguresView,
}

#[derive(Serialize)]
struct FiguresView {
    acquires: u64,
    releases: u64,
    waits: u64,
    timeouts: u64,
    stale: u64,
    deadlocks: u64,
    breaks: u64,
    steal_attempts: u64,
    wait: QuantilesView,
    hold: QuantilesView,
}

#[derive(Serialize)]
struct QuantilesView {
    count: u64,
    total_ms: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

#[derive(Serialize)]
struct AlertView<'a> {
    alert: &'static str,
    firing: bool,
    since: Option<String>,
    sentence: &'a str,
}

#[derive(Serialize)]
struct Heatmap {
    version: u32,
    time: String,
    zone: &'static str,
    weekdays: [&'static str; 7],
    waits: Vec<Vec<u64>>,
    waited_ms: Vec<Vec<f64>>,
}

/// `summary.json`.
pub fn summary(figures: &Figures, live: &Live) -> Vec<u8> {
    let document = Summary {
        version: VERSION,
        time: text::stamp(figures.time),
        held: live.held,
        waiters: live.waiters,
        dropped: figures.totals.dropped,
        store: match &figures.store {
            StoreState::Kept => "kept",
            StoreState::Lost(why) => why,
        },
        windows: figures.windows.iter().map(window).collect(),
        alerts: figures
            .alerts
            .iter()
            .map(|alert| AlertView {
                alert: alert.kind.name(),
                firing: alert.firing,
                since: alert.since.map(text::stamp),
                sentence: &alert.sentence,
            })
            .collect(),
    };
    bytes(&document)
}

fn window(window: &WindowFigures) -> WindowView<'_> {
    WindowView {
        window: window.window.name(),
        seconds: window.window.seconds(),
        figures: figures_view(&window.figures),
        locks: named(&window.locks),
        operations: named(&window.ops),
    }
}

fn named(all: &[NamedFigures]) -> Vec<NamedView<'_>> {
    let view = |named: &'_ NamedFigures| -> FiguresView { figures_view(&named.figures) };
    let listed = all.iter().take(LISTED_MAX);
    listed
        .map(|named| NamedView {
            name: &named.name,
            figures: view(named),
        })
        .collect()
}

fn figures_view(figures: &SeriesFigures) -> FiguresView {
    let Counts {
        acquires,
        releases,
        waits,
        timeouts,
        stale,
        deadlocks,
        breaks,
        steal_attempts,
        replays: _,
    } = figures.counts;
    FiguresView {
        acquires,
        releases,
        waits,
        timeouts,
        stale,
        deadlocks,
        breaks,
        steal_attempts,
        wait: quantiles(&figures.wait),
        hold: quantiles(&figures.hold),
    }
}

fn quantiles(quantiles: &Quantiles) -> QuantilesView {
    QuantilesView {
        count: quantiles.count,
        total_ms: millis(quantiles.total),
        p50_ms: millis(quantiles.p50),
        p95_ms: millis(quantiles.p95),
        p99_ms: millis(quantiles.p99),
        max_ms: millis(quantiles.max),
    }
}

/// `heatmap.json`.
pub fn heatmap(figures: &Figures) -> Vec<u8> {
    let document = Heatmap {
        version: VERSION,
        time: text::stamp(figures.time),
        zone: "UTC",
        weekdays: WEEKDAYS,
        waits: figures
            .heatmap
            .iter()
            .map(|day| day.iter().map(|cell| cell.waits).collect())
            .collect(),
        waited_ms: figures
            .heatmap
            .iter()
            .map(|day| day.iter().map(|cell| millis(cell.waited)).collect())
            .collect(),
    };
    bytes(&document)
}

fn millis(span: Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}

fn bytes(document: &impl Serialize) -> Vec<u8> {
    // Numbers and strings only: serialising cannot fail.
    let mut bytes = serde_json::to_vec(document).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
