//! The names of git's scopes as locks: one lock a ref, one a worktree.

use crate::types::LockName;

/// The lock of the main worktree.
pub const MAIN_WORKTREE: &str = "main-worktree.lock";

/// The lock of a ref by its full name, such as `refs/heads/main`.
///
/// The name is written whole, `/` as `%2F` and `%` as `%25`. A ref that no lock's name can hold (it is too long, or has
/// a quote or a comma) gets one made of its hash; two such refs may share it, and then only wait for each other.
pub fn ref_lock(name: &str) -> LockName {
    let escaped = name.replace('%', "%25").replace('/', "%2F");
    LockName::parse_lock(format!("ref-{escaped}.lock").as_bytes()).unwrap_or_else(|_| {
        // No ref begins with `%`: every full name begins with `refs/` or is a word such as HEAD.
        let name = format!("ref-%25{:016x}.lock", fnv1a(name.as_bytes()));
        LockName::parse_lock(name.as_bytes()).expect("hexadecimal digits fit the grammar")
    })
}

/// The lock of a linked worktree by git's id of it, or of the main worktree; an id that no name can hold (it has a
/// blank or a quote) is made one by its hash.
pub fn worktree_lock(id: Option<&str>) -> LockName {
    let name = match id {
        None => MAIN_WORKTREE.to_owned(),
        Some(id) => format!("worktree-{id}.lock"),
    };
    LockName::parse_lock(name.as_bytes()).unwrap_or_else(|_| {
        let name = format!("worktree-%{:016x}.lock", fnv1a(name.as_bytes()));
        LockName::parse_lock(name.as_bytes()).expect("hexadecimal digits fit the grammar")
    })
}

/// FNV-1a, 64 bits: the same everywhere and for ever, which the standard library's hashers do not promise.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ref_is_written_whole() {
        assert_eq!(ref_lock("refs/heads/a/b").as_str(), "ref-refs%2Fheads%2Fa%2Fb.lock");
        assert_eq!(ref_lock("refs/tags/100%").as_str(), "ref-refs%2Ftags%2F100%25.lock");
    }

    #[test]
    fn what_no_name_can_hold_still_has_a_lock_of_its_own() {
        let long = format!("refs/heads/{}", "x".repeat(300));
        let odd = [ref_lock("refs/heads/it's"), ref_lock(&long), ref_lock("refs/heads/a,b")];
        assert!(odd.iter().all(|name| name.as_str().starts_with("ref-%25")), "{odd:?}");
        assert!(odd[0] != odd[1] && odd[1] != odd[2] && odd[0] != odd[2]);
        assert_eq!(ref_lock("refs/heads/it's"), odd[0]);
    }

    #[test]
    fn a_worktree_has_gits_name_for_it() {
        assert_eq!(worktree_lock(None).as_str(), "main-worktree.lock");
        assert_eq!(worktree_lock(Some("topic1")).as_str(), "worktree-topic1.lock");
        assert!(worktree_lock(Some("it's")).as_str().starts_with("worktree-%"));
    }
}
