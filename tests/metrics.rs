//! `metrics/`: the figures of a real mount, against what its users did.

#[path = "support/mod.rs"]
mod support;

#[path = "metrics/alerts.rs"]
mod alerts;
#[path = "metrics/events.rs"]
mod events;
#[path = "metrics/figures.rs"]
mod figures;
#[path = "metrics/history.rs"]
mod history;
