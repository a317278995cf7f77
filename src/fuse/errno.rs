//! The one table from what was refused to the number that a program sees.

use crate::types::Refusal;

/// The errno of a refusal. Exhaustive: a new refusal does not compile without its number.
pub(super) fn errno(refusal: Refusal) -> i32 {
    match refusal {
        Refusal::Absent => libc::ENOENT,
        Refusal::Taken => libc::EEXIST,
        Refusal::WouldBlock => libc::EAGAIN,
        Refusal::TimedOut => libc::ETIMEDOUT,
        Refusal::Interrupted => libc::EINTR,
        Refusal::Deadlock => libc::EDEADLK,
        Refusal::Malformed => libc::EINVAL,
        Refusal::NoSuchProcess => libc::ESRCH,
        Refusal::NotYours => libc::EPERM,
        Refusal::Denied => libc::EACCES,
        Refusal::HeldByOther => libc::EBUSY,
        Refusal::TooLong => libc::EFBIG,
        Refusal::NameTooLong => libc::ENAMETOOLONG,
        Refusal::Full => libc::ENOSPC,
        Refusal::TooManyHandles => libc::EMFILE,
        Refusal::Stale => libc::ESTALE,
        Refusal::NotDirectory => libc::ENOTDIR,
        Refusal::IsDirectory => libc::EISDIR,
        Refusal::NotEmpty => libc::ENOTEMPTY,
        Refusal::BadHandle => libc::EBADF,
        Refusal::Unsupported => libc::EOPNOTSUPP,
        Refusal::NoSuchCall => libc::ENOSYS,
        Refusal::NoAttribute => libc::ENODATA,
        Refusal::TooSmall => libc::ERANGE,
        Refusal::ReadOnly => libc::EROFS,
        Refusal::Internal => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: [Refusal; 26] = [
        Refusal::Absent,
        Refusal::Taken,
        Refusal::WouldBlock,
        Refusal::TimedOut,
        Refusal::Interrupted,
        Refusal::Deadlock,
        Refusal::Malformed,
        Refusal::NoSuchProcess,
        Refusal::NotYours,
        Refusal::Denied,
        Refusal::HeldByOther,
        Refusal::TooLong,
        Refusal::NameTooLong,
        Refusal::Full,
        Refusal::TooManyHandles,
        Refusal::Stale,
        Refusal::NotDirectory,
        Refusal::IsDirectory,
        Refusal::NotEmpty,
        Refusal::BadHandle,
        Refusal::Unsupported,
        Refusal::NoSuchCall,
        Refusal::NoAttribute,
        Refusal::TooSmall,
        Refusal::ReadOnly,
        Refusal::Internal,
    ];

    #[test]
    fn every_refusal_has_a_number_of_its_own_that_the_kernel_lets_through() {
        let numbers: BTreeSet<i32> = ALL.into_iter().map(errno).collect();
        assert_eq!(numbers.len(), ALL.len(), "no two refusals look the same to a program");
        // fuse_dev_do_write refuses a reply outside of -511..=0, and 512 up are the kernel's own restart codes.
        assert!(numbers.iter().all(|number| (1..512).contains(number)));
    }

    #[test]
    fn the_documented_errors_are_what_a_program_sees() {
        assert_eq!(errno(Refusal::TimedOut), libc::ETIMEDOUT);
        assert_eq!(errno(Refusal::Taken), libc::EEXIST);
        assert_eq!(errno(Refusal::Deadlock), libc::EDEADLK);
        assert_eq!(errno(Refusal::HeldByOther), libc::EBUSY);
        assert_eq!(errno(Refusal::Stale), libc::ESTALE);
    }
}
