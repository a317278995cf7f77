//! How long a lock is usually held: a running mean by lock, for "estimated wait".

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use crate::engine::{Ending, Event, Happening};
use crate::types::LockName;

/// How many locks are remembered.
const LOCKS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");
/// The weight of the newest hold is one in so many.
const WINDOW: u32 = 8;

/// Usual hold times, learned from releases.
#[derive(Debug)]
pub struct HoldTimes {
    means: LruCache<LockName, Duration>,
}

impl Default for HoldTimes {
    fn default() -> Self {
        Self {
            means: LruCache::new(LOCKS),
        }
    }
}

impl HoldTimes {
    /// Learns from an event; only holds that ended of their own accord count.
    pub fn observe(&mut self, event: &Event) {
        let Happening::Released {
            held,
            how: Ending::Released,
        } = event.what
        else {
            return;
        };
        match self.means.get_mut(&event.lock) {
            Some(mean) => *mean = (*mean * (WINDOW - 1) + held) / WINDOW,
            None => {
                self.means.put(event.lock.clone(), held);
            }
        }
    }

    /// The usual hold of a lock; `None` when it was never released.
    pub fn usual(&self, lock: &LockName) -> Option<Duration> {
        self.means.peek(lock).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Subject, Who};
    use crate::types::Mode;

    #[test]
    fn the_mean_follows_the_holds_and_ignores_broken_ones() {
        let mut times = HoldTimes::default();
        let lock = LockName::parse(b"x.lock").expect("name");
        let released = |seconds, how| Event {
            lock: lock.clone(),
            mode: Mode::Exclusive,
            who: Who::default(),
            subject: Subject::Call,
            what: Happening::Released {
                held: Duration::from_secs(seconds),
                how,
            },
        };
        assert_eq!(times.usual(&lock), None);
        times.observe(&released(8, Ending::Released));
        times.observe(&released(900, Ending::Broken));
        assert_eq!(times.usual(&lock), Some(Duration::from_secs(8)));
        times.observe(&released(16, Ending::Released));
        assert_eq!(times.usual(&lock), Some(Duration::from_secs(9)));
    }
}
