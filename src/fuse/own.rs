//! Which callers are ourselves.
//!
//! A thread of the daemon that touched its own mount would wait for an answer that it may be the one to give; so our
//! own calls are refused. The kernel names the calling thread, and asking /proc about each caller would cost more than
//! the answer: our threads are noted when the loop starts, later ones note themselves.

use parking_lot::RwLock;

/// The threads that noted themselves; few, and short enough to be searched in order.
static NOTED: RwLock<Vec<u32>> = RwLock::new(Vec::new());

/// Notes the calling thread as one of ours; only needed by threads that start after [`serve`](super::serve).
pub fn note_own_thread() {
    note(nix::unistd::gettid().as_raw().unsigned_abs());
}

/// Ourselves, as the loop sees callers.
#[derive(Debug)]
pub(super) struct Own {
    process: u32,
}

impl Own {
    /// Notes all threads that run now.
    pub fn here() -> Self {
        let tids = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        for tid in tids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            note(tid);
        }
        Self {
            process: std::process::id(),
        }
    }

    /// Whether that thread is one of ours.
    pub fn is_own(&self, tid: u32) -> bool {
        if tid == self.process {
            return true;
        }
        if !NOTED.read().contains(&tid) {
            return false;
        }
        // The number of a thread that has ended may be a stranger's by now; only a match is worth the look.
        let alive = std::fs::exists(format!("/proc/self/task/{tid}")).unwrap_or(true);
        if !alive {
            NOTED.write().retain(|&noted| noted != tid);
        }
        alive
    }
}

fn note(tid: u32) {
    let mut noted = NOTED.write();
    if !noted.contains(&tid) {
        noted.push(tid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tid() -> u32 {
        nix::unistd::gettid().as_raw().unsigned_abs()
    }

    #[test]
    fn our_threads_are_ours_as_long_as_they_live() {
        let own = Own::here();
        assert!(own.is_own(std::process::id()));
        assert!(own.is_own(tid()), "a thread that ran when we looked");
        let noted = std::thread::scope(|scope| {
            let (to_test, from_thread) = std::sync::mpsc::channel();
            let (to_thread, from_test) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                note_own_thread();
                to_test.send(tid()).expect("the test listens");
                from_test.recv().expect("the test lets it go");
            });
            let noted = from_thread.recv().expect("the thread noted itself");
            assert!(own.is_own(noted));
            to_thread.send(()).expect("the thread listens");
            noted
        });
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while own.is_own(noted) {
            assert!(
                std::time::Instant::now() < deadline,
                "an ended thread is no longer ours"
            );
            std::thread::yield_now();
        }
        assert!(!own.is_own(1), "init is not ours");
    }
}
