//! The charts of a week with everything in it, of an empty one, and of hostile names.

use std::time::Duration;

use super::*;
use crate::view::sample;

/// Every attribute of that name, with its values.
fn attributes<'a>(document: &'a str, name: &str) -> Vec<&'a str> {
    let opening = format!(" {name}=\"");
    let values = document.split(&opening).skip(1);
    values.map(|rest| rest.split('"').next().unwrap_or_default()).collect()
}

#[test]
fn every_colour_has_a_dark_counterpart() {
    for chart in Chart::ALL {
        let document = chart.draw(&sample::week());
        for attribute in ["fill", "stroke"] {
            for colour in attributes(document.split_once("</style>").expect("a style").1, attribute) {
                let rule = format!(".lockfs-chart [{attribute}=\"{colour}\"]");
                assert!(colour == "none" || STYLE.contains(&rule), "{chart:?}: {rule}");
            }
        }
    }
}

#[test]
fn a_name_cannot_leave_its_text() {
    let name = r#"<script>alert("1")</script>&x;'\u0007${y}"#;
    let mut figures = sample::week();
    figures.slowest[0].name = format!("\u{7}\u{0}\u{202e}{name}");
    figures.windows[3].locks[0].name = name.to_owned();
    for chart in [Chart::Slowest, Chart::Holds] {
        let document = chart.draw(&figures);
        assert!(!document.contains("<script"), "{document}");
        assert!(document.contains("&lt;script&gt;"), "it is shown as it is");
        assert!(
            !document.contains(['\u{7}', '\u{0}', '\u{202e}']),
            "XML knows no control characters, and none turns the text around"
        );
    }
}

#[test]
fn a_long_name_is_cut_and_a_wide_one_sooner() {
    assert_eq!(canvas::label("git merge"), "git merge");
    assert_eq!(canvas::label(&"x".repeat(255)).chars().count(), 28);
    assert_eq!(canvas::label(&"錠".repeat(85)).chars().count(), 14);
}

#[test]
fn an_empty_week_says_so() {
    for chart in Chart::ALL {
        let document = chart.draw(&sample::empty());
        assert!(document.contains("in the last 7 days."), "{chart:?}: {document}");
        assert!(document.ends_with("</svg>\n"));
    }
}

#[test]
fn figures_at_the_edge_are_drawn_inside_the_sheet() {
    let mut figures = sample::week();
    figures.over_time.truncate(1);
    figures.over_time[0].figures.wait.p99 = Duration::from_secs(86_400 * 7);
    figures.over_time[0].figures.wait.p50 = Duration::ZERO;
    figures.distribution.truncate(1);
    for operation in &mut figures.slowest {
        (operation.figures.hold.p95, operation.figures.wait.p95) = (Duration::ZERO, Duration::ZERO);
    }
    figures.windows[3]
        .locks
        .iter_mut()
        .for_each(|lock| lock.figures.hold.total = Duration::MAX);
    for chart in Chart::ALL {
        let document = chart.draw(&figures);
        for (name, limit) in [
            ("x", canvas::WIDTH),
            ("y", canvas::HEIGHT),
            ("x2", canvas::WIDTH),
            ("y2", canvas::HEIGHT),
        ] {
            for value in attributes(&document, name) {
                let place: i64 = value.parse().unwrap_or_else(|_| panic!("{chart:?}: {name}={value}"));
                assert!((0..=i64::from(limit)).contains(&place), "{chart:?}: {name}={value}");
            }
        }
        assert!(!document.contains("NaN") && !document.contains("inf"), "{chart:?}");
    }
}

#[test]
fn what_was_granted_at_once_is_no_wait() {
    let figures = sample::week();
    let week = &figures.window(Window::Week).figures;
    let waits = waits_by_length(&figures);
    assert_eq!(waits.iter().map(|bucket| bucket.count).sum::<u64>(), week.counts.waits);
    assert_eq!(waits[0].upto, Some(Duration::from_millis(1)));
}
