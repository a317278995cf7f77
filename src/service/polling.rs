//! poll(2) and select(2) on handles.

use super::api::Answer;
use super::{Outcome, Service};
use crate::types::HandleId;

/// POLLIN and POLLRDNORM of poll(2).
const READABLE: u32 = 0x001 | 0x040;
/// POLLOUT and POLLWRNORM of poll(2).
const WRITABLE: u32 = 0x004 | 0x100;

impl Service {
    pub(super) fn poll(&self, handle: HandleId, notify: Option<u64>, events: u32) -> Outcome {
        let mut state = self.state();
        let readable = state.is_readable(handle);
        if let Some(poll_handle) = notify {
            if readable {
                state.pollers.remove(poll_handle);
            } else {
                state.pollers.insert(poll_handle, handle);
            }
        }
        let ready = WRITABLE | if readable { READABLE } else { 0 };
        Ok(Some(Answer::Ready(ready & events)))
    }
}
