//! How long to wait before a worker that died is replaced, and when to give up.

use std::time::Duration;

/// A worker that lived for less after it was ready has died at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// The pause before the first to the last attempt, in milliseconds, when each worker dies at once. Nobody is to wait
/// for one that was killed a few times in a row; one that cannot live is given up after 5 s.
const PAUSES_MS: [u64; 10] = [0, 25, 50, 100, 200, 400, 800, 1600, 1600, 1600];

/// The workers that died at once, one after the other.
#[derive(Debug, Default)]
pub struct Deaths {
    in_a_row: usize,
}

impl Deaths {
    /// Counts one more that died so long after it was ready (`None`: it never was); the pause before the next one, or
    /// `None` to give up.
    pub fn count(&mut self, lived: Option<Duration>) -> Option<Duration> {
        if lived.is_some_and(|lived| lived >= AT_ONCE) {
            self.in_a_row = 0;
            return Some(Duration::ZERO);
        }
        let pause = PAUSES_MS.get(self.in_a_row).copied().map(Duration::from_millis);
        self.in_a_row += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_dies_at_once_again_and_again_is_given_up() {
        let mut deaths = Deaths::default();
        let pauses: Vec<Duration> = std::iter::from_fn(|| deaths.count(None)).collect();
        assert_eq!(pauses.len(), PAUSES_MS.len());
        assert_eq!(pauses[0], Duration::ZERO, "the first death costs no pause");
        assert!(pauses.is_sorted(), "the pauses grow");
        assert_eq!(deaths.count(Some(Duration::from_millis(999))), None);
    }

    #[test]
    fn one_that_lived_for_a_while_is_replaced_at_once_however_often() {
        let mut deaths = Deaths::default();
        for _ in 0..100 {
            assert_eq!(deaths.count(None), Some(Duration::ZERO));
            assert_eq!(deaths.count(Some(AT_ONCE)), Some(Duration::ZERO));
        }
    }
}
