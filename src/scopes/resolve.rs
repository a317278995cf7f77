//! From what a row of the table asks for to the names of locks.

use std::collections::BTreeMap;

use super::Surroundings;
use super::arguments::Arguments;
use super::names::ref_lock;
use crate::types::{LockName, Mode, Need, What};

/// The option that makes a branch, by command; all in one list, for no command has two meanings for one of them.
const CREATES: &[&str] = &["-b", "-B", "-c", "-C", "--create", "--force-create", "--orphan"];

/// Resolves the needs of one command line.
pub struct Resolver<'a> {
    command: &'a str,
    arguments: Arguments<'a>,
    surroundings: &'a dyn Surroundings,
}

impl<'a> Resolver<'a> {
    /// For that command with those arguments, there.
    pub fn new(command: &'a str, arguments: Arguments<'a>, surroundings: &'a dyn Surroundings) -> Self {
        Self {
            command,
            arguments,
            surroundings,
        }
    }

    /// The locks to ask for.
    pub fn locks(&self, needs: &[Need]) -> Vec<(LockName, Mode)> {
        let mut locks: BTreeMap<LockName, Mode> = BTreeMap::new();
        for need in needs {
            for lock in self.locks_for(&need.what) {
                let mode = locks.entry(lock).or_insert(need.mode);
                *mode = need.mode.max(*mode);
            }
        }
        if locks.get("global.lock") == Some(&Mode::Exclusive) {
            // It has all of git's scopes in it already.
            locks.retain(|lock, _| !is_scope(lock));
        }
        locks.into_iter().collect()
    }

    fn locks_for(&self, what: &What) -> Vec<LockName> {
        match what {
            What::Worktree => vec![self.surroundings.worktree()],
            What::Worktrees => self.worktrees(),
            What::Registry => vec![named("registry.lock")],
            What::Config => vec![named("config.lock")],
            What::Maintenance => vec![named("maintenance.lock")],
            What::Stash => vec![named("stash.lock")],
            What::Shallow => vec![named("shallow.lock")],
            What::Global => vec![named("global.lock")],
            What::Named(name) => vec![name.clone()],
            What::Tracking => self.tracking().then(|| named("config.lock")).into_iter().collect(),
            What::Branch
            | What::Branches
            | What::Tags
            | What::Refs
            | What::Created
            | What::Claimed
            | What::Rebased
            | What::Notes
            | What::Remote
            | What::Remotes
            | What::Pushed => self.refs(what).iter().map(|name| ref_lock(name)).collect(),
        }
    }

    /// The full names of the refs that are meant.
    fn refs(&self, what: &What) -> Vec<String> {
        let branches = |shorts: Vec<&str>| shorts.into_iter().map(branch).collect();
        match what {
            What::Branch => self.surroundings.branch().into_iter().collect(),
            What::Branches => self.branches(),
            What::Tags => self.tags(),
            What::Refs => self.full_refs(),
            What::Created => branches(self.created().into_iter().collect()),
            What::Claimed => branches(self.claimed().into_iter().collect()),
            What::Rebased => branches(self.existing(self.arguments.plain().nth(1)).into_iter().collect()),
            What::Notes => vec![self.notes()],
            What::Remote => self.remote().iter().map(|remote| tracked(remote)).collect(),
            What::Remotes => self
                .surroundings
                .remotes()
                .iter()
                .map(|remote| tracked(remote))
                .collect(),
            What::Pushed => self.pushed(),
            _ => Vec::new(),
        }
    }

    fn branches(&self) -> Vec<String> {
        let plain = self.arguments.plain();
        if self.arguments.has("-r") || self.arguments.has("--remotes") {
            return plain.map(|name| format!("refs/remotes/{name}")).collect();
        }
        let all = ["-d", "-D", "--delete", "-m", "-M", "--move", "-c", "-C", "--copy"];
        let count = if all.iter().any(|option| self.arguments.has(option)) {
            usize::MAX
        } else {
            // The second word is the start point.
            1
        };
        plain.take(count).map(branch).collect()
    }

    fn tags(&self) -> Vec<String> {
        let deletes = self.arguments.has("-d") || self.arguments.has("--delete");
        let count = if deletes { usize::MAX } else { 1 };
        let plain = self.arguments.plain().take(count);
        plain.map(|name| format!("refs/tags/{name}")).collect()
    }

    /// `update-ref NAME NEW OLD`: HEAD is the branch that it points at.
    fn full_refs(&self) -> Vec<String> {
        let name = self.arguments.plain().next().into_iter();
        let resolve = |name: &str| match name {
            "HEAD" => self.surroundings.branch().unwrap_or_else(|| name.to_owned()),
            name => name.to_owned(),
        };
        name.map(resolve).collect()
    }

    fn created(&self) -> Option<&'a str> {
        match CREATES.iter().find_map(|option| self.arguments.value_of(option)) {
            Some(name) => Some(name),
            None if self.command == "worktree" => self.added(),
            None => None,
        }
    }

    /// The branch of `worktree add PATH [COMMIT-ISH]`: the one named, or one named like the directory.
    fn added(&self) -> Option<&'a str> {
        if ["-d", "--detach"].iter().any(|option| self.arguments.has(option)) {
            return None;
        }
        let mut words = self.arguments.plain().skip(1);
        let path = words.next()?;
        match words.next() {
            Some(commit) => Some(commit).filter(|name| self.surroundings.has_branch(name)),
            None => path.trim_end_matches('/').rsplit('/').next(),
        }
    }

    fn claimed(&self) -> Option<&'a str> {
        if self.arguments.has("--detach") {
            return None;
        }
        let name = self.arguments.plain().next();
        // A name that is no branch may become one: git makes it when a remote has one of that name.
        name.filter(|name| self.surroundings.has_branch(name) || self.is_guessed(name))
    }

    fn existing(&self, name: Option<&'a str>) -> Option<&'a str> {
        name.filter(|name| self.surroundings.has_branch(name))
    }

    /// Whether `switch NAME` or `checkout NAME` may make the branch from a remote's.
    fn is_guessed(&self, name: &str) -> bool {
        let one_word = self.arguments.plain().count() == 1;
        one_word
            && !self.arguments.has("--no-guess")
            && !name.starts_with('-')
            && !self.surroundings.remotes().is_empty()
    }

    /// Whether git is going to write the configuration of the new branch.
    fn tracking(&self) -> bool {
        if self.arguments.has("--no-track") {
            return false;
        }
        if self.arguments.has("-t") || self.arguments.has("--track") {
            return true;
        }
        let creates = CREATES.iter().any(|option| self.arguments.has(option));
        let start = match (self.command, creates) {
            ("branch", _) => self.arguments.plain().nth(1),
            (_, true) => self.arguments.plain().next(),
            (_, false) => {
                let name = self.arguments.plain().next();
                return name.is_some_and(|name| !self.surroundings.has_branch(name) && self.is_guessed(name));
            }
        };
        start.is_some_and(|start| self.is_remote_tracking(start))
    }

    fn is_remote_tracking(&self, start: &str) -> bool {
        let short = start.strip_prefix("refs/").unwrap_or(start);
        let short = short.strip_prefix("remotes/").unwrap_or(short);
        let of = |remote: &String| {
            short
                .strip_prefix(remote.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        };
        // `origin` alone is its HEAD, `@{u}` whatever the branch follows.
        let remotes = self.surroundings.remotes();
        remotes.iter().any(of) || remotes.iter().any(|remote| remote == short) || start.contains("@{")
    }

    fn notes(&self) -> String {
        match self.arguments.value_of("--ref") {
            None => "refs/notes/commits".to_owned(),
            Some(full) if full.starts_with("refs/notes/") => full.to_owned(),
            Some(short) => format!("refs/notes/{}", short.strip_prefix("notes/").unwrap_or(short)),
        }
    }

    /// The remote that is named, or the one that the branch follows; several with `--all` or `--multiple`.
    fn remote(&self) -> Vec<String> {
        if self.arguments.has("--all") {
            return self.surroundings.remotes();
        }
        if self.arguments.has("--multiple") {
            return self.arguments.plain().map(str::to_owned).collect();
        }
        match self.arguments.plain().next() {
            Some(name) => vec![name.to_owned()],
            None => vec![self.default_remote()],
        }
    }

    fn default_remote(&self) -> String {
        let branch = self.surroundings.branch();
        let short = branch.as_deref().and_then(|name| name.strip_prefix("refs/heads/"));
        short
            .and_then(|short| self.surroundings.remote_of(short))
            .unwrap_or_else(|| "origin".to_owned())
    }

    /// `push [REMOTE [REFSPEC]...]`: what of the remote-tracking refs it moves.
    fn pushed(&self) -> Vec<String> {
        let mut words = self.arguments.plain();
        let remote = words.next().map_or_else(|| self.default_remote(), str::to_owned);
        let wide = ["--all", "--branches", "--mirror", "--tags", "--follow-tags"];
        let specs: Vec<&str> = words.collect();
        if wide.iter().any(|option| self.arguments.has(option)) {
            return vec![tracked(&remote)];
        }
        let target = |spec: &str| {
            let spec = spec.trim_start_matches('+');
            let name = spec.rsplit_once(':').map_or(spec, |(_, to)| to);
            match name {
                "HEAD" | "@" => self
                    .surroundings
                    .branch()
                    .map_or_else(|| name.to_owned(), |name| short(&name)),
                name => short(name),
            }
        };
        let names: Vec<String> = match specs.as_slice() {
            [] => self.surroundings.branch().iter().map(|name| short(name)).collect(),
            specs => specs.iter().map(|spec| target(spec)).collect(),
        };
        names
            .iter()
            .map(|name| format!("{}/{name}", tracked(&remote)))
            .collect()
    }

    /// The worktree that `remove`, `move`, `lock`, `unlock` and `repair` are about.
    fn worktrees(&self) -> Vec<LockName> {
        let path = self.arguments.plain().nth(1);
        path.and_then(|path| self.surroundings.worktree_at(path))
            .into_iter()
            .collect()
    }
}

fn named(name: &str) -> LockName {
    LockName::parse_lock(name.as_bytes()).expect("a constant name is valid")
}

fn is_scope(lock: &LockName) -> bool {
    const OTHERS: &[&str] = &[
        "registry.lock",
        "config.lock",
        "maintenance.lock",
        "stash.lock",
        "shallow.lock",
    ];
    let name = lock.as_str();
    OTHERS.contains(&name)
        || name == super::names::MAIN_WORKTREE
        || name.starts_with("worktree-")
        || name.starts_with("ref-")
}

fn branch(name: &str) -> String {
    format!("refs/heads/{}", name.strip_prefix("refs/heads/").unwrap_or(name))
}

fn short(name: &str) -> String {
    name.strip_prefix("refs/heads/").unwrap_or(name).to_owned()
}

/// What a fetch from a remote moves, as one lock. A remote may be given by its URL or path; then that is its name.
fn tracked(remote: &str) -> String {
    format!("refs/remotes/{remote}")
}
