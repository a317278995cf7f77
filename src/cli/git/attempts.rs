//! git runs under the locks, and again when it lost a race for one of its own lock files.
//!
//! Our locks keep those apart that take them; an editor's or a script's git does not. When such a one is in the way,
//! git fails at once with its `index.lock` or `config.lock`, and a moment later the same command succeeds. What git
//! failed of is read from its event trace, which leaves its standard error, and what a terminal gets, as they are.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use super::super::child::{Outcome, release_signals, supervise};
use super::super::taken::Taken;
use crate::adapters::Repository;
use crate::scopes::{Plan, Surroundings};

/// How often a command is tried again.
const RETRIES_MAX: u32 = 3;
/// The first pause; each further one is three times as long, give or take a half.
const PAUSE: Duration = Duration::from_millis(60);
/// How much of a trace is read, in bytes.
const TRACE_BYTES_MAX: u64 = 1 << 20;
/// Where files are in memory, for everybody (shm_overview(7)).
const MEMORY: &str = "/dev/shm";
/// How long git waits for its own lock files where it can: long enough for whoever has one to be done with it.
const LOCK_TIMEOUT_MS: &str = "10000";
/// git's own timeouts, which are 100 ms and 1 s.
const TIMEOUTS: &[&str] = &[
    "core.filesRefLockTimeout",
    "core.packedRefsTimeout",
    "reftable.lockTimeout",
];

/// Commands that read standard input, which is gone after the first attempt.
const READS_INPUT: &[&str] = &[
    "am",
    "apply",
    "fast-import",
    "index-pack",
    "unpack-objects",
    "update-index",
    "mailsplit",
];
/// What a command that was stopped in the middle leaves in the git directory: it is not begun again.
const IN_PROGRESS: &[&str] = &[
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "BISECT_LOG",
    "rebase-merge",
    "rebase-apply",
    "sequencer",
];

/// Runs git to its end, up to four times.
pub fn run(program: &Path, args: &[OsString], taken: &Taken, repository: &Repository, plan: &Plan) -> Result<Outcome> {
    let before = Before::look(repository, plan);
    let mut pause = PAUSE;
    let mut attempt = 0;
    loop {
        let mut command = Command::new(program);
        command.args(args);
        taken.dress(&mut command);
        raise_timeouts(&mut command);
        let trace = Trace::of(&mut command);
        let outcome = supervise(command, taken.watch())?;
        let failed = matches!(outcome, Outcome::Exited(code) if code != 0);
        let Some(why) = trace.filter(|_| failed).and_then(Trace::lost_race) else {
            return Ok(outcome);
        };
        before.remove_orphans(repository);
        attempt += 1;
        if attempt > RETRIES_MAX || !is_repeatable(plan, args) || before.is_stopped_midway(repository) {
            return Ok(outcome);
        }
        eprintln!(
            "git-lockfs: {}; trying again ({attempt} of {RETRIES_MAX})",
            why.trim_end_matches('.')
        );
        // In the pause signals are for us again.
        release_signals()?;
        thread::sleep(jittered(pause));
        pause *= 3;
    }
}

/// Whether a second run would read what the first one did.
fn is_repeatable(plan: &Plan, args: &[OsString]) -> bool {
    let name = plan.command.as_deref().unwrap_or_default();
    let reads = |word: &OsString| {
        let word = word.to_string_lossy();
        word == "-" || word == "--stdin" || word.ends_with("=-") || (word.starts_with('-') && word.ends_with("F-"))
    };
    !READS_INPUT.contains(&name) && !args.iter().any(reads)
}

/// A pause between a half and three halves of `pause`, so that those who failed together do not try together.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 4];
    // Without random bytes all wait equally long, which is no worse than no jitter.
    let _ = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
    pause / 2 + pause.mul_f64(f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX))
}

/// Adds to what the environment configures already.
pub fn raise_timeouts(command: &mut Command) {
    let count = std::env::var("GIT_CONFIG_COUNT")
        .ok()
        .and_then(|count| count.parse::<usize>().ok());
    let count = count.unwrap_or(0);
    for (offset, key) in TIMEOUTS.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{}", count + offset), key);
        command.env(format!("GIT_CONFIG_VALUE_{}", count + offset), LOCK_TIMEOUT_MS);
    }
    command.env("GIT_CONFIG_COUNT", (count + TIMEOUTS.len()).to_string());
}

/// What the repository was like before the first attempt.
struct Before {
    in_progress: Vec<bool>,
    /// The branches that the command makes, which were not there.
    missing: Vec<String>,
}

impl Before {
    fn look(repository: &Repository, plan: &Plan) -> Self {
        let made = if makes_a_branch(plan) {
            branches(plan)
        } else {
            Vec::new()
        };
        Self {
            in_progress: in_progress(&repository.git_dir),
            missing: made.into_iter().filter(|name| !repository.has_branch(name)).collect(),
        }
    }

    fn is_stopped_midway(&self, repository: &Repository) -> bool {
        in_progress(&repository.git_dir) != self.in_progress
    }

    /// A `worktree add -b` that failed leaves its branch behind, and would find it in its own way.
    fn remove_orphans(&self, repository: &Repository) {
        for name in self.missing.iter().filter(|name| repository.has_branch(name)) {
            let Ok(git) = super::real_git() else { return };
            let mut remove = Command::new(git);
            remove
                .arg("--git-dir")
                .arg(&repository.common_dir)
                .args(["branch", "-q", "-D", "--", name]);
            // It refuses a branch that is checked out: then it is no orphan, and the command has done its work.
            let _ = remove
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn makes_a_branch(plan: &Plan) -> bool {
    matches!(
        plan.command.as_deref(),
        Some("worktree" | "switch" | "checkout" | "branch")
    )
}

/// The branches among the locks of a plan, by their short names.
fn branches(plan: &Plan) -> Vec<String> {
    let names = plan.locks.iter().filter_map(|(lock, _)| {
        let name = lock
            .as_str()
            .strip_prefix("ref-refs%2Fheads%2F")?
            .strip_suffix(".lock")?;
        Some(name.replace("%2F", "/").replace("%25", "%"))
    });
    names.collect()
}

fn in_progress(git_dir: &Path) -> Vec<bool> {
    IN_PROGRESS
        .iter()
        .map(|name| git_dir.join(name).symlink_metadata().is_ok())
        .collect()
}

/// git's event trace, in a directory of its own. A process that the command leaves behind has the path in its
/// environment for as long as it lives; when the directory is gone, it finds nothing to write to.
struct Trace(TempDir);

impl Trace {
    /// Has the command write its trace to us, unless somebody else wants it.
    fn of(command: &mut Command) -> Option<Self> {
        const TARGET: &str = "GIT_TRACE2_EVENT";
        if std::env::var_os(TARGET).is_some_and(|target| !target.is_empty() && target != "0") {
            return None;
        }
        // Without a trace the command runs once.
        let trace = Self(private_dir().ok()?);
        command.env(TARGET, trace.events());
        Some(trace)
    }

    fn events(&self) -> PathBuf {
        self.0.path().join("events")
    }

    /// Which of git's own locks was in the way.
    fn lost_race(self) -> Option<String> {
        let mut text = Vec::new();
        let file = File::open(self.events()).ok()?;
        file.take(TRACE_BYTES_MAX).read_to_end(&mut text).ok()?;
        String::from_utf8_lossy(&text)
            .lines()
            .filter_map(message_of)
            .find(|message| is_lost_race(message))
    }
}

/// Arguments are in a trace, and may be secrets. In memory, where there is such a place: each command makes and removes
/// one, and on a disk that would be a good part of what it costs to be coordinated.
fn private_dir() -> std::io::Result<TempDir> {
    let closed = std::fs::Permissions::from_mode(0o700);
    let mut builder = tempfile::Builder::new();
    builder.prefix("git-lockfs-").permissions(closed);
    builder.tempdir_in(MEMORY).or_else(|_| builder.tempdir())
}

/// The first line of an error's message.
fn message_of(line: &str) -> Option<String> {
    let event: serde_json::Value = line.contains("\"error\"").then(|| serde_json::from_str(line).ok())??;
    (event["event"] == "error").then(|| event["msg"].as_str()?.lines().next().map(str::to_owned))?
}

/// Whether an error of git is that of somebody who came second. Messages are translated, the names of files are not.
fn is_lost_race(message: &str) -> bool {
    const LOCK_FILE: &[&str] = &[".lock'", ".lock\"", ".lock:"];
    const NOBODYS_FAULT: &[&str] = &[
        "Permission denied",
        "Read-only file system",
        "No space left",
        "Not a directory",
    ];
    const SENTENCES: &[&str] = &[
        "could not lock config file",
        "cannot lock ref",
        "but expected",
        "/commondir",
        "unable to create temporary file",
    ];
    let has = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    (has(LOCK_FILE) || has(SENTENCES)) && !has(NOBODYS_FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lost_races_are_repeated() {
        for lost in [
            "Unable to create '/r/.git/index.lock': File exists.",
            "Konnte '/r/.git/index.lock' nicht erstellen: Datei existiert bereits.",
            "could not lock config file .git/config: File exists",
            "cannot lock ref 'refs/heads/x': is at 1 but expected 2",
            "failed to read /r/.git/worktrees/a/commondir: Success",
            "unable to create temporary file: No such file or directory",
        ] {
            assert!(is_lost_race(lost), "{lost}");
        }
        for final_one in [
            "pathspec 'x' did not match any file(s) known to git",
            "bad config line 3 in file .git/config",
            "Unable to create '/r/.git/index.lock': Permission denied",
        ] {
            assert!(!is_lost_race(final_one), "{final_one}");
        }
    }

    #[test]
    fn an_error_is_read_from_a_trace() {
        let line =
            r#"{"event":"error","sid":"x","msg":"Unable to create 'index.lock': File exists.\n\nAnother","fmt":"x"}"#;
        assert_eq!(
            message_of(line).as_deref(),
            Some("Unable to create 'index.lock': File exists.")
        );
        assert_eq!(message_of(r#"{"event":"start","argv":["\"error\""]}"#), None);
    }

    #[test]
    fn what_reads_its_input_runs_once() {
        let repeatable = |line: &str| {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let plan = Plan {
                command: line.split(' ').next().map(str::to_owned),
                ..Plan::default()
            };
            is_repeatable(&plan, &args)
        };
        assert!(repeatable("commit -m x") && repeatable("add ."));
        for once in [
            "commit -F -",
            "commit -qF-",
            "add --pathspec-from-file=-",
            "update-ref --stdin",
            "apply x.patch",
        ] {
            assert!(!repeatable(once), "{once}");
        }
    }

    #[test]
    fn pauses_differ() {
        let pauses: Vec<Duration> = (0..20).map(|_| jittered(PAUSE)).collect();
        assert!(
            pauses
                .iter()
                .all(|pause| *pause >= PAUSE / 2 && *pause <= PAUSE * 3 / 2)
        );
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
