//! A busy week, for the tests of those who show it.

use std::time::Duration;

use crate::metrics::*;

/// A week of them.
const HOURS: usize = 7 * 24;
/// Friday, 2026-11-20, 14:00 UTC.
const NOW: i64 = 1_795_183_200;

fn quantiles(count: u64, p50_us: u64) -> Quantiles {
    let of = |factor| Duration::from_micros(p50_us * factor);
    Quantiles {
        count,
        p50: of(1),
        p95: of(14),
        p99: of(52),
        max: of(200),
        total: of(3) * u32::try_from(count).unwrap_or(u32::MAX),
    }
}

/// How busy an hour of the week is, in percent: people work from Monday to Friday.
fn bustle(hour_of_week: usize) -> u64 {
    const DAY: [u64; 24] = [
        4, 2, 1, 1, 1, 2, 6, 14, 40, 72, 90, 95, 60, 55, 88, 100, 92, 70, 44, 26, 20, 16, 12, 8,
    ];
    let day = hour_of_week / 24;
    DAY[hour_of_week % 24] * if day >= 5 { 12 } else { 70 + 7 * day as u64 } / 100
}

/// A repository in which nothing has happened.
pub fn empty() -> Figures {
    Figures {
        time: NOW,
        totals: Totals::default(),
        windows: Window::ALL.map(|window| WindowFigures {
            window,
            figures: SeriesFigures::default(),
            locks: Vec::new(),
            ops: Vec::new(),
        }),
        over_time: Vec::new(),
        last_hour: Vec::new(),
        distribution: Vec::new(),
        heatmap: Default::default(),
        slowest: Vec::new(),
        alerts: Vec::new(),
        store: StoreState::Kept,
    }
}

/// The figures.
pub fn week() -> Figures {
    let window = |window, acquires: u64, p50_us| WindowFigures {
        window,
        figures: SeriesFigures {
            counts: Counts {
                acquires,
                waits: acquires / 9,
                timeouts: acquires / 40_000,
                stale: acquires / 90_000,
                ..Counts::default()
            },
            wait: quantiles(acquires, p50_us),
            hold: quantiles(acquires, p50_us * 3),
        },
        locks: Vec::new(),
        ops: Vec::new(),
    };
    let mut figures = Figures {
        time: NOW,
        windows: [
            window(Window::Minute, 96, 900),
            window(Window::Hour, 5_740, 1_100),
            window(Window::Day, 142_800, 1_900),
            window(Window::Week, 1_000_000, 1_700),
        ],
        ..empty()
    };
    for back in (0..HOURS).rev() {
        let start = NOW - back as i64 * 3600;
        // 1970 began on a Thursday.
        let hour_of_week = usize::try_from((start / 3600 + 3 * 24) % 168).unwrap_or(0);
        let bustle = bustle(hour_of_week);
        let waits = bustle * 11 + start as u64 / 3600 % 7;
        let counts = Counts {
            waits: waits / 3,
            timeouts: if bustle > 80 { start as u64 / 3600 % 4 } else { 0 },
            stale: u64::from(start / 3600 % 29 == 0),
            ..Counts::default()
        };
        let wait = quantiles(waits, 300 + bustle * 40 + start as u64 / 3600 % 13 * 55);
        let figures_of_hour = SeriesFigures {
            counts,
            wait,
            ..SeriesFigures::default()
        };
        figures.over_time.push(Point {
            start,
            figures: figures_of_hour,
        });
        figures.heatmap[hour_of_week / 24][hour_of_week % 24] = HeatCell {
            waits: waits / 3,
            waited: Duration::from_millis(bustle * bustle * 90),
        };
    }
    let shape = [
        11_890, 21_000, 30_400, 24_000, 12_100, 6_300, 3_000, 1_400, 650, 240, 90, 31, 8, 0, 1, 0, 1,
    ];
    figures.distribution.push(Bucket {
        upto: Some(Duration::ZERO),
        count: 1_000_000 - 111_111,
    });
    let mut upto = Duration::from_millis(1);
    for (index, count) in shape.into_iter().enumerate() {
        let upto_now = (index + 1 < shape.len()).then_some(upto);
        figures.distribution.push(Bucket { upto: upto_now, count });
        upto = upto * if index % 3 == 1 { 5 } else { 4 } / 2;
    }
    let ops = [
        "git gc",
        "git rebase",
        "git merge",
        "git worktree",
        "cargo",
        "git commit",
        "git fetch",
        "git switch",
        "make",
        "git add",
    ];
    let locks = [
        "global.lock",
        "worktree-agent-7.lock",
        "ref-refs%2Fheads%2Fmain.lock",
        "registry.lock",
        "maintenance.lock",
        "worktree-agent-12.lock",
        "config.lock",
        "stash.lock",
        "ref-refs%2Fheads%2Ffeature%2Fa-long-name-of-a-branch.lock",
        "issue-71.lock",
    ];
    for rank in 0..10 {
        let less = 1.7_f64.powi(rank as i32);
        let counts = |acquires| Counts {
            acquires,
            ..Counts::default()
        };
        let rare = 120 * (rank as u64 + 1).pow(3);
        let series = SeriesFigures {
            counts: counts(rare),
            wait: Quantiles {
                p95: Duration::from_secs_f64(9.0 / less.sqrt()),
                ..quantiles(rare / 9, 1_000)
            },
            hold: Quantiles {
                p95: Duration::from_secs_f64(38.0 / less),
                ..quantiles(rare, 1_000)
            },
        };
        figures.slowest.push(NamedFigures {
            name: ops[rank].to_owned(),
            figures: series,
        });
        let often = 220_000 / (rank as u64 + 1);
        let series = SeriesFigures {
            counts: counts(often),
            wait: quantiles(often / 9, 1_000),
            hold: Quantiles {
                total: Duration::from_secs_f64(190_000.0 / less),
                ..quantiles(often, 3_000)
            },
        };
        figures.windows[Window::Week as usize].locks.push(NamedFigures {
            name: locks[rank].to_owned(),
            figures: series,
        });
    }
    figures.alerts = vec![
        Alert {
            kind: AlertKind::SlowWaits,
            sentence: "95 % of waits took up to 6.2 s in the last 5 minutes (limit: 5 s).".to_owned(),
            since: Some(NOW - 190),
            firing: true,
        },
        Alert {
            kind: AlertKind::LongHold,
            sentence: "global.lock was held for 74 s while 3 waited.".to_owned(),
            since: None,
            firing: false,
        },
    ];
    figures
}
