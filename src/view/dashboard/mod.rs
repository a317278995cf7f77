//! `metrics/dashboard.html` and the `live.js` beside it: what a browser shows of locks, waits and the last seven days.
//!
//! The page is one text that never changes: its script and styles are inside, and its content policy names their hashes,
//! so nothing else runs and nothing comes from a network. The figures are `live.js`: a call of one function with one
//! value. A page of a file may not fetch, but it may load a script beside it again and again.
//!
//! 1. **Names of users are hostile.** In `live.js` they are JSON strings in which no `<` remains; the page turns strings
//!    into text nodes only, and the browser is told (trusted types) to refuse markup from anywhere but the charts.
//! 2. **Everything is bounded**, so the page opens at once whatever the week was like: [`live::LOCKS_MAX`] locks,
//!    [`live::PARTIES_MAX`] holders and waiters each, and the lists of [`Figures`](crate::metrics::Figures).
//! 3. **One text, two roads.** `git lockfs dashboard --serve` sends the same two files over loopback; the value inside
//!    `live.js` ([`live::value`]) is then pushed as an event.

pub mod live;
mod page;
mod tables;

pub use live::{Locks, Pictures, render as live_js};
pub use page::page;

#[cfg(test)]
mod tests;
