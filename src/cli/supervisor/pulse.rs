//! Whether a worker that has not died still works, judged from looks at its heartbeat.

use std::time::Duration;

use crate::adapters::heartbeat::Beat;

/// The time between two looks at a worker that has something to do.
pub const TICK: Duration = Duration::from_millis(500);
/// The time between two looks at one that was quiet at the last look, unless something happens: an idle daemon costs
/// nothing.
pub const QUIET_TICK: Duration = Duration::from_secs(30);
/// A worker is quiet after so many looks: the first one after something happened still sees the answer to an older
/// question.
const QUIET_LOOKS: u32 = 2;
/// After so many looks in a row at which nothing moved though something should, the worker hangs: 2.5 s after it stopped
/// at the latest. Looks are counted, not time: while this process itself is stopped, none is taken.
const STILL_TICKS: u32 = 4;
/// The same of the inspector, 5.5 s: what it reads of other processes and of git's files can be slow without anything
/// being wrong, and meanwhile only who asks for that has to wait.
const INSPECTOR_STILL_TICKS: u32 = 10;

/// One look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// What the worker shows.
    pub beat: Beat,
    /// Whether requests wait to be read.
    pub has_unread: bool,
    /// The number of the question that was asked after the last look.
    pub asked: u64,
}

/// What the last looks have shown.
#[derive(Debug, Default)]
pub struct Pulse {
    requests: u64,
    loop_still: u32,
    watcher_still: u32,
    pieces: u64,
    inspector_still: u32,
    quiet_looks: u32,
}

impl Pulse {
    /// Takes in a look; what hangs, if it has gone on for too long.
    pub fn take(&mut self, look: Look) -> Option<&'static str> {
        let within_request = look.beat.requests % 2 == 1;
        let same = look.beat.requests == self.requests;
        let still = same && (look.has_unread || within_request);
        self.requests = look.beat.requests;
        self.loop_still = if still { self.loop_still + 1 } else { 0 };
        let unanswered = look.beat.answered < look.asked;
        self.watcher_still = if unanswered { self.watcher_still + 1 } else { 0 };
        let within_piece = look.beat.pieces % 2 == 1;
        let same_piece = look.beat.pieces == self.pieces;
        self.pieces = look.beat.pieces;
        self.inspector_still = if within_piece && same_piece {
            self.inspector_still + 1
        } else {
            0
        };
        let quiet = same && !still && !unanswered && !within_piece;
        self.quiet_looks = if quiet { self.quiet_looks.saturating_add(1) } else { 0 };
        if self.loop_still >= STILL_TICKS {
            return Some("it handles no requests any more");
        }
        if self.watcher_still >= STILL_TICKS {
            return Some("its watcher does not answer any more");
        }
        (self.inspector_still >= INSPECTOR_STILL_TICKS).then_some("its inspector does not come further")
    }

    /// Whether at the last looks nothing had been done, nothing was to be done, and all threads answered.
    pub fn is_quiet(&self) -> bool {
        self.quiet_looks >= QUIET_LOOKS
    }

    /// Something has happened: only looks from here on count as quiet.
    pub fn stir(&mut self) {
        self.quiet_looks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(requests: u64, has_unread: bool, answered: u64, asked: u64) -> Look {
        Look {
            beat: Beat {
                requests,
                answered,
                pieces: 0,
            },
            has_unread,
            asked,
        }
    }

    #[test]
    fn a_loop_that_leaves_requests_unread_hangs() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.take(look(8, true, 0, 0)), None, "it has just moved");
        for _ in 1..STILL_TICKS {
            assert_eq!(pulse.take(look(8, true, 0, 0)), None);
        }
        assert!(pulse.take(look(8, true, 0, 0)).is_some());
    }

    #[test]
    fn a_loop_that_stays_within_a_request_hangs_and_an_idle_one_does_not() {
        let mut busy = Pulse::default();
        let mut idle = Pulse::default();
        let hangs = (0..=STILL_TICKS)
            .filter(|_| busy.take(look(7, false, 0, 0)).is_some())
            .count();
        assert_eq!(hangs, 1);
        assert!((0..100).all(|_| idle.take(look(8, false, 0, 0)).is_none()));
        assert!(idle.is_quiet() && !busy.is_quiet());
        idle.stir();
        idle.take(look(8, false, 0, 0));
        assert!(
            !idle.is_quiet(),
            "the question that was asked then has not been answered yet"
        );
    }

    #[test]
    fn one_that_moves_between_looks_works_however_much_is_unread() {
        let mut pulse = Pulse::default();
        assert!((1..100).all(|requests| pulse.take(look(requests, true, 0, 0)).is_none() && !pulse.is_quiet()));
    }

    #[test]
    fn a_watcher_that_answers_late_works_and_a_mute_one_hangs() {
        let mut pulse = Pulse::default();
        for tick in 1..100 {
            let answered = tick - u64::from(tick % u64::from(STILL_TICKS) != 0);
            assert_eq!(pulse.take(look(0, false, answered, tick)), None);
        }
        let mut mute = Pulse::default();
        let hangs = (1..=u64::from(STILL_TICKS)).filter(|&asked| mute.take(look(0, false, 0, asked)).is_some());
        assert_eq!(hangs.count(), 1);
        assert!(!mute.is_quiet());
    }
    #[test]
    fn an_inspector_that_comes_no_further_hangs_and_a_slow_one_does_not() {
        let at_piece = |pieces, asked| {
            let mut look = look(2, false, asked, asked);
            look.beat.pieces = pieces;
            look
        };
        let (mut slow, mut resting, mut stuck) = (Pulse::default(), Pulse::default(), Pulse::default());
        for tick in 1..100 {
            assert_eq!(slow.take(at_piece(1 + tick / 4 * 2, tick)), None);
            assert_eq!(resting.take(at_piece(2, tick)), None);
        }
        assert!(resting.is_quiet() && !slow.is_quiet());
        let looks = 1 + u64::from(INSPECTOR_STILL_TICKS);
        let hangs: Vec<u64> = (1..=looks)
            .filter(|&tick| stuck.take(at_piece(1, tick)).is_some())
            .collect();
        assert_eq!(hangs, [looks], "not before the last look");
    }
}
