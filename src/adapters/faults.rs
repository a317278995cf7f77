//! Places where a test may end the program, as a crash would: in debug builds only.
//!
//! `GIT_LOCKFS_FAULTS` names a directory. Where the program reaches a place and a file of that name lies there, the file
//! is removed and the program kills itself. In a release build nothing of this exists.

#[cfg(debug_assertions)]
mod debug {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    use nix::sys::signal::{Signal, raise};

    fn directory() -> Option<&'static PathBuf> {
        static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
        let named = || std::env::var_os("GIT_LOCKFS_FAULTS").map(PathBuf::from);
        DIRECTORY.get_or_init(named).as_ref()
    }

    /// Ends the program here, if a test asked for that.
    pub fn point(name: &str) {
        if let Some(directory) = directory()
            && std::fs::remove_file(directory.join(name)).is_ok()
        {
            let _ = raise(Signal::SIGKILL);
        }
    }

    /// Whether a test asked for this.
    pub fn is_set(name: &str) -> bool {
        directory().is_some_and(|directory| directory.join(name).exists())
    }
}

#[cfg(not(debug_assertions))]
mod release {
    /// Nothing, in this build.
    #[inline]
    pub fn point(_: &str) {}

    /// Never, in this build.
    #[inline]
    pub fn is_set(_: &str) -> bool {
        false
    }
}

#[cfg(debug_assertions)]
pub use debug::{is_set, point};
#[cfg(not(debug_assertions))]
pub use release::{is_set, point};
