//! Reads /proc: small files, whole, and the few fields that are needed.
//!
//! Every answer is an `Option` or an `io::Result`, since a process may vanish between any two calls. A caller that
//! must be sure whose file it read checks its pidfd afterwards.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};

use crate::types::{Moment, Tick};

/// More than any of these files holds, `Groups:` of a user in thousands of groups included; in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The flag of a kernel thread in /proc/PID/stat (PF_KTHREAD of include/linux/sched.h).
const PF_KTHREAD: u64 = 0x0020_0000;

const NS_PER_SECOND: u128 = 1_000_000_000;

/// Reads at most `max` bytes of a file.
pub(super) fn read_bounded(path: impl AsRef<Path>, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// /proc/TID/status of a thread.
pub(super) struct Status(String);

impl Status {
    /// Reads it; `None` when the thread is gone or hidden from us.
    pub(super) fn of(tid: u32) -> Option<Self> {
        Self::at(&format!("/proc/{tid}/status"))
    }

    /// The same by its path, for the names that are no numbers.
    pub(super) fn at(path: &str) -> Option<Self> {
        let bytes = read_bounded(path, FILE_BYTES_MAX).ok()?;
        Some(Self(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The text after `KEY:`. A process cannot forge a line with its name: the kernel escapes newlines there.
    pub(super) fn field(&self, key: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .map(str::trim)
    }

    /// The first number of a field.
    pub(super) fn number(&self, key: &str) -> Option<u32> {
        self.field(key)?.split_ascii_whitespace().next()?.parse().ok()
    }

    /// The thread's ids, from /proc's own PID namespace down to the one the thread lives in.
    pub(super) fn namespace_pids(&self) -> Vec<u32> {
        let field = self.field("NSpid").unwrap_or_default();
        field
            .split_ascii_whitespace()
            .filter_map(|id| id.parse().ok())
            .collect()
    }
}

/// /proc/PID/stat of a process: the fields after its name.
pub(super) struct Stat(Vec<String>);

impl Stat {
    /// Reads it; `None` when the process is gone or hidden from us.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let bytes = read_bounded(format!("/proc/{pid}/stat"), FILE_BYTES_MAX).ok()?;
        // The name is in brackets and may itself hold brackets and blanks, so the last bracket ends it.
        let end = bytes.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(&bytes[end + 1..]).ok()?;
        Some(Self(rest.split_ascii_whitespace().map(str::to_owned).collect()))
    }

    /// Field `number` as proc_pid_stat(5) counts them, from 3 on.
    fn field<T: std::str::FromStr>(&self, number: usize) -> Option<T> {
        self.0.get(number.checked_sub(3)?)?.parse().ok()
    }

    /// Whether it is a thread of the kernel.
    pub(super) fn is_kernel_thread(&self) -> bool {
        self.field::<u64>(9).is_some_and(|flags| flags & PF_KTHREAD != 0)
    }

    /// How many threads it has.
    pub(super) fn threads(&self) -> Option<u32> {
        self.field(20)
    }

    /// When it began, in clock ticks since the machine started: with the PID, what tells it from every other process.
    pub(super) fn began(&self) -> Option<u64> {
        self.field(22)
    }

    /// Whether it began after a time on the monotonic clock. /proc counts in ticks of some milliseconds: of what began in
    /// the same one this is not said.
    pub(super) fn began_after(&self, seen: Tick, now: Moment) -> bool {
        // Of the time since then the machine may have been suspended for a part: then this is later than it was.
        let seen = now.boot.0.saturating_sub(now.mono.0.saturating_sub(seen.0));
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten();
        let per_second = per_second.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
        self.began()
            .is_some_and(|ticks| u128::from(ticks) * NS_PER_SECOND > u128::from(seen) * u128::from(per_second))
    }

    /// The wait status of a zombie; 0 also when the kernel does not let us see it.
    pub(super) fn exit_status(&self) -> Option<i32> {
        self.field(52)
    }
}

/// Whether the process has a thread of that id now.
pub(super) fn has_thread(pid: u32, tid: u32) -> bool {
    fs::symlink_metadata(format!("/proc/{pid}/task/{tid}")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_files_say_who_we_are() {
        let pid = std::process::id();
        let status = Status::of(pid).expect("we exist");
        assert_eq!(status.number("Tgid"), Some(pid));
        assert_eq!(status.number("PPid"), Some(std::os::unix::process::parent_id()));
        assert_eq!(status.namespace_pids().first(), Some(&pid));
        let stat = Stat::of(pid).expect("we exist");
        assert!(!stat.is_kernel_thread());
        assert!(stat.threads().is_some_and(|n| n >= 1));
        assert!(has_thread(pid, pid));
        assert!(!has_thread(pid, 1));
    }

    #[test]
    fn a_name_with_brackets_and_newlines_confuses_nothing() {
        let name = c"a) R 1\nTgid:\t1";
        let seen = std::thread::spawn(move || {
            nix::sys::prctl::set_name(name).expect("any name is allowed");
            let tid = u32::try_from(nix::unistd::gettid().as_raw()).expect("positive");
            let status = Status::of(tid).expect("we exist");
            let stat = Stat::of(tid).expect("we exist");
            (status.number("Tgid"), stat.threads().is_some())
        });
        assert_eq!(seen.join().expect("no panic"), (Some(std::process::id()), true));
    }
}
