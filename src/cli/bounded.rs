//! Calls that a hung daemon could hold for ever, with a bound.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a look at the mount may take before its daemon counts as not answering.
pub const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// The pause between two looks at a condition that nothing announces.
pub const POLL_PAUSE: Duration = Duration::from_millis(20);

/// The result of `work`, or `None` when it takes longer than `limit`. A late call is left behind in its thread: a
/// file call that waits for a daemon cannot be taken back, only given up.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let spawned = thread::Builder::new().spawn(move || {
        // The receiver is gone when we are late; then nobody asks any more.
        let _ = sender.send(work());
    });
    spawned.ok()?;
    receiver.recv_timeout(limit).ok()
}

/// Asks `condition` again and again until it gives a value or `limit` has passed.
pub fn until<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_never_returns_is_given_up() {
        let (_keep, never) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(10), move || never.recv().is_ok()), None);
        assert_eq!(within(LOOK_LIMIT, || 7), Some(7));
    }

    #[test]
    fn a_condition_is_asked_until_it_holds() {
        let mut asked = 0;
        let found = until(LOOK_LIMIT, || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(found, Some(3));
        assert_eq!(until(Duration::ZERO, || None::<()>), None);
    }
}
