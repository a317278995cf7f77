//! When people wait: a cell for each hour of the week, the darker the more time was spent waiting in it.

use std::time::Duration;

use plotters::prelude::*;

use super::canvas::{Canvas, Drawn, GRID, INK, MUTED, SMALL, WARM, say, text, text_centred};
use super::scale::span;
use crate::metrics::HeatCell;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const LEFT: i32 = 52;
const TOP: i32 = 16;
const CELL: (i32, i32) = (24, 28);
const GAP: i32 = 2;
/// Four shades can be told apart, and told by the key below.
const SHADES: [f64; 4] = [0.25, 0.5, 0.75, 1.0];

/// The map, and a key to its shades.
pub fn draw(canvas: &Canvas<'_>, week: &[[HeatCell; 24]; 7]) -> Drawn {
    let most = week.iter().flatten().map(|cell| cell.waited).max().unwrap_or_default();
    if most == Duration::ZERO {
        return say(canvas, "No wait has ended in the last 7 days.");
    }
    for (row, (day, name)) in week.iter().zip(DAYS).enumerate() {
        let y = TOP + row as i32 * CELL.1;
        canvas.draw_text(name, &text(SMALL, INK), (14, y + CELL.1 / 2))?;
        for (hour, cell) in day.iter().enumerate() {
            let x = LEFT + hour as i32 * CELL.0;
            let corners = [(x, y), (x + CELL.0 - GAP, y + CELL.1 - GAP)];
            canvas.draw(&Rectangle::new(corners, GRID.mix(0.6).filled()))?;
            if let Some(shade) = shade(cell.waited, most) {
                canvas.draw(&Rectangle::new(corners, WARM.mix(shade).filled()))?;
            }
        }
    }
    let below = TOP + 7 * CELL.1 + 10;
    for hour in (0..24).step_by(3) {
        let x = LEFT + hour * CELL.0 + (CELL.0 - GAP) / 2;
        canvas.draw_text(&format!("{hour:02}"), &text_centred(SMALL, MUTED), (x, below))?;
    }
    key(canvas, most, below + 28)
}

/// What each shade stands for.
fn key(canvas: &Canvas<'_>, most: Duration, y: i32) -> Drawn {
    canvas.draw_text("waited in the hour, at most", &text(SMALL, MUTED), (LEFT, y))?;
    let mut x = LEFT + 170;
    for share in SHADES {
        canvas.draw(&Rectangle::new([(x, y - 6), (x + 12, y + 6)], WARM.mix(share).filled()))?;
        canvas.draw_text(&span(most.mul_f64(share * share)), &text(SMALL, INK), (x + 18, y))?;
        x += 90;
    }
    Ok(())
}

/// How dark a cell is; `None` for one in which nobody waited. By the root of the time, for busy hours are much busier.
fn shade(waited: Duration, most: Duration) -> Option<f64> {
    if waited == Duration::ZERO {
        return None;
    }
    let share = (waited.as_secs_f64() / most.as_secs_f64()).sqrt();
    SHADES.into_iter().find(|shade| share <= *shade).or(Some(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shade_stands_for_what_the_key_says() {
        let most = Duration::from_secs(1600);
        assert_eq!(shade(Duration::ZERO, most), None);
        assert_eq!(shade(Duration::from_millis(1), most), Some(0.25));
        assert_eq!(shade(Duration::from_secs(100), most), Some(0.25));
        assert_eq!(shade(Duration::from_secs(101), most), Some(0.5));
        assert_eq!(shade(Duration::from_secs(400), most), Some(0.5));
        assert_eq!(shade(most, most), Some(1.0));
    }
}
