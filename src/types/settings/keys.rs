//! The keys of the settings, and the names of our environment variables.

/// One key: as written in `git config` under `lockfs.`, its environment variable, its default, and what it means.
pub struct Key {
    /// The name, in the spelling of the documentation; compared without case, as git does.
    pub name: &'static str,
    /// The environment variable that overrides it.
    pub env: &'static str,
    /// The value when nothing is configured.
    pub default: &'static str,
    /// One line for the documentation.
    pub help: &'static str,
}

/// Every key there is.
pub const KEYS: &[Key] = &[
    Key {
        name: "wait",
        env: "GIT_LOCKFS_WAIT",
        default: "30s",
        help: "how long an open or acquire waits (a time, 0, or forever)",
    },
    Key {
        name: "waitFor",
        env: "GIT_LOCKFS_WAIT_FOR",
        default: "",
        help: "the same for names that fit a pattern: PATTERN=TIME ...",
    },
    Key {
        name: "lease",
        env: "GIT_LOCKFS_LEASE",
        default: "5m",
        help: "how long a lease outlives its keeper",
    },
    Key {
        name: "aging",
        env: "GIT_LOCKFS_AGING",
        default: "2s",
        help: "waiting that long raises a request one priority level",
    },
    Key {
        name: "ticketGrace",
        env: "GIT_LOCKFS_TICKET_GRACE",
        default: "60s",
        help: "how long an absent ticket keeps its place",
    },
    Key {
        name: "parents",
        env: "GIT_LOCKFS_PARENTS",
        default: "default",
        help: "scopes: CHILD-PATTERN=PARENT ...; `default` stands for git's",
    },
    Key {
        name: "scopes",
        env: "GIT_LOCKFS_SCOPES",
        default: "measured",
        help: "which table says what a git command locks: measured or coarse",
    },
    Key {
        name: "scope",
        env: "GIT_LOCKFS_SCOPE",
        default: "",
        help: "what single git commands lock: COMMAND=WORD,WORD,... ...",
    },
    Key {
        name: "require",
        env: "GIT_LOCKFS_REQUIRE",
        default: "false",
        help: "whether a git command that needs locks is refused while nothing is mounted",
    },
    Key {
        name: "validate",
        env: "GIT_LOCKFS_VALIDATE",
        default: "false",
        help: "whether the transparent git compares each commit with what it was about to have",
    },
    Key {
        name: "enforce",
        env: "GIT_LOCKFS_ENFORCE",
        default: "false",
        help: "whether the hook refuses to move a branch or tag without a fitting lock",
    },
    Key {
        name: "onUnavailable",
        env: "GIT_LOCKFS_ON_UNAVAILABLE",
        default: "warn",
        help: "what the hook does when no daemon answers: allow, warn or deny",
    },
    Key {
        name: "alertWait",
        env: "GIT_LOCKFS_ALERT_WAIT",
        default: "5s",
        help: "an alert fires when the 95th percentile of the waits of 5 minutes is over this",
    },
    Key {
        name: "alertHold",
        env: "GIT_LOCKFS_ALERT_HOLD",
        default: "60s",
        help: "an alert fires when a lock with waiters has been held longer than this",
    },
    Key {
        name: "alertStale",
        env: "GIT_LOCKFS_ALERT_STALE",
        default: "1",
        help: "an alert fires at so many stale releases within 5 minutes",
    },
];

/// What the names of all our environment variables begin with.
const VARIABLE_PREFIX: &str = "GIT_LOCKFS_";

/// Our environment variables that are no settings: what a process says of itself, what `run` tells its command, the
/// daemon's log, and what tests set.
const OTHER_VARIABLES: &[&str] = &[
    "GIT_LOCKFS_SESSION",
    "GIT_LOCKFS_TOKEN",
    "GIT_LOCKFS_HELD",
    "GIT_LOCKFS_LOG",
    "GIT_LOCKFS_FAULTS",
    "GIT_LOCKFS_TEST_*",
];

/// Whether an environment variable has a name of ours that nothing reads, as one has that was misspelt.
pub fn is_unread_variable(name: &str) -> bool {
    let is_other = OTHER_VARIABLES.iter().any(|other| match other.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *other,
    });
    name.starts_with(VARIABLE_PREFIX) && !is_other && !KEYS.iter().any(|key| key.env == name)
}
