//! The way to the kernel: one request a read, one reply a write.
//!
//! Replies leave from any thread; the kernel takes each write whole. A request that the kernel sent again (after
//! FUSE_NOTIFY_RESEND) is answered under the number it came with: that mark is remembered here and nowhere else.

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::uio::writev;
use nix::unistd::{read, write};
use parking_lot::Mutex;

use super::decode::Form;
use super::encode::Packet;
use crate::service::api::{Answer, Replies};
use crate::types::Unique;

/// The connection to the kernel, shared by the loop that reads and by all who answer.
pub struct Channel {
    device: OwnedFd,
    resent: Mutex<BTreeSet<Unique>>,
    /// Whether a request ever came again; until then no reply looks for its mark.
    any_resent: AtomicBool,
}

impl Channel {
    pub(super) fn new(device: OwnedFd) -> Self {
        Self {
            device,
            resent: Mutex::new(BTreeSet::new()),
            any_resent: AtomicBool::new(false),
        }
    }

    /// Reads one request; `None` when the mount has ended.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> nix::Result<Option<usize>> {
        loop {
            match read(&self.device, buffer) {
                Ok(size) => return Ok(Some(size)),
                // ENOENT: the request was taken back before it could be read.
                Err(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => {}
                Err(Errno::ENODEV | Errno::ECONNABORTED) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Notes that this request came again, until it is answered.
    pub(super) fn note_resent(&self, unique: Unique) {
        self.resent.lock().insert(unique);
        self.any_resent.store(true, Ordering::Release);
    }

    /// Sends a reply or a notification. Never waits, and never leaves a request that the kernel still has unanswered.
    pub(super) fn send(&self, mut packet: Packet) {
        let unique = packet.unique();
        let resent = self.any_resent.load(Ordering::Acquire) && self.resent.lock().remove(&unique);
        if resent {
            packet.mark_resent();
        }
        match self.write(&packet) {
            Ok(()) => {}
            // Nobody waits for it any more: the connection was aborted, or nothing polls under that handle.
            Err(Errno::ENOENT | Errno::ENODEV | Errno::ECONNABORTED) => {}
            Err(errno) if unique == NOTIFICATION => tracing::warn!(%errno, "the kernel refused a notification"),
            Err(errno) => {
                tracing::error!(%unique, %errno, "the kernel refused a reply");
                let mut failure = Packet::errno(unique, libc::EIO);
                if resent {
                    failure.mark_resent();
                }
                // When the kernel has ended the request itself, it no longer knows it, and that is well.
                match self.write(&failure) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(errno) => tracing::error!(%unique, %errno, "a request could not be answered"),
                }
            }
        }
    }

    /// Whether the kernel still has a mount at the other end.
    pub(super) fn is_connected(&self) -> bool {
        let mut fds = [PollFd::new(self.device.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) => true,
            Ok(_) => !fds[0]
                .revents()
                .is_some_and(|events| events.contains(PollFlags::POLLERR)),
            // An interrupted look has seen nothing of an end.
            Err(_) => true,
        }
    }

    /// Whether requests lie there that nobody has read.
    pub(super) fn has_unread(&self) -> bool {
        let mut fds = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
        // An interrupted look has seen nothing.
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
            && fds[0]
                .revents()
                .is_some_and(|events| events.contains(PollFlags::POLLIN))
    }

    fn write(&self, packet: &Packet) -> nix::Result<()> {
        let [header, body] = packet.slices();
        let size = header.len() + body.len();
        if size > SMALL {
            return writev(&self.device, &[header, body]).map(|_| ());
        }
        // The kernel looks up the page of each piece that it copies, which costs more than joining two small ones.
        let mut whole = [0; SMALL];
        whole[..header.len()].copy_from_slice(&header);
        whole[header.len()..size].copy_from_slice(&body);
        write(&self.device, &whole[..size]).map(|_| ())
    }
}

/// The most that goes out in one piece, in bytes: every reply that is a struct.
const SMALL: usize = 256;

/// The `unique` of what answers no request.
const NOTIFICATION: Unique = Unique(0);

impl Replies for Channel {
    fn answer(&self, unique: Unique, answer: Answer) {
        // What may be parked needs no more than this to be answered: see `Form`.
        self.send(Packet::answer(unique, answer, Form::Plain));
    }

    fn wake_poll(&self, poll_handle: u64) {
        self.send(Packet::poll_wakeup(poll_handle));
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    /// A channel whose other end is a pipe: what it sends can be read.
    fn channel() -> (Channel, File) {
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        (Channel::new(writer), File::from(reader))
    }

    fn unique_of_next(reader: &mut File) -> u64 {
        let mut header = [0; 16];
        reader.read_exact(&mut header).expect("a header");
        u64::from_ne_bytes(header[8..].try_into().expect("eight bytes"))
    }

    #[test]
    fn a_resent_request_is_answered_once_under_the_number_it_came_with() {
        let (channel, mut reader) = channel();
        channel.note_resent(Unique(6));
        channel.answer(Unique(4), Answer::Done);
        channel.answer(Unique(6), Answer::Done);
        channel.answer(Unique(6), Answer::Done);
        assert_eq!(unique_of_next(&mut reader), 4);
        assert_eq!(unique_of_next(&mut reader), 6 | 1 << 63);
        assert_eq!(unique_of_next(&mut reader), 6, "the mark is gone with the answer");
    }
}
