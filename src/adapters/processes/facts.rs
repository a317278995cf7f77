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
use crate::types::SessionName;

/// The variable that names a session.
const SESSION_VARIABLE: &[u8] = b"GIT_LOCKFS_SESSION=";
/// How far an environment is read, in bytes.
const ENVIRONMENT_BYTES_MAX: u64 = 1 << 20;
/// How far a command line is read, in bytes: options before git's verb are few.
const ARGUMENTS_BYTES_MAX: u64 = 8192;
/// The longest operation that is told, in bytes.
const OPERATION_BYTES_MAX: usize = 64;

/// git's options before the verb that take the next word as their value.
const GIT_OPTIONS_WITH_VALUE: &[&[u8]] = &[
    b"-C",
    b"-c",
    b"--git-dir",
    b"--work-tree",
    b"--namespace",
    b"--config-env",
    b"--super-prefix",
    b"--attr-source",
];

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
    let operation = operation(&arguments).or_else(|| {
        // The kernel's threads and zombies have no command line.
        let status = Status::of(pid)?;
        shown(status.field("Name")?.as_bytes())
    });
    operation.filter(|text| !text.is_empty())
}

fn operation(arguments: &[u8]) -> Option<String> {
    let mut words = arguments.split(|&byte| byte == 0);
    // A program that has rewritten its command line writes one text with blanks; the first word is its name, and the
    // rest may hold anything. A login shell's name begins with a dash.
    let first = words.next()?.split(u8::is_ascii_whitespace).next()?;
    let name = first.rsplit(|&byte| byte == b'/').next()?;
    let name = name.strip_prefix(b"-").unwrap_or(name);
    let name = name.strip_suffix(b":").unwrap_or(name);
    let verb = match name {
        b"git" => match verb(&mut words, GIT_OPTIONS_WITH_VALUE) {
            Some(b"lockfs") => return Some(with_verb("git lockfs", verb(&mut words, &[]))),
            verb => verb,
        },
        b"git-lockfs" => return Some(with_verb("git lockfs", verb(&mut words, &[]))),
        _ => match name.strip_prefix(b"git-") {
            // git's own programs are called by their full names too.
            Some(verb) if is_verb(verb) => Some(verb),
            _ => return shown(name),
        },
    };
    Some(with_verb("git", verb))
}

/// The first word that is no option; `None` when it does not look like a verb.
fn verb<'a>(words: &mut impl Iterator<Item = &'a [u8]>, with_value: &[&[u8]]) -> Option<&'a [u8]> {
    while let Some(word) = words.next() {
        if with_value.contains(&word) {
            words.next();
        } else if !word.starts_with(b"-") {
            return is_verb(word).then_some(word);
        }
    }
    None
}

/// Whether a word looks like git's commands do, so that it is worth telling.
fn is_verb(word: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    (1..=32).contains(&word.len()) && word.iter().all(fits)
}

fn with_verb(program: &str, verb: Option<&[u8]>) -> String {
    match verb.map(String::from_utf8_lossy) {
        Some(verb) => format!("{program} {verb}"),
        None => program.to_owned(),
    }
}

/// A name made fit to be shown: printable and bounded.
fn shown(name: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(name);
    let mut shown = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if shown.len() + c.len_utf8() > OPERATION_BYTES_MAX {
            break;
        }
        shown.push(c);
    }
    (!shown.is_empty()).then_some(shown)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::testing::{Program, wait_until};
    use super::*;

    fn told(words: &[&str]) -> Option<String> {
        let mut arguments = words.join("\0").into_bytes();
        arguments.push(0);
        operation(&arguments)
    }

    #[test]
    fn git_is_told_by_its_verb_and_everything_else_by_name() {
        let cases: &[(&[&str], &str)] = &[
            (&["git", "merge", "topic"], "git merge"),
            (
                &["/usr/bin/git", "-C", "/a", "-c", "k=secret", "commit", "-m", "x"],
                "git commit",
            ),
            (&["git", "--git-dir=/x", "--no-pager", "log"], "git log"),
            (&["git", "--git-dir", "/x", "--work-tree", "y", "status"], "git status"),
            (&["git", "lockfs", "run", "--", "cmd"], "git lockfs run"),
            (&["git-lockfs", "mount"], "git lockfs mount"),
            (&["/x/git-lockfs", "--version"], "git lockfs"),
            (&["/usr/lib/git-core/git-upload-pack", "."], "git upload-pack"),
            (&["git"], "git"),
            (&["git", "--version"], "git"),
            (&["git", "https://user:token@host/"], "git"),
            (&["curl", "-u", "user:password"], "curl"),
            (&["-bash"], "bash"),
            (&["/usr/bin/python3", "x.py"], "python3"),
            (&["sshd: user@pts/0 secret"], "sshd"),
        ];
        for (words, expected) in cases {
            assert_eq!(told(words).as_deref(), Some(*expected), "{words:?}");
        }
        assert_eq!(told(&["/opt/a\u{7}b"]).as_deref(), Some("ab"), "no control characters");
        assert_eq!(told(&["/opt/\u{e9}".repeat(99).as_str()]).map(|s| s.len()), Some(2));
        assert_eq!(told(&["x".repeat(99).as_str()]).map(|s| s.len()), Some(64));
        assert_eq!(told(&[""]), None);
        assert_eq!(operation(b""), None);
    }

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
