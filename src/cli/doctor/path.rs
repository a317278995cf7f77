//! Whether the git of `install` is the one that this shell finds.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::Check;
use crate::cli::git::callers_path;
use crate::cli::install::{is_installed, shim_dir};
use crate::cli::place::Place;

const NAME: &str = "path";
/// What puts it first; fish has another word for it.
const FIX: &str = "eval \"$(git lockfs shellenv)\", in fish: git lockfs shellenv | source";

/// `None` where nothing is installed.
pub fn check(place: &Place) -> Option<Check> {
    if !is_installed(place) {
        return None;
    }
    let shim = shim_dir(place).join("git");
    if !shim.exists() {
        let finding = format!("{} leads to a program that is gone", shim.display());
        return Some(Check::fail(NAME, finding, "git lockfs install"));
    }
    Some(match first_git(&callers_path()) {
        Some(found) if is_same(&found, &shim) => Check::ok(NAME, format!("git is {}", shim.display())),
        Some(found) => Check::warn(
            NAME,
            format!("git is {} in this shell, which takes no locks", found.display()),
            FIX,
        ),
        None => Check::warn(NAME, "there is no git in PATH", FIX),
    })
}

/// The first program of that name in PATH.
fn first_git(path: &OsStr) -> Option<PathBuf> {
    let mut all = std::env::split_paths(path).map(|dir| dir.join("git"));
    all.find(|git| git.is_file() && access(git, AccessFlags::X_OK).is_ok())
}

/// Whether two paths are one file, without following a link at their end: ours is one.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    real(one).is_some_and(|one| Some(one) == real(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_program_counts_and_of_two_links_to_one_each_for_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for name in ["plain", "ours", "theirs"] {
            std::fs::create_dir(at(name)).expect("a directory");
        }
        std::fs::write(at("plain").join("git"), "not executable").expect("a file");
        for name in ["ours", "theirs"] {
            std::os::unix::fs::symlink("/bin/true", at(name).join("git")).expect("a link");
        }
        let path = std::env::join_paths(["plain", "missing", "ours", "theirs"].map(at)).expect("a PATH");
        assert_eq!(first_git(&path), Some(at("ours").join("git")));
        assert!(!is_same(&at("theirs").join("git"), &at("ours").join("git")));
        assert!(is_same(&at("theirs").join("../ours/git"), &at("ours").join("git")));
    }
}
