//! What every test on a real mount needs: a repository of its own, the daemon on it, bounded shells, and hands that
//! make system calls from another process.
//!
//! Knows the places and the command line of git-lockfs, nothing of how locks work. Nothing here waits without a bound,
//! and nothing outlives its test: each process carries a mark in its environment by which it is found and ended.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses its own part of the harness"
)]

pub mod client;
mod daemon;
pub mod dialect;
pub mod process;
pub mod sys;
pub mod work;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub use client::{Client, Op};
pub use dialect::Dialect;
pub use process::{Running, Said, process_state, require, threads_of, wait_until};

use process::{end_marked, run_bounded};

/// How long a shell script or a program of a test may take.
const RUN_MAX: Duration = Duration::from_secs(20);
/// How long an orderly unmount may take before it is done by force.
const UMOUNT_MAX: Duration = Duration::from_secs(5);
/// The environment variable whose value is the directory of the test that started a process.
pub const MARK: &str = "GIT_LOCKFS_TEST_DIR";

/// A git repository in a directory of its own, with nothing mounted yet.
pub struct Repository {
    dir: tempfile::TempDir,
    repo: PathBuf,
}

impl Repository {
    /// Makes a repository with one commit; no configuration of the machine or the user has a say in it.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("lockfs-")
            .tempdir()
            .expect("a directory for the test");
        let repo = dir.path().join("repo");
        for sub in ["repo", "home", "out"] {
            std::fs::create_dir(dir.path().join(sub)).expect("a directory for the test");
        }
        std::fs::write(dir.path().join("home/.gitconfig"), "").expect("a file for the test");
        let this = Self { dir, repo };
        this.git(&["init", "-q", "-b", "main"]);
        this.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
        this
    }

    /// The directory of the test: outside the repository, removed at the end.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The main worktree.
    pub fn repo(&self) -> &Path {
        &self.repo
    }

    /// Where the locks are mounted.
    pub fn mountpoint(&self) -> PathBuf {
        self.repo.join(".git/.git-locks")
    }

    /// A path below the mountpoint.
    pub fn path(&self, below: &str) -> PathBuf {
        self.mountpoint().join(below)
    }

    /// The directory `locks/`.
    pub fn locks(&self) -> PathBuf {
        self.path("locks")
    }

    /// The directory `flock/`.
    pub fn flock(&self) -> PathBuf {
        self.path("flock")
    }

    /// `locks/NAME`.
    pub fn lock(&self, name: &str) -> PathBuf {
        self.locks().join(name)
    }

    /// `flock/NAME`.
    pub fn door(&self, name: &str) -> PathBuf {
        self.flock().join(name)
    }

    /// A command in the main worktree, with the environment of the test: `$L`, `$F`, `$M`, `$R`, `$T` are locks/,
    /// flock/, the mountpoint, the repository and the test's own directory.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.dir().join("home"))
            .env("LC_ALL", "C.UTF-8")
            // A file of the test's own: git replaces the file that it writes to, and root may replace /dev/null.
            .env("GIT_CONFIG_GLOBAL", self.dir().join("home/.gitconfig"))
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "A U Thor")
            .env("GIT_AUTHOR_EMAIL", "author@example.com")
            .env("GIT_COMMITTER_NAME", "C O Mitter")
            .env("GIT_COMMITTER_EMAIL", "committer@example.com")
            .env(MARK, self.dir())
            .env("L", self.locks())
            .env("F", self.flock())
            .env("M", self.mountpoint())
            .env("R", &self.repo)
            .env("T", self.dir())
            .env("LOCKFS", env!("CARGO_BIN_EXE_git-lockfs"))
            .current_dir(&self.repo)
            .stdin(Stdio::null());
        command
    }

    /// Runs git, which must succeed.
    pub fn git(&self, args: &[&str]) -> Output {
        let mut command = self.command("git");
        command.args(args);
        self.run(command).ok()
    }

    /// Runs `git-lockfs ARGS`.
    pub fn lockfs(&self, args: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_git-lockfs"));
        command.args(args);
        self.run(command)
    }

    /// Runs a bash script to its end; what it leaves in the background lives until the end of the test.
    pub fn sh(&self, script: &str) -> Output {
        self.sh_with("bash", script)
    }

    /// Runs a script in the named shell (`dash`, `zsh`, `busybox` for its sh).
    pub fn sh_with(&self, shell: &str, script: &str) -> Output {
        self.run(self.script(shell, script))
    }

    /// Runs a Python script.
    pub fn python(&self, script: &str) -> Output {
        self.run(self.script("python3", script))
    }

    /// Starts a bash script and returns at once; it is killed when the guard goes.
    pub fn spawn_sh(&self, script: &str) -> Running {
        self.spawn(self.script("bash", script))
    }

    /// Starts a Python script and returns at once; it is killed when the guard goes.
    pub fn spawn_python(&self, script: &str) -> Running {
        self.spawn(self.script("python3", script))
    }

    /// Starts a process that makes system calls on request.
    pub fn client(&self) -> Client {
        Client::start(self.command(client::executable()))
    }

    /// Runs a command to its end, at most [`RUN_MAX`].
    pub fn run(&self, command: Command) -> Output {
        run_bounded(command, &self.dir().join("out"), RUN_MAX)
    }

    /// Runs a command to its end, at most that long.
    pub fn run_within(&self, command: Command, limit: Duration) -> Output {
        run_bounded(command, &self.dir().join("out"), limit)
    }

    /// Starts a command and returns at once; it is killed when the guard goes.
    pub fn spawn(&self, command: Command) -> Running {
        Running::start(command, &self.dir().join("out"))
    }

    /// The command that runs a script in a shell or interpreter.
    pub fn script(&self, shell: &str, script: &str) -> Command {
        let mut command = self.command(require(shell));
        if shell == "busybox" {
            command.arg("sh");
        }
        command.args(["-c", script]);
        command
    }

    /// Whether something is mounted at the mountpoint, from mountinfo: it never touches the mount.
    pub fn is_mounted(&self) -> bool {
        let wanted = self.mountpoint();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        table
            .lines()
            .any(|line| line.split(' ').nth(4).map(Path::new) == Some(wanted.as_path()))
    }

    /// The state directory's log and what the foreground daemon said, for messages of failed tests.
    pub fn daemon_log(&self) -> String {
        let said = std::fs::read_to_string(self.dir().join("daemon.err")).unwrap_or_default();
        let log = std::fs::read_to_string(self.repo.join(".git/lockfs/daemon.log")).unwrap_or_default();
        let both = said + &log;
        let tail = both.lines().count().saturating_sub(60);
        both.lines().skip(tail).collect::<Vec<_>>().join("\n")
    }

    /// What `locks/` lists, sorted.
    pub fn listed(&self) -> Vec<String> {
        names_in(&self.locks())
    }

    /// The text of a lock, as cat(1) shows it; None when it is free.
    pub fn text_of(&self, name: &str) -> Option<String> {
        match std::fs::read_to_string(self.lock(name)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("reading {name}: {error}"),
        }
    }

    /// A `KEY=VALUE` line of a lock's text.
    pub fn field_of(&self, name: &str, key: &str) -> Option<String> {
        let text = self.text_of(name)?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.to_owned())
    }

    /// How many wait for a lock.
    pub fn waiters(&self, name: &str) -> usize {
        let count = self.field_of(name, "waiters");
        count.map_or(0, |n| n.parse().expect("waiters= is a number"))
    }

    /// Returns when so many wait for a lock.
    pub fn wait_for_waiters(&self, name: &str, count: usize) {
        wait_until(&format!("{count} waiters for {name}"), || self.waiters(name) == count);
    }

    /// Whether a lock is taken: a file of its name exists.
    pub fn taken(&self, name: &str) -> bool {
        self.lock(name).symlink_metadata().is_ok()
    }

    /// Returns when a lock is free.
    pub fn wait_until_free(&self, name: &str) {
        wait_until(&format!("{name} is free"), || !self.taken(name));
    }

    /// `metrics/locks.json`, parsed.
    pub fn locks_json(&self) -> serde_json::Value {
        let text = std::fs::read_to_string(self.path("metrics/locks.json")).expect("metrics/locks.json");
        serde_json::from_str(&text).expect("metrics/locks.json is JSON")
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- daemon ---\n{}\n---", self.daemon_log());
        }
        if self.is_mounted() {
            let mut umount = self.command(env!("CARGO_BIN_EXE_git-lockfs"));
            umount
                .args(["umount", "--force"])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if let Ok(mut child) = umount.spawn() {
                process::wait_or_kill(&mut child, UMOUNT_MAX);
            }
        }
        end_marked(self.dir());
        if self.is_mounted() {
            let mut umount = Command::new("fusermount3");
            umount
                .args(["-u", "-z", "--"])
                .arg(self.mountpoint())
                .stderr(Stdio::null());
            if let Ok(mut child) = umount.spawn() {
                process::wait_or_kill(&mut child, UMOUNT_MAX);
            }
        }
    }
}

/// A repository with its daemon running.
pub struct Mount {
    // Declared first, so dropped after `Drop for Mount` has let the daemon be.
    daemon: Option<Running>,
    repository: Repository,
}

impl Mount {
    /// Mounts a repository of its own with the default settings.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// Mounts with these settings, given by `git config lockfs.KEY VALUE`.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::start(Repository::new(), settings, &[])
    }

    /// Mounts an existing repository; `args` are further arguments of `git lockfs mount -f`.
    pub fn start(repository: Repository, settings: &[(&str, &str)], args: &[&str]) -> Self {
        for (key, value) in settings {
            repository.git(&["config", &format!("lockfs.{key}"), value]);
        }
        let mut command = repository.command(env!("CARGO_BIN_EXE_git-lockfs"));
        command.args(["mount", "-f"]).args(args);
        let err = std::fs::File::create(repository.dir().join("daemon.err")).expect("a file for the daemon's words");
        command
            .stdout(err.try_clone().expect("a second descriptor"))
            .stderr(err);
        let mut this = Self {
            daemon: Some(Running::adopt(command.spawn().expect("git-lockfs starts"))),
            repository,
        };
        wait_until("the mount answers", || {
            let daemon = this.daemon.as_mut().expect("it was just started");
            if let Some(status) = daemon.status() {
                panic!(
                    "git-lockfs mount ended with {status}:\n{}",
                    this.repository.daemon_log()
                );
            }
            this.repository.is_mounted() && this.repository.locks().is_dir()
        });
        this
    }

    /// The supervisor's process, which was started in the foreground.
    pub fn daemon(&mut self) -> &mut Running {
        self.daemon.as_mut().expect("the daemon lives as long as its mount")
    }

    /// The supervisor's PID.
    pub fn daemon_pid(&self) -> u32 {
        self.daemon
            .as_ref()
            .expect("the daemon lives as long as its mount")
            .id()
    }
}

impl Deref for Mount {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repository
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The repository unmounts in order first; the daemon's guard would kill it.
        if let Some(daemon) = self.daemon.take() {
            daemon.forget_unkilled();
        }
    }
}

/// The names in a directory, sorted.
pub fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}
