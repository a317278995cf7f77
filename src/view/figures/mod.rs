//! The files below `metrics/` that show the past: figures in, text out.

mod json;
mod prometheus;
mod text;

use crate::metrics::{Figures, LongHold, SeriesFigures};
use crate::view::Now;
use crate::view::nodes::{Figure, Fixed};

/// What is true at this moment, beside the figures of the past.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// How many locks are held.
    pub held: usize,
    /// How many requests wait.
    pub waiters: usize,
    /// The lock with waiters that has been held longest.
    pub longest: Option<LongHold>,
}

/// The text of one of the fixed files.
pub fn render(file: Fixed, figures: &Figures, live: &Live, now: Now) -> Vec<u8> {
    match file {
        Fixed::Summary => text::summary(figures, live, now).into_bytes(),
        Fixed::Slowest => text::slowest(figures).into_bytes(),
        Fixed::Alerts => text::alerts(figures).into_bytes(),
        Fixed::SummaryJson => json::summary(figures, live),
        Fixed::Heatmap => json::heatmap(figures),
        Fixed::MetricsProm => prometheus::render(figures, live).into_bytes(),
        _ => Vec::new(),
    }
}

/// The text of a file in `by-lock/NAME/`; the number of those who wait now is not among the figures.
pub fn one(figure: Figure, of_lock: &SeriesFigures) -> Vec<u8> {
    let text = match figure {
        Figure::WaitP50 => text::millis(of_lock.wait.p50),
        Figure::WaitP95 => text::millis(of_lock.wait.p95),
        Figure::WaitP99 => text::millis(of_lock.wait.p99),
        Figure::HoldP95 => text::millis(of_lock.hold.p95),
        Figure::Acquires => of_lock.counts.acquires.to_string(),
        Figure::Timeouts => of_lock.counts.timeouts.to_string(),
        Figure::Stale => of_lock.counts.stale.to_string(),
        Figure::Waiters => return Vec::new(),
    };
    format!("{text}\n").into_bytes()
}
