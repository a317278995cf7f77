//! The driver (in work).

pub mod api;
