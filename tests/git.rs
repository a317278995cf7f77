//! git made safe: which locks a command takes, the git that takes them by itself, and what is built on both, on real
//! repositories and real mounts.

#[path = "support/mod.rs"]
mod support;

#[path = "git/agents.rs"]
mod agents;
#[path = "git/fetch.rs"]
mod fetch;
#[path = "git/install.rs"]
mod install;
#[path = "git/issues.rs"]
mod issues;
#[path = "git/many.rs"]
mod many;
#[path = "git/reftable.rs"]
mod reftable;
#[path = "git/safe.rs"]
mod safe;
#[path = "git/scope.rs"]
mod scope;
#[path = "git/shim.rs"]
mod shim;
#[path = "git/validated.rs"]
mod validated;

use std::path::Path;
use std::process::Output;

use support::{Mount, Repository, Said};

/// A hook that writes down what is locked while git runs, and what git would have to wait for.
const WRITE_DOWN: &str =
    "#!/bin/sh\nls \"$L\" > \"$T/held\"\nenv > \"$T/env\"\ngit config core.filesRefLockTimeout > \"$T/timeout\"\n";

/// Puts a hook there.
fn hook(repository: &Repository, name: &str, script: &str) {
    let path = repository.repo().join(".git/hooks").join(name);
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
    std::fs::write(&path, script).expect("a hook");
    let mut permissions = std::fs::metadata(&path).expect("it was written").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&path, permissions).expect("it is ours");
}

/// What the hook has written down.
fn written(repository: &Repository, name: &str) -> String {
    std::fs::read_to_string(repository.dir().join(name)).unwrap_or_default()
}

/// `git lockfs git -- ARGS`, in the main worktree.
fn safe_git(repository: &Repository, args: &[&str]) -> Output {
    repository.lockfs(&[&["git", "--"], args].concat())
}

/// A repository with a file that is committed.
fn with_file() -> Repository {
    let repository = Repository::new();
    std::fs::write(repository.repo().join("file"), "one\n").expect("a file");
    repository.git(&["add", "file"]);
    repository.git(&["commit", "-q", "-m", "file"]);
    repository
}

/// The same, mounted and installed.
fn installed() -> Mount {
    let mount = Mount::start(with_file(), &[], &[]);
    mount.lockfs(&["install"]).ok();
    mount
}

/// A script that runs with our git first in PATH.
fn with_shim(script: &str) -> String {
    format!("eval \"$($LOCKFS shellenv --shell bash)\"; {script}")
}

fn exists(path: impl AsRef<Path>) -> bool {
    path.as_ref().symlink_metadata().is_ok()
}
