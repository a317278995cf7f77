//! `git lockfs completions`: generated from the same definitions as the help.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

/// Print completions for a shell
///
/// bash: `git lockfs completions bash > ~/.local/share/bash-completion/completions/git-lockfs`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// What git's own completion for bash calls for `git lockfs <TAB>`: the words after `git`, as our own function wants
/// them. zsh's finds the completions of `git-lockfs` by itself.
const BASH_FOR_GIT: &str = r#"
_git_lockfs() {
    local at=${__git_cmd_idx:-1}
    local COMP_WORDS=(git-lockfs "${words[@]:at+1}") COMP_CWORD=$((cword - at))
    _lockfs git-lockfs "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
}
"#;

/// The same for fish, where git's own completion before fish 4 looks for the program under a wrong name.
const FISH_FOR_GIT: &str =
    "complete -c git -f -n '__fish_git_using_command lockfs' -a '(__fish_git_complete_custom_command lockfs)'\n";

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    // Generated aside first: clap_complete panics when it cannot write.
    let mut script = Vec::new();
    let mut command = super::Cli::command();
    if args.shell == Shell::Bash {
        // clap_complete 4.6 mixes up its own labels for a name with a hyphen, and then completes no subcommand.
        clap_complete::generate(args.shell, &mut command, "lockfs", &mut script);
        let script = String::from_utf8(script)?.replace(" -o default lockfs\n", " -o default git-lockfs\n");
        io::stdout().write_all((script + BASH_FOR_GIT).as_bytes())?;
    } else {
        clap_complete::generate(args.shell, &mut command, "git-lockfs", &mut script);
        if args.shell == Shell::Fish {
            script.extend_from_slice(FISH_FOR_GIT.as_bytes());
        }
        io::stdout().write_all(&script)?;
    }
    Ok(ExitCode::SUCCESS)
}
