//! Commands that remove a lock file of git's own, such as `rm -f .git/index.lock`.
//!
//! git leaves such a file behind when it is killed, and then only a person can remove it. While a git of somebody who
//! takes locks here is at work, the file is its, and removing it lets two gits write one index. Which of the two it is
//! the mount can tell.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::adapters::Repository;
use crate::cli::client::Mount;
use crate::cli::place::{MOUNT_NAME, Place};
use crate::cli::report;
use crate::scopes::{Surroundings, ref_lock};

/// What removes a file, or moves it out of the way.
const REMOVERS: &[&str] = &["rm", "unlink", "mv"];
/// The end of the names of git's lock files.
const SUFFIX: &str = ".lock";
/// What separates commands, with or without blanks about it.
const SEPARATORS: &[char] = &[';', '&', '|', '(', ')'];

/// Whether a command line may remove a lock file, as far as that is seen without a look at any file.
pub fn is_possible(command: &str) -> bool {
    command.contains(SUFFIX) && words(command).iter().any(|word| is_remover(word))
}

/// Why it may not; `None` when nobody holds what the file guards.
pub fn refuse(command: &str, repository: &Repository) -> Option<String> {
    let files: Vec<PathBuf> = words(command)
        .iter()
        .flat_map(|word| lock_files(word, repository))
        .collect();
    if files.is_empty() {
        return None;
    }
    let mount = Mount::hoped_for(Place::of(repository.common_dir.clone()))?;
    let snapshot = mount.snapshot().ok()?;
    files.iter().find_map(|file| {
        let guards = guards(file, repository);
        let holders = report::holders_of(&snapshot, guards.iter().map(String::as_str));
        (!holders.is_empty()).then(|| {
            format!(
                "{} is no leftover, and stays: {}; wait for that, or see `git lockfs status`",
                file.display(),
                holders.join(", ")
            )
        })
    })
}

/// The words of a command line, as a shell would split them; none when it does not end its quotes.
fn words(command: &str) -> Vec<String> {
    let words = shell_words::split(command).unwrap_or_default();
    let parts = words.iter().flat_map(|word| word.split(SEPARATORS));
    parts.map(str::to_owned).collect()
}

fn is_remover(word: &str) -> bool {
    REMOVERS.contains(&word.rsplit('/').next().unwrap_or(word))
}

/// The lock files of git that a word names: one by its path, or with a `*` all that fit in that directory.
fn lock_files(word: &str, repository: &Repository) -> Vec<PathBuf> {
    let path = repository.directory.join(word);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
        return Vec::new();
    };
    // The files of the mount end likewise, and removing one of them gives a lock back.
    if !name.ends_with(SUFFIX) || parent.components().any(|part| part.as_os_str() == MOUNT_NAME) {
        return Vec::new();
    }
    let Some(parent) = parent
        .canonicalize()
        .ok()
        .filter(|parent| is_in_git(parent, repository))
    else {
        return Vec::new();
    };
    let Some((start, end)) = name.split_once('*') else {
        let file = parent.join(name);
        return file.symlink_metadata().is_ok().then_some(file).into_iter().collect();
    };
    let entries = parent.read_dir().into_iter().flatten().flatten();
    let fits = |name: &OsStr| {
        name.to_str()
            .is_some_and(|name| name.starts_with(start) && name.ends_with(end))
    };
    entries
        .filter(|entry| fits(&entry.file_name()))
        .map(|entry| entry.path())
        .collect()
}

fn is_in_git(directory: &Path, repository: &Repository) -> bool {
    let roots = [&repository.git_dir, &repository.common_dir];
    roots
        .iter()
        .any(|root| root.canonicalize().is_ok_and(|root| directory.starts_with(root)))
}

/// The locks that a git has while it has the file.
fn guards(file: &Path, repository: &Repository) -> Vec<String> {
    let below = |root: &Path| Some(file.strip_prefix(root.canonicalize().ok()?).ok()?.to_owned());
    let in_common = below(&repository.common_dir).unwrap_or_default();
    let in_worktree = below(&repository.git_dir).unwrap_or_default();
    let ref_name = in_common
        .to_str()
        .and_then(|name| name.strip_suffix(SUFFIX))
        .filter(|name| name.starts_with("refs/"));
    let own = match (in_common.to_str(), ref_name) {
        (_, Some(name)) => ref_lock(name).to_string(),
        // Every git that writes objects or packed refs has this one, most of them shared.
        (Some("packed-refs.lock" | "objects/maintenance.lock" | "gc.pid.lock"), None) => "maintenance.lock".to_owned(),
        (Some(name @ ("config.lock" | "shallow.lock")), None) => name.to_owned(),
        _ if in_worktree.components().count() == 1 => repository.worktree().to_string(),
        // Of another worktree.
        _ => {
            let mut parts = in_common.iter().map(OsStr::to_string_lossy);
            match (parts.next().as_deref(), parts.next()) {
                (Some("worktrees"), Some(id)) => crate::scopes::worktree_lock(Some(&id)).to_string(),
                _ => repository.worktree().to_string(),
            }
        }
    };
    vec![own, "global.lock".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_is_seen_among_other_commands() {
        for command in [
            "rm -f .git/index.lock",
            "cd x; /bin/rm .git/a.lock;ls",
            "ls && unlink .git/x.lock",
        ] {
            assert!(is_possible(command), "{command}");
        }
        for command in [
            "cat .git/index.lock",
            "rm -r target",
            "git commit -m 'rm the x.lock'",
            "rm 'x.lock",
        ] {
            assert!(!is_possible(command), "{command}");
        }
    }
}
