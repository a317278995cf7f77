//! The figures as they are shown: plain data, computed from the cells when somebody looks.

use std::time::Duration;

use super::Metrics;
use super::alerts::Alert;
use super::cell::{ByName, Cell};
use super::series::{Counts, Quantiles, Series};
use super::totals::Totals;
use super::windows::{HOURS, Window, Windows};

/// How many operations the list of the slowest has.
const SLOWEST_MAX: usize = 10;
/// The upper bounds of the distribution's buckets, in milliseconds. The first is for requests that were granted at once.
const BUCKETS_MS: [u64; 17] = [
    0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
];

/// Everything that the files below `metrics/` show of the past.
#[derive(Clone, Debug)]
pub struct Figures {
    /// When they were computed, in seconds since 1970, as all times here; days and hours are those of UTC.
    pub time: i64,
    /// What was counted since the daemon started.
    pub totals: Totals,
    /// The four windows, shortest first.
    pub windows: [WindowFigures; 4],
    /// By hour, oldest first, at most 169; hours without events are left out.
    pub over_time: Vec<Point>,
    /// By minute, for the last hour.
    pub last_hour: Vec<Point>,
    /// The waits of the week by length.
    pub distribution: Vec<Bucket>,
    /// The waits of the week by weekday (Monday first) and hour.
    pub heatmap: [[HeatCell; 24]; 7],
    /// The operations of the week that hold longest, by the 95th percentile; at most 10.
    pub slowest: Vec<NamedFigures>,
    /// The alerts as they stand.
    pub alerts: Vec<Alert>,
    /// Whether the history is kept on disk.
    pub store: StoreState,
}

/// Whether the history outlives the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// It does.
    Kept,
    /// It does not, and why.
    Lost(String),
}

/// One window.
#[derive(Clone, Debug)]
pub struct WindowFigures {
    /// Which.
    pub window: Window,
    /// All together.
    pub figures: SeriesFigures,
    /// By lock, those held longest in all first.
    pub locks: Vec<NamedFigures>,
    /// By operation, in the same order; one that is not known has the empty name.
    pub ops: Vec<NamedFigures>,
}

impl WindowFigures {
    fn of(window: Window, cell: &Cell) -> Self {
        Self {
            window,
            figures: SeriesFigures::of(&cell.sum()),
            locks: by_hold(&cell.locks),
            ops: by_hold(&cell.ops),
        }
    }

    /// The figures of a lock.
    pub fn lock(&self, name: &str) -> Option<&SeriesFigures> {
        self.locks
            .iter()
            .find(|lock| lock.name == name)
            .map(|lock| &lock.figures)
    }
}

/// The figures of one lock or operation, under its name.
#[derive(Clone, Debug)]
pub struct NamedFigures {
    /// The lock, or `git VERB`, or a program.
    pub name: String,
    /// Its figures.
    pub figures: SeriesFigures,
}

/// The figures of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesFigures {
    /// How often what happened.
    pub counts: Counts,
    /// How long requests waited that were granted or gave up; zero for those granted at once.
    pub wait: Quantiles,
    /// How long locks were held whose hold has ended.
    pub hold: Quantiles,
}

impl SeriesFigures {
    pub(super) fn of(series: &Series) -> Self {
        Self {
            counts: series.counts,
            wait: series.wait.quantiles(),
            hold: series.hold.quantiles(),
        }
    }
}

/// The figures of an hour or a minute.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// When it began.
    pub start: i64,
    /// What happened in it.
    pub figures: SeriesFigures,
}

/// How many waits were so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// No longer than this, and longer than the bucket before; `None` for those above all.
    pub upto: Option<Duration>,
    /// How many.
    pub count: u64,
}

/// One hour of a weekday.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeatCell {
    /// How many requests had to wait.
    pub waits: u64,
    /// How long they waited in all.
    pub waited: Duration,
}

impl Figures {
    /// Computes everything; `now` in seconds since 1970.
    pub fn of(metrics: &mut Metrics, alerts: Vec<Alert>, store: StoreState, now: i64) -> Self {
        metrics.windows.advance(now);
        metrics.sum_up();
        let Metrics { windows, past, .. } = &*metrics;
        let cells = Window::ALL.map(|window| match window {
            Window::Minute | Window::Hour => windows.window(window, now),
            Window::Day => with_open_hour(&past.day, windows),
            Window::Week => with_open_hour(&past.week, windows),
        });
        let week = &cells[Window::Week as usize];
        let mut over_time = past.points.clone();
        over_time.extend(windows.open_sum(HOURS).map(point));
        Self {
            time: now,
            totals: metrics.totals.clone(),
            distribution: distribution(week),
            heatmap: heatmap(&over_time),
            slowest: slowest(&week.ops),
            windows: Window::ALL.map(|window| WindowFigures::of(window, &cells[window as usize])),
            over_time,
            last_hour: windows.by_minute().into_iter().map(point).collect(),
            alerts,
            store,
        }
    }

    /// The figures of a window.
    pub fn window(&self, window: Window) -> &WindowFigures {
        &self.windows[window as usize]
    }
}

fn with_open_hour(over: &Cell, windows: &Windows) -> Cell {
    let mut sum = over.clone();
    windows.add_open(HOURS, &mut sum);
    sum
}

fn point((start, series): (i64, Series)) -> Point {
    Point {
        start,
        figures: SeriesFigures::of(&series),
    }
}

fn named(all: &ByName) -> Vec<NamedFigures> {
    let named = all.iter().map(|(name, series)| NamedFigures {
        name: name.to_string(),
        figures: SeriesFigures::of(series),
    });
    named.collect()
}

fn by_hold(all: &ByName) -> Vec<NamedFigures> {
    let mut named = named(all);
    named.sort_by_key(|entry| std::cmp::Reverse(entry.figures.hold.total));
    named
}

fn slowest(ops: &ByName) -> Vec<NamedFigures> {
    let mut named = named(ops);
    named.retain(|entry| entry.figures.hold.count > 0);
    named.sort_by_key(|entry| std::cmp::Reverse((entry.figures.hold.p95, entry.figures.hold.total)));
    named.truncate(SLOWEST_MAX);
    named
}

fn distribution(cell: &Cell) -> Vec<Bucket> {
    let steps = cell.sum().wait.steps(&BUCKETS_MS.map(|ms| ms * 1000));
    let bounds = BUCKETS_MS
        .iter()
        .map(|ms| Some(Duration::from_millis(*ms)))
        .chain([None]);
    bounds.zip(steps).map(|(upto, count)| Bucket { upto, count }).collect()
}

fn heatmap(hours: &[Point]) -> [[HeatCell; 24]; 7] {
    let mut map = [[HeatCell::default(); 24]; 7];
    for point in hours {
        // 1970 began on a Thursday, the fourth day of the week.
        let days = point.start.div_euclid(24 * 3600) + 3;
        let (day, hour) = (days.rem_euclid(7), point.start.rem_euclid(24 * 3600) / 3600);
        let cell = &mut map[day as usize][hour as usize];
        cell.waits += point.figures.counts.waits;
        cell.waited += point.figures.wait.total;
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heatmap_knows_the_day_of_the_week() {
        let mut figures = SeriesFigures::default();
        figures.counts.waits = 3;
        // 2025-11-20T14:00:00Z was a Thursday.
        let map = heatmap(&[Point {
            start: 1_763_647_200,
            figures,
        }]);
        assert_eq!(map[3][14].waits, 3);
        assert_eq!(map.iter().flatten().map(|cell| cell.waits).sum::<u64>(), 3);
    }
}
