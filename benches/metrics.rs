//! A million events in seven days: what they cost to count, in memory and on disk, and until the dashboard is there.
//!
//! Run with `cargo bench --bench metrics`, or `scripts/bench`. The events go the way of the daemon's, without its mount:
//! into the intake, through the fold, into the history, and out of both as the files below `metrics/`. At
//! last a browser opens the dashboard of a mount with that history. Two weeks: one of a busy repository, and one that is
//! as bad as a million events can be for the bounds.

#[path = "../tests/support/mod.rs"]
mod support;

#[path = "../tests/dashboard/browser.rs"]
#[expect(dead_code, reason = "what tests do with a page is more than to wait for it")]
mod browser;
#[path = "counting.rs"]
mod counting;
#[path = "metrics/fold.rs"]
mod fold;
#[path = "metrics/browser.rs"]
mod loading;
#[path = "metrics/week.rs"]
mod week;

use std::hint::black_box;
use std::time::{Duration, Instant};

use git_lockfs::adapters::History;
use git_lockfs::engine::{Bounds, Engine};
use git_lockfs::metrics::{EventLog, Figures, LOG_BYTES_MAX, Metrics, StoreState, Window};
use git_lockfs::predict::HoldTimes;
use git_lockfs::types::{Moment, Settings, Token};
use git_lockfs::view::Now;
use git_lockfs::view::dashboard::{Locks, Pictures, live_js, page};

use fold::fold;
use week::{Busy, EVENTS, WEEK_MS};

/// How often figures are computed and drawn; the median is told.
const ROUNDS: usize = 7;
/// When the week ends, in milliseconds since 1970.
const END: i64 = 1_764_201_600_000;
const MEBI: f64 = (1 << 20) as f64;

fn main() {
    println!(
        "{EVENTS} events in 7 days{:>41} {:>14}",
        "a busy week", "the worst week"
    );
    let [busy, worst] = [Busy::usual, Busy::worst].map(|week| {
        let mut rows = measure(&week(END));
        let loads = [
            "the dashboard, in a browser that has just started",
            "  in one that runs, of a mount just made",
            "  again",
        ];
        for (what, load) in loads.into_iter().zip(loading::loads(week)) {
            rows.push(row(what, millis(load), "ms", Some(1000.0)));
        }
        rows
    });
    for (busy, worst) in busy.iter().zip(&worst) {
        // Bounds hold for every week; how long something may take is promised for a busy one.
        let figure = match busy.unit {
            "ms" => busy.figure,
            _ => busy.figure.max(worst.figure),
        };
        let verdict = match busy.most {
            Some(most) if figure <= most => format!("≤ {most} ok"),
            Some(most) => format!("≤ {most} MISSED"),
            None => String::new(),
        };
        println!(
            "{:<50} {:>12.2} {:>14.2} {:<5} {verdict}",
            busy.what, busy.figure, worst.figure, busy.unit
        );
    }
}

/// A figure of one week.
struct Row {
    what: &'static str,
    figure: f64,
    unit: &'static str,
    most: Option<f64>,
}

fn row(what: &'static str, figure: f64, unit: &'static str, most: Option<f64>) -> Row {
    Row {
        what,
        figure,
        unit,
        most,
    }
}

fn measure(week: &Busy) -> Vec<Row> {
    let dir = tempfile::tempdir().expect("a directory");
    let before = counting::live();
    let mut metrics = Metrics::new(END - WEEK_MS);
    let mut log = EventLog::beginning(END);
    let folding = fold(week, &mut metrics, &mut log, dir.path());
    let memory = (counting::live() - before) as f64;

    let history = History::open(dir.path()).expect("it was just written");
    let started = Instant::now();
    let stored = history.read(END / 1000).expect("it was just written");
    let mut again = Metrics::new(END);
    again.restore(stored, END / 1000);
    let reading = started.elapsed();
    let started = Instant::now();
    again.sum_up();
    let reading = reading + started.elapsed();
    let mut figures = || Figures::of(&mut again, Vec::new(), StoreState::Kept, END / 1000);
    let shown = figures();
    assert_eq!(
        shown.window(Window::Week).figures.counts.acquires,
        folding.acquires,
        "nothing is lost on the way"
    );
    let computing = median(|| drop(black_box(figures())));
    let drawing = median(|| drop(black_box(Pictures::draw(&shown))));
    let pictures = Pictures::draw(&shown);
    let engine = Engine::new(Settings::default(), Bounds::default(), Token(1)..Token(2));
    let now = Now {
        moment: Moment::at_millis(0),
        wall_ns: END * 1_000_000,
    };
    let live = || live_js(Locks::of(&engine, &HoldTimes::default(), now), &pictures);
    let writing = median(|| drop(black_box(live())));
    let first = reading + computing + drawing + writing;
    let each = |span: Duration| span.as_nanos() as f64 / EVENTS as f64;
    vec![
        row("an event, where the lock is granted", each(folding.pushed), "ns", None),
        row("the same, on the recorder's thread", each(folding.folded), "ns", None),
        row(
            "  its part of a history written each 10 min",
            each(folding.saved),
            "ns",
            None,
        ),
        row("memory of all figures", memory / MEBI, "MiB", Some(128.0)),
        row(
            "  of these events.csv",
            LOG_BYTES_MAX.min(log_bytes(&log)) as f64 / MEBI,
            "MiB",
            Some(8.0),
        ),
        row("history.db, its log included", folding.disk / MEBI, "MiB", Some(68.0)),
        row("to read it and sum it up at the start", millis(reading), "ms", None),
        row("to compute the figures", millis(computing), "ms", None),
        row("to draw the charts", millis(drawing), "ms", None),
        row("from the start to live.js", millis(first), "ms", Some(1000.0)),
        row("live.js", live().len() as f64 / 1024.0, "KiB", None),
        row("dashboard.html", page().len() as f64 / 1024.0, "KiB", None),
    ]
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn log_bytes(log: &EventLog) -> usize {
    usize::try_from(log.size(log.base())).unwrap_or(usize::MAX)
}

/// How long it takes in the middle of several times.
fn median(mut once: impl FnMut()) -> Duration {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            once();
            started.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}
