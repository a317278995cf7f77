//! What is worth telling about a process: its session, priority, user, and what it is doing.
//!
//! All of it is for showing and for order, none of it for identity: a process that vanishes has no facts, and one may
//! take its PID in between. `session_of` and `operation_of` read the memory of the process, which can be slow when it
//! is swapped out, and by mischief may be a file of our own mount; so they are not for the thread that serves it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use nix::errno::Errno;
use nix::unistd::{Pid, getsid};

use super::pidfd::Pidfd;
use super::procfs::{Stat, Status, read_bounded};
use crate::types::{SessionName, operation_name};

/// The variable that names a session.
const SESSION_VARIABLE: &[u8] = b"GIT_LOCKFS_SESSION=";
/// How far an environment is read, in bytes.
const ENVIRONMENT_BYTES_MAX: u64 = 1 << 20;
/// How far a command line is read, in bytes: options before git's verb are few.
const ARGUMENTS_BYTES_MAX: u64 = 8192;

/// The session of a process: `GIT_LOCKFS_SESSION` as it was at its exec, else `sid-` and its session id.
pub fn session_of(pid: u32) -> Option<SessionName> {
    if let Some(named) = session_from_environment(pid) {
        return Some(named);
    }
    let sid = getsid(Some(Pid::from_raw(i32::try_from(pid).ok()?))).ok()?;
    SessionName::parse(format!("sid-{sid}").as_bytes()).ok()
}

fn session_from_environment(pid: u32) -> Option<SessionName> {
    let environment = File::open(format!("/proc/{pid}/environ")).ok()?;
    let variables = BufReader::new(environment.take(ENVIRONMENT_BYTES_MAX)).split(0);
    variables
        .map_while(Result::ok)
        .find_map(|variable| SessionName::parse(variable.strip_prefix(SESSION_VARIABLE)?).ok())
}

/// The nice value of a thread, from -20 to 19; 0 when it is gone.
pub fn nice_of(tid: u32) -> i32 {
    Errno::clear();
    // SAFETY: two plain numbers. The types of the first differ between C libraries.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, tid) };
    // -1 is both an answer and the sign of an error.
    if nice == -1 && Errno::last_raw() != 0 { 0 } else { nice }
}

/// Whether the process certainly has one thread only.
pub fn is_single_threaded(pid: u32) -> bool {
    Stat::of(pid).and_then(|stat| stat.threads()) == Some(1)
}

/// The real user of a process.
pub fn uid_of(pid: u32) -> Option<u32> {
    let pidfd = Pidfd::open(pid).ok()?;
    Some(pidfd.info()?.uid)
}

/// What a process is doing, in words that hold no secrets: `git VERB`, or the name of the program. Never an argument.
pub fn operation_of(pid: u32) -> Option<String> {
    let arguments = read_bounded(format!("/proc/{pid}/cmdline"), ARGUMENTS_BYTES_MAX).ok()?;
    let operation = operation_name(arguments.split(|&byte| byte == 0)).or_else(|| {
        // The kernel's threads and zombies have no command line.
        let status = Status::of(pid)?;
        operation_name([status.field("Name")?.as_bytes()].into_iter())
    });
    operation.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::testing::{Program, wait_until};
    use super::*;

    #[test]
    fn a_process_tells_its_session_or_has_one_by_number() {
        let mut named = Command::new("sleep");
        let named = Program::start(named.arg("600").env("GIT_LOCKFS_SESSION", "agent-7"));
        let session = |pid| session_of(pid).map(|name| name.to_string());
        // Until its exec it still has the environment of the test.
        wait_until("its exec", || session(named.pid()).as_deref() == Some("agent-7"));
        let mut bad = Command::new("sleep");
        let bad = Program::start(bad.arg("600").env("GIT_LOCKFS_SESSION", "two words"));
        let by_number = format!("sid-{}", getsid(None).expect("we have one"));
        assert_eq!(session(bad.pid()), Some(by_number));
        assert_eq!(session(u32::MAX), None);
    }

    #[test]
    fn facts_of_real_processes() {
        let mut nice = Command::new("nice");
        let program = Program::start(nice.args(["-n", "7", "sleep", "600"]));
        wait_until("nice(1)", || operation_of(program.pid()).as_deref() == Some("sleep"));
        assert_eq!(nice_of(program.pid()), 7 + nice_of(std::process::id()));
        assert!(is_single_threaded(program.pid()));
        assert!(
            !is_single_threaded(std::process::id()),
            "a test runs beside the main thread"
        );
        assert_eq!(uid_of(program.pid()), Some(nix::unistd::getuid().as_raw()));
    }

    #[test]
    fn nobody_has_no_facts() {
        let nobody = 0x7fff_fff0;
        assert_eq!(nice_of(nobody), 0);
        assert!(!is_single_threaded(nobody));
        assert_eq!(uid_of(nobody), None);
        assert_eq!(operation_of(nobody), None);
        assert_eq!(session_of(nobody), None);
    }
}
