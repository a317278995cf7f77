//! Numbers with a meaning each: a [`Token`] is not a [`GrantId`], and the compiler knows it.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A fencing token: grows with every grant, also across crashes and reboots.
    Token
}
id! {
    /// One grant inside the engine; never shown to users.
    GrantId
}
id! {
    /// An open file: the kernel's open file description, as FUSE's `fh`.
    HandleId
}
id! {
    /// A node of the tree, as FUSE's `nodeid`.
    NodeId
}
id! {
    /// A process pinned by pidfd, so that a reused PID is another `ProcessId`.
    ProcessId
}
id! {
    /// A request of the kernel, by FUSE's `unique`; a waiting request keeps it as its name.
    Unique
}
