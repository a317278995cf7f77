//! One thread that reads requests, hands each to the service and sends the answer.
//!
//! One reader, because the kernel queues a RELEASE before the same process's next request and that order must hold: a
//! try right after a close would otherwise fail by chance. It never waits for anything but the kernel; a call that
//! waits is parked by the service, which answers it through the [`Channel`]. A panic below costs one call its answer
//! (EIO), never the mount.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::channel::Channel;
use super::decode::{Request, Todo, decode};
use super::encode::Packet;
use super::own::Own;
use super::wire::{self, opcode};
use crate::adapters::{Heartbeat, faults};
use crate::service::api::{Answer, Call, Caller, Files};
use crate::types::{Refusal, Unique};

/// Serves until the mount has ended; the error is one of reading from the kernel.
pub(super) fn run(channel: &Channel, files: &dyn Files, heartbeat: &Heartbeat) -> nix::Result<()> {
    let server = Server {
        channel,
        files,
        own: Own::here(),
        expects_resent: Cell::new(true),
    };
    let mut buffer = vec![0; wire::REQUEST_BYTES_MAX];
    while let Some(size) = channel.receive(&mut buffer)? {
        heartbeat.begin_request();
        let next = match decode(&buffer[..size]) {
            Some(request) => server.handle(request),
            None => {
                tracing::error!(size, "the kernel sent less than a header");
                Next::Request
            }
        };
        heartbeat.end_request();
        match next {
            Next::Request => {}
            Next::End => break,
        }
    }
    Ok(())
}

struct Server<'a> {
    channel: &'a Channel,
    files: &'a dyn Files,
    own: Own,
    /// Whether requests of a former life may still come: the kernel puts those before all others.
    expects_resent: Cell<bool>,
}

enum Next {
    Request,
    End,
}

impl Server<'_> {
    fn handle(&self, request: Request<'_>) -> Next {
        let Request {
            unique,
            resent,
            opcode,
            caller,
            todo,
        } = request;
        tracing::trace!(%unique, opcode = opcode::name(opcode), tid = caller.tid, "request");
        if resent {
            self.channel.note_resent(unique);
        } else if self.expects_resent.get() && matches!(todo, Todo::Call(..)) {
            self.expects_resent.set(false);
            self.files.all_came_again();
        }
        match todo {
            Todo::Call(call, form) => {
                let answer = if self.own.is_own(caller.tid) {
                    tracing::warn!(opcode = opcode::name(opcode), "the daemon touched its own mount");
                    Some(Answer::Refused(Refusal::Deadlock))
                } else {
                    self.call(unique, opcode, caller, call)
                };
                if let Some(answer) = answer {
                    faults::point("before-reply");
                    self.channel.send(Packet::answer(unique, answer, form));
                    faults::point("after-reply");
                }
            }
            Todo::Tell(call) => self.tell(unique, opcode, caller, call),
            Todo::Forgets(forgets) => forgets.for_each(|forget| self.tell(unique, opcode, caller, forget)),
            Todo::Here(here) => self.channel.send(Packet::here(unique, here)),
            Todo::Nothing => {}
            Todo::Goodbye => {
                self.channel.send(Packet::done(unique));
                return Next::End;
            }
        }
        Next::Request
    }

    /// The service's answer, or that something inside failed. The service keeps its own invariants when it unwinds:
    /// its mutex is not poisoned, and what it had begun is released with the handle.
    fn call(&self, unique: Unique, opcode: u32, caller: Caller, call: Call<'_>) -> Option<Answer> {
        catch_unwind(AssertUnwindSafe(|| self.files.call(unique, caller, call))).unwrap_or_else(|_| {
            tracing::error!(opcode = opcode::name(opcode), tid = caller.tid, "a call panicked");
            Some(Answer::Refused(Refusal::Internal))
        })
    }

    fn tell(&self, unique: Unique, opcode: u32, caller: Caller, call: Call<'_>) {
        // The kernel wants no reply to these, so whatever the service says is dropped.
        let _ = self.call(unique, opcode, caller, call);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use zerocopy::IntoBytes;

    use super::*;
    use crate::types::NodeId;

    /// Panics at LOOKUP, and answers the rest.
    struct Fragile;

    impl Files for Fragile {
        fn call(&self, _: Unique, _: Caller, call: Call<'_>) -> Option<Answer> {
            match call {
                Call::Lookup { .. } => panic!("a lookup that fails"),
                _ => Some(Answer::Done),
            }
        }
    }

    fn error_of(call: Call<'_>, tid: u32, own: Own) -> i32 {
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        let channel = Channel::new(writer);
        let server = Server {
            channel: &channel,
            files: &Fragile,
            own,
            expects_resent: Cell::new(true),
        };
        let request = Request {
            unique: Unique(2),
            resent: false,
            opcode: opcode::LOOKUP,
            caller: Caller { tid, uid: 0, gid: 0 },
            todo: Todo::Call(call, super::super::decode::Form::Plain),
        };
        assert!(matches!(server.handle(request), Next::Request), "the loop goes on");
        let mut header = [0_i32; 4];
        File::from(reader).read_exact(header.as_mut_bytes()).expect("a reply");
        header[1]
    }

    #[test]
    fn a_panic_costs_one_call_its_answer() {
        let lookup = Call::Lookup {
            parent: NodeId(1),
            name: b"x.lock",
        };
        assert_eq!(error_of(lookup, 1, Own::here()), -libc::EIO);
        assert_eq!(error_of(Call::GetAttr { node: NodeId(1) }, 1, Own::here()), 0);
    }

    #[test]
    fn the_daemon_never_waits_for_itself() {
        let stat = Call::GetAttr { node: NodeId(1) };
        assert_eq!(error_of(stat, std::process::id(), Own::here()), -libc::EDEADLK);
    }
}
