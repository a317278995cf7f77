//! A history checker: clients log what they asked and what they got, and a checker that knows only the rules of
//! locking, not the program, says whether that can have come from a correct arbiter.
//!
//! The checker must earn its trust first: three bugs (a lost release, a reused PID, a grant after a cancel) are seeded
//! into histories and into a toy arbiter, and each must be caught. Then 16 client processes use a real mount.

#[path = "history/checker.rs"]
mod checker;
#[path = "history/record.rs"]
mod record;
#[path = "history/seeded.rs"]
mod seeded;
#[path = "history/toy.rs"]
mod toy;

#[path = "history/client.rs"]
mod client;
#[path = "history/contest.rs"]
mod contest;
#[path = "history/real.rs"]
mod real;
#[path = "support/mod.rs"]
mod support;
