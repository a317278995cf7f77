//! Whether the git of `install` is the one that this shell finds.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::Check;
use crate::cli::install::{is_installed, shim_dir};
use crate::cli::place::{self, Place};
use crate::cli::worktree::ask;

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
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = first_git(&path, exec_path().as_deref());
    Some(match found {
        Some(found) if is_same(&found, &shim) => Check::ok(NAME, format!("git is {}", shim.display())),
        Some(found) => Check::warn(
            NAME,
            format!("git is {} in this shell, which takes no locks", found.display()),
            FIX,
        ),
        None => Check::warn(NAME, "there is no git in PATH", FIX),
    })
}

/// The first git in PATH. git puts the directory of its own programs before the PATH of what it starts, as it does when
/// we are called as `git lockfs`: that one is passed over.
fn first_git(path: &OsStr, exec_path: Option<&Path>) -> Option<PathBuf> {
    let is_gits_own = |dir: &PathBuf| exec_path.is_some_and(|own| is_same(dir, own));
    let mut dirs = std::env::split_paths(path).filter(|dir| !is_gits_own(dir));
    dirs.find_map(|dir| Some(dir.join("git")).filter(|git| git.is_file() && access(git, AccessFlags::X_OK).is_ok()))
}

fn exec_path() -> Option<PathBuf> {
    let answer = ask(place::git().arg("--exec-path"), b"").ok()?;
    Some(PathBuf::from(OsStr::from_bytes(answer.trim_ascii_end())))
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
    fn the_directory_of_gits_own_programs_is_passed_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for name in ["core", "plain", "ours"] {
            std::fs::create_dir(at(name)).expect("a directory");
        }
        std::fs::write(at("plain").join("git"), "not executable").expect("a file");
        for name in ["core", "ours"] {
            std::os::unix::fs::symlink("/bin/true", at(name).join("git")).expect("a link");
        }
        let path = std::env::join_paths(["core", "plain", "missing", "ours"].map(at)).expect("a PATH");
        assert_eq!(first_git(&path, Some(&at("core"))), Some(at("ours").join("git")));
        assert_eq!(first_git(&path, None), Some(at("core").join("git")));
        assert!(
            !is_same(&at("core").join("git"), &at("ours").join("git")),
            "two links to one program are two"
        );
        assert!(is_same(&at("core").join("../ours/git"), &at("ours").join("git")));
    }
}
