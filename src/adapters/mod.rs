//! The outside world: clocks, processes, timers and signals, git, and what must last on disk.
//!
//! One file or room for each kind of outside thing. These modules report facts and make things durable; they know
//! nothing about locks, the tree or FUSE, and decide nothing. None of them ever touches a path below the mount: such
//! a call would wait for the very thread that makes it.

pub mod alert_command;
pub mod clock;
pub mod configuration;
pub mod faults;
pub mod git;
pub mod heartbeat;
pub mod history;
pub mod journal;
pub mod memory;
pub mod processes;
pub mod repository;
pub mod tokens;
pub mod watcher;

pub use alert_command::AlertCommand;
pub use clock::{Clock, WallTime};
pub use git::{ConfigError, read_settings};
pub use heartbeat::{Heartbeat, Phase};
pub use history::{History, HistoryError};
pub use journal::{Journal, JournalError};
pub use memory::{MemoryDisk, MemoryLog};
pub use processes::{Confinement, ExitKind, OwnerError, Pinned, Processes, Trail};
pub use repository::{Head, Repository};
pub use tokens::{TokenError, Tokens};
pub use watcher::{Alarm, Event, Watcher};
