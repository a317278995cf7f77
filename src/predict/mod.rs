//! Pure learners over engine events. They advise; they decide nothing.

mod hold_time;

pub use hold_time::HoldTimes;
