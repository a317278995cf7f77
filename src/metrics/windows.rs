//! The last minute, hour, day and week, from cells of three sizes.
//!
//! An event is counted once, in the open cell of 5 s. When that is over it is added to the open minute, and a minute
//! that is over to the open hour; the small cells are kept for the last minute, the minutes for the last hour, the hours
//! for a week. So a window begins where a cell begins: the last hour is true to a minute, the last day to an hour.

use std::collections::VecDeque;

use super::cell::{Cell, PackedCell};
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

/// The cells of one size: their length in seconds, and how many that are over are kept.
const SIZES: [(i64, usize); 3] = [(5, 12), (60, 60), (3600, 168)];
/// The index of the minutes in [`SIZES`].
pub const MINUTES: usize = 1;
/// The index of the hours in [`SIZES`].
pub const HOURS: usize = 2;

/// The cells of one size.
#[derive(Debug)]
struct Level {
    span: i64,
    keep: usize,
    start: i64,
    open: Cell,
    /// What is over, oldest first, by its start; stretches without events are left out.
    closed: VecDeque<(i64, PackedCell)>,
}

impl Level {
    fn prune(&mut self) {
        let oldest = self.start - self.span * i64::try_from(self.keep).unwrap_or(i64::MAX);
        while self.closed.front().is_some_and(|(start, _)| *start < oldest) {
            self.closed.pop_front();
        }
    }
}

/// All cells.
#[derive(Debug)]
pub struct Windows {
    levels: [Level; 3],
}

impl Windows {
    /// Nothing has happened yet; `now` in seconds since 1970, as everywhere here.
    pub fn new(now: i64) -> Self {
        let level = |(span, keep): (i64, usize)| Level {
            span,
            keep,
            start: now.div_euclid(span) * span,
            open: Cell::default(),
            closed: VecDeque::new(),
        };
        Self {
            levels: SIZES.map(level),
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
        let start = now.div_euclid(level.span) * level.span;
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

    /// All that happened in a window.
    pub fn window(&self, window: Window, now: i64) -> Cell {
        let from = now - window.seconds();
        let size = window.size();
        let mut sum = Cell::default();
        for level in &self.levels[..=size] {
            sum.add(&level.open);
        }
        let level = &self.levels[size];
        // A cell counts when its end lies in the window, so that none is counted short.
        for (_, cell) in level.closed.iter().filter(|(start, _)| *start + level.span > from) {
            cell.add_to(&mut sum);
        }
        sum
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

    /// The stretches of one size, those that are over and the open one, oldest first, all locks together.
    pub fn over_time(&self, size: usize) -> Vec<(i64, Series)> {
        let mut points: Vec<_> = self.levels[size]
            .closed
            .iter()
            .map(|(start, cell)| (*start, cell.sum()))
            .collect();
        let mut open = Series::default();
        for level in &self.levels[..=size] {
            open.add(&level.open.sum());
        }
        if open.counts != Counts::default() {
            points.push((self.levels[size].start, open));
        }
        points
    }
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
            let (found, cell) = (acquires(&windows, window, end), SIZES[window.size()].0);
            let since = |from: i64| times.iter().filter(|at| **at >= from).count() as u64;
            let (least, most) = (since(end - window.seconds()), since(end - window.seconds() - cell));
            assert!(
                (least..=most).contains(&found),
                "{window:?}: {found} not in {least}..={most}"
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
