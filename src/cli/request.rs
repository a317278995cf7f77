//! A request as it is written into `acquire`: one line of `key=value` words, quoted as a shell quotes.

use std::ffi::OsString;
use std::path::Path;

use super::taken::Wait;
use crate::scopes::Invocation;
use crate::types::{LockName, Mode, TicketName};

/// The longest operation that is shown, in bytes.
const OPERATION_BYTES_MAX: usize = 200;
/// One request for several locks.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Together or none, each in its mode.
    pub locks: &'a [(LockName, Mode)],
    /// `None` leaves it to the configuration.
    pub wait: Option<Wait>,
    /// `None` leaves it to nice(1).
    pub priority: Option<u8>,
    /// `None` leaves it to the daemon.
    pub session: Option<&'a str>,
    /// What for.
    pub op: &'a str,
    /// The name of the place in the line.
    pub ticket: Option<&'a TicketName>,
}

impl Request<'_> {
    /// The line to write.
    pub fn line(&self) -> String {
        let names = |wanted: Mode| {
            let locks = self.locks.iter().filter(|(_, mode)| *mode == wanted);
            let names: Vec<&str> = locks.map(|(name, _)| name.as_str()).collect();
            names.join(",")
        };
        let (exclusive, shared) = (names(Mode::Exclusive), names(Mode::Shared));
        let mut words = match (exclusive.as_str(), shared.as_str()) {
            ("", shared) => vec![word("locks", shared), word("mode", Mode::Shared)],
            (exclusive, "") => vec![word("locks", exclusive), word("mode", Mode::Exclusive)],
            (exclusive, shared) => vec![word("locks", exclusive), word("shared", shared)],
        };
        match self.wait {
            None => {}
            Some(Wait::Forever) => words.push(word("wait", "forever")),
            Some(Wait::AtMost(limit)) if limit.is_zero() => words.push(word("wait", 0)),
            // Rounded up: what is left of a wait must not become no wait.
            Some(Wait::AtMost(limit)) => words.push(word("wait", format!("{}ms", limit.as_millis().max(1)))),
        }
        words.extend(self.priority.map(|priority| word("priority", priority)));
        words.extend(self.session.map(|session| word("session", session)));
        words.extend(self.ticket.map(|ticket| word("ticket", ticket)));
        let op = one_line(self.op);
        if !op.is_empty() {
            words.push(word("op", op));
        }
        words.join(" ") + "\n"
    }
}

fn word(key: &str, value: impl ToString) -> String {
    format!("{key}={}", shell_words::quote(&value.to_string()))
}

/// What a command is for those who wait: `git VERB`, else the name of the program. Never its arguments, which may
/// carry secrets.
pub fn operation(command: &[OsString]) -> String {
    let Some((program, arguments)) = command.split_first() else {
        return String::new();
    };
    let program = Path::new(program).file_name().unwrap_or(program).to_string_lossy();
    if program != "git" {
        return program.into_owned();
    }
    let words = arguments.iter().map(|argument| argument.to_string_lossy());
    match Invocation::parse(words).command {
        Some(verb) => format!("git {verb}"),
        None => program.into_owned(),
    }
}

fn one_line(text: &str) -> String {
    let mut line = text.replace(|c: char| c.is_control(), " ");
    while line.len() > OPERATION_BYTES_MAX {
        line.pop();
    }
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_is_one_line_that_splits_back_into_its_words() {
        let name = |name: &[u8]| (LockName::parse_lock(name).expect("name"), Mode::Exclusive);
        let locks = [name(b"x.lock"), name(b"a$b.lock")];
        let ticket = TicketName::parse(b"t").expect("ticket");
        let request = Request {
            locks: &locks,
            wait: Some(Wait::AtMost(Duration::from_secs(5))),
            priority: Some(8),
            session: Some("agent-7"),
            op: "git merge 'x'\nwait=0",
            ticket: Some(&ticket),
        };
        let line = request.line();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(
            shell_words::split(&line).expect("split"),
            [
                "locks=x.lock,a$b.lock",
                "mode=exclusive",
                "wait=5000ms",
                "priority=8",
                "session=agent-7",
                "ticket=t",
                "op=git merge 'x' wait=0",
            ]
        );
    }

    #[test]
    fn what_is_left_open_is_left_to_the_daemon() {
        let locks = [("x.lock", Mode::Shared), ("y.lock", Mode::Exclusive)];
        let locks = locks.map(|(name, mode)| (LockName::parse_lock(name.as_bytes()).expect("name"), mode));
        let request = |locks| Request {
            locks,
            wait: Some(Wait::AtMost(Duration::ZERO)),
            priority: None,
            session: None,
            op: "",
            ticket: None,
        };
        assert_eq!(request(&locks[..1]).line(), "locks=x.lock mode=shared wait=0\n");
        assert_eq!(request(&locks).line(), "locks=y.lock shared=x.lock wait=0\n");
    }

    #[test]
    fn operations_never_show_arguments() {
        let of = |line: &str| operation(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(
            of("git -c user.name=x -C /r --no-pager push https://u:secret@host"),
            "git push"
        );
        assert_eq!(of("/usr/bin/curl -u u:secret"), "curl");
        assert_eq!(of("git --version"), "git");
    }
}
