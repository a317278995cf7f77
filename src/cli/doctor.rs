//! `git lockfs doctor`: one line a check, and the command that fixes what is wrong.

mod enforcement;
mod machine;
mod path;
mod repository;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::place::{Place, State};

/// Say what this machine or mount lacks, and how to fix it
///
/// Exits with 1 when a check fails; a warning is no failure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One check and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    finding: String,
    /// The command, or the step, that makes it right.
    fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, finding: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            finding: finding.into(),
            fix: None,
        }
    }

    fn warn(name: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            fix: Some(fix.into()),
            ..Self::ok(name, finding)
        }
    }

    fn fail(name: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(name, finding, fix)
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    ok: bool,
    checks: &'a [Check],
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let place = Place::find();
    // In a sandbox, a mount that was made outside needs nothing of what mounting takes.
    let needs_mount = !place.as_ref().is_ok_and(|place| place.state() == State::Mounted);
    let mut checks = machine::checks(needs_mount);
    checks.extend(repository::checks(place));
    let ok = checks.iter().all(|check| check.verdict != Verdict::Fail);
    let text = if args.json {
        let report = Report {
            version: 1,
            ok,
            checks: &checks,
        };
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        checks.iter().map(render).collect()
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn render(check: &Check) -> String {
    let verdict = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    };
    let finding = check.finding.replace('\n', " ");
    match &check.fix {
        Some(fix) => format!("{verdict:4}  {}: {finding}; fix: {fix}\n", check.name),
        None => format!("{verdict:4}  {}: {finding}\n", check.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_with_its_fix() {
        assert_eq!(render(&Check::ok("kernel", "Linux 6.9")), "ok    kernel: Linux 6.9\n");
        assert_eq!(
            render(&Check::fail("device", "missing\nhere", "modprobe fuse")),
            "fail  device: missing here; fix: modprobe fuse\n"
        );
    }

    #[test]
    fn json_has_the_same_facts() {
        let checks = [Check::warn("limits", "low", "ulimit -n 4096")];
        let report = Report {
            version: 1,
            ok: true,
            checks: &checks,
        };
        let json = serde_json::to_value(&report).expect("json");
        assert_eq!(json["checks"][0]["verdict"], "warn");
        assert_eq!(json["checks"][0]["fix"], "ulimit -n 4096");
    }
}
