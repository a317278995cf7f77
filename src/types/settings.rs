//! The settings of a mount and their one grammar, wherever a value comes from: `git config`, the
//! environment, an option of `mount`. What is unknown or malformed is refused with the key's name.

mod keys;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::keys::{KEYS, Key, is_unread_variable};
use super::{LockName, Need, NeedError, OnUnavailable, Pattern, Preset, parse_span};

/// How long an open or an `acquire` waits at most; `None` is for ever.
pub type WaitLimit = Option<Duration>;

/// How many rules `parents` and `waitFor` may have, each.
const RULES_MAX: usize = 256;

/// git's scopes: children of `global.lock` (why these: GIT-SCOPES, measured).
const GIT_SCOPES: &[&str] = &[
    "main-worktree.lock",
    "worktree-*.lock",
    "ref-*.lock",
    "registry.lock",
    "config.lock",
    "maintenance.lock",
    "stash.lock",
    "shallow.lock",
];

/// A value that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such key.
    #[error("lockfs.{key}: there is no such setting")]
    UnknownKey {
        /// The key as it was given.
        key: String,
    },
    /// The value does not fit the key.
    #[error("lockfs.{key}: {value:?} is no good: {why}")]
    BadValue {
        /// The key as it was given.
        key: String,
        /// The value as it was given.
        value: String,
        /// What would be good.
        why: &'static str,
    },
    /// A scope that cannot be read.
    #[error("lockfs.{key}: {value:?} is no good: {error}")]
    BadScope {
        /// The key as it was given.
        key: String,
        /// The value as it was given.
        value: String,
        /// What is wrong with it.
        error: NeedError,
    },
}

/// All settings of a mount. The journal keeps them by their order: a new one is added last, with a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The wait limit of names that no pattern fits.
    pub wait: WaitLimit,
    /// Wait limits by pattern; the last rule that fits decides.
    pub wait_for: Vec<(Pattern, WaitLimit)>,
    /// How long a lease outlives its keeper.
    pub lease: Duration,
    /// The time that raises a waiter by one level.
    pub aging: Duration,
    /// How long an absent ticket keeps its place.
    pub ticket_grace: Duration,
    /// The table of scopes.
    pub scopes: Preset,
    /// What single git commands need, by the command in lower case (`worktree-add` for a subcommand).
    pub scope: BTreeMap<String, Vec<Need>>,
    /// Whether git commands that need locks are refused without a daemon.
    pub require: bool,
    /// Whether the hook refuses ref updates without a fitting lock.
    pub enforce: bool,
    /// What the hook does when no daemon answers.
    pub on_unavailable: OnUnavailable,
    /// Waits above this make an alert.
    pub alert_wait: Duration,
    /// Holds above this, while others wait, make an alert.
    pub alert_hold: Duration,
    /// So many stale releases make an alert.
    pub alert_stale: u64,
    parents: Vec<(Pattern, LockName)>,
    /// Whether the transparent git compares each commit with what it was about to have.
    #[serde(default)]
    pub validate: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            wait: Some(Duration::from_secs(30)),
            wait_for: Vec::new(),
            lease: Duration::from_secs(300),
            aging: Duration::from_secs(2),
            ticket_grace: Duration::from_secs(60),
            scopes: Preset::Measured,
            scope: BTreeMap::new(),
            require: false,
            validate: false,
            enforce: false,
            on_unavailable: OnUnavailable::Warn,
            alert_wait: Duration::from_secs(5),
            alert_hold: Duration::from_secs(60),
            alert_stale: 1,
            parents: git_scopes(),
        }
    }
}

impl Settings {
    /// How deep scopes may nest.
    pub const PARENTS_DEPTH_MAX: usize = 8;

    /// Sets one key from its text; refuses without changing anything.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), SettingError> {
        let bad = |why| SettingError::BadValue {
            key: key.to_owned(),
            value: value.to_owned(),
            why,
        };
        if let Some(pattern) = strip_prefix_ignoring_case(key, "waitFor.") {
            let rule = (
                Pattern::parse(pattern).map_err(|_| bad("the key's pattern has a character no name may have"))?,
                limit(value).ok_or(bad(TIME_OR_FOREVER))?,
            );
            return self.add_wait_rule(rule).ok_or(bad("too many rules"));
        }
        if let Some(command) = strip_prefix_ignoring_case(key, "scope.") {
            let needs = Need::parse_all(value).map_err(|error| SettingError::BadScope {
                key: key.to_owned(),
                value: value.to_owned(),
                error,
            })?;
            return self.add_scope(command, needs).ok_or(bad("too many scopes"));
        }
        let name = KEYS.iter().find(|k| k.name.eq_ignore_ascii_case(key)).map(|k| k.name);
        match name {
            Some("wait") => self.wait = limit(value).ok_or(bad(TIME_OR_FOREVER))?,
            Some("waitFor") => self.wait_for = wait_rules(value).ok_or(bad("PATTERN=TIME, separated by blanks"))?,
            Some("lease") => self.lease = parse_span(value).ok_or(bad(TIME))?,
            Some("aging") => {
                self.aging = parse_span(value)
                    .filter(|span| !span.is_zero())
                    .ok_or(bad("a time such as 2s, not 0"))?
            }
            Some("ticketGrace") => self.ticket_grace = parse_span(value).ok_or(bad(TIME))?,
            Some("scopes") => self.scopes = Preset::parse(value).ok_or(bad("measured or coarse"))?,
            Some("scope") => self.scope = scope_rules(value).ok_or(bad(SCOPE_RULES))?,
            Some("require") => self.require = boolean(value).ok_or(bad("true or false"))?,
            Some("validate") => self.validate = boolean(value).ok_or(bad("true or false"))?,
            Some("enforce") => self.enforce = boolean(value).ok_or(bad("true or false"))?,
            Some("onUnavailable") => {
                self.on_unavailable = OnUnavailable::parse(value).ok_or(bad("allow, warn or deny"))?;
            }
            Some("parents") => self.parents = parent_rules(value).map_err(bad)?,
            Some("alertWait") => self.alert_wait = parse_span(value).ok_or(bad(TIME))?,
            Some("alertHold") => self.alert_hold = parse_span(value).ok_or(bad(TIME))?,
            Some("alertStale") => {
                let number = value.parse().ok().filter(|number| *number > 0);
                self.alert_stale = number.ok_or(bad("a number from 1"))?
            }
            _ => return Err(SettingError::UnknownKey { key: key.to_owned() }),
        }
        Ok(())
    }

    /// The wait limit of a request for these names: the longest of theirs.
    pub fn wait_limit<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> WaitLimit {
        let of = |name: &str| {
            self.wait_for
                .iter()
                .rev()
                .find(|(p, _)| p.matches(name))
                .map_or(self.wait, |(_, limit)| *limit)
        };
        let mut longest = Some(Duration::ZERO);
        for name in names {
            longest = match (longest, of(name)) {
                (Some(a), Some(b)) => Some(a.max(b)),
                _ => None,
            };
        }
        longest
    }

    /// The scope that a lock of that name lies in.
    pub fn parent_of(&self, name: &str) -> Option<&LockName> {
        parent_in(&self.parents, name)
    }

    fn add_wait_rule(&mut self, rule: (Pattern, WaitLimit)) -> Option<()> {
        self.wait_for.retain(|(pattern, _)| *pattern != rule.0);
        (self.wait_for.len() < RULES_MAX).then(|| self.wait_for.push(rule))
    }

    fn add_scope(&mut self, command: &str, needs: Vec<Need>) -> Option<()> {
        let command = command.to_ascii_lowercase();
        let room = self.scope.len() < RULES_MAX || self.scope.contains_key(&command);
        room.then(|| drop(self.scope.insert(command, needs)))
    }
}

const TIME: &str = "a time such as 30s, 5m or 0";
const SCOPE_RULES: &str = "COMMAND=WORD,WORD,... separated by blanks";
const TIME_OR_FOREVER: &str = "a time such as 30s, 5m or 0, or forever";

fn limit(value: &str) -> Option<WaitLimit> {
    if value == "forever" {
        Some(None)
    } else {
        parse_span(value).map(Some)
    }
}

/// The words of git for a switch; a key without a value comes as an empty text and is none.
fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn scope_rules(value: &str) -> Option<BTreeMap<String, Vec<Need>>> {
    let rule = |word: &str| {
        let (command, needs) = word.split_once('=')?;
        Some((
            command.to_ascii_lowercase(),
            Need::parse_all(&needs.replace(',', " ")).ok()?,
        ))
    };
    let rules: BTreeMap<_, _> = value.split_ascii_whitespace().map(rule).collect::<Option<_>>()?;
    (rules.len() <= RULES_MAX).then_some(rules)
}

fn git_scopes() -> Vec<(Pattern, LockName)> {
    let global = LockName::parse(b"global.lock").expect("a constant name is valid");
    let rule = |pattern: &&str| {
        (
            Pattern::parse(pattern).expect("a constant pattern is valid"),
            global.clone(),
        )
    };
    GIT_SCOPES.iter().map(rule).collect()
}

fn parent_in<'a>(rules: &'a [(Pattern, LockName)], name: &str) -> Option<&'a LockName> {
    rules
        .iter()
        .find(|(pattern, parent)| parent.as_str() != name && pattern.matches(name))
        .map(|(_, parent)| parent)
}

fn wait_rules(value: &str) -> Option<Vec<(Pattern, WaitLimit)>> {
    let rule = |word: &str| {
        let (pattern, time) = word.rsplit_once('=')?;
        Some((Pattern::parse(pattern).ok()?, limit(time)?))
    };
    let rules: Vec<_> = value.split_ascii_whitespace().map(rule).collect::<Option<_>>()?;
    (rules.len() <= RULES_MAX).then_some(rules)
}

fn parent_rules(value: &str) -> Result<Vec<(Pattern, LockName)>, &'static str> {
    let mut rules = Vec::new();
    for word in value.split_ascii_whitespace() {
        if word == "default" {
            rules.extend(git_scopes());
            continue;
        }
        let (pattern, parent) = word
            .rsplit_once('=')
            .ok_or("CHILD-PATTERN=PARENT, separated by blanks")?;
        let pattern = Pattern::parse(pattern).map_err(|_| "a child's pattern has a character no name may have")?;
        let parent = LockName::parse_lock(parent.as_bytes()).map_err(|_| "a parent is no lock's name")?;
        rules.push((pattern, parent));
    }
    if rules.len() > RULES_MAX {
        return Err("too many rules");
    }
    for (_, parent) in &rules {
        let mut depth = 1;
        let mut above = parent_in(&rules, parent.as_str());
        while let Some(name) = above {
            depth += 1;
            if depth > Settings::PARENTS_DEPTH_MAX {
                return Err("scopes form a circle, or nest deeper than 8");
            }
            above = parent_in(&rules, name.as_str());
        }
    }
    Ok(rules)
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_documented_ones() {
        let mut settings = Settings::default();
        for key in KEYS {
            settings
                .set(key.name, key.default)
                .unwrap_or_else(|error| panic!("{error}"));
        }
        assert_eq!(
            settings,
            Settings::default(),
            "the table of keys and the defaults agree"
        );
    }

    #[test]
    fn the_last_fitting_rule_and_the_longest_name_decide_the_wait() {
        let mut settings = Settings::default();
        settings.set("waitFor.worktree-*.lock", "5s").expect("rule");
        settings.set("WAITFOR.build.lock", "forever").expect("rule");
        assert_eq!(settings.wait_limit(["worktree-a.lock"]), Some(Duration::from_secs(5)));
        assert_eq!(
            settings.wait_limit(["worktree-a.lock", "x.lock"]),
            Some(Duration::from_secs(30))
        );
        assert_eq!(settings.wait_limit(["x.lock", "build.lock"]), None);
    }

    #[test]
    fn scopes_are_gits_unless_configured() {
        let mut settings = Settings::default();
        assert_eq!(
            settings.parent_of("worktree-a.lock").map(LockName::as_str),
            Some("global.lock")
        );
        assert_eq!(settings.parent_of("x.lock"), None);
        settings
            .set("parents", "issue-*.lock=project.lock project.lock=world.lock")
            .expect("rules");
        assert_eq!(
            settings.parent_of("issue-7.lock").map(LockName::as_str),
            Some("project.lock")
        );
        assert_eq!(settings.parent_of("worktree-a.lock"), None);
    }

    #[test]
    fn a_scope_is_the_newest_of_its_command() {
        let mut settings = Settings::default();
        settings
            .set("scope", "commit=worktree,branch status=none")
            .expect("rules");
        settings.set("Scope.Commit", "global").expect("rule");
        settings
            .set("scope.worktree-add", "registry x.lock:shared")
            .expect("rule");
        let shown = |command: &str| {
            settings.scope[command]
                .iter()
                .map(|need| need.what.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(shown("commit"), ["global"]);
        assert_eq!(shown("status"), [""; 0]);
        assert_eq!(shown("worktree-add"), ["registry", "x.lock"]);
    }

    #[test]
    fn what_is_malformed_changes_nothing() {
        let mut settings = Settings::default();
        let bad = [
            ("waits", "5s"),
            ("", "1"),
            ("wait", ""),
            ("wait", "5"),
            ("wait", "-5s"),
            ("lease", "forever"),
            ("aging", "0"),
            ("ticketGrace", "soon"),
            ("waitFor", "x.lock"),
            ("waitFor.a b", "5s"),
            ("waitFor.a", "x"),
            ("alertWait", "5"),
            ("alertHold", "forever"),
            ("alertStale", "0"),
            ("alertStale", "-1"),
            ("parents", "a"),
            ("parents", "a=.b"),
            ("parents", "a=b b=a"),
            ("parents", "a,b=c"),
            ("scopes", "fine"),
            ("scope.commit", ""),
            ("scope.commit", "work-tree"),
            ("scope", "commit"),
            ("require", "maybe"),
            ("validate", "maybe"),
            ("enforce", "sometimes"),
            ("onUnavailable", "ask"),
        ];
        for (key, value) in bad {
            assert!(settings.set(key, value).is_err(), "{key}={value}");
        }
        assert_eq!(settings, Settings::default());
    }
}
