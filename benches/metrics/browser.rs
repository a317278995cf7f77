//! How long a browser takes to show the dashboard of a repository that had that week: a real mount, a real browser.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use git_lockfs::metrics::{EventLog, Metrics};

use crate::browser::Browser;
use crate::fold::fold;
use crate::median;
use crate::support::{Mount, Repository, Said};
use crate::week::Busy;

/// The page has its figures: the charts come last.
const SHOWN: &str = "document.querySelector('#news.live') && document.querySelectorAll('.picture svg').length === 6";

/// From the URL to the figures on the page: in a browser that has just started, in one that runs and a mount that has just
/// been made, and again (the median).
pub fn loads(week: fn(i64) -> Busy) -> [Duration; 3] {
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
        let started = Instant::now();
        browser.open(&url);
        browser.wait_for("the figures", SHOWN);
        started.elapsed()
    };
    let cold = load();
    let taken = browser.run("return document.querySelector('#windows tbody tr:last-child td').textContent");
    let digits = taken.as_str().unwrap_or_default().chars().filter(char::is_ascii_digit);
    assert_eq!(digits.count(), 6, "a third of a million acquisitions, not {taken}");
    browser.open("about:blank");
    mount.lockfs(&["umount"]).ok();
    mount.lockfs(&["mount"]).ok();
    let first = load();
    let again = median(|| {
        load();
    });
    [cold, first, again]
}
