//! A transparent git: plain `git commit` in any shell and any worktree takes its locks, and never waits for itself.

use super::support::{Mount, Said, require};
use super::{WRITE_DOWN, exists, hook, installed, with_file, with_shim, written};

/// eval "$(git lockfs shellenv)" for bash, zsh, fish; also under dash
#[test]
fn plain_git_is_coordinated_in_every_shell() {
    for shell in ["bash", "dash", "zsh", "fish"] {
        let mount = installed();
        require(shell);
        mount.git(&["worktree", "add", "-q", "-b", "topic", "../linked"]);
        hook(&mount, "pre-commit", WRITE_DOWN);
        let script = "eval \"$($LOCKFS shellenv)\"; cd ../linked; and true; git commit -q --allow-empty -m x; \
                      eval \"$($LOCKFS shellenv)\"; echo $PATH";
        let script = if shell == "fish" {
            script.to_owned()
        } else {
            script.replace(" and true;", "")
        };
        let said = mount.sh_with(shell, &script).ok().text();
        assert!(written(&mount, "held").contains("worktree-linked.lock"), "{shell}");
        assert_eq!(said.matches("lockfs/bin").count(), 1, "{shell}: put there once: {said}");
        assert_eq!(mount.git(&["log", "-1", "--format=%s", "topic"]).text(), "x", "{shell}");
    }
}

#[test]
fn git_is_as_it_was_where_no_lock_is_needed() {
    let mount = installed();
    let plain = mount
        .sh("git --version; git status --short; git log --oneline; git -C / status; echo $?")
        .text();
    let ours = mount
        .sh(&with_shim(
            "git --version; git status --short; git log --oneline; git -C / status; echo $?",
        ))
        .text();
    assert_eq!(ours, plain);
    assert_eq!(
        mount
            .sh(&with_shim("git rev-parse --is-inside-git-dir; git nonsense; echo $?"))
            .text(),
        "false\n1"
    );
}

/// nested git calls (hooks, aliases, submodules, rebase --exec, a shell that holds fd 9 and runs `git`) do not deadlock
#[test]
fn nested_git_does_not_wait_for_itself() {
    let mount = Mount::start(with_file(), &[("wait", "2s")], &[]);
    mount.lockfs(&["install"]).ok();
    // git puts its own directory before ours; the hook asks for ours by its path.
    hook(
        &mount,
        "post-commit",
        "#!/bin/sh\necho more >> extra; \"$R/.git/lockfs/bin/git\" add extra && \"$R/.git/lockfs/bin/git\" status --short > $T/hook\n",
    );
    mount
        .sh(&with_shim(
            "set -e; git config alias.save '!git add -A && git commit -qm saved'
             echo 1 > a; git save
             git config alias.deep '!$R/.git/lockfs/bin/git commit -q --allow-empty -m deep'
             git deep",
        ))
        .ok();
    assert!(written(&mount, "hook").contains("extra"));
    mount.sh("rm .git/hooks/post-commit; git reset -q --hard").ok();
    for script in [
        "git rebase -q --exec 'git commit -q --amend --no-edit --allow-empty' HEAD~1",
        "git rebase -q --exec \"$R/.git/lockfs/bin/git commit -q --amend --no-edit --allow-empty\" HEAD~1",
        "exec 9> $L/main-worktree.lock; git commit -q --allow-empty -m x",
        "exec 9> $L/global.lock; git commit -q --allow-empty -m x",
        "exec 9<> $M/acquire; echo locks=main-worktree.lock >&9; git commit -q --allow-empty -m x",
        "echo $$ > $L/main-worktree.lock; git commit -q --allow-empty -m x; rm $L/main-worktree.lock",
        "exec 9< $F/main-worktree.lock; flock 9; git commit -q --allow-empty -m x",
        "flock $F/main-worktree.lock git commit -q --allow-empty -m x",
        "$LOCKFS run -l global.lock -- git commit -q --allow-empty -m x",
        "$LOCKFS run -- git commit -q --allow-empty -m x",
        "$LOCKFS git -- commit -q --allow-empty -m x",
        "(exec 9> $L/main-worktree.lock; git commit -q --allow-empty -m x & wait $!)",
    ] {
        let output = mount.sh(&with_shim(&format!("git reset -q --hard; {script}")));
        assert!(output.status.success(), "{script}: {}", output.error());
        assert!(!output.error().contains("waiting for"), "{script}: {}", output.error());
    }
    let submodule = "set -e; git init -q ../sub; git -C ../sub commit -q --allow-empty -m x; \
                     git -c protocol.file.allow=always submodule --quiet add ../sub sub; git commit -qm sub; \
                     git submodule foreach -q 'git commit -q --allow-empty -m in'; git -C sub commit -q --allow-empty -m y";
    mount.sh(&with_shim(submodule)).ok();
}

/// what the parent holds is passed down; a stranger's lock is not
#[test]
fn the_lock_of_a_stranger_is_waited_for() {
    let mount = Mount::start(with_file(), &[("wait", "300ms")], &[]);
    mount.lockfs(&["install"]).ok();
    let stranger = mount.spawn_sh("exec 9> $L/main-worktree.lock; echo taken; exec sleep 100");
    stranger.wait_for_line("taken");
    let output = mount.sh(&with_shim("git commit -q --allow-empty -m x"));
    assert_eq!(output.code(), 75);
    assert!(
        output.error().contains(&stranger.id().to_string()),
        "{}",
        output.error()
    );
}

/// Not mounted: the shim says so once and runs git as usual, or refuses with `lockfs.require=true`.
#[test]
fn without_a_mount_git_runs_and_says_so_once() {
    let repository = with_file();
    let commit = "git commit -q --allow-empty -m x";
    let silent = repository
        .sh(&format!("mkdir b && ln -s $LOCKFS b/git && PATH=$PWD/b:$PATH {commit}"))
        .ok();
    assert_eq!(silent.error(), "", "nobody expects it where it was not installed");
    repository.lockfs(&["install"]).ok();
    let output = repository
        .sh(&with_shim(&format!("{commit}; git status -s; {commit}; {commit}")))
        .ok();
    assert_eq!(
        output.error().matches("git lockfs mount").count(),
        1,
        "{}",
        output.error()
    );
    let count = || repository.git(&["rev-list", "--count", "HEAD"]).text();
    let before = count();
    repository.git(&["config", "lockfs.require", "true"]);
    let refused = repository.sh(&with_shim(commit));
    assert_eq!(refused.code(), 69);
    assert!(refused.error().contains("git lockfs mount"), "{}", refused.error());
    assert_eq!(count(), before);
    assert!(
        refused.error().contains("GIT_LOCKFS_REQUIRE=false"),
        "{}",
        refused.error()
    );
    // Also for who wants to be rid of the setting.
    let unset = "git config --unset lockfs.require";
    assert_eq!(repository.sh(&with_shim(unset)).code(), 69);
    repository
        .sh(&with_shim(&format!("GIT_LOCKFS_REQUIRE=false {unset}; {commit}")))
        .ok();
    repository.git(&["config", "lockfs.require", "true"]);
    repository
        .sh(&with_shim("git log -1 >/dev/null && git status -s >/dev/null"))
        .ok();
}

#[test]
fn a_daemon_that_is_gone_is_none() {
    let mount = installed();
    mount.kill_daemon();
    let output = mount.sh(&with_shim("git commit -q --allow-empty -m x")).ok();
    assert!(
        output.error().contains("running git without locks"),
        "{}",
        output.error()
    );
    let refused = mount.sh(&with_shim("git -c lockfs.require=true commit -q --allow-empty -m y"));
    assert_eq!(refused.code(), 69, "{}", refused.error());
}

/// doctor says whether this shell finds it
#[test]
fn doctor_says_which_git_this_shell_finds() {
    let mount = installed();
    let line = |script: &str| {
        let said = mount
            .sh(&format!("export PATH=$PATH:$(dirname $LOCKFS); {script}"))
            .text();
        let line = said.lines().find(|line| line.contains(" path: ")).unwrap_or_default();
        line.to_owned()
    };
    for doctor in ["git lockfs doctor", "$LOCKFS doctor", "cd $T; git -C $R lockfs doctor"] {
        let without = line(doctor);
        assert!(
            without.starts_with("warn") && without.contains("git lockfs shellenv"),
            "{doctor}: {without}"
        );
        let with = line(&with_shim(doctor));
        assert!(
            with.starts_with("ok ") && with.contains("lockfs/bin/git"),
            "{doctor}: {with}"
        );
    }
    let behind = line("PATH=$PATH:$R/.git/lockfs/bin; $LOCKFS doctor");
    assert!(behind.starts_with("warn"), "it comes second: {behind}");
    let gone = line("ln -sf /nowhere/git-lockfs .git/lockfs/bin/git; $LOCKFS doctor");
    assert!(
        gone.starts_with("fail") && gone.contains("git lockfs install"),
        "{gone}"
    );
    mount.lockfs(&["uninstall"]).ok();
    assert_eq!(
        line("$LOCKFS doctor"),
        "",
        "where nothing is installed nothing is missed"
    );
}

/// bash keeps the path of each program that it has found.
#[test]
fn a_shell_that_found_git_there_hears_how_to_forget_it() {
    let mount = installed();
    let script = with_shim("cd $R; git status -s; $LOCKFS uninstall && hash -r && git status -s && echo found");
    let output = mount.sh(&script);
    assert_eq!(output.code(), 0, "{}", output.error());
    assert_eq!(output.text().trim(), "found");
    assert!(output.error().contains("hash -r"), "{}", output.error());
    let elsewhere = mount.lockfs(&["uninstall"]).ok();
    assert_eq!(elsewhere.error(), "", "nothing to forget");
}

#[test]
fn without_a_git_behind_it_the_shim_says_so() {
    let mount = installed();
    let output = mount.sh("PATH=$R/.git/lockfs/bin git status");
    assert_eq!(output.code(), 127);
    assert!(output.error().contains("no git in PATH"), "{}", output.error());
    assert!(exists(mount.repo().join(".git/lockfs/bin/git")));
}
