//! What happened, folded into figures: counts, and percentiles of waits and holds, by lock and by operation.
//!
//! The road of an event: the engine tells it, the driver puts it into the [`Intake`], which costs a few nanoseconds
//! under its mutex and drops what does not fit (and counts it). A thread of its own takes the batch out later and gives
//! it to [`Metrics`], which finds out who it was about, writes the line of the event log and folds it into the
//! [`Windows`] of the last minute, hour, day and week. [`Figures`] are computed from these when somebody looks.
//!
//! Everything is bounded, whatever happens: the intake, the log, the names in a cell and the cells. It knows no files,
//! no clocks and no threads; times come with the events.

mod alerts;
mod cell;
mod figures;
mod intake;
mod level;
mod log;
mod past;
mod record;
mod series;
mod totals;
mod windows;

pub use alerts::{Alert, AlertKind, Alerts, LongHold, Thresholds};
pub use cell::{Cell, OTHERS, PackedCell, PackedSeries};
pub use figures::{Bucket, Figures, HeatCell, NamedFigures, Point, SeriesFigures, StoreState, WindowFigures};
pub use intake::{Batch, EVENTS_MAX, Intake, Joined};
pub use log::{EventLog, HEADER, LOG_BYTES_MAX, Piece};
pub use record::{Kind, Record};
pub use series::{Counts, Quantiles, Series, Spread};
pub use totals::{BOUNDS_MICROS, LockTotals, Totals};
pub use windows::{OpenCells, Stored, Window, Windows};

use past::Past;

/// The state of all figures.
#[derive(Debug)]
pub struct Metrics {
    joined: Joined,
    /// What was counted since the daemon started.
    pub totals: Totals,
    /// What the figures are computed from.
    pub windows: Windows,
    past: Past,
    /// Grows with everything that changes a figure.
    pub generation: u64,
}

impl Metrics {
    /// Nothing has happened yet; `now` in milliseconds since 1970.
    pub fn new(now: i64) -> Self {
        Self {
            joined: Joined::default(),
            totals: Totals::default(),
            windows: Windows::new(now / 1000),
            past: Past::default(),
            generation: 0,
        }
    }

    /// Folds a batch. `now` is when it was taken, in milliseconds since 1970; events younger than a moment wait for the
    /// next batch, as it may tell who they were about, unless `all` is asked for.
    pub fn fold(&mut self, batch: Batch, now: i64, all: bool, log: &mut EventLog) {
        if batch.dropped > 0 {
            self.totals.dropped(batch.dropped, now);
            self.generation += 1;
        }
        for record in self.joined.take(batch, now, all) {
            self.count(&record);
            log.append(&record);
        }
        self.windows.advance(now / 1000);
    }

    /// Puts back what was stored; `now` in seconds since 1970.
    pub fn restore(&mut self, stored: Stored, now: i64) {
        let fresh = std::mem::replace(&mut self.windows, Windows::restored(stored, now));
        self.windows.absorb(&fresh, now);
        self.past = Past::default();
        self.generation += 1;
    }

    /// Sums up the hours that are over, once an hour: beforehand, so that nobody who looks has to wait for it.
    pub fn sum_up(&mut self) {
        self.past.refresh(&self.windows);
    }

    /// Counts a commit with other files than it was about to have. It belongs to no lock and to no operation.
    pub fn warned_of_commit(&mut self) {
        self.totals.commit_warnings += 1;
        self.generation += 1;
    }

    /// Counts one record.
    pub fn count(&mut self, record: &Record) {
        self.totals.count(record);
        self.windows.count(record);
        self.generation += 1;
    }
}
