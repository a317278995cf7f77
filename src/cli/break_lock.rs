//! `git lockfs break`: takes a lock away from its holder, explicitly.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::client::Mount;
use super::locks_json::Holder;
use super::report;
use crate::types::LockName;

/// Take a lock away from its holder
///
/// The holder's next use of its descriptor fails with ESTALE. A fencing token makes sure that the holder that is hit
/// is the one that was meant; without one, the lock must have exactly one holder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The lock, by its exact name
    #[arg(value_name = "LOCK", value_parser = super::lock_name)]
    lock: LockName,
    /// Only if this is the holder's fencing token
    #[arg(long, value_name = "N")]
    token: Option<u64>,
    /// Why, for the log and for the former holder
    #[arg(long, value_name = "TEXT", default_value = "git lockfs break")]
    reason: String,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mount = Mount::find()?;
    let name = args.lock.as_str();
    let snapshot = mount.snapshot()?;
    let meant: Vec<_> = snapshot
        .holders(name)
        .iter()
        .filter(|holder| args.token.is_none_or(|token| token == holder.token))
        .collect();
    let holder = match (meant.as_slice(), args.token) {
        ([holder, ..], Some(_)) | ([holder], None) => holder,
        ([], Some(token)) => bail!(
            "{name} is not held with token {token}{}",
            held_by_others(report::holders_of(&snapshot, [name]))
        ),
        ([], None) => bail!("{name} is not held"),
        (several, None) => {
            let line = |holder: &&Holder| format!("--token {}: {}", holder.token, report::held_by(holder));
            let lines: Vec<String> = several.iter().map(line).collect();
            bail!(
                "{name} has {} holders, say which:\n  {}",
                lines.len(),
                lines.join("\n  ")
            );
        }
    };
    mount.control(&format!("break {name} {} {}", holder.token, one_line(&args.reason)))?;
    writeln!(io::stdout(), "broke {name}, {}", report::held_by(holder))?;
    Ok(ExitCode::SUCCESS)
}

fn held_by_others(sentences: Vec<String>) -> String {
    match sentences.as_slice() {
        [] => String::new(),
        some => format!(":\n  {}", some.join("\n  ")),
    }
}

/// `control` takes one verb a line.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}
