//! `git lockfs uninstall`: takes back what `install` did.

use std::fs;
use std::io::ErrorKind;
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
    Ok(ExitCode::SUCCESS)
}
