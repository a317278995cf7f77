//! The updates that git hands to the hook, a line each: `OLD NEW REF`.

/// One ref that git is about to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// What it has now as far as git was told; zeros also when it was not.
    pub old: String,
    /// What it gets; zeros remove it.
    pub new: String,
    /// Its full name.
    pub name: String,
}

/// What branches and tags are in: the refs that several worktrees share and people work on. Remote-tracking refs belong
/// to fetch, and all others (HEAD, notes, the stash, git's own marks) to one worktree or to nobody.
const GUARDED: &[&str] = &["refs/heads/", "refs/tags/"];

impl Update {
    /// Whether it needs a lock.
    pub fn is_guarded(&self) -> bool {
        // The same value on both sides moves nothing: a lock on the ref, or a line in its log.
        GUARDED.iter().any(|prefix| self.name.starts_with(prefix)) && (self.old != self.new || self.removes())
    }

    /// Whether it removes the ref.
    pub fn removes(&self) -> bool {
        is_zero(&self.new)
    }
}

/// Whether an object's name is that of no object.
pub fn is_zero(object: &str) -> bool {
    object.bytes().all(|digit| digit == b'0')
}

/// Reads all lines; fails with the first that is none.
pub fn parse(input: &[u8]) -> Result<Vec<Update>, String> {
    let lines = input.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            // A name that is no UTF-8 is read with replacement characters: it is guarded, and fits no lock's name.
            let line = String::from_utf8_lossy(line);
            let mut words = line.splitn(3, ' ').map(str::to_owned);
            match (words.next(), words.next(), words.next()) {
                (Some(old), Some(new), Some(name)) if !name.is_empty() => Ok(Update { old, new, name }),
                _ => Err(line.into_owned()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_and_tags_are_guarded_and_nothing_else() {
        let input = b"00 aa refs/heads/main\naa bb refs/tags/v1\naa bb refs/remotes/origin/main\naa bb HEAD\n\
            00 ref:refs/heads/x HEAD\naa aa refs/heads/same\n00 00 refs/heads/gone\naa bb refs/stash\n";
        let updates = parse(input).expect("as git writes it");
        let guarded: Vec<&str> = updates
            .iter()
            .filter(|update| update.is_guarded())
            .map(|update| update.name.as_str())
            .collect();
        assert_eq!(guarded, ["refs/heads/main", "refs/tags/v1", "refs/heads/gone"]);
        assert!(parse(b"").expect("nothing").is_empty());
    }

    #[test]
    fn what_is_no_update_is_refused() {
        for bad in [&b"aa bb\n"[..], b"x\n", b"aa bb \n"] {
            assert!(parse(bad).is_err());
        }
    }
}
