//! A page of memory that two processes share: one serves and shows that it does, the other looks.
//!
//! The server counts as it works, without a system call; the page survives it, so what it said last can be read after
//! its death. Nothing here decides what standing still means.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of the page: more than [`Counters`] need, so that a later version may add some.
const PAGE_BYTES: usize = 4096;

/// How far a server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does not serve yet.
    Starting,
    /// It serves.
    Serving,
    /// It has begun to end, because the mount is to end: it needs no successor.
    Ending,
}

/// What a server showed at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Counts up at the begin and at the end of each request: odd within one.
    pub requests: u64,
    /// The number of the last question that was answered.
    pub answered: u64,
    /// Counts up at the begin and at the end of each piece of the inspector's work, and by two within one: odd within.
    pub pieces: u64,
}

/// The page.
pub struct Heartbeat {
    memory: OwnedFd,
    counters: NonNull<Counters>,
}

#[repr(C)]
struct Counters {
    requests: AtomicU64,
    asked: AtomicU64,
    answered: AtomicU64,
    phase: AtomicU32,
    pieces: AtomicU64,
}

const _: () = assert!(size_of::<Counters>() <= PAGE_BYTES);

// SAFETY: the counters are atomics in a mapping that lives as long as this does.
unsafe impl Send for Heartbeat {}
// SAFETY: as above.
unsafe impl Sync for Heartbeat {}

impl Heartbeat {
    /// A new page, of a server that has not started.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a name that ends in NUL, and flags.
        let memory = unsafe { libc::memfd_create(c"git-lockfs-heartbeat".as_ptr(), libc::MFD_CLOEXEC) };
        if memory == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor.
        let memory = unsafe { OwnedFd::from_raw_fd(memory) };
        nix::unistd::ftruncate(&memory, PAGE_BYTES as libc::off_t)?;
        Self::shared(memory)
    }

    /// The page behind a descriptor that came from another process.
    pub fn shared(memory: OwnedFd) -> io::Result<Self> {
        // A page that is too short would be found out by a SIGBUS.
        let length = nix::sys::stat::fstat(&memory)?.st_size;
        if usize::try_from(length).unwrap_or(0) < PAGE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no heartbeat"));
        }
        // SAFETY: a new shared mapping of a file that is long enough, at a place that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                memory.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let counters = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory, counters })
    }

    /// Before a new server starts on it.
    pub fn reset(&self) {
        let counters = self.counters();
        counters.requests.store(0, Ordering::Relaxed);
        counters.pieces.store(0, Ordering::Relaxed);
        counters
            .answered
            .store(counters.asked.load(Ordering::Relaxed), Ordering::Relaxed);
        self.set_phase(Phase::Starting);
    }

    /// A request has been read.
    pub fn begin_request(&self) {
        self.counters().requests.fetch_add(1, Ordering::Relaxed);
    }

    /// It has been dealt with.
    pub fn end_request(&self) {
        self.counters().requests.fetch_add(1, Ordering::Release);
    }

    /// The inspector has something to do.
    pub fn begin_piece(&self) {
        self.counters().pieces.fetch_add(1, Ordering::Relaxed);
    }

    /// It has come further with it.
    pub fn go_on_with_piece(&self) {
        self.counters().pieces.fetch_add(2, Ordering::Relaxed);
    }

    /// It has done it.
    pub fn end_piece(&self) {
        self.counters().pieces.fetch_add(1, Ordering::Release);
    }

    /// Notes a question, which another thread of the server is to answer; returns its number.
    pub fn ask(&self) -> u64 {
        self.counters().asked.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Answers all questions until now.
    pub fn answer(&self) {
        let counters = self.counters();
        counters
            .answered
            .store(counters.asked.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// What the server shows now.
    pub fn beat(&self) -> Beat {
        let counters = self.counters();
        Beat {
            requests: counters.requests.load(Ordering::Acquire),
            answered: counters.answered.load(Ordering::Relaxed),
            pieces: counters.pieces.load(Ordering::Acquire),
        }
    }

    /// Says how far the server has come.
    pub fn set_phase(&self, phase: Phase) {
        self.counters().phase.store(phase as u32, Ordering::Release);
    }

    /// How far the server has come, or had come when it died.
    pub fn phase(&self) -> Phase {
        match self.counters().phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Ending,
        }
    }

    fn counters(&self) -> &Counters {
        // SAFETY: the mapping is long enough, aligned to a page, lives as long as `self`, and any bits are valid atomics.
        unsafe { self.counters.as_ref() }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more.
        unsafe { libc::munmap(self.counters.as_ptr().cast(), PAGE_BYTES) };
    }
}

impl AsFd for Heartbeat {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat")
            .field("beat", &self.beat())
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_one_side_counts_the_other_sees() {
        let ours = Heartbeat::new().expect("a page");
        let theirs =
            Heartbeat::shared(ours.as_fd().try_clone_to_owned().expect("a descriptor")).expect("the same page");
        assert_eq!((theirs.phase(), theirs.beat().requests), (Phase::Starting, 0));
        ours.set_phase(Phase::Serving);
        ours.begin_request();
        assert_eq!((theirs.phase(), theirs.beat().requests), (Phase::Serving, 1));
        ours.end_request();
        let question = theirs.ask();
        assert_ne!(theirs.beat().answered, question);
        ours.answer();
        assert_eq!(
            theirs.beat(),
            Beat {
                requests: 2,
                answered: question,
                pieces: 0
            }
        );
        ours.begin_piece();
        ours.go_on_with_piece();
        assert_eq!(theirs.beat().pieces, 3, "it is odd within one");
        ours.end_piece();
        assert_eq!(theirs.beat().pieces, 4);
        theirs.reset();
        let (phase, beat) = (ours.phase(), ours.beat());
        assert_eq!((phase, beat.requests, beat.pieces), (Phase::Starting, 0, 0));
        assert_eq!(ours.beat().answered, question, "nothing is asked of a new server");
    }

    #[test]
    fn a_file_that_is_too_short_is_no_page() {
        let file = tempfile::tempfile().expect("a file");
        assert!(Heartbeat::shared(File::into(file)).is_err());
    }
}
