//! What is written to `acquire` and `control`, parsed once and refused whole.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::engine::Claim;
use crate::types::{LockName, Mode, Priority, SessionName, TicketName, Token, WaitLimit, parse_span};

/// The longest operation name kept, in characters.
const OP_CHARS_MAX: usize = 128;
/// The most locks in one request.
const LOCKS_MAX: usize = 64;

/// A request written to `acquire`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcquireRequest {
    /// What it wants, in the order of names.
    pub claims: Vec<Claim>,
    /// How long it waits; `None` leaves it to the settings.
    pub wait: Option<WaitLimit>,
    /// From where in the line it starts; `None` leaves it to nice(1).
    pub priority: Option<Priority>,
    /// Whose it is.
    pub session: Option<SessionName>,
    /// What it is for.
    pub op: Option<String>,
    /// A place that outlives the wait.
    pub ticket: Option<TicketName>,
}

/// A verb written to `control`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `break LOCK TOKEN REASON`
    Break(LockName, Token, String),
    /// `withdraw TICKET`
    Withdraw(TicketName),
    /// `release-session S`
    ReleaseSession(SessionName),
    /// `drain`
    Drain,
    /// `resume`
    Resume,
    /// `reload`
    Reload,
    /// `flush-metrics`
    FlushMetrics,
    /// `note git_commit_validation_warning commit=ID missing=N foreign=N`
    Note(CommitWarning),
}

/// A commit that has other files than it was about to have. Only how many, for their names may be secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitWarning {
    /// The name of the commit, 40 or 64 hexadecimal digits.
    pub commit: String,
    /// How many files it lacks.
    pub missing: u32,
    /// How many it has that were not to be in it.
    pub foreign: u32,
}

impl CommitWarning {
    /// The name of the event.
    pub const EVENT: &str = "git_commit_validation_warning";

    /// Reads what follows the name.
    fn parse(rest: &str) -> Result<Self, Malformed> {
        let (mut commit, mut missing, mut foreign) = (None, None, None);
        for word in rest.split_ascii_whitespace() {
            let is_first = match word.split_once('=') {
                Some(("commit", id)) if is_object_id(id) => commit.replace(id.to_owned()).is_none(),
                Some(("missing", count)) => missing.replace(number(count)?).is_none(),
                Some(("foreign", count)) => foreign.replace(number(count)?).is_none(),
                _ => false,
            };
            if !is_first {
                return malformed(format!("{word:?} is out of place; {NOTE_USAGE}"));
            }
        }
        match (commit, missing, foreign) {
            (_, Some(0), Some(0)) => malformed("a commit that differs in nothing is not noted"),
            (Some(commit), Some(missing), Some(foreign)) => Ok(Self {
                commit,
                missing,
                foreign,
            }),
            _ => malformed(NOTE_USAGE),
        }
    }
}

impl fmt::Display for CommitWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            commit,
            missing,
            foreign,
        } = self;
        write!(f, "commit={commit} missing={missing} foreign={foreign}")
    }
}

const NOTE_USAGE: &str = "it is: note git_commit_validation_warning commit=ID missing=N foreign=N";

/// The name of an object of git, by SHA-1 or SHA-256.
fn is_object_id(text: &str) -> bool {
    [40, 64].contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn number(text: &str) -> Result<u32, Malformed> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| Malformed(format!("{text:?} is no number of files")))
}

/// The verbs of `control`, for the documentation.
pub const VERBS: &[&str] = &[
    "break",
    "withdraw",
    "release-session",
    "drain",
    "resume",
    "reload",
    "flush-metrics",
    "note",
];

/// The keys of `acquire`, for the documentation.
pub const ACQUIRE_KEYS: &[&str] = &["locks", "shared", "mode", "wait", "priority", "session", "op", "ticket"];

/// What was wrong, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

fn malformed<T>(sentence: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(sentence.into()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    locks: Option<Names>,
    shared: Option<Names>,
    mode: Option<String>,
    wait: Option<Scalar>,
    priority: Option<Scalar>,
    session: Option<String>,
    op: Option<String>,
    ticket: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Names {
    Joined(String),
    List(Vec<String>),
}

impl Names {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::Joined(text) => text.split(',').map(str::to_owned).collect(),
            Self::List(names) => names,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(u64),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Parses a request for `acquire`: `key=value` words as a shell splits them, or a JSON object with the same keys.
pub fn parse_acquire(bytes: &[u8]) -> Result<AcquireRequest, Malformed> {
    let text = one_line(bytes)?;
    let fields = if text.starts_with('{') {
        serde_json::from_str(text).map_err(|error| Malformed(format!("no request: {error}")))?
    } else {
        fields_of(text)?
    };
    resolve(fields)
}

/// The text of one request: UTF-8, one line, not empty.
fn one_line(bytes: &[u8]) -> Result<&str, Malformed> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return malformed("the request is not UTF-8");
    };
    let text = text.trim_matches([' ', '\t', '\n']);
    if text.is_empty() {
        return malformed("the request is empty");
    }
    if text.contains(['\n', '\0']) && !text.starts_with('{') {
        return malformed("one request is one line");
    }
    Ok(text)
}

fn fields_of(text: &str) -> Result<Fields, Malformed> {
    let words = shell_words::split(text).map_err(|_| Malformed("a quote is not closed".to_owned()))?;
    let mut fields = Fields::default();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return malformed(format!("{word:?} is not key=value"));
        };
        let value = value.to_owned();
        let is_first = match key {
            "locks" => fields.locks.replace(Names::Joined(value)).is_none(),
            "shared" => fields.shared.replace(Names::Joined(value)).is_none(),
            "mode" => fields.mode.replace(value).is_none(),
            "wait" => fields.wait.replace(Scalar::Text(value)).is_none(),
            "priority" => fields.priority.replace(Scalar::Text(value)).is_none(),
            "session" => fields.session.replace(value).is_none(),
            "op" => fields.op.replace(value).is_none(),
            "ticket" => fields.ticket.replace(value).is_none(),
            _ => return malformed(format!("unknown key {key:?}; there are {}", ACQUIRE_KEYS.join(", "))),
        };
        if !is_first {
            return malformed(format!("{key} is given twice"));
        }
    }
    Ok(fields)
}

fn resolve(fields: Fields) -> Result<AcquireRequest, Malformed> {
    let mode = match fields.mode.as_deref() {
        None => Mode::Exclusive,
        Some(text) => Mode::parse(text).ok_or_else(|| Malformed(format!("mode={text}: it is shared or exclusive")))?,
    };
    let priority = match fields.priority.map(Scalar::into_text) {
        None => None,
        Some(text) => {
            let level = text.parse().ok().and_then(Priority::new);
            Some(level.ok_or_else(|| Malformed(format!("priority={text}: it is a number from 1 to 10")))?)
        }
    };
    let wait = match fields.wait.map(Scalar::into_text).as_deref() {
        None => None,
        Some("forever") => Some(None),
        Some(text) => {
            let span: Option<Duration> = parse_span(text);
            Some(Some(span.ok_or_else(|| {
                Malformed(format!("wait={text}: it is 0, a time such as 5s, or forever"))
            })?))
        }
    };
    let session = fields
        .session
        .map(|text| label("session", &text, SessionName::parse))
        .transpose()?;
    let ticket = fields
        .ticket
        .map(|text| label("ticket", &text, TicketName::parse))
        .transpose()?;
    if let Some(op) = &fields.op
        && (op.is_empty() || op.chars().count() > OP_CHARS_MAX || op.chars().any(char::is_control))
    {
        return malformed(format!("op is 1 to {OP_CHARS_MAX} printable characters"));
    }
    Ok(AcquireRequest {
        claims: claims(fields.locks, fields.shared, mode)?,
        wait,
        priority,
        session,
        op: fields.op,
        ticket,
    })
}

fn label<T, E: std::fmt::Display>(
    key: &str,
    text: &str,
    parse: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<T, Malformed> {
    parse(text.as_bytes()).map_err(|error| Malformed(format!("{key}={text}: {error}")))
}

fn claims(names: Option<Names>, shared: Option<Names>, mode: Mode) -> Result<Vec<Claim>, Malformed> {
    let Some(names) = names else {
        return malformed("locks=NAME[,NAME...] is missing");
    };
    let names = names.into_list();
    let shared = shared.map(Names::into_list);
    let count = names.len() + shared.as_ref().map_or(0, Vec::len);
    if names.is_empty() || shared.as_ref().is_some_and(Vec::is_empty) || count > LOCKS_MAX {
        return malformed(format!("a request is for 1 to {LOCKS_MAX} locks"));
    }
    let mut claims = Vec::with_capacity(count);
    for name in names {
        claims.push(Claim::whole(label("locks", &name, LockName::parse_lock)?, mode));
    }
    for name in shared.unwrap_or_default() {
        claims.push(Claim::whole(
            label("shared", &name, LockName::parse_lock)?,
            Mode::Shared,
        ));
    }
    claims.sort();
    claims.dedup();
    match claims.windows(2).find(|pair| pair[0].lock == pair[1].lock) {
        Some(pair) => malformed(format!("{} is asked for in both modes", pair[0].lock)),
        None => Ok(claims),
    }
}

/// Parses one line for `control`.
pub fn parse_verb(bytes: &[u8]) -> Result<Verb, Malformed> {
    let text = one_line(bytes)?;
    let (verb, rest) = text
        .split_once(' ')
        .map_or((text, ""), |(verb, rest)| (verb, rest.trim_start()));
    let alone = |verb: Verb| {
        if rest.is_empty() {
            Ok(verb)
        } else {
            malformed("that verb stands alone")
        }
    };
    match verb {
        "break" => parse_break(rest),
        "withdraw" => Ok(Verb::Withdraw(label("withdraw", rest, TicketName::parse)?)),
        "release-session" => Ok(Verb::ReleaseSession(label(
            "release-session",
            rest,
            SessionName::parse,
        )?)),
        "drain" => alone(Verb::Drain),
        "resume" => alone(Verb::Resume),
        "reload" => alone(Verb::Reload),
        "flush-metrics" => alone(Verb::FlushMetrics),
        "note" => match rest.split_once(' ') {
            Some((CommitWarning::EVENT, facts)) => CommitWarning::parse(facts).map(Verb::Note),
            _ => malformed(NOTE_USAGE),
        },
        _ => malformed(format!("unknown verb {verb:?}; there are {}", VERBS.join(", "))),
    }
}

fn parse_break(rest: &str) -> Result<Verb, Malformed> {
    let mut words = rest.splitn(3, ' ');
    let (Some(lock), Some(token), Some(reason)) = (words.next(), words.next(), words.next()) else {
        return malformed("it is: break LOCK TOKEN REASON");
    };
    let lock = label("break", lock, LockName::parse_lock)?;
    let digits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
    let Some(token) = token.parse().ok().filter(|_| digits) else {
        return malformed("the token is a number; see `cat` of the lock");
    };
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().any(char::is_control) {
        return malformed("a reason is needed: break LOCK TOKEN REASON");
    }
    Ok(Verb::Break(lock, Token(token), reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_json_say_the_same() {
        let words = parse_acquire(
            b"locks=global.lock,issue-71.lock mode=exclusive wait=5s priority=8 session=agent-7 op=\"git merge\" ticket=t1\n",
        );
        let json = parse_acquire(
            br#"{"locks":["issue-71.lock","global.lock"],"mode":"exclusive","wait":"5s","priority":8,"session":"agent-7","op":"git merge","ticket":"t1"}"#,
        );
        assert_eq!(words, json);
        let request = words.expect("well-formed");
        assert_eq!(request.claims.len(), 2);
        assert_eq!(request.op.as_deref(), Some("git merge"));
        assert_eq!(
            parse_acquire(b"locks=a wait=forever").expect("well-formed").wait,
            Some(None)
        );
    }

    #[test]
    fn some_of_the_locks_can_be_shared() {
        let modes = |text: &[u8]| {
            let request = parse_acquire(text).expect("well-formed");
            let mode = |claim: &Claim| format!("{} {}", claim.lock, claim.mode);
            request.claims.iter().map(mode).collect::<Vec<_>>()
        };
        let expected = ["a exclusive", "b shared", "c shared"];
        assert_eq!(modes(b"locks=a shared=c,b"), expected);
        assert_eq!(modes(br#"{"locks":"a","shared":["b","c"]}"#), expected);
        assert_eq!(modes(b"locks=a,b mode=shared shared=b"), ["a shared", "b shared"]);
    }

    #[test]
    fn what_is_malformed_is_refused_whole() {
        let bad: &[&[u8]] = &[
            b"shared=a",
            b"locks=a shared=",
            b"locks=a shared=a",
            b"locks=a shared=b,.c",
            br#"{"locks":"a","shared":[]}"#,
            b"",
            b"\n",
            b"locks=",
            b"locks=a,,b",
            b"locks=a,",
            b"mode=shared",
            b"locks=a mode=both",
            b"locks=a wait=5",
            b"locks=a wait=-1s",
            b"locks=a priority=0",
            b"locks=a priority=11",
            b"locks=a priority=x",
            b"locks=a session=",
            b"locks=a session=a:b",
            b"locks=a ticket=",
            b"locks=a op=",
            b"locks=a op=\"x",
            b"locks=a locks=b",
            b"locks=a x=1",
            b"locks=a b",
            b"locks=.a",
            b"locks=a/b",
            b"locks=a\nlocks=b",
            b"{",
            b"{}",
            b"[]",
            br#"{"locks":"a","x":1}"#,
            br#"{"locks":[]}"#,
            br#"{"locks":"a","priority":1.5}"#,
            b"\xff",
            b"locks=a\0",
        ];
        for text in bad {
            assert!(parse_acquire(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn verbs_have_their_arguments_and_no_others() {
        assert_eq!(parse_verb(b"drain\n"), Ok(Verb::Drain));
        let lock = LockName::parse(b"x.lock").expect("name");
        assert_eq!(
            parse_verb(b"break x.lock 918 it hangs\n"),
            Ok(Verb::Break(lock, Token(918), "it hangs".to_owned()))
        );
        for bad in [
            "",
            "drain now",
            "break x.lock 918",
            "break x.lock -1 r",
            "break x.lock x r",
            "withdraw",
            "withdraw a b",
            "explode",
            "break  x.lock",
            "note",
            "note x commit=0",
        ] {
            assert!(parse_verb(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
