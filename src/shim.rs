//! The git that `git lockfs install` puts first in PATH: the program without all that it does not need for that, so
//! that it starts quickly.

fn main() -> std::process::ExitCode {
    git_lockfs::cli::run_as_git()
}
