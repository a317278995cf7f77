//! The table read for command lines, in a repository made of words.

use std::collections::BTreeSet;

use super::*;
use crate::types::What;

/// A linked worktree `w` on branch topic, with main and topic, the remotes origin and up.
struct Repository {
    branch: Option<&'static str>,
}

impl Surroundings for Repository {
    fn worktree(&self) -> LockName {
        worktree_lock(Some("w"))
    }

    fn worktree_at(&self, path: &str) -> Option<LockName> {
        path.ends_with("other").then(|| worktree_lock(Some("other")))
    }

    fn branch(&self) -> Option<String> {
        self.branch.map(str::to_owned)
    }

    fn has_branch(&self, short: &str) -> bool {
        ["main", "topic"].contains(&short)
    }

    fn alias(&self, name: &str) -> Option<String> {
        let value = match name {
            "ci" => "commit -v",
            "st" => "status -sb",
            "quiet" => "-c color.ui=never ci --quiet",
            "sh" => "!make && git push",
            "a" => "b",
            "b" => "a",
            "status" => "commit",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn remotes(&self) -> Vec<String> {
        vec!["origin".to_owned(), "up".to_owned()]
    }

    fn remote_of(&self, branch: &str) -> Option<String> {
        (branch == "topic").then(|| "up".to_owned())
    }
}

const ON_TOPIC: Repository = Repository {
    branch: Some("refs/heads/topic"),
};

fn steps_with(settings: &Settings, repository: &Repository, line: &str) -> String {
    let words = shell_words::split(line).expect("words");
    let plan = plan(&Invocation::parse(words), settings, repository);
    let of = |wanted: Mode| {
        let names = plan.locks.iter().filter(|(_, mode)| *mode == wanted);
        let names: Vec<&str> = names.map(|(lock, _)| lock.as_str().trim_end_matches(".lock")).collect();
        names
            .join(",")
            .replace("refs%2Fheads%2F", "h/")
            .replace("refs%2Fremotes%2F", "r/")
    };
    let parts = [("s", of(Mode::Shared)), ("x", of(Mode::Exclusive))];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    parts
        .map(|(mode, names)| format!("{mode}:{names}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn steps(line: &str) -> String {
    steps_with(&Settings::default(), &ON_TOPIC, line)
}

#[test]
fn every_row_of_the_table_can_be_read() {
    for (command, condition, needs) in table::MEASURED.iter().chain(table::COARSE) {
        assert!(Need::parse_all(needs).is_ok(), "{command} {condition}: {needs}");
        assert!(
            condition.is_empty() || condition.starts_with(['-', '(']),
            "{command}: {condition}"
        );
        assert!(command.split(' ').count() <= 2, "{command}");
    }
    assert!(Need::parse_all(table::UNKNOWN).is_ok());
}

#[test]
fn the_table_is_in_order_and_no_row_hides_another() {
    for rows in [table::MEASURED, table::COARSE] {
        let commands: Vec<&str> = rows.iter().map(|(name, ..)| first_word(name)).collect();
        let sorted: Vec<&str> = BTreeSet::from_iter(commands.iter().copied()).into_iter().collect();
        let mut seen = commands.clone();
        seen.dedup();
        assert_eq!(seen, sorted, "sorted, each command in one place");
        for pair in rows.windows(2) {
            let hidden = pair[0].1.is_empty() && pair[0].0 == first_word(pair[1].0);
            assert!(!hidden, "{} {} is never reached", pair[1].0, pair[1].1);
        }
    }
}

#[test]
fn who_only_looks_locks_nothing() {
    for line in [
        "status",
        "log --oneline",
        "diff HEAD",
        "branch",
        "branch -vv",
        "branch --list 'x*'",
        "tag -l",
        "stash list",
        "worktree list",
        "config user.name",
        "config --get x.y",
        "remote -v",
        "reflog",
        "symbolic-ref HEAD",
        "notes",
        "commit --dry-run",
        "clean -fdn",
        "commit -h",
        "--version",
        "",
        "push --dry-run",
        "lockfs run x",
    ] {
        assert_eq!(steps(line), "", "{line}");
    }
}

#[test]
fn what_writes_one_worktree_takes_it_and_its_branch() {
    assert_eq!(steps("add ."), "s:maintenance x:worktree-w");
    assert_eq!(steps("commit -m x"), "s:maintenance x:ref-h/topic,worktree-w");
    assert_eq!(steps("-C sub --no-pager commit -am list"), steps("commit -m x"));
    assert_eq!(
        steps("commit -m --dry-run"),
        steps("commit -m x"),
        "a message is no option"
    );
    assert_eq!(steps("reset --hard HEAD~1"), steps("commit -m x"));
    let detached = Repository { branch: None };
    assert_eq!(
        steps_with(&Settings::default(), &detached, "commit"),
        "s:maintenance x:worktree-w"
    );
}

#[test]
fn what_reads_the_list_of_worktrees_shares_it_and_what_changes_it_is_alone() {
    assert_eq!(
        steps("worktree add -b new ../new"),
        "s:maintenance x:config,ref-h/new,registry"
    );
    assert_eq!(
        steps("worktree add ../place"),
        "s:maintenance x:config,ref-h/place,registry"
    );
    assert_eq!(
        steps("worktree add ../place main"),
        "s:maintenance x:config,ref-h/main,registry"
    );
    assert_eq!(
        steps("worktree add --detach ../place"),
        "s:maintenance x:config,registry"
    );
    assert_eq!(steps("worktree remove ../other"), "x:registry,worktree-other");
    assert_eq!(steps("worktree prune"), "x:registry");
    assert_eq!(steps("fetch"), "s:maintenance,registry x:ref-r/up");
    assert_eq!(steps("fetch origin"), "s:maintenance,registry x:ref-r/origin");
    assert_eq!(steps("fetch --all"), "s:maintenance,registry x:ref-r/origin,ref-r/up");
    assert_eq!(
        steps("fetch --depth=1 origin main"),
        "s:maintenance,registry x:ref-r/origin,shallow"
    );
    assert_eq!(steps("gc"), "s:registry x:maintenance");
}

#[test]
fn a_branch_is_claimed_before_it_is_checked_out() {
    assert_eq!(steps("switch main"), "s:maintenance,registry x:ref-h/main,worktree-w");
    assert_eq!(steps("checkout main"), steps("switch main"));
    assert_eq!(steps("checkout -- main"), "s:maintenance x:worktree-w");
    assert_eq!(steps("switch --detach main"), "s:maintenance,registry x:worktree-w");
    assert_eq!(
        steps("switch new"),
        "s:maintenance,registry x:config,ref-h/new,worktree-w"
    );
    assert_eq!(steps("switch --no-guess new"), "s:maintenance,registry x:worktree-w");
    assert_eq!(steps("switch -c new"), "s:maintenance,registry x:ref-h/new,worktree-w");
    assert_eq!(
        steps("switch -c new origin/main"),
        "s:maintenance,registry x:config,ref-h/new,worktree-w"
    );
    assert_eq!(steps("switch --no-track -c new origin/main"), steps("switch -c new"));
    assert_eq!(steps("checkout -qbnew main"), steps("switch -c new"));
}

#[test]
fn refs_that_the_arguments_name_are_locked() {
    assert_eq!(steps("branch new"), "s:registry x:ref-h/new");
    assert_eq!(steps("branch new origin/main"), "s:registry x:config,ref-h/new");
    assert_eq!(
        steps("branch -qD a b"),
        "s:maintenance,registry x:config,ref-h/a,ref-h/b"
    );
    assert_eq!(steps("branch -m new"), "s:registry x:config,ref-h/new,ref-h/topic");
    assert_eq!(steps("tag -am message v1 main"), "s:maintenance x:ref-refs%2Ftags%2Fv1");
    assert_eq!(steps("update-ref HEAD abc"), "s:maintenance x:ref-h/topic");
    assert_eq!(steps("update-ref -m why refs/heads/x abc"), "s:maintenance x:ref-h/x");
    assert_eq!(steps("update-ref --stdin"), "x:global");
    assert_eq!(
        steps("rebase main topic"),
        "s:maintenance,registry x:ref-h/topic,worktree-w"
    );
    assert_eq!(
        steps("notes --ref=build add -m x"),
        "s:maintenance x:ref-refs%2Fnotes%2Fbuild"
    );
    assert_eq!(steps("push"), "x:ref-r/up%2Ftopic");
    assert_eq!(steps("push -u origin HEAD"), "x:config,ref-r/origin%2Ftopic");
    assert_eq!(
        steps("push origin +a:refs/heads/b c"),
        "x:ref-r/origin%2Fb,ref-r/origin%2Fc"
    );
    assert_eq!(steps("push --tags origin"), "x:ref-r/origin");
}

#[test]
fn aliases_are_expanded_and_what_is_unknown_gets_its_worktree() {
    assert_eq!(steps("ci -m x"), steps("commit -m x"));
    assert_eq!(steps("quiet"), steps("commit"));
    assert_eq!(steps("st"), "");
    assert_eq!(steps("status"), "", "git ignores an alias for a command of its own");
    for unknown in ["sh", "absorb --and-rebase", "a"] {
        assert_eq!(steps(unknown), steps("commit"), "{unknown}");
    }
}

#[test]
fn the_coarse_preset_has_few_scopes() {
    let mut settings = Settings::default();
    settings.set("scopes", "coarse").expect("preset");
    let steps = |line: &str| steps_with(&settings, &ON_TOPIC, line);
    for line in [
        "merge topic",
        "pull",
        "rebase main",
        "worktree add ../x",
        "worktree remove ../x",
        "gc",
    ] {
        assert_eq!(steps(line), "x:global", "{line}");
    }
    assert_eq!(steps("commit"), "x:worktree-w");
    assert_eq!(steps("status"), "s:worktree-w");
    assert_eq!(steps("worktree list"), "");
    assert_eq!(
        steps("stash"),
        "s:maintenance x:ref-h/topic,stash,worktree-w",
        "as measured"
    );
}

#[test]
fn a_configured_scope_wins() {
    let mut settings = Settings::default();
    for (key, value) in [
        ("scope.commit", "worktree:shared build.lock"),
        ("scope.worktree-add", "none"),
        ("scope.sh", "global stash worktree other.lock"),
    ] {
        settings.set(key, value).expect(key);
    }
    let steps = |line: &str| steps_with(&settings, &ON_TOPIC, line);
    assert_eq!(steps("ci"), "s:worktree-w x:build");
    assert_eq!(steps("worktree add x"), "");
    assert_eq!(steps("worktree prune"), "x:registry");
    assert_eq!(
        steps("sh"),
        "x:global,other",
        "a scope of git's lies in global.lock already"
    );
}

#[test]
fn the_words_of_the_grammar_are_those_of_the_table() {
    let used: BTreeSet<String> = table::MEASURED
        .iter()
        .flat_map(|(_, _, needs)| Need::parse_all(needs).expect("read above"))
        .map(|need| need.what.to_string())
        .collect();
    for what in [
        What::Rebased,
        What::Pushed,
        What::Worktrees,
        What::Tracking,
        What::Notes,
    ] {
        assert!(used.contains(&what.to_string()), "{what} is used");
    }
}
