//! Ranked lists as lying bars: a name, a bar or two, the figure in words.

use std::time::Duration;

use plotters::prelude::*;

use super::canvas::{
    CALM, Canvas, Drawn, HEIGHT, INK, MUTED, PLAIN, SMALL, WARM, WIDTH, label, legend, say, text, text_right,
};
use super::scale::{count, span};
use crate::metrics::NamedFigures;

/// Where names end and bars begin.
const LEFT: i32 = 214;
/// Where the longest bar ends; the figure follows.
const RIGHT: i32 = WIDTH as i32 - 130;
const TOP: i32 = 34;
/// How many are ranked.
const RANKED_MAX: usize = 10;
const ROW: i32 = (HEIGHT as i32 - TOP - 6) / RANKED_MAX as i32;

/// 95th percentiles of hold and wait of each operation.
pub fn slowest(canvas: &Canvas<'_>, operations: &[NamedFigures]) -> Drawn {
    let operations = ranked(operations);
    let spans = |operation: &NamedFigures| (operation.figures.hold.p95, operation.figures.wait.p95);
    let longer = |operation: &NamedFigures| spans(operation).0.max(spans(operation).1);
    let Some(longest) = operations.iter().map(longer).max() else {
        return say(canvas, "No hold has ended in the last 7 days.");
    };
    for (row, operation) in operations.iter().enumerate() {
        let y = name(canvas, row, name_of(operation))?;
        let (hold, wait) = spans(operation);
        bar(canvas, (y - 7, y), hold, longest, CALM)?;
        bar(canvas, (y + 1, y + 7), wait, longest, WARM)?;
        let words = format!("{} · {}", span(hold), span(wait));
        words_after(canvas, y, longer(operation), longest, &words)?;
    }
    legend(canvas, &[("hold p95", CALM), ("wait p95", WARM)])
}

/// For how long each lock was held in all.
pub fn holds(canvas: &Canvas<'_>, locks: &[NamedFigures]) -> Drawn {
    let locks: Vec<&NamedFigures> = ranked(locks)
        .iter()
        .filter(|lock| lock.figures.hold.count > 0)
        .collect();
    let held = |lock: &NamedFigures| lock.figures.hold.total;
    let Some(longest) = locks.iter().map(|lock| held(lock)).max() else {
        return say(canvas, "No hold has ended in the last 7 days.");
    };
    for (row, lock) in locks.into_iter().enumerate() {
        let y = name(canvas, row, name_of(lock))?;
        bar(canvas, (y - 6, y + 6), held(lock), longest, PLAIN)?;
        let words = format!("{} · {}×", span(held(lock)), count(lock.figures.counts.acquires));
        words_after(canvas, y, held(lock), longest, &words)?;
    }
    legend(canvas, &[("time held · times taken", PLAIN)])
}

/// What the charts and tables show of a ranking.
pub fn ranked(all: &[NamedFigures]) -> &[NamedFigures] {
    all.get(..RANKED_MAX).unwrap_or(all)
}

/// The name; an operation that nobody named has an empty one.
pub fn name_of(figures: &NamedFigures) -> &str {
    match figures.name.as_str() {
        "" => "(unknown)",
        name => name,
    }
}

/// The name at the left of a row; says where the middle of the row is.
fn name(canvas: &Canvas<'_>, row: usize, name: &str) -> Result<i32, Box<dyn std::error::Error>> {
    let y = TOP + row as i32 * ROW + ROW / 2;
    canvas.draw_text(&label(name), &text_right(SMALL, INK), (LEFT - 10, y))?;
    Ok(y)
}

fn bar(canvas: &Canvas<'_>, (top, bottom): (i32, i32), amount: Duration, longest: Duration, colour: RGBColor) -> Drawn {
    if amount > Duration::ZERO {
        let corners = [(LEFT, top), (end(amount, longest), bottom)];
        canvas.draw(&Rectangle::new(corners, colour.filled()))?;
    }
    Ok(())
}

fn words_after(canvas: &Canvas<'_>, y: i32, amount: Duration, longest: Duration, words: &str) -> Drawn {
    let place = (end(amount, longest) + 8, y);
    Ok(canvas.draw_text(words, &text(SMALL, MUTED), place)?)
}

fn end(amount: Duration, longest: Duration) -> i32 {
    let share = match longest.as_secs_f64() {
        0.0 => 0.0,
        longest => amount.as_secs_f64() / longest,
    };
    // A bar that is there can be seen.
    LEFT + ((share * f64::from(RIGHT - LEFT)) as i32).max(2)
}
