//! Child processes of a test: bounded, found again, and never left behind.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::MARK;

/// How long [`wait_until`] waits.
const UNTIL_MAX: Duration = Duration::from_secs(10);
/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(5);

/// Returns once the condition holds; panics with `what` if it does not within 10 seconds.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(UNTIL_MAX, condition), "not within {UNTIL_MAX:?}: {what}");
}

/// Whether the condition comes to hold within a limit.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(STEP);
    }
}

/// The state letter of a process in /proc/PID/stat; `X` when it is gone.
pub fn process_state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rfind(')').map_or("", |end| &stat[end + 1..]);
    after_name.trim_start().chars().next().unwrap_or('X')
}

/// How many threads a process has.
pub fn threads_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// The full path of a program that a test needs; a machine without it fails the test with the package's name.
#[track_caller]
pub fn require(program: &str) -> PathBuf {
    const PACKAGES: &[(&str, &str)] = &[
        ("bwrap", "bubblewrap"),
        ("chromedriver", "chromium-driver"),
        ("dotlockfile", "liblockfile-bin"),
        ("flock", "util-linux"),
        ("getfattr", "attr"),
        ("setfattr", "attr"),
        ("setpriv", "util-linux"),
        ("unshare", "util-linux"),
        ("lockfile", "procmail"),
        ("shlock", "inn2-inews"),
    ];
    for dir in [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ] {
        let path = Path::new(dir).join(program);
        if path.is_file() {
            return path;
        }
    }
    let package = PACKAGES.iter().find(|(name, _)| *name == program);
    let package = package.map_or(program, |(_, package)| package);
    panic!("this test needs {program}: apt-get install {package}");
}

/// What a program said, for assertions.
pub trait Said {
    /// Panics with everything that it said unless it succeeded.
    fn ok(self) -> Self;
    /// Standard output without trailing newlines.
    fn text(&self) -> String;
    /// Standard error without trailing newlines.
    fn error(&self) -> String;
    /// The exit code; a program that a signal ended has none and panics.
    fn code(&self) -> i32;
}

impl Said for Output {
    #[track_caller]
    fn ok(self) -> Self {
        let (status, out, err) = (self.status, self.text(), self.error());
        assert!(status.success(), "{status}\nstdout: {out}\nstderr: {err}");
        self
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    fn error(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end_matches('\n').to_owned()
    }

    #[track_caller]
    fn code(&self) -> i32 {
        let (out, err) = (self.text(), self.error());
        self.status
            .code()
            .unwrap_or_else(|| panic!("{}\nstdout: {out}\nstderr: {err}", self.status))
    }
}

/// A process that a test started; killed by its PID when this goes.
pub struct Running {
    child: Option<Child>,
    status: Option<ExitStatus>,
    /// Where its output goes: files, since a pipe would also be held open by whatever it leaves in the background.
    files: Option<(PathBuf, PathBuf)>,
    what: String,
}

impl Running {
    /// Starts a command with its output in files below `out`.
    #[track_caller]
    pub fn start(mut command: Command, out: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let files = (out.join(format!("{number}.out")), out.join(format!("{number}.err")));
        let create = |path| File::options().append(true).create_new(true).mode(0o600).open(path);
        command.stdout(create(&files.0).expect("a file for its output"));
        command.stderr(create(&files.1).expect("a file for its errors"));
        command.process_group(0);
        let what = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        Self {
            child: Some(child),
            status: None,
            files: Some(files),
            what,
        }
    }

    /// Guards a process that was started elsewhere.
    pub fn adopt(child: Child) -> Self {
        Self {
            what: format!("process {}", child.id()),
            child: Some(child),
            status: None,
            files: None,
        }
    }

    /// Its PID.
    pub fn id(&self) -> u32 {
        self.child().id()
    }

    /// Its state letter; `Z` once it has ended and nobody asked for its status.
    pub fn state(&self) -> char {
        process_state(self.id())
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            let child = self.child.as_mut().expect("only Drop takes the child");
            self.status = child.try_wait().expect("a child can be waited for");
        }
        self.status
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        super::sys::kill(self.id(), signal).expect("our own child can be signalled");
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        let child = self.child.as_mut().expect("only Drop takes the child");
        if self.status.is_none() {
            child.kill().expect("our own child can be killed");
            self.status = Some(child.wait().expect("a child can be waited for"));
        }
    }

    /// What it has written to standard output so far.
    pub fn said(&self) -> String {
        let files = self.files.as_ref().expect("its output goes to files");
        std::fs::read_to_string(&files.0).expect("its output")
    }

    /// Returns once that line is in its standard output.
    #[track_caller]
    pub fn wait_for_line(&self, line: &str) {
        let seen = holds_within(UNTIL_MAX, || self.said().lines().any(|l| l == line));
        assert!(seen, "{} never said {line:?}, only:\n{}", self.what, self.everything());
    }

    /// Waits for its end and returns what it said; panics when it takes too long.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        self.finish_within(super::RUN_MAX)
    }

    /// The same with another limit.
    #[track_caller]
    pub fn finish_within(&mut self, limit: Duration) -> Output {
        if !holds_within(limit, || self.status().is_some()) {
            let said = self.everything();
            self.kill();
            panic!("did not end within {limit:?}: {}\n{said}", self.what);
        }
        let (out, err) = self.files.as_ref().expect("its output goes to files");
        Output {
            status: self.status.expect("it has ended"),
            stdout: std::fs::read(out).expect("its output"),
            stderr: std::fs::read(err).expect("its errors"),
        }
    }

    /// Gives up the guard without killing the process; it is reaped when it ends or with us.
    pub fn forget_unkilled(mut self) {
        self.child = None;
    }

    fn child(&self) -> &Child {
        self.child.as_ref().expect("only Drop takes the child")
    }

    fn everything(&self) -> String {
        let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        self.files.as_ref().map_or(String::new(), |(out, err)| {
            format!("stdout: {}\nstderr: {}", read(out), read(err))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut()
            && self.status.is_none()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a command to its end; kills it and panics after the limit.
#[track_caller]
pub fn run_bounded(command: Command, out: &Path, limit: Duration) -> Output {
    Running::start(command, out).finish_within(limit)
}

/// Waits for a child's end, at most so long; then kills it.
pub fn wait_or_kill(child: &mut Child, limit: Duration) {
    if !holds_within(limit, || !matches!(child.try_wait(), Ok(None))) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Kills every process that carries the mark of this test directory, by its PID.
pub fn end_marked(dir: &Path) {
    let mark = format!("{MARK}={}", dir.display());
    for _ in 0..3 {
        let marked: Vec<u32> = every_pid().filter(|&pid| carries(pid, mark.as_bytes())).collect();
        if marked.is_empty() {
            return;
        }
        for pid in marked {
            // It may have ended in between; then there is nothing to do.
            let _ = super::sys::kill(pid, libc::SIGKILL);
        }
    }
}

fn every_pid() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn carries(pid: u32, mark: &[u8]) -> bool {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    pid != std::process::id() && environ.split(|&b| b == 0).any(|variable| variable == mark)
}
