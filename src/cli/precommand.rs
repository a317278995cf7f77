//! `git lockfs pre-command`: what a tool that runs commands by itself asks before each of them, as a hook in its settings.
//!
//! The tool writes an object of JSON, in which the command is, and reads the answer from the exit code and standard
//! output. Two things are answered to; everything else, and whatever is not understood, goes on as it is:
//!
//! * A command that mentions git, where the settings of the tool cannot put our git first in PATH: the same command with
//!   a PATH set before it. The rest of the command line is not touched, so nothing in it needs to be understood.
//! * A command that removes a lock file of git's own while somebody holds the lock of what it guards: refused, with
//!   who holds it. That file is no leftover.
//!
//! It stops accidents, not intent.

mod removal;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::bounded::{LOOK_LIMIT, within};
use super::install::agents::Agent;
use super::install::{is_installed, shim_dir};
use super::place::Place;
use crate::adapters::Repository;
use crate::scopes::Invocation;

/// How much of a question is read, in bytes.
const QUESTION_BYTES_MAX: u64 = 1 << 20;
/// The exit code that refuses, for each of the tools; what stands on standard error is the reason.
const EXIT_REFUSED: u8 = 2;

/// Answer a tool that asks before it runs a command
///
/// For the hook that install --agent puts into the tool's settings: reads the question from standard input, as that tool
/// writes it. Exits with 2 when the command is refused, else with 0.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The tool that asks
    #[arg(long, value_name = "NAME", value_enum)]
    agent: Agent,
}

/// The question, as far as the tools agree in it.
#[derive(Debug, Deserialize)]
struct Question {
    tool_input: Map<String, Value>,
    #[serde(default)]
    cwd: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Goes on as it is.
    Nothing,
    /// Goes on with this command in its place.
    Instead(String),
    /// Does not go on.
    Refused(String),
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut text = Vec::new();
    io::stdin().take(QUESTION_BYTES_MAX).read_to_end(&mut text)?;
    // A question that is none is the tool's affair; its commands are not held up for it.
    let Ok(question) = serde_json::from_slice::<Question>(&text) else {
        return say(&json!({}));
    };
    match answer(args.agent, &question) {
        Answer::Nothing => say(&json!({})),
        Answer::Instead(command) => say(&instead(args.agent, question, command)),
        Answer::Refused(reason) => {
            let reason = format!("git-lockfs: {reason}");
            eprintln!("{reason}");
            if args.agent == Agent::Cursor {
                // It takes the exit code alone for a refusal, and the words for its agent from here.
                say(&json!({ "permission": "deny", "user_message": reason, "agent_message": reason }))?;
            }
            Ok(ExitCode::from(EXIT_REFUSED))
        }
    }
}

fn say(answer: &Value) -> Result<ExitCode> {
    writeln!(io::stdout(), "{answer}")?;
    Ok(ExitCode::SUCCESS)
}

fn answer(agent: Agent, question: &Question) -> Answer {
    let Some(command) = question.tool_input.get("command").and_then(Value::as_str) else {
        return Answer::Nothing;
    };
    // Most commands have nothing to do with git: for them nothing more is looked at.
    if !command.contains("git") {
        return Answer::Nothing;
    }
    let Some(repository) = repository_of(question) else {
        return Answer::Nothing;
    };
    let place = Place::of(repository.common_dir.clone());
    let instead = (!agent.has_environment() && is_installed(&place) && mentions_git(command))
        .then(|| with_path(command, &shim_dir(&place)))
        .flatten();
    if removal::is_possible(command) {
        let command = command.to_owned();
        let reason = within(LOOK_LIMIT, move || removal::refuse(&command, &repository)).flatten();
        if let Some(reason) = reason {
            return Answer::Refused(reason);
        }
    }
    instead.map_or(Answer::Nothing, Answer::Instead)
}

/// The repository in which the command is going to run.
fn repository_of(question: &Question) -> Option<Repository> {
    let words = match &question.cwd {
        Some(directory) => vec!["-C".to_owned(), directory.to_str()?.to_owned()],
        None => Vec::new(),
    };
    Repository::find(&Invocation::parse(words))
}

/// Whether git is a word of a command line, in whatever place.
fn mentions_git(command: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    command.split(|c| !is_part(c)).any(|word| word == "git")
}

/// The same command, with our git first in its PATH; `None` where it is already. `export` with an assignment is
/// understood by every shell that the tools start, fish too.
fn with_path(command: &str, shims: &Path) -> Option<String> {
    let shims = shims.to_str().filter(|shims| !shims.contains(':'))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let is_there = command.contains(shims) || path.split(':').any(|directory| directory == shims);
    (!is_there).then(|| format!("export PATH={}:\"$PATH\"; {command}", shell_words::quote(shims)))
}

/// The answer that changes the command, as each tool reads it.
fn instead(agent: Agent, question: Question, command: String) -> Value {
    match agent {
        // The whole input, of which only the command is another.
        Agent::Cursor => {
            let mut input = question.tool_input;
            input.insert("command".to_owned(), command.into());
            json!({ "permission": "allow", "updated_input": input })
        }
        // What is given here is laid over the input.
        _ => json!({ "hookSpecificOutput": { "hookEventName": "BeforeTool", "tool_input": { "command": command } } }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_is_a_word_of_a_command_wherever_it_stands() {
        for command in [
            "git commit",
            "cd x && git add .",
            "(git status)",
            "x=$(git rev-parse HEAD)",
            "a;git b",
        ] {
            assert!(mentions_git(command), "{command}");
        }
        for command in ["cat .gitignore", "ls .git", "digit x", "git-foo", "./git", "make"] {
            assert!(!mentions_git(command), "{command}");
        }
    }

    #[test]
    fn a_command_is_not_touched_behind_its_path() {
        let command = "git commit -F - <<'EOF'\nit's \"x\"\nEOF\n";
        let changed = with_path(command, Path::new("/r/it's/bin")).expect("changed");
        assert!(changed.ends_with(command), "{changed}");
        assert!(
            changed.starts_with("export PATH='/r/it'\\''s/bin':\"$PATH\"; "),
            "{changed}"
        );
        assert_eq!(
            with_path(&changed.replace("'\\''", "'"), Path::new("/r/it's/bin")),
            None,
            "once is enough"
        );
        assert_eq!(with_path(command, Path::new("/a:b")), None, "no PATH can hold it");
    }
}
