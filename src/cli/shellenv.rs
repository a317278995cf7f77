//! `git lockfs shellenv`: the line that puts our git first in a shell's PATH.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::ancestors::ancestors;
use super::install::{is_installed, shim_dir};
use super::place::Place;

/// Print what puts the git of install first in PATH
///
/// bash, zsh, dash: eval "$(git lockfs shellenv)"; fish: git lockfs shellenv | source
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For this shell [default: the one that asks]
    #[arg(long, value_enum)]
    shell: Option<Shell>,
}

/// A grammar of shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// bash
    Bash,
    /// dash, and every other shell of POSIX's grammar
    #[value(alias = "sh", alias = "ksh", alias = "busybox")]
    Dash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let place = Place::find()?;
    if !is_installed(&place) {
        bail!("nothing is installed here: start with `git lockfs install`");
    }
    let text = render(args.shell.unwrap_or_else(asking), &shim_dir(&place))?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The nearest shell above us; git is between.
fn asking() -> Shell {
    let known = |name: &str| <Shell as ValueEnum>::from_str(name, false).ok();
    let above = ancestors();
    above
        .iter()
        .find_map(|ancestor| known(&ancestor.name))
        .unwrap_or(Shell::Dash)
}

fn render(shell: Shell, shims: &Path) -> Result<String> {
    let shims = shims.to_str().context("the repository's path is not UTF-8")?;
    if shims.contains(':') {
        bail!("{shims} has a colon, which PATH cannot hold");
    }
    Ok(match shell {
        Shell::Fish => {
            // In single quotes fish knows two escapes.
            let quoted = format!("'{}'", shims.replace('\\', "\\\\").replace('\'', "\\'"));
            format!("contains -- {quoted} $PATH; or set -gx PATH {quoted} $PATH\n")
        }
        Shell::Bash | Shell::Dash | Shell::Zsh => {
            let quoted = shell_words::quote(shims);
            format!("case \":$PATH:\" in *:{quoted}:*) ;; *) export PATH={quoted}:\"$PATH\" ;; esac\n")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_as_the_shell_wants_it() {
        let odd = Path::new("/a b/it's\\x");
        assert!(render(Shell::Fish, odd).expect("fish").contains(r"'/a b/it\'s\\x'"));
        let posix = render(Shell::Bash, odd).expect("bash");
        assert!(posix.contains(&*shell_words::quote("/a b/it's\\x")), "{posix}");
        assert!(render(Shell::Zsh, Path::new("/a:b")).is_err());
    }
}
