//! `metrics/live.js`: one call with one value, the whole of what the page shows.

use serde::Serialize;

use super::tables::{self, Notice, Table, Tile};
use crate::engine::Engine;
use crate::metrics::Figures;
use crate::predict::HoldTimes;
use crate::view::Now;
use crate::view::charts::Chart;
use crate::view::locks_json::{self, HolderView, Lock, WaiterView};

/// The version of the value; a page shows only its own.
const VERSION: u32 = 1;
/// How many locks are shown.
pub const LOCKS_MAX: usize = 200;
/// How many holders, and how many waiters, are shown of each.
pub const PARTIES_MAX: usize = 20;

const BEFORE: &str = "lockfs(";
const AFTER: &str = ");\n";

/// What is drawn and counted of the past: made from [`Figures`] when they change, which is less often than it is read.
#[derive(Debug)]
pub struct Pictures {
    tiles: Vec<Tile>,
    windows: Vec<Vec<String>>,
    alerts: Vec<Notice>,
    charts: Vec<Picture>,
}

#[derive(Debug, Serialize)]
struct Picture {
    file: &'static str,
    title: &'static str,
    description: &'static str,
    svg: String,
    table: Table,
}

impl Pictures {
    /// Draws everything.
    pub fn draw(figures: &Figures) -> Self {
        let picture = |chart: Chart| Picture {
            file: chart.file_name(),
            title: chart.title(),
            description: chart.description(),
            svg: chart.draw(figures),
            table: tables::of_chart(chart, figures),
        };
        Self {
            tiles: tables::tiles(figures),
            windows: tables::windows(&figures.windows),
            alerts: tables::notices(figures),
            charts: Chart::ALL.into_iter().map(picture).collect(),
        }
    }

    /// The file of one chart.
    pub fn svg(&self, chart: Chart) -> &str {
        let picture = self.charts.iter().find(|picture| picture.file == chart.file_name());
        picture.map_or("", |picture| &picture.svg)
    }
}

#[derive(Serialize)]
struct Live<'a> {
    version: u32,
    time_ms: i64,
    drained: bool,
    locks: Vec<Shown>,
    locks_total: usize,
    waiters_total: usize,
    tiles: Vec<Tile>,
    windows: &'a [Vec<String>],
    alerts: &'a [Notice],
    charts: &'a [Picture],
}

#[derive(Serialize)]
struct Shown {
    name: String,
    mode: Option<String>,
    holders: Vec<HolderView>,
    holders_total: usize,
    waiters: Vec<WaiterView>,
    waiters_total: usize,
}

/// What of the locks is shown: taken under the engine's mutex, turned into text after.
pub struct Locks {
    time_ms: i64,
    drained: bool,
    shown: Vec<Shown>,
    total: usize,
    waiters_total: usize,
}

impl Locks {
    /// Looks at the engine.
    pub fn of(engine: &Engine, usual: &HoldTimes, now: Now) -> Self {
        let locks = locks_json::locks(engine, usual, now);
        let total = locks.len();
        let waiters_total = locks.iter().map(|lock| lock.waiters.len()).sum();
        Self {
            time_ms: now.wall_ns / 1_000_000,
            drained: engine.is_drained(),
            shown: most_wanted(locks).into_iter().map(shown).collect(),
            total,
            waiters_total,
        }
    }
}

/// The file.
pub fn render(locks: Locks, pictures: &Pictures) -> Vec<u8> {
    let mut tiles = tables::live_tiles(locks.total, locks.waiters_total);
    tiles.extend(pictures.tiles.iter().cloned());
    let live = Live {
        version: VERSION,
        time_ms: locks.time_ms,
        drained: locks.drained,
        locks: locks.shown,
        locks_total: locks.total,
        waiters_total: locks.waiters_total,
        tiles,
        windows: &pictures.windows,
        alerts: &pictures.alerts,
        charts: &pictures.charts,
    };
    // Numbers and strings only: serialising cannot fail.
    let json = serde_json::to_string(&live).unwrap_or_default();
    format!("{BEFORE}{}{AFTER}", harmless(&json)).into_bytes()
}

/// The value inside the file, as JSON on one line.
pub fn value(file: &str) -> Option<&str> {
    file.strip_prefix(BEFORE)?.strip_suffix(AFTER)
}

/// The same JSON without what ends a script or a line of one: `<` and the line separators occur in strings only.
fn harmless(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// The locks with the longest lines where there are too many, in the order of their names.
fn most_wanted(mut locks: Vec<Lock>) -> Vec<Lock> {
    if locks.len() > LOCKS_MAX {
        locks.sort_by_key(|lock| std::cmp::Reverse(lock.waiters.len()));
        locks.truncate(LOCKS_MAX);
    }
    locks.sort_by(|a, b| a.name.cmp(&b.name));
    locks
}

fn shown(lock: Lock) -> Shown {
    let (holders_total, waiters_total) = (lock.holders.len(), lock.waiters.len());
    Shown {
        name: lock.name,
        mode: lock.mode,
        holders: lock.holders.into_iter().take(PARTIES_MAX).collect(),
        holders_total,
        waiters: lock.waiters.into_iter().take(PARTIES_MAX).collect(),
        waiters_total,
    }
}
