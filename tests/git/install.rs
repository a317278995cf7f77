//! `git lockfs install`, `uninstall`: what is put there, shown before, and taken back byte for byte.

use std::fs;

use super::support::{Repository, Said};
use super::{exists, with_file};

/// Every file below the repository with its bytes, but for git's own.
fn files(repository: &Repository) -> String {
    let script = "find . -path ./.git/objects -prune -o -type f ! -name index -print0 | sort -z | xargs -0 sha256sum; find . -type d | sort";
    repository.sh(script).ok().text()
}

#[test]
fn what_was_installed_is_taken_back_byte_for_byte() {
    let repository = with_file();
    fs::create_dir(repository.repo().join(".claude")).expect("a directory");
    fs::create_dir(repository.repo().join(".codex")).expect("a directory");
    for (file, text) in [
        (".claude/settings.local.json", "// mine\n{\n   \"model\" : \"x\"}\n\n"),
        (
            ".codex/config.toml",
            "model=\"x\" # mine\r\n[shell_environment_policy]\r\ninherit = \"core\"\r\n",
        ),
    ] {
        fs::write(repository.repo().join(file), text).expect("a file");
    }
    let agents = ["claude", "codex", "cursor", "gemini", "vscode"].map(|agent| ["--agent", agent]);
    let before = files(&repository);
    let args = [&["install"][..], &agents.concat()].concat();
    let shown = repository.lockfs(&[&args[..], &["--dry-run"]].concat()).ok().text();
    assert_eq!(files(&repository), before, "--dry-run writes nothing");
    for word in [
        ".claude/settings.local.json",
        "CLAUDE_ENV_FILE",
        "pre-command",
        ".codex/config.toml",
        ".codex/hooks.json",
        ".cursor/hooks.json",
        ".gemini/settings.json",
        ".vscode/settings.json",
        "lockfs/bin",
    ] {
        assert!(shown.contains(word), "it shows {word}: {shown}");
    }
    let said = repository.lockfs(&args).ok().text();
    assert!(
        said.contains(&shown) || shown.lines().all(|line| said.contains(line)),
        "{said}"
    );
    assert!(said.contains("shellenv"), "it says what to do next: {said}");
    let installed = files(&repository);
    assert_ne!(installed, before);
    repository.lockfs(&args).ok();
    assert_eq!(files(&repository), installed, "twice is once");
    repository.lockfs(&["uninstall"]).ok();
    assert_eq!(files(&repository), before);
    repository.lockfs(&["uninstall"]).ok();
    assert_eq!(
        repository.lockfs(&["shellenv"]).code(),
        1,
        "there is nothing to put first"
    );
}

#[test]
fn what_somebody_changed_since_is_left_and_named() {
    let repository = with_file();
    repository.lockfs(&["install", "--agent", "vscode"]).ok();
    let path = repository.repo().join(".vscode/settings.json");
    fs::write(&path, "{\"theirs\": true}").expect("a file");
    let output = repository.lockfs(&["uninstall"]);
    assert_eq!(output.code(), 1);
    assert!(output.error().contains(".vscode/settings.json"), "{}", output.error());
    assert_eq!(fs::read_to_string(&path).expect("it stays"), "{\"theirs\": true}");
    assert!(!exists(repository.repo().join(".git/lockfs/bin")));
}

/// A worktree that is gone has nothing of ours any more.
#[test]
fn what_somebody_removed_since_is_no_obstacle() {
    let repository = with_file();
    let script = "git worktree add -q ../linked; cd ../linked; mkdir .gemini; echo '{}' >.gemini/settings.json
        $LOCKFS install --agent gemini --agent cursor; grep -q pre-command .gemini/settings.json
        cd $R; git worktree remove --force ../linked; $LOCKFS uninstall; ls .git/lockfs";
    let said = repository.sh(&format!("set -e; {script} 2>&1 || true")).ok();
    assert_eq!(said.error(), "");
    assert!(
        said.text().contains("No such file"),
        "nothing is left to take back: {}",
        said.text()
    );
}

#[test]
fn settings_that_are_not_understood_are_refused_and_nothing_is_written() {
    let repository = with_file();
    let trap = "ln -sfn $T/home .gemini; echo {} >$T/home/settings.json";
    for (agent, file, make) in [
        (
            "vscode",
            ".vscode/settings.json",
            "mkdir .vscode; echo '{ nonsense }' >.vscode/settings.json",
        ),
        (
            "vscode",
            ".vscode/settings.json",
            "echo '{\"terminal.integrated.env.linux\": []}' >.vscode/settings.json",
        ),
        (
            "vscode",
            ".vscode/settings.json",
            "printf '{}\\377' >.vscode/settings.json",
        ),
        (
            "vscode",
            ".vscode/settings.json",
            "head -c 2000000 /dev/zero | tr '\\0' ' ' >.vscode/settings.json",
        ),
        (
            "vscode",
            ".vscode/settings.json",
            "rm .vscode/settings.json; mkfifo .vscode/settings.json",
        ),
        (
            "codex",
            ".codex/config.toml",
            "mkdir .codex; echo 'a = ' >.codex/config.toml",
        ),
        (
            "codex",
            ".codex/config.toml",
            "echo 'shell_environment_policy = 1' >.codex/config.toml",
        ),
        (
            "cursor",
            ".cursor/hooks.json",
            "mkdir .cursor; echo [] >.cursor/hooks.json",
        ),
        (
            "cursor",
            ".cursor/hooks.json",
            "ln -sf $T/home/outside .cursor/hooks.json",
        ),
        ("gemini", ".gemini/settings.json", trap),
    ] {
        repository.sh(make).ok();
        let before = files(&repository);
        let output = repository.lockfs(&["install", "--agent", "claude", "--agent", agent]);
        assert_eq!(output.code(), 1, "{make}");
        assert!(output.error().contains(file), "{make}: {}", output.error());
        assert_eq!(files(&repository), before, "{make}");
    }
    assert_eq!(
        fs::read_to_string(repository.dir().join("home/settings.json")).expect("it stays"),
        "{}\n"
    );
}

/// An upgrade puts the new program there.
#[test]
fn the_shim_follows_the_program() {
    let repository = with_file();
    let copy = "cp $LOCKFS $T/git-lockfs && $T/git-lockfs install && readlink .git/lockfs/bin/git";
    let said = repository.sh(copy).ok().text();
    assert!(
        said.ends_with("/git-lockfs") && said.contains(&repository.dir().display().to_string()),
        "{said}"
    );
    repository.lockfs(&["install"]).ok();
    assert!(
        repository
            .sh("readlink .git/lockfs/bin/git")
            .text()
            .ends_with(env!("CARGO_BIN_EXE_git-lockfs-shim"))
    );
    // A program that is gone leaves git as it was.
    repository
        .sh("ln -sf /nowhere/git-lockfs .git/lockfs/bin/git; PATH=$R/.git/lockfs/bin:$PATH git status")
        .ok();
}
