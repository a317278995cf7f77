//! `metrics/charts/*.svg`: one picture a file, drawn by plotters, readable in light and dark.
//!
//! A chart is a pure function of [`Figures`]. It draws with the colours of `canvas`, which a style sheet inside the
//! file turns to their dark counterparts where the reader prefers that; so the same text serves as a file of its own
//! and inside the dashboard. Text of users (names of locks, operations) is escaped by the drawing library and
//! shortened here. It knows no files, no locks and no clock.

mod bars;
mod canvas;
mod distribution;
mod heatmap;
mod over_time;
mod scale;

pub use bars::{name_of, ranked};
pub use canvas::STYLE;
pub use scale::{count, span};

use std::time::Duration;

use crate::metrics::{Bucket, Figures, Window};
use canvas::{Canvas, Drawn};

/// One of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chart {
    /// Median, 95th and 99th percentile of the waits, hour by hour.
    WaitPercentiles,
    /// How many waits were how long.
    WaitDistribution,
    /// When people wait: hour of day by weekday.
    Heatmap,
    /// The operations that hold their locks longest.
    Slowest,
    /// For how long each lock was held in all.
    Holds,
    /// Stale releases and time-outs, hour by hour.
    Stale,
}

impl Chart {
    /// Every chart, in the order in which a reader wants them.
    pub const ALL: [Self; 6] = [
        Self::WaitPercentiles,
        Self::WaitDistribution,
        Self::Heatmap,
        Self::Slowest,
        Self::Holds,
        Self::Stale,
    ];

    /// Its file in `metrics/charts/`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::WaitPercentiles => "wait-percentiles.svg",
            Self::WaitDistribution => "wait-distribution.svg",
            Self::Heatmap => "heatmap.svg",
            Self::Slowest => "slowest.svg",
            Self::Holds => "holds.svg",
            Self::Stale => "stale.svg",
        }
    }

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::WaitPercentiles => "Wait percentiles over time",
            Self::WaitDistribution => "How long waits were",
            Self::Heatmap => "When locks are contended",
            Self::Slowest => "Slowest operations",
            Self::Holds => "Time held, by lock",
            Self::Stale => "Time-outs and stale releases",
        }
    }

    /// One sentence: what is drawn. The time is the last seven days for all.
    pub fn description(self) -> &'static str {
        match self {
            Self::WaitPercentiles => "Of all requests, hour by hour, UTC; one that was granted at once waited 0.",
            Self::WaitDistribution => "Number of waits by duration, without what was granted at once.",
            Self::Heatmap => "Time spent waiting, by weekday and hour of day, UTC.",
            Self::Slowest => "The ten with the longest 95th percentile of hold time.",
            Self::Holds => "The ten that were held longest in all.",
            Self::Stale => "Waits that reached their limit, locks whose holder was gone; by hour, UTC.",
        }
    }

    /// The picture as an SVG document.
    pub fn draw(self, figures: &Figures) -> String {
        canvas::draw(self.title(), self.description(), |canvas| self.onto(canvas, figures))
    }

    fn onto(self, canvas: &Canvas<'_>, figures: &Figures) -> Drawn {
        match self {
            Self::WaitPercentiles => over_time::percentiles(canvas, &figures.over_time),
            Self::WaitDistribution => distribution::draw(canvas, waits_by_length(figures)),
            Self::Heatmap => heatmap::draw(canvas, &figures.heatmap),
            Self::Slowest => bars::slowest(canvas, &figures.slowest),
            Self::Holds => bars::holds(canvas, &figures.window(Window::Week).locks),
            Self::Stale => over_time::troubles(canvas, &figures.over_time),
        }
    }
}

/// The distribution without the requests that were granted at once: they are so many that nothing else could be seen
/// beside them.
pub fn waits_by_length(figures: &Figures) -> &[Bucket] {
    match figures.distribution.split_first() {
        Some((at_once, waits)) if at_once.upto == Some(Duration::ZERO) => waits,
        _ => &figures.distribution,
    }
}

#[cfg(test)]
mod tests;
