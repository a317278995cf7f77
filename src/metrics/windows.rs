//! The last minute, hour, day and week, from cells of three sizes.
//!
//! An event is counted once, in the open cell of 5 s. When that is over it is added to the open minute, and a minute
//! that is over to the open hour; the small cells are kept for the last minute, the minutes for the last hour, the hours
//! for a week. So a window begins where a cell begins: the last hour is true to a minute, the last day to an hour.

use std::collections::BTreeMap;

use super::cell::{Cell, PackedCell};
use super::level::{Level, Size};
use super::record::Record;
use super::series::{Counts, Series};

/// A stretch of time that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Window {
    /// The last minute.
    Minute,
    /// The last hour.
    Hour,
    /// The last 24 hours.
    Day,
    /// The last 7 days.
    Week,
}

impl Window {
    /// All of them, shortest first.
    pub const ALL: [Self; 4] = [Self::Minute, Self::Hour, Self::Day, Self::Week];

    /// Its length in seconds.
    pub fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 24 * 3600,
            Self::Week => 7 * 24 * 3600,
        }
    }

    /// Its name in files: `1m`, `1h`, `24h`, `7d`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    /// The size of the cells that its past is kept in, as an index of [`SIZES`].
    fn size(self) -> usize {
        match self {
            Self::Minute => 0,
            Self::Hour => 1,
            Self::Day | Self::Week => 2,
        }
    }
}

const SIZES: [Size; 3] = [
    Size {
        span: 5,
        keep: 12,
        bytes_max: 16 << 20,
    },
    Size {
        span: 60,
        keep: 60,
        bytes_max: 16 << 20,
    },
    Size {
        span: 3600,
        keep: 168,
        bytes_max: 64 << 20,
    },
];
/// The index of the minutes in [`SIZES`].
pub const MINUTES: usize = 1;
/// The index of the hours in [`SIZES`].
pub const HOURS: usize = 2;

/// What outlives the daemon: cells by their start, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The minutes, the open one last.
    pub minutes: Vec<(i64, PackedCell)>,
    /// The hours that are over.
    pub hours: Vec<(i64, PackedCell)>,
}

/// The starts of the cells that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCells {
    /// Of the minute.
    pub minute: i64,
    /// Of the hour.
    pub hour: i64,
}

/// All cells.
#[derive(Debug)]
pub struct Windows {
    levels: [Level; 3],
}

impl Windows {
    /// Nothing has happened yet; `now` in seconds since 1970, as everywhere here.
    pub fn new(now: i64) -> Self {
        Self {
            levels: SIZES.map(|size| Level::new(size, now)),
        }
    }

    /// Counts one record. One from before the open cell, as after a step of the wall clock, counts as of now.
    pub fn count(&mut self, record: &Record) {
        self.advance(record.at / 1000);
        self.levels[0].open.count(record);
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: i64) {
        for size in 0..SIZES.len() {
            self.advance_size(size, now);
        }
    }

    fn advance_size(&mut self, size: usize, now: i64) {
        let level = &mut self.levels[size];
        let start = now.div_euclid(level.size.span) * level.size.span;
        if start <= level.start {
            return;
        }
        let over = level.start;
        let cell = std::mem::take(&mut level.open);
        level.start = start;
        if !cell.is_empty() {
            level.closed.push_back((over, PackedCell::of(&cell)));
        }
        level.prune();
        if !cell.is_empty() && size + 1 < SIZES.len() {
            self.advance_size(size + 1, over);
            self.levels[size + 1].open.add(&cell);
        }
    }

    /// What is to be stored: the minutes and hours that are not over longer than `minute` and `hour` (the starts of those
    /// that were open when it was stored last), and the open minute. An open hour is in its minutes.
    pub fn unsaved(&self, since: OpenCells) -> Stored {
        let later = |size: usize, since: i64| {
            let cells = self.levels[size].closed.iter();
            cells.filter(move |(start, _)| *start >= since).cloned()
        };
        let mut minutes: Vec<_> = later(MINUTES, since.minute).collect();
        let mut open = self.levels[MINUTES].open.clone();
        open.add(&self.levels[0].open);
        if !open.is_empty() {
            minutes.push((self.levels[MINUTES].start, PackedCell::of(&open)));
        }
        Stored {
            minutes,
            hours: later(HOURS, since.hour).collect(),
        }
    }

    /// The starts of the open minute and hour.
    pub fn open_cells(&self) -> OpenCells {
        OpenCells {
            minute: self.levels[MINUTES].start,
            hour: self.levels[HOURS].start,
        }
    }

    /// What was stored, as it is now. The last minute is then true to a minute only, as smaller cells are not stored.
    pub fn restored(stored: Stored, now: i64) -> Self {
        let mut restored = Self::new(now);
        let [small, minutes, hours] = &mut restored.levels;
        for (start, cell) in stored.hours {
            if start < hours.start {
                hours.closed.push_back((start, cell));
            } else {
                cell.add_to(&mut hours.open);
            }
        }
        // The hour that was open, if it is over now, was stored by its minutes only.
        let last_hour = hours.closed.back().map_or(i64::MIN, |(start, _)| *start);
        let mut unfinished: BTreeMap<i64, Cell> = BTreeMap::new();
        for (start, cell) in stored.minutes {
            let hour = start.div_euclid(hours.size.span) * hours.size.span;
            if start >= minutes.start {
                cell.add_to(&mut minutes.open);
            } else if hour >= hours.start {
                cell.add_to(&mut hours.open);
            } else if hour > last_hour {
                cell.add_to(unfinished.entry(hour).or_default());
            }
            if start + minutes.size.span > now - Window::Minute.seconds() {
                // As if all of it had happened at its end.
                let last = (start + minutes.size.span).min(small.start) - small.size.span;
                small.closed.push_back((last, cell.clone()));
            }
            if start < minutes.start {
                minutes.closed.push_back((start, cell));
            }
        }
        let unfinished = unfinished.iter().map(|(start, cell)| (*start, PackedCell::of(cell)));
        hours.closed.extend(unfinished);
        restored.levels.iter_mut().for_each(Level::prune);
        restored
    }

    /// Adds all that others know, as of now.
    pub fn absorb(&mut self, others: &Self, now: i64) {
        self.levels[0].open.add(&others.window(Window::Week, now));
    }

    /// All that happened in a window.
    pub fn window(&self, window: Window, now: i64) -> Cell {
        let mut sum = Cell::default();
        let size = window.size();
        for (_, cell) in self.closed_within(size, window, now) {
            cell.add_to(&mut sum);
        }
        self.add_open(size, &mut sum);
        sum
    }

    /// Adds what is in the open cell of a size, and in those of the smaller ones, which it has not got yet.
    pub fn add_open(&self, size: usize, sum: &mut Cell) {
        for level in &self.levels[..=size] {
            sum.add(&level.open);
        }
    }

    /// The hours that are over and lie in a window, oldest first.
    pub fn hours_of(&self, window: Window, now: i64) -> impl Iterator<Item = &(i64, PackedCell)> {
        self.closed_within(HOURS, window, now)
    }

    fn closed_within(&self, size: usize, window: Window, now: i64) -> impl Iterator<Item = &(i64, PackedCell)> {
        let level = &self.levels[size];
        let closed = level.closed.iter();
        closed.filter(move |(start, _)| is_within(window, *start, level.size.span, now))
    }

    /// All that happened in the last minutes, locks and operations together.
    pub fn minutes(&self, minutes: i64, now: i64) -> Series {
        let mut sum = Series::default();
        for level in &self.levels[..=MINUTES] {
            sum.add(&level.open.sum());
        }
        let from = now - minutes * 60;
        for (_, cell) in self.levels[MINUTES]
            .closed
            .iter()
            .filter(|(start, _)| *start + 60 > from)
        {
            sum.add(&cell.sum());
        }
        sum
    }

    /// The minutes, those that are over and the open one, oldest first, all locks together.
    pub fn by_minute(&self) -> Vec<(i64, Series)> {
        let closed = self.levels[MINUTES].closed.iter();
        let mut points: Vec<_> = closed.map(|(start, cell)| (*start, cell.sum())).collect();
        points.extend(self.open_sum(MINUTES));
        points
    }

    /// What happened in the open cell of a size, all locks together; `None` when nothing did.
    pub fn open_sum(&self, size: usize) -> Option<(i64, Series)> {
        let mut open = Series::default();
        for level in &self.levels[..=size] {
            open.add(&level.open.sum());
        }
        (open.counts != Counts::default()).then(|| (self.levels[size].start, open))
    }
}

/// Whether a cell counts: when its end lies in the window, so that none is counted short.
pub fn is_within(window: Window, start: i64, span: i64, now: i64) -> bool {
    start + span > now - window.seconds()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::record::Kind;
    use super::*;
    use crate::types::{LockName, Mode};

    const START: i64 = 1_763_649_600;

    fn acquire(lock: &str, at: i64, waited: u64) -> Record {
        Record {
            at: at * 1000,
            kind: Kind::Acquire,
            lock: LockName::parse(lock.as_bytes()).ok(),
            mode: Mode::Exclusive,
            pid: 1,
            session: None,
            op: None,
            span: Duration::from_millis(waited),
        }
    }

    fn acquires(windows: &Windows, window: Window, now: i64) -> u64 {
        windows.window(window, now).sum().counts.acquires
    }

    #[test]
    fn each_window_has_what_happened_in_it_and_nothing_twice() {
        let mut windows = Windows::new(START);
        // An event each 131 s for 8 days.
        let end = START + 8 * 24 * 3600;
        let times: Vec<i64> = (START..end).step_by(131).collect();
        for at in &times {
            windows.count(&acquire("x.lock", *at, 1));
        }
        windows.advance(end);
        for window in Window::ALL {
            // A window begins where a cell begins: it may hold up to one cell more than its length.
            let (found, cell) = (acquires(&windows, window, end), SIZES[window.size()].span);
            let since = |from: i64| times.iter().filter(|at| **at >= from).count() as u64;
            let (least, most) = (since(end - window.seconds()), since(end - window.seconds() - cell));
            assert!(
                (least..=most).contains(&found),
                "{window:?}: {found} not in {least}..={most}"
            );
        }
        // What no window reaches is forgotten.
        for (level, size) in windows.levels.iter().zip(SIZES) {
            assert!(
                level.closed.len() <= size.keep,
                "{} of {} s",
                level.closed.len(),
                size.span
            );
        }
    }

    #[test]
    fn a_quiet_window_is_empty_and_the_longer_ones_still_know() {
        let mut windows = Windows::new(START);
        windows.count(&acquire("x.lock", START + 1, 40));
        let later = START + 300;
        windows.advance(later);
        assert_eq!(acquires(&windows, Window::Minute, later), 0);
        let hour = windows.window(Window::Hour, later);
        assert_eq!(hour.locks["x.lock"].wait.quantiles().max, Duration::from_millis(40));
        let week = START + 7 * 24 * 3600 + 2 * 3600;
        windows.advance(week);
        assert_eq!(acquires(&windows, Window::Week, week), 0);
    }

    #[test]
    fn a_wall_clock_that_steps_back_loses_nothing() {
        let mut windows = Windows::new(START);
        windows.count(&acquire("x.lock", START + 100, 1));
        windows.count(&acquire("x.lock", START - 5000, 1));
        assert_eq!(acquires(&windows, Window::Minute, START + 100), 2);
    }

    /// Stores each 50 s what is new, as the daemon does, and dies at `end`; what a restart then knows.
    fn stored_until(windows: &mut Windows, events: impl Iterator<Item = i64>, end: i64) -> Stored {
        let (mut minutes, mut hours) = (BTreeMap::new(), BTreeMap::new());
        let mut since = windows.open_cells();
        let mut save = |windows: &Windows| {
            let stored = windows.unsaved(since);
            since = windows.open_cells();
            minutes.extend(stored.minutes);
            hours.extend(stored.hours);
        };
        let mut due = START;
        for at in events {
            while due <= at {
                windows.advance(due);
                save(windows);
                due += 50;
            }
            windows.count(&acquire("x.lock", at, 1));
        }
        windows.advance(end);
        save(windows);
        Stored {
            minutes: minutes.into_iter().collect(),
            hours: hours.into_iter().collect(),
        }
    }

    #[test]
    fn what_was_stored_is_there_after_a_restart_and_nothing_twice() {
        // A whole hour, a part of one, and ends that lie a moment, an hour and days before the restart.
        for (end, restart) in [
            (7_000, 7_001),
            (7_000, 7_300),
            (7_100, 9_000),
            (7_100, 400_000),
            (7_259, 7_261),
        ] {
            let (end, restart) = (START + end, START + restart);
            let mut windows = Windows::new(START);
            let stored = stored_until(&mut windows, (START..end).step_by(13), end);
            let mut restored = Windows::restored(stored, restart);
            windows.advance(restart);
            for window in [Window::Hour, Window::Day, Window::Week] {
                let (found, expected) = (
                    acquires(&restored, window, restart),
                    acquires(&windows, window, restart),
                );
                assert_eq!(found, expected, "{window:?}, {end} {restart}");
            }
            assert!(acquires(&restored, Window::Minute, restart) >= acquires(&windows, Window::Minute, restart));
            let later = restart + 4000;
            restored.advance(later);
            windows.advance(later);
            assert_eq!(
                acquires(&restored, Window::Week, later),
                acquires(&windows, Window::Week, later)
            );
            assert_eq!(
                acquires(&restored, Window::Hour, later),
                acquires(&windows, Window::Hour, later)
            );
        }
    }

    #[test]
    fn the_oldest_hours_go_when_there_is_no_room_for_all() {
        let mut windows = Windows::new(START);
        windows.levels[HOURS].size.bytes_max = 20_000;
        let begin = START.div_euclid(3600) * 3600 + 3600;
        let end = begin + 100 * 3600;
        for at in (begin..end).step_by(360) {
            windows.count(&acquire(&format!("{}.lock", "x".repeat(100)), at, 1));
        }
        windows.advance(end);
        let level = &windows.levels[HOURS];
        let bytes: usize = level.closed.iter().map(|(_, cell)| cell.bytes()).sum();
        assert!((15_000..=20_000).contains(&bytes), "{bytes}");
        assert_eq!(
            level.closed.back().map(|(start, _)| *start),
            Some(end - 3600),
            "the newest stay"
        );
        assert_eq!(acquires(&windows, Window::Hour, end), 10, "and so does everything else");
    }

    #[test]
    fn names_beyond_the_bound_are_kept_together() {
        let mut windows = Windows::new(START);
        for number in 0..1000 {
            windows.count(&acquire(&format!("{number}.lock"), START, 1));
        }
        let cell = windows.window(Window::Minute, START);
        assert!(cell.locks.len() <= super::super::cell::LOCKS_MAX + 1);
        let all: u64 = cell.locks.values().map(|series| series.counts.acquires).sum();
        assert_eq!(all, 1000);
    }
}
