//! Charts whose horizontal axis is time, an hour a point.

use std::time::Duration;

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use super::canvas::{CALM, Canvas, Drawn, GRID, HOT, MUTED, SMALL, WARM, legend, say, text, text_centred};
use super::scale::{count, round_up, span};
use crate::metrics::{Point, Quantiles};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
/// What is drawn of shorter waits: the axis is logarithmic and ends here, in milliseconds.
const FLOOR_MS: f64 = 0.1;

/// Three lines: median, 95th and 99th percentile of the waits.
pub fn percentiles(canvas: &Canvas<'_>, points: &[Point]) -> Drawn {
    let waited = points.iter().any(|point| point.figures.wait.total > Duration::ZERO);
    let points: Vec<&Point> = points.iter().filter(|point| point.figures.wait.count > 0).collect();
    let (Some(first), Some(last), true) = (points.first(), points.last(), waited) else {
        return say(canvas, "No wait has ended in the last 7 days.");
    };
    let longest = points
        .iter()
        .map(|point| millis(point.figures.wait.p99))
        .fold(1.0, f64::max);
    let top = 10_f64.powf((longest * 1.3).log10().ceil()).max(10.0);
    let mut chart = ChartBuilder::on(canvas)
        .margin(10)
        .margin_top(34)
        .margin_right(18)
        .x_label_area_size(26)
        .y_label_area_size(56)
        .build_cartesian_2d(axis(days(first.start, last.start)), (FLOOR_MS..top).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(GRID)
        .disable_x_axis()
        .y_labels(6)
        .label_style(text(SMALL, MUTED))
        .y_label_formatter(&|millis| span(Duration::from_secs_f64(millis / 1e3)))
        .draw()?;
    mark_days(canvas, days(first.start, last.start), |start| {
        chart.backend_coord(&(start as f64, FLOOR_MS))
    })?;
    type Percentile = fn(&Quantiles) -> Duration;
    let lines: [(Percentile, RGBColor, u32); 3] = [
        (|wait| wait.p99, HOT, 1),
        (|wait| wait.p95, WARM, 2),
        (|wait| wait.p50, CALM, 2),
    ];
    for (percentile, colour, width) in lines {
        let place = |point: &&Point| {
            (
                point.start as f64,
                millis(percentile(&point.figures.wait)).max(FLOOR_MS),
            )
        };
        for run in runs(&points) {
            if let [lonely] = run {
                // A line of one point is invisible.
                chart.draw_series([Circle::new(place(lonely), 2, colour.filled())])?;
            } else {
                let line = run.iter().map(place);
                chart.draw_series(LineSeries::new(line, colour.stroke_width(width)))?;
            }
        }
    }
    legend(canvas, &[("median", CALM), ("p95", WARM), ("p99", HOT)])
}

/// A bar an hour: waits that reached their limit, and on top of them stale releases.
pub fn troubles(canvas: &Canvas<'_>, points: &[Point]) -> Drawn {
    let troubled = |point: &&Point| point.figures.counts.timeouts + point.figures.counts.stale > 0;
    let most = points
        .iter()
        .map(|point| point.figures.counts.timeouts + point.figures.counts.stale)
        .max();
    let (Some(most @ 1..), Some(last)) = (most, points.last()) else {
        return say(canvas, "No wait timed out and no lock went stale in the last 7 days.");
    };
    let first = points.iter().find(troubled).map_or(last.start, |point| point.start);
    let mut chart = ChartBuilder::on(canvas)
        .margin(10)
        .margin_top(34)
        .margin_right(18)
        .x_label_area_size(26)
        .y_label_area_size(56)
        .build_cartesian_2d(axis(days(first, last.start)), 0.0..round_up(most as f64))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(GRID)
        .disable_x_axis()
        .y_labels(5)
        .label_style(text(SMALL, MUTED))
        .y_label_formatter(&|number| whole(*number))
        .draw()?;
    mark_days(canvas, days(first, last.start), |start| {
        chart.backend_coord(&(start as f64, 0.0))
    })?;
    let bar = |start: i64, from: u64, to: u64, colour: RGBColor| {
        let corners = [(start as f64, from as f64), ((start + HOUR * 9 / 10) as f64, to as f64)];
        Rectangle::new(corners, colour.filled())
    };
    chart.draw_series(
        points
            .iter()
            .filter(|point| point.figures.counts.timeouts > 0)
            .map(|point| bar(point.start, 0, point.figures.counts.timeouts, HOT)),
    )?;
    chart.draw_series(
        points
            .iter()
            .filter(|point| point.figures.counts.stale > 0)
            .map(|point| {
                bar(
                    point.start,
                    point.figures.counts.timeouts,
                    point.figures.counts.timeouts + point.figures.counts.stale,
                    WARM,
                )
            }),
    )?;
    legend(canvas, &[("time-outs", HOT), ("stale", WARM)])
}

/// The points without a gap between them, for a line must not be drawn where nothing was measured.
fn runs<'a, 'b>(points: &'b [&'a Point]) -> impl Iterator<Item = &'b [&'a Point]> {
    points.chunk_by(|before, after| after.start - before.start <= HOUR)
}

/// From the first to the last hour, and at least two days of at most seven, so that single hours do not look like trends.
fn days(first: i64, last: i64) -> std::ops::Range<i64> {
    let end = last + HOUR;
    let begin = first.clamp(end - WEEK, end - 2 * DAY);
    begin..end
}

/// As the library wants an axis: its whole numbers overflow when they are divided into steps.
fn axis(seconds: std::ops::Range<i64>) -> std::ops::Range<f64> {
    seconds.start as f64..seconds.end as f64
}

/// Names each day below the axis and marks where it begins.
fn mark_days(canvas: &Canvas<'_>, shown: std::ops::Range<i64>, place: impl Fn(i64) -> (i32, i32)) -> Drawn {
    let first = shown.start.div_euclid(DAY) * DAY;
    for midnight in (first..shown.end).step_by(DAY as usize) {
        if shown.contains(&midnight) {
            let (x, y) = place(midnight);
            canvas.draw(&PathElement::new([(x, y), (x, y + 6)], GRID))?;
        }
        let (begin, end) = (midnight.max(shown.start), (midnight + DAY).min(shown.end));
        // Half a day has no room for its name.
        if end - begin > DAY / 2 {
            let (x, y) = place((begin + end) / 2);
            canvas.draw_text(&day(midnight), &text_centred(SMALL, MUTED), (x, y + 14))?;
        }
    }
    Ok(())
}

/// `Fri 20`: the weekday and the day of the month.
fn day(start: i64) -> String {
    jiff::Timestamp::from_second(start).map_or_else(|_| String::new(), |moment| moment.strftime("%a %-d").to_string())
}

fn whole(number: f64) -> String {
    match number.fract() == 0.0 {
        true => count(number as u64),
        false => String::new(),
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
