//! What histories were about, to see that they are about something.

use std::ops::AddAssign;

#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub granted: u64,
    /// Crashes of all kinds.
    pub crashes: u64,
    /// Those in a write.
    pub torn: u64,
    /// Those in a snapshot that followed a record.
    pub in_snapshot: u64,
    /// Lives that died as they began.
    pub as_it_began: u64,
    pub power_cuts: u64,
    /// Power cuts that left a damaged journal, or none that was begun.
    pub damaged: u64,
    pub never_begun: u64,
    /// Crashes while calls came again; they count beside the others.
    pub again_in_resend: u64,
    pub came_again: u64,
    pub given_up: u64,
    /// Waits that a grant of something else was compared with.
    pub compared: u64,
    /// Polls that were told to look again, and had nothing to see.
    pub woken: u64,
    /// Requests that took the place of a ticket in the line again.
    pub resumed: u64,
    /// Locks that a new mount kept.
    pub kept: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.granted += other.granted;
        self.crashes += other.crashes;
        self.torn += other.torn;
        self.in_snapshot += other.in_snapshot;
        self.as_it_began += other.as_it_began;
        self.power_cuts += other.power_cuts;
        self.damaged += other.damaged;
        self.never_begun += other.never_begun;
        self.again_in_resend += other.again_in_resend;
        self.came_again += other.came_again;
        self.given_up += other.given_up;
        self.compared += other.compared;
        self.woken += other.woken;
        self.resumed += other.resumed;
        self.kept += other.kept;
    }
}
