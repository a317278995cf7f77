//! What outer `run`s hold, and what an inner one therefore asks for: a run never waits for one around it.
//!
//! Outer runs are known by `GIT_LOCKFS_HELD`, and believed only as far as the mount confirms the fencing token.
//! Four cases, for each lock that is wanted:
//! 1. an outer run holds it in a mode that suffices: it is not asked for again;
//! 2. an outer run holds it shared and it is wanted exclusively: refused, the wait would never end;
//! 3. it is the scope of a lock that an outer run holds, and wanted exclusively: refused for the same reason;
//! 4. its scope is held exclusively by an outer run: a name of its own is taken, `nested-TOKEN-NAME`, so that the
//!    commands under one outer run still exclude each other.

use std::fmt;

use super::locks_json::Snapshot;
use crate::types::{LockName, Mode, Settings};

/// Everything that this and the outer runs hold: `NAME=TOKEN:MODE`, separated by blanks.
pub const HELD_ENV: &str = "GIT_LOCKFS_HELD";
/// The fencing token of the newest grant.
pub const TOKEN_ENV: &str = "GIT_LOCKFS_TOKEN";

/// A lock that a run holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub name: LockName,
    /// The fencing token of the grant.
    pub token: u64,
    /// Shared or exclusive.
    pub mode: Mode,
}

impl Held {
    /// Reads one word of [`HELD_ENV`]; a name may have `=` and `:` itself.
    fn parse(word: &str) -> Option<Self> {
        let (name, grant) = word.rsplit_once('=')?;
        let (token, mode) = grant.split_once(':')?;
        Some(Self {
            name: LockName::parse_lock(name.as_bytes()).ok()?,
            token: token.parse().ok()?,
            mode: Mode::parse(mode)?,
        })
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.name, self.token, self.mode)
    }
}

/// Reads [`HELD_ENV`]. What is malformed proves nothing and is left out: at worst a lock is asked for again.
pub fn parse(text: &str) -> Vec<Held> {
    text.split_ascii_whitespace().filter_map(Held::parse).collect()
}

/// Renders [`HELD_ENV`].
pub fn render(held: &[Held]) -> String {
    let words: Vec<String> = held.iter().map(Held::to_string).collect();
    words.join(" ")
}

/// What of it is held now, by the grant that is meant.
pub fn confirmed(held: Vec<Held>, snapshot: &Snapshot) -> Vec<Held> {
    let is_held = |held: &Held| {
        let holders = snapshot.holders(held.name.as_str());
        holders.iter().any(|h| h.token == held.token && h.mode == held.mode)
    };
    held.into_iter().filter(is_held).collect()
}

/// Why an inner run would wait for an outer one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WouldWaitForItself {
    /// Held shared, wanted exclusively.
    #[error("{0} is held shared by a run around this one, which cannot let go of it: take it exclusively there")]
    Upgrade(LockName),
    /// The scope of what is held.
    #[error("{scope} contains {held}, which a run around this one holds: take {scope} there")]
    Scope {
        /// What is wanted.
        scope: LockName,
        /// What lies in it.
        held: LockName,
    },
    /// Even the name that would stand for it lies in a scope that is held.
    #[error("{0} and every name for it lie in a scope that a run around this one holds exclusively")]
    NoNameLeft(LockName),
}

/// The locks to ask for, so that no outer run is waited for.
pub fn locks_to_ask(
    wanted: &[(LockName, Mode)],
    held: &[Held],
    settings: &Settings,
) -> Result<Vec<(LockName, Mode)>, WouldWaitForItself> {
    let mut locks: Vec<(LockName, Mode)> = Vec::new();
    for (name, mode) in wanted {
        if let Some(name) = name_to_ask(name, *mode, held, settings)?
            && !locks.iter().any(|(known, _)| *known == name)
        {
            locks.push((name, *mode));
        }
    }
    Ok(locks)
}

fn name_to_ask(
    wanted: &LockName,
    mode: Mode,
    held: &[Held],
    settings: &Settings,
) -> Result<Option<LockName>, WouldWaitForItself> {
    if is_covered(wanted, mode, held)? {
        return Ok(None);
    }
    if mode == Mode::Exclusive
        && let Some(child) = held
            .iter()
            .find(|h| scopes(h.name.as_str(), settings).any(|scope| scope == wanted))
    {
        return Err(WouldWaitForItself::Scope {
            scope: wanted.clone(),
            held: child.name.clone(),
        });
    }
    let Some(outer) = outer_scope(wanted, held, settings) else {
        return Ok(Some(wanted.clone()));
    };
    let nested = format!("nested-{}-{wanted}", outer.token);
    let nested = LockName::parse_lock(nested.as_bytes()).map_err(|_| WouldWaitForItself::NoNameLeft(wanted.clone()))?;
    if outer_scope(&nested, held, settings).is_some() {
        return Err(WouldWaitForItself::NoNameLeft(wanted.clone()));
    }
    Ok((!is_covered(&nested, mode, held)?).then_some(nested))
}

/// Whether an outer run holds `name` in a mode that suffices.
fn is_covered(name: &LockName, mode: Mode, held: &[Held]) -> Result<bool, WouldWaitForItself> {
    let strongest = held.iter().filter(|h| h.name == *name).map(|h| h.mode).max();
    match strongest {
        None => Ok(false),
        Some(has) if has >= mode => Ok(true),
        Some(_) => Err(WouldWaitForItself::Upgrade(name.clone())),
    }
}

/// The scope of `name` that an outer run holds exclusively.
fn outer_scope<'a>(name: &LockName, held: &'a [Held], settings: &Settings) -> Option<&'a Held> {
    scopes(name.as_str(), settings)
        .find_map(|scope| held.iter().find(|h| h.name == *scope && h.mode == Mode::Exclusive))
}

/// The scopes that `name` lies in, the nearest first. Settings have no circles.
fn scopes<'a>(name: &str, settings: &'a Settings) -> impl Iterator<Item = &'a LockName> {
    std::iter::successors(settings.parent_of(name), |scope| settings.parent_of(scope.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::locks_json::SAMPLE;
    use super::*;

    fn name(text: &str) -> LockName {
        LockName::parse_lock(text.as_bytes()).expect("name")
    }

    fn ask(wanted: &str, mode: Mode, held: &str) -> Result<Vec<LockName>, WouldWaitForItself> {
        let asked = locks_to_ask(&[(name(wanted), mode)], &parse(held), &Settings::default())?;
        Ok(asked.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn the_environment_reads_back_as_written_and_nonsense_is_left_out() {
        let text = "x.lock=918:exclusive a=b:c=7:shared";
        let held = parse(text);
        assert_eq!(held.len(), 2);
        assert_eq!(held[1].name, name("a=b:c"));
        assert_eq!(render(&held), text);
        assert_eq!(parse("x.lock x.lock=1 x.lock=1:loud =1:shared x.lock=-1:shared"), []);
    }

    #[test]
    fn only_what_the_mount_confirms_counts() {
        let snapshot = Snapshot::parse(SAMPLE.as_bytes()).expect("sample");
        let held = parse("x.lock=918:exclusive x.lock=917:exclusive global.lock=919:shared global.lock=919:exclusive");
        assert_eq!(
            render(&confirmed(held, &snapshot)),
            "x.lock=918:exclusive global.lock=919:shared"
        );
    }

    #[test]
    fn what_an_outer_run_holds_is_not_asked_for_again() {
        assert_eq!(ask("x.lock", Mode::Exclusive, "x.lock=1:exclusive"), Ok(vec![]));
        assert_eq!(ask("x.lock", Mode::Shared, "x.lock=1:exclusive"), Ok(vec![]));
        assert_eq!(ask("x.lock", Mode::Shared, "x.lock=1:shared"), Ok(vec![]));
        assert_eq!(
            ask("x.lock", Mode::Exclusive, "y.lock=1:exclusive"),
            Ok(vec![name("x.lock")])
        );
    }

    #[test]
    fn what_would_wait_for_an_outer_run_is_refused() {
        assert_eq!(
            ask("x.lock", Mode::Exclusive, "x.lock=1:shared"),
            Err(WouldWaitForItself::Upgrade(name("x.lock")))
        );
        assert_eq!(
            ask("global.lock", Mode::Exclusive, "worktree-a.lock=1:shared"),
            Err(WouldWaitForItself::Scope {
                scope: name("global.lock"),
                held: name("worktree-a.lock"),
            })
        );
        assert_eq!(
            ask("global.lock", Mode::Shared, "worktree-a.lock=1:exclusive"),
            Ok(vec![name("global.lock")]),
            "a child counts as shared on its scope"
        );
    }

    #[test]
    fn under_an_exclusive_scope_a_name_of_its_own_is_taken_once() {
        let nested = name("nested-7-worktree-a.lock");
        assert_eq!(
            ask("worktree-a.lock", Mode::Exclusive, "global.lock=7:exclusive"),
            Ok(vec![nested.clone()])
        );
        assert_eq!(
            ask("worktree-a.lock", Mode::Exclusive, "global.lock=7:shared"),
            Ok(vec![name("worktree-a.lock")])
        );
        let deeper = format!("global.lock=7:exclusive {nested}=8:exclusive");
        assert_eq!(ask("worktree-a.lock", Mode::Exclusive, &deeper), Ok(vec![]));
    }

    #[test]
    fn a_scope_of_everything_leaves_no_name() {
        let mut settings = Settings::default();
        settings.set("parents", "*=world.lock").expect("rule");
        let held = parse("world.lock=7:exclusive");
        let refused = locks_to_ask(&[(name("x.lock"), Mode::Shared)], &held, &settings);
        assert_eq!(refused, Err(WouldWaitForItself::NoNameLeft(name("x.lock"))));
    }
}
