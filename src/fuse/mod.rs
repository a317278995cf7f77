//! The front: the kernel's FUSE requests as calls of a [`Files`], and its answers as replies.
//!
//! - `session` mounts and negotiates (fuser does this well), `unmount` takes down,
//! - `request_loop` reads the requests itself: fuser's loop drops FUSE_INTERRUPT, and then no signal, not even SIGKILL,
//!   would end a wait for a lock,
//! - `decode` and `encode` translate, `wire` has the kernel's structs, `errno` its numbers,
//! - `channel` takes the replies, also those that come later.
//!
//! The order of construction: [`Mounted::mount`] first, or [`Mounted::adopt`] for a mount that another process made; [`Mounted::replies`] goes into the service, which answers parked
//! calls through it; then [`serve`] with the service, until somebody unmounts.
//!
//! *Invariant:* nothing here knows how a lock works, or branches on the state of one. Of the service it sees
//! `service::api` only.

mod channel;
mod decode;
mod encode;
mod errno;
mod own;
mod request_loop;
mod session;
mod unmount;
mod wire;

use std::io;

pub use channel::Channel;
pub use own::note_own_thread;
pub use session::{MountError, Mounted, Negotiated, Terms};
pub use unmount::{Detach, Unmounted, Unmounter, detach};

use crate::adapters::Heartbeat;
use crate::service::api::Files;

/// Serves the mount on this thread until it has ended, however that comes about. `heartbeat` shows that the loop goes on.
pub fn serve(mounted: &Mounted, files: &dyn Files, heartbeat: &Heartbeat) -> io::Result<()> {
    Ok(request_loop::run(&mounted.replies(), files, heartbeat)?)
}
