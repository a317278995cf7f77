//! Locks of issues: a lease by name for a session, made of nothing but the files of `locks/`.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::EXIT_USAGE;
use super::client::Mount;
use super::failure::failure;
use super::report;
use super::taken::SESSION_ENV;
use crate::types::{LockName, NameError, SessionName, Text};

/// An issue, and the lock that stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue(LockName);

impl Issue {
    /// Parses the name of an issue: that of its lock, with or without `.lock`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = if text.ends_with(".lock") {
            text.to_owned()
        } else {
            format!("{text}.lock")
        };
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        LockName::parse_lock(name.as_bytes()).map(Self)
    }

    /// The name of its lock.
    pub fn lock(&self) -> &LockName {
        &self.0
    }

    /// The file of its lock.
    pub fn file(&self, mount: &Mount) -> PathBuf {
        mount.file("locks").join(self.0.as_str())
    }

    /// Who has it; `None` when it is free.
    pub fn holder(&self, mount: &Mount) -> Result<Option<Holder>> {
        let text = match fs::read(self.file(mount)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(mount.explain_io(error)),
        };
        let declared = Text::parse(&text).ok().map(|text| text.declared);
        let sentences = report::holders_of(&mount.snapshot()?, [self.0.as_str()]);
        Ok(Some(Holder {
            pid: declared.as_ref().map_or(0, |declared| declared.pid),
            timestamp: declared.as_ref().and_then(|declared| declared.timestamp),
            session: declared.and_then(|declared| declared.session),
            sentence: sentences
                .into_iter()
                .next()
                .unwrap_or_else(|| format!("{} is taken", self.0)),
        }))
    }
}

/// Who has an issue, as its file says.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Its process; 0 when nobody in particular.
    pub pid: u32,
    /// Its session.
    pub session: Option<SessionName>,
    /// Since when, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// The same for people.
    pub sentence: String,
}

impl Holder {
    /// Whether that session has it.
    pub fn is(&self, session: Option<&SessionName>) -> bool {
        session.is_some() && self.session.as_ref() == session
    }
}

/// The session that was named, or that of the environment.
pub fn session(named: Option<&SessionName>) -> Result<Option<SessionName>> {
    if let Some(session) = named {
        return Ok(Some(session.clone()));
    }
    match std::env::var(SESSION_ENV) {
        Ok(text) if !text.is_empty() => match SessionName::parse(text.as_bytes()) {
            Ok(session) => Ok(Some(session)),
            Err(error) => bail!("{SESSION_ENV}={text}: {error}"),
        },
        _ => Ok(None),
    }
}

/// The same where there must be one.
pub fn needed_session(named: Option<&SessionName>) -> Result<SessionName> {
    session(named)?.ok_or_else(|| failure(EXIT_USAGE, format!("whose lock is it? --session S, or {SESSION_ENV}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issue_names_its_lock_with_or_without_the_ending() {
        let lock = |text: &str| Issue::parse(text).map(|issue| issue.lock().to_string());
        assert_eq!(lock("issue-71").as_deref(), Ok("issue-71.lock"));
        assert_eq!(lock("issue-71.lock").as_deref(), Ok("issue-71.lock"));
        for bad in ["", "a/b", ".x", "a b"] {
            assert!(lock(bad).is_err(), "{bad:?}");
        }
    }
}
