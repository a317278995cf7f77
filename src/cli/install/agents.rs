//! The project settings of tools that run git commands by themselves: what makes their shells find our git.
//!
//! Each is one edit of one file that the tool reads from the worktree. A file that cannot be understood is refused,
//! with the lines to add by hand.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::super::place;
use super::manifest::Edit;

/// A tool with project settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Agent {
    /// Claude Code: .claude/settings.local.json
    Claude,
    /// Codex CLI: .codex/config.toml
    Codex,
    /// The terminals of VS Code and what derives from it: .vscode/settings.json
    Vscode,
}

impl Agent {
    /// The edit that makes its shells find the git in `shims`.
    pub fn edit(self, shims: &Path) -> Result<Edit> {
        let top = top_level()?;
        let shims = shims.to_str().context("the repository's path is not UTF-8")?;
        match self {
            Self::Claude => Edit::of(top.join(".claude/settings.local.json"), claude),
            Self::Codex => Edit::of(top.join(".codex/config.toml"), |text| codex(text, shims)),
            Self::Vscode => Edit::of(top.join(".vscode/settings.json"), |text| vscode(text, shims)),
        }
    }
}

fn top_level() -> Result<std::path::PathBuf> {
    let output = place::git().args(["rev-parse", "--show-toplevel"]).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let path = String::from_utf8(output.stdout).context("the worktree's path is not UTF-8")?;
    Ok(path.trim_end_matches('\n').into())
}

/// What runs when a session starts: its mount, and the environment of its later commands.
const CLAUDE_HOOK: &str = "git lockfs mount >/dev/null 2>&1; git lockfs shellenv --shell bash >> \"$CLAUDE_ENV_FILE\"";

fn claude(text: Option<&str>) -> Result<String> {
    let mut settings = object(text)?;
    let hooks = settings.entry("hooks").or_insert_with(|| json!({}));
    let start = hooks.as_object_mut().context("hooks is no object")?;
    let start = start.entry("SessionStart").or_insert_with(|| json!([]));
    let start = start.as_array_mut().context("hooks.SessionStart is no array")?;
    let ours = json!({ "hooks": [{ "type": "command", "command": CLAUDE_HOOK }] });
    if start.contains(&ours) {
        return Ok(text.unwrap_or_default().to_owned());
    }
    start.push(ours);
    rendered(settings)
}

fn vscode(text: Option<&str>, shims: &str) -> Result<String> {
    let mut settings = object(text)?;
    let environment = settings
        .entry("terminal.integrated.env.linux")
        .or_insert_with(|| json!({}));
    let environment = environment
        .as_object_mut()
        .context("terminal.integrated.env.linux is no object")?;
    let path = match environment.get("PATH").and_then(Value::as_str) {
        Some(path) if path.split(':').any(|dir| dir == shims) => return Ok(text.unwrap_or_default().to_owned()),
        Some(path) => format!("{shims}:{path}"),
        None => format!("{shims}:${{env:PATH}}"),
    };
    environment.insert("PATH".to_owned(), path.into());
    rendered(settings)
}

/// Its settings know no reference to the PATH that it was started with, so that of the moment is written.
fn codex(text: Option<&str>, shims: &str) -> Result<String> {
    let text = text.unwrap_or_default();
    if text.contains(shims) {
        return Ok(text.to_owned());
    }
    let path = std::env::var("PATH").context("PATH")?;
    let section = "[shell_environment_policy]";
    // A basic string of TOML and one of JSON agree in what a path may have.
    let line = format!("set = {{ PATH = {} }}", Value::from(format!("{shims}:{path}")));
    if text
        .lines()
        .any(|known| known.trim_start().starts_with("[shell_environment_policy"))
    {
        bail!("it has a {section} already; add to it by hand: {line}");
    }
    let gap = if text.is_empty() || text.ends_with("\n\n") {
        ""
    } else if text.ends_with('\n') {
        "\n"
    } else {
        "\n\n"
    };
    Ok(format!("{text}{gap}{section}\n{line}\n"))
}

fn object(text: Option<&str>) -> Result<Map<String, Value>> {
    match text.map(str::trim) {
        None | Some("") => Ok(Map::new()),
        Some(text) => serde_json::from_str(text).context("it is no plain JSON object, so it is left as it is"),
    }
}

fn rendered(settings: Map<String, Value>) -> Result<String> {
    Ok(serde_json::to_string_pretty(&Value::Object(settings))? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_keep_what_they_had_and_are_edited_once() {
        let old = r#"{"model":"x","hooks":{"SessionStart":[{"hooks":[]}]},"terminal.integrated.env.linux":{"PATH":"/a","B":"c"}}"#;
        type Change = fn(Option<&str>) -> Result<String>;
        let changes: [(Change, &str); 2] = [(claude, "CLAUDE_ENV_FILE"), (|text| vscode(text, "/r/bin"), "/r/bin:")];
        for (change, word) in changes {
            let fresh = change(None).expect("a new file");
            assert!(fresh.contains(word), "{fresh}");
            assert_eq!(change(Some(&fresh)).expect("again"), fresh);
            let edited: Value = serde_json::from_str(&change(Some(old)).expect("an old file")).expect("JSON");
            assert_eq!(edited["model"], "x");
            assert_eq!(edited["terminal.integrated.env.linux"]["B"], "c");
            assert!(
                change(Some("// a remark\n{}")).is_err(),
                "what is not understood is left alone"
            );
        }
    }

    #[test]
    fn a_toml_file_gets_its_section_at_the_end_or_is_left_alone() {
        let edited = codex(Some("model = \"x\"\n"), "/r/bin").expect("edited");
        assert!(
            edited.starts_with("model = \"x\"\n\n[shell_environment_policy]\nset = { PATH = \"/r/bin:"),
            "{edited}"
        );
        assert_eq!(codex(Some(&edited), "/r/bin").expect("again"), edited);
        let error = codex(Some("[shell_environment_policy]\n"), "/r/bin").expect_err("has one");
        assert!(format!("{error:#}").contains("set = { PATH"), "{error:#}");
    }
}
