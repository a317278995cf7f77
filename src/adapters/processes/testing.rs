//! Real processes for the tests of this room: each ends with its guard.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::Processes;
use crate::adapters::watcher::{Exits, Watcher};

/// A registry whose watcher nobody listens to.
pub(in crate::adapters) fn processes() -> Processes {
    Processes::new(exits())
}

/// A watcher's hand, the watcher itself being gone.
pub(in crate::adapters) fn exits() -> Exits {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Watcher::new(dir.path()).expect("a watcher").exits()
}

/// A child of the test that is killed and waited for when the test lets go of it.
pub(in crate::adapters) struct Program {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a command with pipes to its input and output.
    pub(in crate::adapters) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Self { child, lines }
    }

    /// A shell that runs a script.
    pub(in crate::adapters) fn shell(script: &str) -> Self {
        Self::start(Command::new("bash").args(["-c", script]))
    }

    /// A process that does nothing, for long enough.
    pub(in crate::adapters) fn sleeping() -> Self {
        Self::start(Command::new("sleep").arg("600"))
    }

    pub(in crate::adapters) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line to its input; it may be gone.
    pub(in crate::adapters) fn say(&mut self, line: &str) {
        if let Some(input) = &mut self.child.stdin {
            let _ = writeln!(input, "{line}");
        }
    }

    /// The next line of its output.
    pub(in crate::adapters) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("its output is text");
        line.trim_end().to_owned()
    }

    /// The next line of its output, as a number.
    pub(in crate::adapters) fn number(&mut self) -> u32 {
        let line = self.line();
        line.parse().unwrap_or_else(|_| panic!("{line:?} is no number"))
    }

    pub(in crate::adapters) fn kill(&mut self) {
        self.child.kill().expect("it is ours");
    }

    /// Waits for it, which ends a zombie.
    pub(in crate::adapters) fn reap(&mut self) {
        self.child.wait().expect("it is ours");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls a condition, ten seconds at most.
pub(in crate::adapters) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come about within 10 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}
