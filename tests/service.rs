//! The driver without a kernel: calls as plain data, and answers recorded, also those that come later.
//!
//! What a mount could show only by chance or after seconds is tried here: parked calls, the way of a lost race, what
//! others may do, bounds, and hostile input.

#[path = "service/ended.rs"]
mod ended;
#[path = "service/inspecting.rs"]
mod inspecting;
#[path = "service/journals.rs"]
mod journals;
#[path = "service/lives.rs"]
mod lives;
#[path = "service/parked.rs"]
mod parked;
#[path = "service/phantoms.rs"]
mod phantoms;
#[path = "service/recording.rs"]
mod recording;
#[path = "service/world.rs"]
mod world;
