//! What the hours that are over come to: summed up once an hour, since they do not change within one.
//!
//! Figures are computed each time somebody looks, and to unpack a week of hours for that would be nearly all of the work.

use super::cell::{ByName, Cell, LOCKS_MAX, OPS_MAX, PackedSeries, series};
use super::figures::{Point, SeriesFigures};
use super::series::Series;
use super::windows::{Window, Windows, is_within};

/// The length of an hour in seconds.
const HOUR: i64 = 3600;

/// Sums of the hours that are over.
#[derive(Debug, Default)]
pub struct Past {
    /// The hour that was open when they were summed up; `None` before that.
    open_hour: Option<i64>,
    /// Those of the last day.
    pub day: Cell,
    /// Those of the last week.
    pub week: Cell,
    /// Each of them, oldest first.
    pub points: Vec<Point>,
}

impl Past {
    /// Sums them up, unless that was done since the open hour began.
    pub fn refresh(&mut self, windows: &Windows) {
        let open_hour = windows.open_cells().hour;
        if self.open_hour == Some(open_hour) {
            return;
        }
        *self = Self {
            open_hour: Some(open_hour),
            ..Self::default()
        };
        for (start, cell) in windows.hours_of(Window::Week, open_hour) {
            let is_of_day = is_within(Window::Day, *start, HOUR, open_hour);
            let mut sum = Series::default();
            for packed in &cell.locks {
                let unpacked = packed.unpack();
                add(&mut self.week.locks, packed, &unpacked, LOCKS_MAX);
                if is_of_day {
                    add(&mut self.day.locks, packed, &unpacked, LOCKS_MAX);
                }
            }
            for packed in &cell.ops {
                let unpacked = packed.unpack();
                sum.add(&unpacked);
                add(&mut self.week.ops, packed, &unpacked, OPS_MAX);
                if is_of_day {
                    add(&mut self.day.ops, packed, &unpacked, OPS_MAX);
                }
            }
            self.points.push(Point {
                start: *start,
                figures: SeriesFigures::of(&sum),
            });
        }
    }
}

fn add(all: &mut ByName, packed: &PackedSeries, unpacked: &Series, max: usize) {
    series(all, &packed.name, max).add(unpacked);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::record::{Kind, Record};
    use super::*;
    use crate::types::{LockName, Mode};

    const START: i64 = 1_763_596_800;

    /// What a cell says, for comparing.
    fn told(cell: &Cell) -> Vec<(Arc<str>, SeriesFigures)> {
        let all = cell.locks.iter().chain(&cell.ops);
        all.map(|(name, series)| (Arc::clone(name), SeriesFigures::of(series)))
            .collect()
    }

    #[test]
    fn what_is_summed_up_once_an_hour_is_what_the_hours_hold() {
        let mut windows = Windows::new(START);
        let mut past = Past::default();
        for step in 0..8 * 24 * 6 {
            let now = START + step * 600;
            windows.count(&Record {
                at: now * 1000,
                kind: Kind::Acquire,
                lock: LockName::parse(format!("{}.lock", step % 5).as_bytes()).ok(),
                mode: Mode::Exclusive,
                pid: 1,
                session: None,
                op: Some(Arc::from(["git merge", "make"][step as usize % 2])),
                span: Duration::from_millis(step.unsigned_abs() % 977),
            });
            past.refresh(&windows);
            if step % 41 == 0 {
                for (window, over) in [(Window::Day, &past.day), (Window::Week, &past.week)] {
                    let mut sum = over.clone();
                    windows.add_open(super::super::windows::HOURS, &mut sum);
                    let open_hour = windows.open_cells().hour;
                    assert_eq!(
                        told(&sum),
                        told(&windows.window(window, open_hour)),
                        "{window:?} at {now}"
                    );
                }
            }
        }
        assert_eq!(past.points.len(), 7 * 24);
        assert!(past.points.iter().all(|point| point.figures.counts.acquires == 6));
    }
}
