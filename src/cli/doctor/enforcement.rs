//! Whether refs are guarded where they are meant to be: the hook is made to fire, in every worktree.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Check;
use crate::adapters::read_settings;
use crate::cli::hook;
use crate::cli::place::{self, Place};
use crate::cli::worktree::ask;

/// How many worktrees are tried.
const WORKTREES_MAX: usize = 32;

/// `None` where nothing is to be enforced.
pub fn check(place: &Place) -> Option<Check> {
    let settings = read_settings(&place.common_dir).ok()?;
    if !settings.enforce {
        return None;
    }
    let fix = "git lockfs hook install";
    let mut tried = 0;
    for worktree in worktrees(place) {
        let shown = worktree.display();
        match hook::fires(&worktree) {
            Ok(true) => tried += 1,
            Ok(false) => {
                let finding = format!("lockfs.enforce is true, and the hook does not fire in {shown}");
                return Some(Check::fail("enforcement", finding, fix));
            }
            Err(error) => return Some(Check::fail("enforcement", format!("{shown}: {error:#}"), fix)),
        }
    }
    Some(Check::ok(
        "enforcement",
        format!("the hook fires, seen in {tried} worktrees"),
    ))
}

/// All that are there, or the repository itself when git lists none.
fn worktrees(place: &Place) -> Vec<PathBuf> {
    let mut list = place::git();
    list.args(["worktree", "list", "--porcelain", "-z"]);
    let listed = ask(&mut list, b"").unwrap_or_default();
    let lines = listed.split(|&byte| byte == 0);
    let paths = lines.filter_map(|line| line.strip_prefix(b"worktree "));
    let mut worktrees: Vec<PathBuf> = paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
    worktrees.retain(|worktree| worktree.is_dir());
    worktrees.truncate(WORKTREES_MAX);
    if worktrees.is_empty() {
        worktrees.push(place.common_dir.clone());
    }
    worktrees
}
