//! The processes above this one, and what of theirs this one runs within.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::client::Mount;
use super::held::Held;
use crate::types::LockName;

/// How far up a walk goes.
const ANCESTORS_MAX: usize = 64;

/// A process above this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Its PID.
    pub pid: u32,
    /// The name of its program, as the kernel has it: 15 bytes at most.
    pub name: String,
}

/// The processes above this one, nearest first, as far as they can be seen; never PID 1.
pub fn ancestors() -> Vec<Ancestor> {
    let mut line = Vec::new();
    let mut pid = std::os::unix::process::parent_id();
    while pid > 1 && line.len() < ANCESTORS_MAX {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((name, parent)) = name_and_parent(&stat) else {
            break;
        };
        line.push(Ancestor { pid, name });
        pid = parent;
    }
    line
}

/// The locks that a process above this one holds, or that this one has on a descriptor that it was given.
pub fn held_above(mount: &Mount) -> Result<Vec<Held>> {
    let snapshot = mount.snapshot()?;
    let mut above: Vec<u32> = ancestors().iter().map(|ancestor| ancestor.pid).collect();
    // A shell that became us without a fork.
    above.push(std::process::id());
    let given = given_descriptors();
    let mut held = Vec::new();
    for lock in &snapshot.locks {
        let has_descriptor = ["locks", "flock"]
            .iter()
            .any(|door| given.contains(&mount.file(door).join(&lock.name)));
        let Ok(name) = LockName::parse_lock(lock.name.as_bytes()) else {
            continue;
        };
        let passed_down = lock
            .holders
            .iter()
            .filter(|holder| has_descriptor || above.contains(&holder.pid));
        held.extend(passed_down.map(|holder| Held {
            name: name.clone(),
            token: holder.token,
            mode: holder.mode,
        }));
    }
    Ok(held)
}

/// What the open descriptors of this process are files of.
fn given_descriptors() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

/// The second and the fourth field of /proc/PID/stat; a name may have blanks and parentheses itself.
fn name_and_parent(stat: &str) -> Option<(String, u32)> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let parent = tail.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((name.to_owned(), parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_below_whoever_started_it() {
        assert_eq!(name_and_parent("7 (a (b) c) S 5 7"), Some(("a (b) c".to_owned(), 5)));
        assert_eq!(name_and_parent(""), None);
        let line = ancestors();
        assert_eq!(
            line.first().map(|parent| parent.pid),
            Some(std::os::unix::process::parent_id())
        );
    }
}
