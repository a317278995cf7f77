//! What is printed: the machine, the figures with their targets, and where the time goes.

use std::fs;

use crate::measure::Probe;

/// One line of the main table.
pub struct Row {
    what: &'static str,
    measured: String,
    ratio: Option<f64>,
    kernel: Option<f64>,
    target: Option<(Bound, f64)>,
    figure: f64,
}

/// On which side of the target the figure has to be.
#[derive(Clone, Copy)]
pub enum Bound {
    AtMost,
    AtLeast,
}

impl Row {
    /// A call, as a ratio to the floor `r`; to be at most `target` times as long.
    pub fn call(what: &'static str, probe: &Probe<'_>, r: &Probe<'_>, target: Option<f64>) -> Self {
        let ratio = probe.ratio(r);
        Self {
            what,
            measured: micros(probe.nanos()),
            ratio: Some(ratio),
            kernel: None,
            target: target.map(|most| (Bound::AtMost, most)),
            figure: ratio,
        }
    }

    /// Compares it with what the kernel's own locks on tmpfs take for the same.
    pub fn beside(mut self, probe: &Probe<'_>, kernel: &Probe<'_>) -> Self {
        self.kernel = Some(probe.ratio(kernel));
        self
    }

    /// Any other figure.
    pub fn figure(what: &'static str, figure: f64, unit: &str, target: Option<(Bound, f64)>) -> Self {
        Self {
            what,
            measured: format!("{figure:.2} {unit}"),
            ratio: None,
            kernel: None,
            target,
            figure,
        }
    }

    fn verdict(&self) -> String {
        let Some((bound, target)) = self.target else {
            return String::new();
        };
        let (sign, met) = match bound {
            Bound::AtMost => ('≤', self.figure <= target),
            Bound::AtLeast => ('≥', self.figure >= target),
        };
        format!("{sign} {target:<7} {}", if met { "ok" } else { "MISSED" })
    }
}

/// Nanoseconds, to be read.
fn micros(nanos: f64) -> String {
    format!("{:.2} µs", nanos / 1000.0)
}

/// What the figures were measured on.
pub fn print_machine() {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unnamed processor", |(_, model)| model);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load: Vec<String> = read("/proc/loadavg").split(' ').take(3).map(str::to_owned).collect();
    println!(
        "git-lockfs {} on Linux {}",
        env!("CARGO_PKG_VERSION"),
        read("/proc/sys/kernel/osrelease").trim()
    );
    println!("{processors} × {model}, load before the run {}", load.join(" "));
}

/// The figures and their targets.
pub fn print_rows(title: &str, rows: &[Row]) {
    println!(
        "\n{:<44} {:>12} {:>7} {:>9}  target",
        title, "median", "in R", "in flock"
    );
    for row in rows {
        let times = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        println!(
            "{:<44} {:>12} {:>7} {:>9}  {}",
            row.what,
            row.measured,
            times(row.ratio),
            times(row.kernel),
            row.verdict()
        );
    }
}

/// What each call costs, and whom: its requests, the daemon's processor time, and the rest, which is the kernel's two
/// switches between processes a request and the caller's own way through it.
pub fn print_shares(calls: &[(&'static str, &Probe<'_>)], user_share: f64) {
    println!(
        "\n{:<44} {:>9} {:>9} {:>12} {:>12}",
        "where it goes", "whole", "requests", "in daemon", "elsewhere"
    );
    for (what, probe) in calls {
        let spent = probe.daemon();
        println!(
            "{:<44} {:>9} {:>9.2} {:>12} {:>12}",
            what,
            micros(probe.nanos()),
            spent.requests,
            micros(spent.nanos),
            micros((probe.nanos() - spent.nanos).max(0.0)),
        );
    }
    let share = (user_share * 100.0).round();
    println!("Of the daemon's time {share} % are its own code, the rest is read(2) and write(2) on /dev/fuse.");
    println!("A RELEASE is served after close(2) has returned, beside its caller, so it can count in the daemon only.");
}
