//! The check after a commit: whether it has the files that were asked for, and no others.
//!
//! A hook that adds a file, or takes one out, is the usual reason. The commit stands; the difference is told.

use std::collections::BTreeMap;

use crate::cli::bounded::{LOOK_LIMIT, within};
use crate::cli::client::Mount;
use crate::view::requests::CommitWarning;

/// How many files a warning names, each way.
const NAMED_MAX: usize = 20;

/// How a commit differs from what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    /// Asked for, and not in the commit.
    missing: Vec<String>,
    /// In the commit, and not asked for.
    foreign: Vec<String>,
}

/// Warns on standard error when a commit has other files than were asked for, and has the mount count it.
pub fn warn<D, C>(mount: &Mount, commit: &str, declared: &BTreeMap<Vec<u8>, D>, committed: &BTreeMap<Vec<u8>, C>) {
    let Some(difference) = compare(declared, committed) else {
        return;
    };
    eprintln!("git-lockfs: warning: {}", difference.sentence(commit));
    let note = CommitWarning {
        commit: commit.to_owned(),
        missing: u32::try_from(difference.missing.len()).unwrap_or(u32::MAX),
        foreign: u32::try_from(difference.foreign.len()).unwrap_or(u32::MAX),
    };
    let mount = mount.clone();
    // It was said; a figure that cannot be had now is no reason to say more.
    let _ = within(LOOK_LIMIT, move || {
        mount.control(&format!("note {} {note}", CommitWarning::EVENT))
    });
}

fn compare<D, C>(declared: &BTreeMap<Vec<u8>, D>, committed: &BTreeMap<Vec<u8>, C>) -> Option<Difference> {
    let missing = only_in(declared, committed);
    let foreign = only_in(committed, declared);
    (!missing.is_empty() || !foreign.is_empty()).then_some(Difference { missing, foreign })
}

/// The paths that are in the one and not in the other.
fn only_in<H, T>(here: &BTreeMap<Vec<u8>, H>, there: &BTreeMap<Vec<u8>, T>) -> Vec<String> {
    let only = here.keys().filter(|path| !there.contains_key(*path));
    only.map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

impl Difference {
    fn sentence(&self, commit: &str) -> String {
        let missing = named(&self.missing);
        let foreign = named(&self.foreign);
        let event = CommitWarning::EVENT;
        format!("{event}: commit={commit} missing={missing} foreign={foreign}")
    }
}

/// The names as one word of a shell: separated by commas, with `-` for none.
fn named(paths: &[String]) -> String {
    if paths.is_empty() {
        return "-".to_owned();
    }
    let more = paths.len().saturating_sub(NAMED_MAX);
    let mut names: Vec<String> = paths.iter().take(NAMED_MAX).cloned().collect();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    shell_words::quote(&names.join(",")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::changes::sample as changes;
    use super::*;

    #[test]
    fn missing_and_foreign_files_are_told_apart() {
        assert_eq!(compare(&changes(&["a", "b"]), &changes(&["b", "a"])), None);
        let difference = compare(&changes(&["a", "b c"]), &changes(&["a", "d"])).expect("they differ");
        assert_eq!(
            difference.sentence("1234"),
            "git_commit_validation_warning: commit=1234 missing='b c' foreign=d"
        );
        let difference = compare(&changes(&[]), &changes(&["d"])).expect("they differ");
        assert_eq!(difference.sentence("1").split(' ').nth(2), Some("missing=-"));
    }

    #[test]
    fn a_warning_is_bounded() {
        let many: Vec<String> = (0..30).map(|number| format!("f{number:02}")).collect();
        assert!(named(&many).ends_with(",f19,and 10 more'"), "{}", named(&many));
    }
}
