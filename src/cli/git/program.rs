//! Which program is git, when we stand before it in PATH; and becoming it.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;
use nix::unistd::{AccessFlags, access};

use super::super::failure::failure;

/// Exit code when there is no such program, as a shell has it.
const EXIT_NOT_FOUND: u8 = 127;

/// The first git in PATH that is not this program.
pub fn real_git() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(&path).ok_or_else(|| failure(EXIT_NOT_FOUND, "there is no git in PATH but this one"))
}

fn find_in(path: &OsStr) -> Option<PathBuf> {
    let own = std::fs::metadata("/proc/self/exe")
        .ok()
        .map(|meta| (meta.dev(), meta.ino()));
    std::env::split_paths(path).map(|dir| dir.join("git")).find(|git| {
        let meta = std::fs::metadata(git).ok().filter(std::fs::Metadata::is_file);
        meta.is_some_and(|meta| own != Some((meta.dev(), meta.ino()))) && access(git, AccessFlags::X_OK).is_ok()
    })
}

/// Becomes git; returns only when that fails.
pub fn become_git(mut command: Command) -> Result<ExitCode> {
    let error = command.exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound {
        EXIT_NOT_FOUND
    } else {
        126
    };
    Err(failure(
        code,
        format!("{}: {error}", command.get_program().to_string_lossy()),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn this_program_under_the_name_of_git_is_passed_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for name in ["own", "plain", "real"] {
            std::fs::create_dir(at(name)).expect("a directory");
        }
        symlink("/proc/self/exe", at("own").join("git")).expect("a link");
        std::fs::write(at("plain").join("git"), "not executable").expect("a file");
        symlink("/bin/true", at("real").join("git")).expect("a link");
        let path = std::env::join_paths(["own", "missing", "plain", "real"].map(at)).expect("a PATH");
        assert_eq!(find_in(&path), Some(at("real").join("git")));
        assert_eq!(find_in(at("own").as_os_str()), None);
    }
}
