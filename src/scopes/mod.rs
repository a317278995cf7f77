//! Which locks a git command needs: the one table, and how to read it for a command line in a repository.
//!
//! [`plan`] is the answer for one command line. It is a pure function of the words, of the settings and of what a
//! [`Surroundings`] says about the repository; it runs nothing, reads no file and takes no lock.
//!
//! All locks of a plan are asked for in one request, together or none, before git starts: so plans close no circle.
//!
//! What is not in the table (a program `git-NAME`, an alias that is a shell line) may do anything to its worktree, and
//! gets the worktree. An alias of git's own commands is expanded as git expands it.

mod arguments;
mod invocation;
mod names;
mod resolve;
mod table;

pub use arguments::Arguments;
pub use invocation::Invocation;
pub use names::{fnv1a, ref_lock, worktree_lock};

use resolve::Resolver;
use table::Row;

use crate::types::{LockName, Mode, Need, Preset, Settings};

/// How many aliases may lead to one another. git itself only refuses circles.
const ALIAS_DEPTH_MAX: usize = 16;

/// What the answer depends on besides the command line. Whoever implements it may look at each when it is asked.
pub trait Surroundings {
    /// The lock of the worktree that the command runs in.
    fn worktree(&self) -> LockName;
    /// The lock of the worktree at that path, or with that last part of its path, as git finds it.
    fn worktree_at(&self, path: &str) -> Option<LockName>;
    /// The full name of the branch that HEAD points at; `None` when it is detached.
    fn branch(&self) -> Option<String>;
    /// Whether there is a local branch of this short name.
    fn has_branch(&self, short: &str) -> bool;
    /// The value of `alias.NAME`.
    fn alias(&self, name: &str) -> Option<String>;
    /// The names of all remotes.
    fn remotes(&self) -> Vec<String>;
    /// The remote that a branch follows (`branch.SHORT.remote`).
    fn remote_of(&self, branch: &str) -> Option<String>;
}

/// The locks of one command, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Plan {
    /// The command that git will run, its alias expanded; `None` when git itself answers.
    pub command: Option<String>,
    /// Its arguments, those of its alias before those that were given.
    pub args: Vec<String>,
    /// What to ask for, sorted by name, each name once. Empty: the command runs as it is, and must not take git's own
    /// optional locks either.
    pub locks: Vec<(LockName, Mode)>,
}

/// The locks that a command line needs.
pub fn plan(invocation: &Invocation, settings: &Settings, surroundings: &dyn Surroundings) -> Plan {
    let Some((command, args)) = expand(invocation, settings, surroundings) else {
        return Plan::default();
    };
    let locks = match args.first().map(String::as_str) {
        Some("-h" | "--help" | "--help-all") => Vec::new(),
        _ => {
            let arguments = Arguments::new(&command, &args);
            let needs = needs_of(&command, &arguments, settings);
            Resolver::new(&command, arguments, surroundings).locks(&needs)
        }
    };
    Plan {
        command: Some(command),
        args,
        locks,
    }
}

/// The command and its arguments behind all aliases; `None` when no command runs.
fn expand(
    invocation: &Invocation,
    settings: &Settings,
    surroundings: &dyn Surroundings,
) -> Option<(String, Vec<String>)> {
    let mut command = invocation.command.clone()?;
    let mut args = invocation.args.clone();
    for _ in 0..ALIAS_DEPTH_MAX {
        // git ignores an alias for a command of its own; a scope for the alias itself says more than what it stands for.
        if is_known(&command) || settings.scope.contains_key(&command.to_ascii_lowercase()) {
            break;
        }
        let Some(words) = surroundings.alias(&command).and_then(|value| split_alias(&value)) else {
            break;
        };
        let inner = Invocation::parse(words);
        let Some(next) = inner.command else { break };
        command = next;
        args = inner.args.into_iter().chain(args).collect();
    }
    Some((command, args))
}

/// The words of an alias; `None` when it is a shell line, which is opaque.
fn split_alias(value: &str) -> Option<Vec<String>> {
    (!value.trim_start().starts_with('!')).then(|| shell_words::split(value).ok())?
}

fn needs_of(command: &str, arguments: &Arguments<'_>, settings: &Settings) -> Vec<Need> {
    let subcommand = arguments.plain().next().map(|word| format!("{command} {word}"));
    let configured = subcommand
        .as_deref()
        .and_then(|both| settings.scope.get(&both.replace(' ', "-").to_ascii_lowercase()))
        .or_else(|| settings.scope.get(&command.to_ascii_lowercase()));
    if let Some(needs) = configured {
        return needs.clone();
    }
    let row = rows(settings.scopes).find(|(name, condition, _)| {
        (*name == command || subcommand.as_deref() == Some(*name)) && arguments.fit(condition)
    });
    let text = row.map_or(table::UNKNOWN, |(_, _, needs)| needs);
    Need::parse_all(text).expect("a test reads every row of the table")
}

fn rows(preset: Preset) -> impl Iterator<Item = &'static Row> {
    let first: &[Row] = match preset {
        Preset::Measured => &[],
        Preset::Coarse => table::COARSE,
    };
    first.iter().chain(table::MEASURED)
}

fn is_known(command: &str) -> bool {
    table::MEASURED.iter().any(|(name, ..)| first_word(name) == command)
}

fn first_word(name: &str) -> &str {
    name.split(' ').next().unwrap_or(name)
}

#[cfg(test)]
mod tests;
