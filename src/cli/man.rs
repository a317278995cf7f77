//! `git lockfs man`: the pages, from inside the program, so that they are there wherever it is.
//!
//! `git lockfs --help` never reaches us: git itself runs `man git-lockfs` for it, which needs the pages in the
//! search path of man(1). `git-lockfs --help` does reach us.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::roff;

/// Show a man page
#[derive(Debug, clap::Args)]
pub struct Args {
    /// 1: the commands; 5: the file interface
    #[arg(value_enum, default_value = "1")]
    page: Page,
}

/// A page by its section, or by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Page {
    /// The commands
    #[value(name = "1", alias = "git-lockfs", alias = "git-lockfs.1")]
    Commands,
    /// The file interface
    #[value(name = "5", alias = "git-lockfs.5")]
    Files,
}

/// git-lockfs(1), in man(7).
pub const COMMANDS: &str = include_str!("../../man/git-lockfs.1");
/// git-lockfs(5), in man(7).
pub const FILES: &str = include_str!("../../man/git-lockfs.5");

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    show(args.page)
}

/// Whether `git-lockfs --help` should open the page: on a terminal, with nothing else asked.
pub fn is_wanted(arguments: &[std::ffi::OsString]) -> bool {
    matches!(arguments, [only] if only == "--help") && io::stdout().is_terminal()
}

/// Opens the page with man(1) on a terminal; elsewhere, or without man(1), prints it as plain text.
pub fn show(page: Page) -> Result<ExitCode> {
    let text = match page {
        Page::Commands => COMMANDS,
        Page::Files => FILES,
    };
    if io::stdout().is_terminal() {
        match Command::new("man").args(["-l", "-"]).stdin(Stdio::piped()).spawn() {
            Ok(mut man) => {
                if let Some(mut input) = man.stdin.take() {
                    // A pager that is left early does not read to the end; its exit code says how it went.
                    let _ = input.write_all(text.as_bytes());
                }
                if man.wait().context("man")?.success() {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("man"),
        }
    }
    io::stdout().write_all(roff::plain(text).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
