//! The page of a repository with seven days behind it: everything is drawn, and fits wide and narrow screens.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use git_lockfs::adapters::History;
use git_lockfs::metrics::{Kind, Metrics, Record};
use git_lockfs::types::{LockName, Mode};

use crate::browser::Browser;
use crate::support::{Mount, Repository, Said};
use crate::{TAKE, holder, pictures};

const HOUR: i64 = 3600;
const OPS: [&str; 6] = ["git commit", "git merge", "git rebase", "deploy", "make", "git fetch"];
const LOCKS: [&str; 7] = [
    "main-worktree.lock",
    "worktree-topic.lock",
    "global.lock",
    "ref-refs%2Fheads%2Fmain.lock",
    "deploy.lock",
    "db.lock",
    "port-8080.lock",
];

/// Writes a week that ends now, busiest on working days, as a daemon would have.
fn write_week(repository: &Repository) {
    let state = repository.repo().join(".git/lockfs");
    std::fs::create_dir_all(&state).expect("a directory");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    let now = i64::try_from(now.as_secs()).expect("in this age");
    let mut history = History::open(&state).expect("a new one");
    let mut metrics = Metrics::new((now - 7 * 24 * HOUR) * 1000);
    let mut random = 7_u64;
    for hour in 0..7 * 24 {
        let start = now - (7 * 24 - hour) * HOUR;
        let since = metrics.windows.open_cells();
        let (day, of_day) = (start.div_euclid(24 * HOUR) + 3, start.rem_euclid(24 * HOUR) / HOUR);
        let is_work = day.rem_euclid(7) < 5 && (7..20).contains(&of_day);
        for at in 0..if is_work { 60 } else { 6 } {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = |shift: u32, of: usize| (random >> shift) as usize % of;
            let lock = pick(33, LOCKS.len()).min(pick(40, LOCKS.len()));
            let waited = if random.is_multiple_of(3) {
                (random >> 45) % 4_000
            } else {
                0
            };
            let kinds = match random % 100 {
                0 => [Kind::Wait, Kind::Timeout],
                1 => [Kind::Acquire, Kind::Stale],
                _ => [Kind::Acquire, Kind::Release],
            };
            for (kind, millis) in kinds.into_iter().zip([waited, 20 + (random >> 50) % 900]) {
                metrics.count(&Record {
                    at: (start + at * 50) * 1000,
                    kind,
                    lock: LockName::parse(LOCKS[lock].as_bytes()).ok(),
                    mode: Mode::Exclusive,
                    pid: 1,
                    session: None,
                    op: Some(Arc::from(OPS[pick(36, OPS.len())])),
                    span: Duration::from_millis(millis * (1 + lock as u64)),
                });
            }
        }
        metrics.windows.advance(start + HOUR);
        history
            .write(&metrics.windows.unsaved(since), start + HOUR)
            .expect("there is room");
    }
}

#[test]
fn a_week_is_drawn_and_fits_wide_and_narrow_screens() {
    let repository = Repository::new();
    write_week(&repository);
    let mount = Mount::start(repository, &[("alertHold", "1s")], &[]);
    let (_deploying, _) = holder(&mount, "deploy.lock");
    let (_other, _) = holder(&mount, "worktree-topic.lock");
    let mut line: Vec<_> = (0..4).map(|_| mount.client()).collect();
    for waiting in &mut line {
        waiting.begin_open(mount.lock("deploy.lock"), TAKE);
    }
    mount.wait_for_waiters("deploy.lock", 4);
    let browser = Browser::start(&mount);
    browser.open(&mount.lockfs(&["dashboard", "--no-open"]).text());
    browser.wait_for(
        "the alert",
        "document.querySelector('#alert-list li')?.innerText.includes('deploy.lock')",
    );
    browser.run("document.querySelector('#lock-rows button').click()");
    let empty = browser.run(
        "return [...document.querySelectorAll('figure')].filter((figure) =>
             figure.querySelectorAll('svg path, svg polyline, svg rect').length < 5 || !figure.querySelector('tbody tr'))
           .map((figure) => figure.querySelector('figcaption').innerText)",
    );
    assert_eq!(empty, serde_json::json!([]), "every chart has something to show");
    for (name, width) in [("week", 1280), ("week-narrow", 390)] {
        browser.resize(width, 900);
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            browser.picture(&pictures().join(format!("{name}-{scheme}.png")));
        }
        let too_wide =
            browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(too_wide, 0, "{width} pixels suffice");
    }
    assert_eq!(browser.console(), Vec::<String>::new());
}
