//! The project settings of tools that run commands by themselves: what makes their shells find our git, and has them
//! ask us before a command.
//!
//! Each tool reads files of the worktree, in its own grammar; what is written follows its documentation:
//!
//! | tool | file | says | documented at |
//! | --- | --- | --- | --- |
//! | Claude Code | .claude/settings.local.json | hooks `SessionStart`, `PreToolUse` | code.claude.com/docs/en/hooks |
//! | Codex CLI | .codex/config.toml | `shell_environment_policy.set` | developers.openai.com/codex/config-reference |
//! | | .codex/hooks.json | hook `PreToolUse` | developers.openai.com/codex/hooks |
//! | Cursor | .cursor/hooks.json | hook `preToolUse` | cursor.com/docs/agent/hooks |
//! | Gemini CLI | .gemini/settings.json | hook `BeforeTool` | geminicli.com/docs/hooks/reference |
//! | VS Code | .vscode/settings.json | `terminal.integrated.env.linux` | code.visualstudio.com/docs/terminal/profiles |
//!
//! Where settings can change the environment of the tool's shells, they do: there our git comes first in PATH. Cursor
//! and Gemini CLI have no such setting, and there the hook changes the command (see `pre-command`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use jsonc_parser::cst::CstInputValue;
use serde_json::{Value, json};

use super::super::git::callers_path;
use super::super::place;
use super::manifest::Edit;
use super::settings::{add, array_at, edited_json, edited_toml, object_at, set, value_at};

/// A tool with project settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Agent {
    /// Claude Code: .claude/settings.local.json
    Claude,
    /// Codex CLI: .codex/config.toml and .codex/hooks.json
    Codex,
    /// Cursor: .cursor/hooks.json
    Cursor,
    /// Gemini CLI: .gemini/settings.json
    Gemini,
    /// The terminals of VS Code and what derives from it: .vscode/settings.json
    Vscode,
}

/// What Claude Code runs when a session starts: the mount, and what belongs in the environment of its later commands.
const SESSION_START: &str =
    "git lockfs mount >/dev/null 2>&1; git lockfs shellenv --shell bash >> \"${CLAUDE_ENV_FILE:-/dev/null}\"";

impl Agent {
    /// The edits that make its shells find the git in `shims`, and have it ask before a command.
    pub fn edits(self, shims: &Path) -> Result<Vec<Edit>> {
        let top = top_level()?;
        let shims = shims.to_str().context("the repository's path is not UTF-8")?;
        if shims.contains(':') {
            bail!("{shims} has a colon, which PATH cannot hold");
        }
        match self {
            Self::Claude => vec![Edit::of(&top, ".claude/settings.local.json", claude)],
            Self::Codex => vec![
                Edit::of(&top, ".codex/config.toml", |text| codex(text, shims)),
                Edit::of(&top, ".codex/hooks.json", codex_hooks),
            ],
            Self::Cursor => vec![Edit::of(&top, ".cursor/hooks.json", cursor)],
            Self::Gemini => vec![Edit::of(&top, ".gemini/settings.json", gemini)],
            Self::Vscode => vec![Edit::of(&top, ".vscode/settings.json", |text| vscode(text, shims))],
        }
        .into_iter()
        .collect()
    }

    /// Whether its settings put our git first in the PATH of its commands.
    pub fn has_environment(self) -> bool {
        !matches!(self, Self::Cursor | Self::Gemini)
    }

    /// What it runs before a command.
    fn pre_command(self) -> String {
        let name = self.to_possible_value().map(|value| value.get_name().to_owned());
        format!("git lockfs pre-command --agent {}", name.unwrap_or_default())
    }
}

fn top_level() -> Result<PathBuf> {
    let output = place::git().args(["rev-parse", "--show-toplevel"]).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let path = String::from_utf8(output.stdout).context("the worktree's path is not UTF-8")?;
    Ok(path.trim_end_matches('\n').into())
}

/// A hook as Claude Code, Codex and Gemini CLI write it: which tool it is about, and the command.
fn hook(matcher: Option<&str>, command: &str) -> Value {
    let hooks = json!([{ "type": "command", "command": command }]);
    match matcher {
        Some(matcher) => json!({ "matcher": matcher, "hooks": hooks }),
        None => json!({ "hooks": hooks }),
    }
}

fn with_hooks(text: Option<&str>, hooks: &[(&str, Value)]) -> Result<String> {
    edited_json(text, |top| {
        let all = object_at(top, "hooks")?;
        for (event, hook) in hooks {
            add(&array_at(&all, event)?, hook);
        }
        Ok(())
    })
}

fn claude(text: Option<&str>) -> Result<String> {
    let before = hook(Some("Bash"), &Agent::Claude.pre_command());
    with_hooks(
        text,
        &[("SessionStart", hook(None, SESSION_START)), ("PreToolUse", before)],
    )
}

fn codex_hooks(text: Option<&str>) -> Result<String> {
    with_hooks(
        text,
        &[("PreToolUse", hook(Some("^Bash$"), &Agent::Codex.pre_command()))],
    )
}

/// Its settings know no reference to the PATH that it was started with, so that of the moment is written.
fn codex(text: Option<&str>, shims: &str) -> Result<String> {
    let now = callers_path().into_string().ok().context("PATH is not UTF-8")?;
    edited_toml(text, &["shell_environment_policy", "set"], "PATH", |old| {
        first_in(shims, old.unwrap_or(&now))
    })
}

fn cursor(text: Option<&str>) -> Result<String> {
    edited_json(text, |top| {
        if value_at(top, "version")?.is_none() {
            set(top, "version", CstInputValue::Number("1".to_owned()));
        }
        let hook = json!({ "matcher": "Shell", "command": Agent::Cursor.pre_command() });
        add(&array_at(&object_at(top, "hooks")?, "preToolUse")?, &hook);
        Ok(())
    })
}

fn gemini(text: Option<&str>) -> Result<String> {
    let before = hook(Some("^run_shell_command$"), &Agent::Gemini.pre_command());
    with_hooks(text, &[("BeforeTool", before)])
}

fn vscode(text: Option<&str>, shims: &str) -> Result<String> {
    edited_json(text, |top| {
        let environment = object_at(top, "terminal.integrated.env.linux")?;
        let path = match value_at(&environment, "PATH")? {
            None => first_in(shims, "${env:PATH}"),
            Some(Value::String(path)) => first_in(shims, &path),
            Some(_) => bail!("PATH is no string"),
        };
        set(&environment, "PATH", CstInputValue::String(path));
        Ok(())
    })
}

/// A PATH in which a directory comes first; itself when it has the directory already.
fn first_in(directory: &str, path: &str) -> String {
    if path.split(':').any(|known| known == directory) {
        path.to_owned()
    } else {
        format!("{directory}:{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(Option<&str>) -> Result<String>;

    /// Each file in JSON, what it must say, and where.
    const CHANGES: &[(Change, &str, &str)] = &[
        (claude, "/hooks/SessionStart/0/hooks/0/command", "CLAUDE_ENV_FILE"),
        (
            claude,
            "/hooks/PreToolUse/0/hooks/0/command",
            "git lockfs pre-command --agent claude",
        ),
        (
            codex_hooks,
            "/hooks/PreToolUse/0/hooks/0/command",
            "git lockfs pre-command --agent codex",
        ),
        (
            cursor,
            "/hooks/preToolUse/0/command",
            "git lockfs pre-command --agent cursor",
        ),
        (cursor, "/hooks/preToolUse/0/matcher", "Shell"),
        (
            gemini,
            "/hooks/BeforeTool/0/hooks/0/command",
            "git lockfs pre-command --agent gemini",
        ),
        (
            |text| vscode(text, "/r/bin"),
            "/terminal.integrated.env.linux/PATH",
            "/r/bin:",
        ),
    ];

    #[test]
    fn settings_keep_what_they_had_and_are_edited_once() {
        let old = r#"{"model":"x","version":1,"hooks":{"SessionStart":[],"PreToolUse":[],"preToolUse":[],"BeforeTool":[]},
            "terminal.integrated.env.linux":{"PATH":"/a","B":"c"}}"#;
        for (change, pointer, word) in CHANGES {
            for old in [None, Some(old)] {
                let text = change(old).expect("edited");
                let value: Value = serde_json::from_str(&text).expect("JSON");
                let said = value.pointer(pointer).and_then(Value::as_str);
                assert!(
                    said.is_some_and(|said| said.contains(word)),
                    "{pointer} says {word}: {text}"
                );
                assert_eq!(change(Some(&text)).expect("again"), text, "twice is once");
                if old.is_some() {
                    assert_eq!((&value["model"], &value["version"]), (&json!("x"), &json!(1)));
                    assert_eq!(value["terminal.integrated.env.linux"]["B"], "c");
                }
            }
        }
    }

    #[test]
    fn a_path_that_is_set_already_is_kept_behind_ours() {
        let edited = codex(
            Some("model = \"x\"\n[shell_environment_policy]\nset = { PATH = \"/a\" }\n"),
            "/r/bin",
        );
        let edited = edited.expect("edited");
        assert!(edited.ends_with("set = { PATH = \"/r/bin:/a\" }\n"), "{edited}");
        assert_eq!(codex(Some(&edited), "/r/bin").expect("again"), edited);
        let fresh: toml_edit::DocumentMut = codex(None, "/r/bin").expect("made").parse().expect("TOML");
        let path = fresh["shell_environment_policy"]["set"]["PATH"]
            .as_str()
            .expect("a string");
        assert!(path.starts_with("/r/bin:/"), "{path}");
    }
}
