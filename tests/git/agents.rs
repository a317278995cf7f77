//! `git lockfs install --agent`: tools that run commands by themselves find our git, and ask before a command. What
//! stands for such a tool here does what its documentation says: it runs the hooks that are in its settings, with the
//! documented question on standard input, and reads exit code and standard output.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use super::support::{Mount, Said};
use super::{WRITE_DOWN, exists, hook, installed, with_file, with_shim, written};

/// A settings file, and where in it the command of the hook is that runs before a command.
const BEFORE: &[(&str, &str, &str)] = &[
    (
        "claude",
        ".claude/settings.local.json",
        "/hooks/PreToolUse/0/hooks/0/command",
    ),
    ("codex", ".codex/hooks.json", "/hooks/PreToolUse/0/hooks/0/command"),
    ("cursor", ".cursor/hooks.json", "/hooks/preToolUse/0/command"),
    ("gemini", ".gemini/settings.json", "/hooks/BeforeTool/0/hooks/0/command"),
];

fn settings(mount: &Mount, file: &str) -> Value {
    let text = fs::read_to_string(mount.repo().join(file)).expect("the file was written");
    serde_json::from_str(&text).expect("JSON")
}

/// Runs a hook of the settings as the tool does, with what it asks.
fn ask(mount: &Mount, file: &str, pointer: &str, question: &str) -> Output {
    let settings = settings(mount, file);
    let command = settings
        .pointer(pointer)
        .and_then(Value::as_str)
        .expect("the hook is there");
    fs::write(mount.dir().join("question"), question).expect("it is ours");
    mount.sh(&format!("PATH=$(dirname $LOCKFS):$PATH; {{ {command}; }} <$T/question"))
}

fn question(mount: &Mount, command: &str) -> String {
    let input = json!({ "command": command, "description": "x", "timeout": 1000 });
    json!({ "session_id": "s", "cwd": mount.repo(), "tool_name": "Bash", "tool_input": input }).to_string()
}

fn install_all(mount: &Mount) {
    mount
        .sh("PATH=$PATH:$(dirname $LOCKFS); git lockfs install --agent claude --agent codex --agent cursor --agent gemini")
        .ok();
}

/// The environment of the tool's commands, where its settings can change it.
#[test]
fn a_session_begins_with_the_mount_and_the_path() {
    let mount = installed();
    install_all(&mount);
    let settings = settings(&mount, ".claude/settings.local.json");
    let start = settings["hooks"]["SessionStart"][0]["hooks"][0]["command"]
        .as_str()
        .expect("it is there");
    mount
        .sh(&format!(
            "PATH=$(dirname $LOCKFS):$PATH; export CLAUDE_ENV_FILE=$T/session; {start}"
        ))
        .ok();
    hook(&mount, "pre-commit", WRITE_DOWN);
    mount.sh(". $T/session; git commit -q --allow-empty -m x").ok();
    assert!(written(&mount, "held").contains("main-worktree.lock"));
    let toml = fs::read_to_string(mount.repo().join(".codex/config.toml")).expect("the file was written");
    let path = toml
        .split('"')
        .find(|part| part.contains(".git/lockfs/bin:"))
        .expect("a PATH");
    assert!(
        !path.contains("git-core"),
        "what git puts there for us is not the caller's: {path}"
    );
    fs::remove_file(mount.dir().join("held")).expect("it was written");
    mount.sh(&format!("PATH={path}; git commit -q --allow-empty -m y")).ok();
    assert!(written(&mount, "held").contains("main-worktree.lock"), "{toml}");
}

/// Where it cannot, the command is given its PATH, and is otherwise as it was.
#[test]
fn a_command_with_git_is_given_the_path_where_settings_cannot() {
    let mount = installed();
    install_all(&mount);
    hook(&mount, "pre-commit", WRITE_DOWN);
    let command = "git commit -q --allow-empty -F - <<'EOF'\nit's \"git\"\nEOF";
    for (agent, file, pointer) in BEFORE {
        let said = ask(&mount, file, pointer, &question(&mount, command)).ok();
        assert_eq!(said.error(), "", "{agent}");
        let answer: Value = serde_json::from_str(&said.text()).expect("JSON");
        let changed = match *agent {
            "gemini" => &answer["hookSpecificOutput"]["tool_input"]["command"],
            "cursor" => {
                assert_eq!(answer["updated_input"]["timeout"], 1000, "the whole input: {answer}");
                &answer["updated_input"]["command"]
            }
            _ => {
                assert_eq!(answer, json!({}), "{agent}: its environment has the PATH");
                continue;
            }
        };
        let _ = fs::remove_file(mount.dir().join("held"));
        for shell in ["bash", "dash", "zsh"] {
            mount.sh_with(shell, changed.as_str().expect("a command")).ok();
            assert!(
                written(&mount, "held").contains("main-worktree.lock"),
                "{agent}, {shell}"
            );
            assert_eq!(
                mount.git(&["log", "-1", "--format=%B"]).text(),
                "it's \"git\"",
                "{agent}, {shell}"
            );
        }
        let inside = with_shim(&format!(
            "PATH=$PATH:$(dirname $LOCKFS); git lockfs pre-command --agent {agent} <$T/question"
        ));
        assert_eq!(
            mount.sh(&inside).ok().text(),
            "{}",
            "{agent} was started in a shell that has the PATH"
        );
    }
    mount.lockfs(&["uninstall"]).ok();
    let script = "$LOCKFS pre-command --agent gemini <$T/question";
    assert_eq!(mount.sh(script).ok().text(), "{}", "there is no git of ours any more");
}

/// In fish too, whose `export` is a function.
#[test]
fn the_changed_command_is_one_of_fish_too() {
    let mount = installed();
    hook(&mount, "pre-commit", WRITE_DOWN);
    fs::write(
        mount.dir().join("question"),
        question(&mount, "git commit -q --allow-empty -m x"),
    )
    .expect("it is ours");
    let answer: Value =
        serde_json::from_str(&mount.sh("$LOCKFS pre-command --agent cursor <$T/question").ok().text()).expect("JSON");
    mount
        .sh_with("fish", answer["updated_input"]["command"].as_str().expect("a command"))
        .ok();
    assert!(written(&mount, "held").contains("main-worktree.lock"), "{answer}");
}

#[test]
fn what_is_no_question_about_git_goes_on() {
    let mount = installed();
    install_all(&mount);
    let nothing_to_say = [
        question(&mount, "make && ls .git"),
        question(&mount, "rm -f .git/index.lock"),
        question(&mount, "rm -rf target Cargo.lock"),
        json!({ "tool_input": { "file_path": "git" } }).to_string(),
        json!({ "tool_input": { "command": ["git"] } }).to_string(),
        json!({ "cwd": "/", "tool_input": { "command": "git status" } }).to_string(),
        json!({ "cwd": "/nowhere", "tool_input": { "command": "git status" } }).to_string(),
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "\u{0}".to_owned(),
        "[".repeat(200_000),
    ];
    for (agent, file, pointer) in BEFORE {
        for question in &nothing_to_say {
            let said = ask(&mount, file, pointer, question).ok();
            assert_eq!(
                (said.text().as_str(), said.error().as_str()),
                ("{}", ""),
                "{agent}: {question:.80}"
            );
        }
    }
}

/// git's own lock file is no leftover while somebody holds the lock of what it guards.
#[test]
fn a_lock_file_of_git_is_not_removed_under_its_holder() {
    let mount = installed();
    install_all(&mount);
    mount.git(&["worktree", "add", "-q", "-b", "topic", "../linked"]);
    mount
        .sh("touch .git/index.lock .git/config.lock .git/refs/heads/topic.lock .git/packed-refs.lock .git/worktrees/linked/index.lock")
        .ok();
    let cases = [
        ("main-worktree.lock", "rm -f .git/index.lock && git add ."),
        ("main-worktree.lock", "cd .; /bin/rm -f \"$R\"; rm .git/*.lock;ls"),
        ("config.lock", "mv .git/config.lock /tmp"),
        ("ref-refs%2Fheads%2Ftopic.lock", "unlink .git/refs/heads/topic.lock"),
        ("maintenance.lock", "rm .git/packed-refs.lock"),
        ("worktree-linked.lock", "rm .git/worktrees/linked/index.lock"),
        ("global.lock", "rm .git/index.lock"),
    ];
    for (lock, command) in cases {
        let question = question(&mount, command);
        for (agent, file, pointer) in BEFORE {
            let free = ask(&mount, file, pointer, &question).ok();
            assert_eq!(free.error(), "", "{agent}: nobody holds {lock}: {command}");
        }
        let holder = mount.spawn_sh(&format!("exec 9> $L/{lock}; echo taken; exec sleep 100"));
        holder.wait_for_line("taken");
        for (agent, file, pointer) in BEFORE {
            let refused = ask(&mount, file, pointer, &question);
            assert_eq!(refused.code(), 2, "{agent}: {command}: {}", refused.error());
            if *agent == "cursor" {
                let answer: Value = serde_json::from_str(&refused.text()).expect("JSON");
                assert_eq!(
                    (&answer["permission"], &answer["agent_message"]),
                    (&json!("deny"), &json!(refused.error()))
                );
            }
            for word in [lock, &holder.id().to_string(), "git lockfs status"] {
                assert!(
                    refused.error().contains(word),
                    "{agent}: {command}: {}",
                    refused.error()
                );
            }
        }
        // The files of the mount are how locks are given back.
        let ours = format!("rm .git/.git-locks/locks/{lock}; rm -f build.lock");
        let said = ask(&mount, BEFORE[0].1, BEFORE[0].2, &self::question(&mount, &ours)).ok();
        assert_eq!(said.text(), "{}", "{ours}");
    }
}

/// Shown before it is written, and asked where somebody sits at a terminal.
#[test]
fn at_a_terminal_it_is_asked_first() {
    let repository = with_file();
    let run = |answer: &str, options: &str| {
        repository.sh(&format!(
            "printf '{answer}\\n' | script -qec \"$LOCKFS install --agent gemini {options}\" /dev/null"
        ))
    };
    let file = repository.repo().join(".gemini/settings.json");
    let said = run("n", "");
    assert!(
        said.text().contains("BeforeTool") && said.text().contains("[y/N]"),
        "{}",
        said.text()
    );
    assert_eq!(said.code(), 1);
    assert!(said.text().contains("nothing was written"), "{}", said.text());
    assert!(!exists(&file) && !exists(repository.repo().join(".git/lockfs/bin")));
    assert!(!run("", "--dry-run").ok().text().contains("[y/N]"));
    let said = run("y", "").ok().text();
    let (shown, asked) = (said.find("BeforeTool"), said.find("[y/N]"));
    assert!(exists(&file) && shown < asked && shown.is_some(), "{said}");
    assert!(!run("", "").ok().text().contains("[y/N]"), "there is nothing to write");
    repository.lockfs(&["uninstall"]).ok();
    assert!(!exists(file.parent().expect("it has one")));
    assert!(!run("", "--yes").ok().text().contains("[y/N]"));
    assert!(exists(&file));
}
