//! The way of a week's events: into the intake, through the fold, and into the history.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use git_lockfs::adapters::History;
use git_lockfs::metrics::{Batch, EventLog, Intake, Metrics};
use git_lockfs::types::Tick;

use crate::week::{Busy, WEEK_MS, is_acquire};

/// How long the events of one batch gather, in milliseconds of the week.
const BATCH_MS: i64 = 10 * 60 * 1000;

/// What folding a week took.
pub struct Folding {
    pub pushed: Duration,
    pub folded: Duration,
    pub saved: Duration,
    pub acquires: u64,
    pub disk: f64,
}

/// Counts a week of events in batches, as they come.
pub fn fold(week: &Busy, metrics: &mut Metrics, log: &mut EventLog, dir: &Path) -> Folding {
    let mut history = History::open(dir).expect("a new one");
    let mut intake = Intake::default();
    let mut spare: Vec<_> = Vec::new();
    let [mut pushed, mut folded, mut saved] = [Duration::ZERO; 3];
    let mut acquires = 0;
    let mut since = metrics.windows.open_cells();
    let mut events = week.events().peekable();
    let mut now = week.start();
    while now < week.start() + WEEK_MS {
        now += BATCH_MS;
        let batch: Vec<_> = std::iter::from_fn(|| events.next_if(|(at, _)| *at < now)).collect();
        acquires += batch.iter().filter(|(_, event)| is_acquire(event)).count() as u64;
        let tick = |at: i64| Tick((at - week.start()).unsigned_abs());
        let started = Instant::now();
        for (at, event) in batch {
            // The driver makes its event from what the engine has at hand: names and parties are shared, not copied.
            intake.push(tick(at), black_box(event.clone()));
        }
        pushed += started.elapsed();
        let started = Instant::now();
        let (mut taken, dropped) = intake.swap(std::mem::take(&mut spare));
        assert_eq!(dropped, 0);
        let events = taken
            .drain(..)
            .map(|(at, event)| (week.start() + at.0 as i64, event))
            .collect();
        spare = taken;
        metrics.fold(Batch { events, dropped }, now, true, log);
        folded += started.elapsed();
        let started = Instant::now();
        history
            .write(&metrics.windows.unsaved(since), now / 1000)
            .expect("there is room");
        since = metrics.windows.open_cells();
        saved += started.elapsed();
    }
    drop(history);
    let bytes = std::fs::read_dir(dir).expect("ours").flatten();
    let disk: u64 = bytes.map(|file| file.metadata().map_or(0, |meta| meta.len())).sum();
    Folding {
        pushed,
        folded,
        saved,
        acquires,
        disk: disk as f64,
    }
}
