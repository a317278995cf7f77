//! A service of five files, one of which is a lock: what a front needs to be tried out.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use git_lockfs::fuse::{Mounted, Unmounted, Unmounter, note_own_thread};
use git_lockfs::service::api::{Access, Answer, Attr, Call, Caller, DirEntry, Entry, Files, Kind, Opened, Replies};
use git_lockfs::types::{HandleId, NodeId, Refusal, Unique};
use nix::poll::PollFlags;

const NAMES: [&str; 5] = ["hello", "note", "lock", "control", "calls"];
const HELLO: NodeId = NodeId(2);
const NOTE: NodeId = NodeId(3);
const LOCK: NodeId = NodeId(4);
const CONTROL: NodeId = NodeId(5);
const CALLS: NodeId = NodeId(6);

/// A directory with a file that can be locked by opening it for writing, or by flock; one holder at a time.
pub struct Toy {
    replies: Arc<dyn Replies>,
    unmounter: Unmounter,
    mountpoint: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    handles: BTreeMap<u64, (NodeId, Vec<u8>)>,
    note: Vec<u8>,
    calls: String,
    holder: Option<HandleId>,
    waiting: Vec<(Unique, Wanted)>,
    polls: Vec<u64>,
}

enum Wanted {
    Open,
    Flock(HandleId),
}

impl State {
    fn open(&mut self, node: NodeId, text: Vec<u8>) -> HandleId {
        let handle = self.handles.last_key_value().map_or(1, |(last, _)| last + 1);
        self.handles.insert(handle, (node, text));
        HandleId(handle)
    }

    fn node_of(&self, handle: HandleId) -> Option<NodeId> {
        self.handles.get(&handle.0).map(|(node, _)| *node)
    }
}

impl Toy {
    /// The toy on a mount at that place.
    pub fn new(mounted: &Mounted, mountpoint: PathBuf) -> Self {
        Self {
            replies: mounted.replies(),
            unmounter: mounted.unmounter(),
            mountpoint,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Gives the lock to the first who waits.
    fn free(&self, state: &mut State) {
        state.holder = None;
        if state.waiting.is_empty() {
            return;
        }
        let (unique, wanted) = state.waiting.remove(0);
        let (handle, answer) = match wanted {
            Wanted::Flock(handle) => (handle, Answer::Done),
            Wanted::Open => {
                let handle = state.open(LOCK, Vec::new());
                (handle, Answer::Opened(opened(handle)))
            }
        };
        state.holder = Some(handle);
        self.replies.answer(unique, answer);
    }

    fn control(&self, state: &mut State, verb: &[u8]) {
        match verb.trim_ascii() {
            b"unmount" => {
                let unmounter = self.unmounter.clone();
                thread::spawn(
                    move || match unmounter.unmount().expect("an unmount of what is in use") {
                        Unmounted::Ended => {}
                        // The kernel cuts off who is in there when the descriptor goes.
                        Unmounted::Detached => std::process::exit(0),
                    },
                );
            }
            b"touch" => {
                let path = self.mountpoint.join("hello");
                let (to_control, noted) = mpsc::channel();
                thread::spawn(move || {
                    note_own_thread();
                    to_control.send(()).expect("control waits");
                    let errno = File::open(path).err().and_then(|error| error.raw_os_error());
                    println!("touched {errno:?}");
                });
                noted.recv().expect("the thread notes itself");
            }
            b"wake" => {
                state.note = b"woken".to_vec();
                for poll_handle in state.polls.drain(..) {
                    self.replies.wake_poll(poll_handle);
                }
            }
            other => panic!("an unknown verb: {other:?}"),
        }
    }
}

fn opened(handle: HandleId) -> Opened {
    Opened {
        handle,
        stream: false,
        quiet_close: false,
    }
}

fn attr(node: NodeId, state: &State) -> Attr {
    let (kind, perm) = if node.0 == 1 {
        (Kind::Directory, 0o755)
    } else {
        (Kind::File, 0o644)
    };
    Attr {
        ino: 100 + node.0,
        kind,
        perm,
        nlink: 1,
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        size: text_of(node, state).len() as u64,
        mtime: (1_763_647_200, 5),
        ttl: Duration::ZERO,
    }
}

fn text_of(node: NodeId, state: &State) -> Vec<u8> {
    match node {
        HELLO => b"hello, lock\n".to_vec(),
        NOTE => state.note.clone(),
        CALLS => state.calls.clone().into_bytes(),
        _ => Vec::new(),
    }
}

impl Files for Toy {
    fn call(&self, unique: Unique, _: Caller, call: Call<'_>) -> Option<Answer> {
        let state = &mut *self.state();
        state.calls.push_str(&format!("{call:?}\n"));
        Some(match call {
            Call::Lookup { name: b"panic", .. } => panic!("a call that panics"),
            Call::Lookup { name, .. } => match (2..).zip(NAMES).find(|(_, known)| known.as_bytes() == name) {
                Some((node, _)) => {
                    let node = NodeId(node);
                    let attr = attr(node, state);
                    Answer::Entry(Entry { node, attr })
                }
                None => Answer::Refused(Refusal::Absent),
            },
            Call::GetAttr { node } | Call::SetAttr { node, .. } => Answer::Attr(attr(node, state)),
            Call::OpenDir { node } => Answer::Opened(opened(state.open(node, Vec::new()))),
            Call::ReadDir { offset, .. } => {
                let file = |(node, name): (u64, &str)| DirEntry {
                    ino: 100 + node,
                    kind: Kind::File,
                    name: name.to_owned(),
                };
                let skipped = usize::try_from(offset).expect("a small index");
                let entries = (2..).zip(NAMES).skip(skipped).map(file).collect();
                Answer::Entries { offset, entries }
            }
            Call::Open { node: LOCK, mode } if mode.access == Access::Write => {
                if state.waiting.iter().any(|(waiting, _)| *waiting == unique) {
                    println!("again");
                    return None;
                }
                if state.holder.is_some() {
                    state.waiting.push((unique, Wanted::Open));
                    return None;
                }
                let handle = state.open(LOCK, Vec::new());
                state.holder = Some(handle);
                Answer::Opened(opened(handle))
            }
            Call::Open { node, .. } => {
                let text = text_of(node, state);
                Answer::Opened(opened(state.open(node, text)))
            }
            Call::Read { handle, offset, size } => {
                let text = state.handles.get(&handle.0).map_or(&[][..], |(_, text)| text);
                let rest = text.get(usize::try_from(offset).expect("small")..).unwrap_or_default();
                Answer::Data(rest[..rest.len().min(size as usize)].to_vec())
            }
            Call::Write { handle, data, .. } => {
                match state.node_of(handle) {
                    Some(CONTROL) => self.control(state, data),
                    _ => state.note = data.to_vec(),
                }
                Answer::Written(u32::try_from(data.len()).expect("small"))
            }
            Call::SetLock { handle, mode, wait, .. } => match mode {
                Some(_) if state.holder.is_none_or(|holder| holder == handle) => {
                    state.holder = Some(handle);
                    Answer::Done
                }
                Some(_) if wait => {
                    state.waiting.push((unique, Wanted::Flock(handle)));
                    return None;
                }
                Some(_) => Answer::Refused(Refusal::WouldBlock),
                None => {
                    self.free(state);
                    Answer::Done
                }
            },
            Call::GetLock { .. } => Answer::Conflict(None),
            Call::Release { handle } | Call::ReleaseDir { handle } => {
                state.handles.remove(&handle.0);
                if state.holder == Some(handle) {
                    self.free(state);
                }
                Answer::Done
            }
            Call::Flush { .. } => Answer::Done,
            Call::GetXattr {
                name: b"user.lockfs.token",
                room,
                ..
            } => Answer::value(b"918".to_vec(), room),
            Call::GetXattr { .. } => Answer::Refused(Refusal::NoAttribute),
            Call::ListXattr { room, .. } => Answer::value(b"user.lockfs.token\0".to_vec(), room),
            Call::Poll { notify, .. } => {
                state.polls.extend(notify);
                let ready = if state.note == b"woken" {
                    PollFlags::POLLIN
                } else {
                    PollFlags::empty()
                };
                Answer::Ready(ready.bits().unsigned_abs().into())
            }
            Call::Interrupt { target } => {
                let before = state.waiting.len();
                state.waiting.retain(|(unique, _)| *unique != target);
                if state.waiting.len() < before {
                    self.replies.answer(target, Answer::Refused(Refusal::Interrupted));
                }
                return None;
            }
            Call::Forget { .. } => return None,
            _ => Answer::Refused(Refusal::Unsupported),
        })
    }
}
