//! `git lockfs install`: a `git` that comes first in PATH and takes the locks by itself, for this repository.
//!
//! What is put there is written down in a manifest before it is put there, with what was there before, so that
//! `uninstall` takes it all back, byte for byte. Nothing outside of the state directory is touched, except the settings
//! files that `--agent` names and shows.

pub mod agents;
pub mod manifest;
mod settings;

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::daemon::make_state_dir;
use super::hook;
use super::place::Place;
use crate::adapters::read_settings;
use agents::Agent;
use manifest::{Edit, Manifest};

/// Set up a git that takes locks by itself
///
/// Then, in each shell: eval "$(git lockfs shellenv)". Plain `git commit` is coordinated there, in every worktree.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also edit the project settings of this tool, so that its commands find that git; repeat for several
    #[arg(long = "agent", value_name = "NAME", value_enum)]
    agents: Vec<Agent>,
    /// Write the settings of tools without a question, also at a terminal
    #[arg(short, long)]
    yes: bool,
    /// Only show what would be written
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// The program that is nothing but that git.
const SHIM: &str = "git-lockfs-shim";

/// The directory that belongs before all others in PATH.
pub fn shim_dir(place: &Place) -> PathBuf {
    place.state_dir.join("bin")
}

/// Whether `install` has been here.
pub fn is_installed(place: &Place) -> bool {
    shim_dir(place).join("git").symlink_metadata().is_ok()
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let place = Place::find()?;
    let shims = shim_dir(&place);
    let mut edits = Vec::new();
    for agent in &args.agents {
        edits.extend(agent.edits(&shims)?);
    }
    edits.retain(|edit| !edit.is_done());
    let shown: String = edits.iter().map(Edit::shown).collect();
    io::stdout().write_all(shown.as_bytes())?;
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !edits.is_empty() && !args.yes && !is_wanted()? {
        bail!("nothing was written");
    }
    make_state_dir(&place.state_dir)?;
    let mut manifest = Manifest::read(&place)?;
    for edit in &edits {
        manifest.remember(edit);
        manifest.write(&place)?;
        edit.write()?;
    }
    manifest.write(&place)?;
    put_shim(&place)?;
    if read_settings(&place.common_dir)?.enforce {
        for line in hook::install(&place)? {
            writeln!(io::stdout(), "git-lockfs: {line}")?;
        }
    }
    let next = "git-lockfs: installed; in your shell: eval \"$(git lockfs shellenv)\"\n";
    io::stdout().write_all(next.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Asks whoever sits at the terminal. Where nobody does, naming the tool is the answer.
fn is_wanted() -> Result<bool> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(true);
    }
    eprint!("Write this? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// A link to our program by the name of git; replaced at once, so that no shell finds it missing meanwhile.
fn put_shim(place: &Place) -> Result<()> {
    let shims = shim_dir(place);
    fs::create_dir_all(&shims).with_context(|| shims.display().to_string())?;
    let own = std::env::current_exe().context("where this program is")?;
    // The small one lies beside; without it we do the same under that name, and start more slowly.
    let small = own.with_file_name(SHIM);
    let program = if small.exists() { small } else { own };
    let aside = shims.join(format!(".git.{}", std::process::id()));
    symlink(&program, &aside).with_context(|| aside.display().to_string())?;
    let shim = shims.join("git");
    fs::rename(&aside, &shim).with_context(|| shim.display().to_string())
}
