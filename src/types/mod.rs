//! Values that every layer shares, each parsed once at the door and never re-checked.
//!
//! This layer knows nothing else: no files, no clocks, no engine. A value that exists is valid.

mod ids;
mod mode;
mod name;
mod need;
mod on_unavailable;
mod operation;
mod priority;
mod refusal;
mod settings;
mod text;
mod time;

pub use ids::{GrantId, HandleId, NodeId, ProcessId, Token, Unique};
pub use mode::{Mode, Range};
pub use name::{LockName, NameError, Pattern, SessionName, TicketName};
pub use need::{Need, NeedError, Preset, What};
pub use on_unavailable::OnUnavailable;
pub use operation::{name_of_told, operation_name};
pub use priority::Priority;
pub use refusal::Refusal;
pub use settings::{KEYS, Key, SettingError, Settings, WaitLimit, is_unread_variable};
pub use text::{Declared, Text, TextError};
pub use time::{Moment, Tick, parse_span};

/// The longest text of a lock, declaration and note together, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
