//! `git lockfs uninstall`: takes back what `install` did.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::hook;
use super::install::manifest::Manifest;
use super::install::shim_dir;
use super::place::Place;

/// Take back everything that install did
///
/// Files come back byte for byte. One that was changed since is left, named, and makes the exit code 1.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Carries out the subcommand.
pub fn run(_: &Args) -> Result<ExitCode> {
    let place = Place::find()?;
    hook::uninstall(&place)?;
    let kept = Manifest::read(&place)?.take_back(&place)?;
    for directory in [shim_dir(&place), place.state_dir.join("unmounted")] {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    // The state of a mount stays; without one the directory was made by `install`.
    let _ = fs::remove_dir(&place.state_dir);
    if !kept.is_empty() {
        let paths: Vec<String> = kept.iter().map(|path| path.display().to_string()).collect();
        bail!(
            "changed since it was installed, take our lines out by hand: {}",
            paths.join(", ")
        );
    }
    if is_in_path(&shim_dir(&place)) {
        eprintln!("git-lockfs: this shell may still look for git there: hash -r");
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the shell that calls has evaluated `shellenv`: then it knows git by a path that is gone.
fn is_in_path(directory: &Path) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|part| part == directory))
}
