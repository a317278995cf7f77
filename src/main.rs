//! The binary: everything is in the library.

fn main() -> std::process::ExitCode {
    git_lockfs::cli::run()
}
