//! A histogram: how many waits were how long.

use plotters::prelude::*;

use super::canvas::{Canvas, Drawn, GRID, HEIGHT, MUTED, PLAIN, SMALL, WIDTH, say, text_centred, text_right};
use super::scale::{count, round_up, span};
use crate::metrics::Bucket;

const LEFT: i32 = 66;
const RIGHT: i32 = WIDTH as i32 - 18;
const BOTTOM: i32 = HEIGHT as i32 - 36;
const TOP: i32 = 24;
/// Room for one duration below the axis.
const LABEL_WIDTH: i32 = 54;

/// A bar for each bucket.
pub fn draw(canvas: &Canvas<'_>, buckets: &[Bucket]) -> Drawn {
    let used = |bucket: &Bucket| bucket.count > 0;
    let (Some(first), Some(last)) = (buckets.iter().position(used), buckets.iter().rposition(used)) else {
        return say(canvas, "No wait has ended in the last 7 days.");
    };
    // One bucket more on each side, so that the shape has its ends.
    let buckets = &buckets[first.saturating_sub(1)..=(last + 1).min(buckets.len() - 1)];
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1);
    let top = round_up(most as f64);
    let steps = steps(top);
    for step in 0..=steps {
        let share = f64::from(step) / f64::from(steps);
        let y = BOTTOM - (share * f64::from(BOTTOM - TOP)) as i32;
        canvas.draw(&PathElement::new([(LEFT, y), (RIGHT, y)], GRID))?;
        let words = count((top * share).round() as u64);
        canvas.draw_text(&words, &text_right(SMALL, MUTED), (LEFT - 8, y))?;
    }
    let width = f64::from(RIGHT - LEFT) / buckets.len() as f64;
    let every = (f64::from(LABEL_WIDTH) / width).ceil() as usize;
    for (index, bucket) in buckets.iter().enumerate() {
        let left = LEFT + (width * index as f64) as i32;
        let right = LEFT + (width * (index + 1) as f64) as i32;
        let height = bucket.count as f64 / top * f64::from(BOTTOM - TOP);
        // A single wait among a million must be seen.
        let height = if bucket.count > 0 { (height as i32).max(2) } else { 0 };
        if height > 0 {
            let corners = [(left + 1, BOTTOM - height), ((right - 1).max(left + 2), BOTTOM)];
            canvas.draw(&Rectangle::new(corners, PLAIN.filled()))?;
        }
        if index % every == every / 2 {
            let place = ((left + right) / 2, BOTTOM + 14);
            let words = bucket
                .upto
                .map_or_else(|| "more".to_owned(), |upto| format!("≤ {}", span(upto)));
            canvas.draw_text(&words, &text_centred(SMALL, MUTED), place)?;
        }
    }
    Ok(())
}

/// Into how many parts the axis is divided, so that each is a whole number of waits.
fn steps(top: f64) -> i32 {
    let divides = |steps: &i32| top % f64::from(*steps) == 0.0;
    [4, 5, 3, 2].into_iter().find(divides).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_is_marked_at_whole_numbers() {
        for (top, expected) in [
            (1.0, 1),
            (2.0, 2),
            (3.0, 3),
            (5.0, 5),
            (6.0, 3),
            (8.0, 4),
            (10.0, 5),
            (40_000.0, 4),
        ] {
            assert_eq!(steps(top), expected, "{top}");
        }
    }
}
