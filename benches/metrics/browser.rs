//! How long a browser takes to show the dashboard of a repository that had that week: a real mount, a real browser.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use git_lockfs::metrics::{EventLog, Metrics};

use crate::browser::Browser;
use crate::fold::fold;
use crate::median;
use crate::support::{Mount, Repository};
use crate::week::Busy;

/// The page has its figures: the charts come last.
const SHOWN: &str = "document.querySelector('#news.live') && document.querySelectorAll('.picture svg').length === 6";

/// From the URL to the figures on the page, the browser's own start aside: the first time, when nothing was computed yet,
/// and the median of those after.
pub fn loads(week: fn(i64) -> Busy) -> [Duration; 2] {
    let repository = Repository::new();
    let state = repository.repo().join(".git/lockfs");
    std::fs::create_dir_all(&state).expect("a directory");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    let week = week(i64::try_from(now.as_millis()).expect("in this age"));
    let mut log = EventLog::beginning(week.start());
    fold(&week, &mut Metrics::new(week.start()), &mut log, &state);
    let mount = Mount::start(repository, &[], &[]);
    let url = format!("file://{}", mount.path("metrics/dashboard.html").display());
    let browser = Browser::start(&mount);
    let load = || {
        browser.open(&url);
        browser.wait_for("the figures", SHOWN);
    };
    let started = Instant::now();
    load();
    let first = started.elapsed();
    let total = browser.run("return document.querySelector('#windows tbody tr:last-child td').textContent");
    let digits: String = total
        .as_str()
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    assert_eq!(digits.len(), 6, "a third of a million acquisitions, not {total}");
    [first, median(load)]
}
