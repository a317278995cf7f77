//! A client: one program that takes a lock in one dialect, keeps it for a while and lets go, over and over. It knows
//! only the answers that it was given.

use git_lockfs::adapters::processes::nice_of;
use git_lockfs::service::api::{Access, Answer, Call, Kind, LockStyle, OpenMode};
use git_lockfs::types::{HandleId, Mode, NodeId, Priority, Range, Refusal};

use crate::random::Random;
use crate::rules::{Held, Wish};

pub const ROOT: NodeId = NodeId(1);
pub const LOCKS: NodeId = NodeId(2);
pub const FLOCK: NodeId = NodeId(3);
pub const NAMES: [&str; 3] = ["a.lock", "b.lock", "c.lock"];

/// A call with everything that it points to.
#[derive(Clone, Debug)]
pub enum Req {
    Lookup(NodeId, String),
    Create(NodeId, String, OpenMode),
    Open(NodeId, OpenMode),
    Lock(NodeId, HandleId, LockStyle, Option<Mode>, Range, bool),
    Write(HandleId, String),
    Read(HandleId),
    Release(HandleId),
    Mkdir(String),
    Rmdir(String),
    Unlink(NodeId, String),
    Link(NodeId, String),
}

impl Req {
    pub fn call(&self) -> Call<'_> {
        match self {
            Self::Lookup(parent, name) => Call::Lookup {
                parent: *parent,
                name: name.as_bytes(),
            },
            Self::Create(parent, name, mode) => Call::Create {
                parent: *parent,
                name: name.as_bytes(),
                mode: *mode,
            },
            Self::Open(node, mode) => Call::Open {
                node: *node,
                mode: *mode,
            },
            Self::Lock(node, handle, style, mode, range, wait) => Call::SetLock {
                node: *node,
                handle: *handle,
                style: *style,
                mode: *mode,
                range: *range,
                wait: *wait,
            },
            Self::Write(handle, data) => Call::Write {
                handle: *handle,
                offset: 0,
                data: data.as_bytes(),
            },
            Self::Read(handle) => Call::Read {
                handle: *handle,
                offset: 0,
                size: 4096,
            },
            Self::Release(handle) => Call::Release { handle: *handle },
            Self::Mkdir(name) => Call::Mkdir {
                parent: LOCKS,
                name: name.as_bytes(),
            },
            Self::Rmdir(name) => Call::Rmdir {
                parent: LOCKS,
                name: name.as_bytes(),
            },
            Self::Unlink(parent, name) => Call::Unlink {
                parent: *parent,
                name: name.as_bytes(),
            },
            Self::Link(node, name) => Call::Link {
                node: *node,
                parent: LOCKS,
                name: name.as_bytes(),
            },
        }
    }
}

/// In which dialect a round is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Open,
    Flock,
    Posix,
    Acquire,
    Mkdir,
    Link,
}

/// Where in its round a client is: what the next answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Idle,
    LookedUp,
    Created,
    Opened,
    Opening,
    Locking,
    Requesting,
    ReadToken,
    Made,
    FileMade,
    FileWritten,
    Linking,
    Holding,
    Noting,
    Reading,
    Emptying,
    Removing,
    Closing,
}

/// A place in the line that outlives a wait: for which lock and the one behind it, and the span in which it arrived.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    name: usize,
    earliest: u64,
    latest: u64,
}

#[derive(Debug)]
pub struct Client {
    pub number: usize,
    pub dialect: Dialect,
    pub stage: Stage,
    name: usize,
    mode: Mode,
    range: Range,
    node: NodeId,
    directory: NodeId,
    pub handles: Vec<HandleId>,
    pub held: Vec<Held>,
    scratch: bool,
    /// Whether it asks for priorities, and which one it asked for in this round.
    has_priorities: bool,
    priority: Option<u8>,
    ticket: Option<Ticket>,
    /// Whether this round uses its ticket.
    with_ticket: bool,
    /// It was killed while nobody served it.
    pub gave_up: bool,
}

/// What an answer makes a client do.
#[derive(Debug)]
pub enum Next {
    Send(Req),
    /// It has the lock, with this token if it was told.
    Has(Option<u64>),
    /// It has the lock, and asks for its token.
    HasAndSends(Req),
    /// It rests: its round is over or it holds.
    Rest,
}

pub const fn mode(access: Access, exclusive: bool) -> OpenMode {
    OpenMode {
        access,
        nonblock: false,
        exclusive,
        append: false,
        truncate: false,
    }
}

/// The priority of those who ask for none.
fn usual_rank() -> u8 {
    Priority::from_nice(nice_of(0)).level()
}

impl Client {
    pub fn new(number: usize, has_priorities: bool) -> Self {
        Self {
            number,
            dialect: Dialect::Open,
            stage: Stage::Idle,
            name: 0,
            mode: Mode::Exclusive,
            range: Range::WHOLE,
            node: ROOT,
            directory: ROOT,
            handles: Vec::new(),
            held: Vec::new(),
            scratch: false,
            has_priorities,
            priority: None,
            ticket: None,
            with_ticket: false,
            gave_up: false,
        }
    }

    fn lock(&self) -> String {
        NAMES[self.name].to_owned()
    }

    fn small(&self) -> String {
        format!(".scratch{}", self.number)
    }

    /// Begins a round, or goes on with one that rests.
    pub fn act(&mut self, random: &mut Random) -> Req {
        if self.stage == Stage::Holding {
            return self.let_go(random.below(3) == 0);
        }
        self.name = random.below(NAMES.len());
        self.mode = [Mode::Shared, Mode::Exclusive][random.below(2)];
        let half = Range::new(0, 99).zip(Range::new(100, 199)).expect("ranges");
        self.range = [half.0, half.1, Range::WHOLE][random.below(3)];
        use Dialect::{Acquire, Flock, Link, Mkdir, Open, Posix};
        self.dialect = [Open, Open, Flock, Posix, Acquire, Acquire, Mkdir, Link][random.below(8)];
        self.priority = (self.has_priorities && random.one_in(2)).then_some([1, 4, 7, 10][random.below(4)]);
        match self.ticket {
            Some(ticket) if random.one_in(2) => {
                (self.dialect, self.name, self.with_ticket) = (Acquire, ticket.name, true)
            }
            Some(_) => self.with_ticket = false,
            None => self.with_ticket = random.one_in(2),
        }
        match self.dialect {
            Open => self.go(Stage::LookedUp, Req::Lookup(LOCKS, self.lock())),
            Flock | Posix => self.go(Stage::LookedUp, Req::Lookup(FLOCK, self.lock())),
            Acquire => self.go(Stage::LookedUp, Req::Lookup(ROOT, "acquire".to_owned())),
            Mkdir => self.go(Stage::Made, Req::Mkdir(self.lock())),
            Link => {
                self.scratch = true;
                self.go(
                    Stage::Created,
                    Req::Create(LOCKS, self.small(), mode(Access::Write, true)),
                )
            }
        }
    }

    fn go(&mut self, stage: Stage, req: Req) -> Req {
        self.stage = stage;
        req
    }

    /// Lets go of what is held; from when this is sent on, nothing is held any more.
    fn let_go(&mut self, notes: bool) -> Req {
        match (self.dialect, self.handles.first().copied()) {
            (Dialect::Flock, Some(handle)) if notes => self.go(Stage::Noting, Req::Write(handle, "a note".to_owned())),
            (Dialect::Acquire, Some(handle)) if notes && !self.held.is_empty() => {
                let _ = handle;
                self.close()
            }
            (Dialect::Mkdir, _) => {
                let parent = self.directory;
                self.go(Stage::Emptying, Req::Unlink(parent, "note".to_owned()))
            }
            (Dialect::Link, _) => {
                self.held.clear();
                self.go(Stage::Removing, Req::Unlink(LOCKS, self.lock()))
            }
            _ => self.close(),
        }
    }

    /// Closes the next handle, or ends the round.
    pub fn close(&mut self) -> Req {
        self.held.clear();
        match self.handles.pop() {
            Some(handle) => self.go(Stage::Closing, Req::Release(handle)),
            None => {
                self.scratch = false;
                self.go(Stage::Closing, Req::Unlink(LOCKS, self.small()))
            }
        }
    }

    fn has(&mut self) -> Next {
        self.stage = Stage::Holding;
        self.held = self.claims();
        if self.dialect == Dialect::Acquire && self.with_ticket {
            self.ticket = None;
        }
        Next::Has(None)
    }

    /// What this round is about.
    fn claims(&self) -> Vec<Held> {
        let parts = match self.dialect {
            // Two locks at once.
            Dialect::Acquire => vec![self.name, (self.name + 1) % NAMES.len()],
            _ => vec![self.name],
        };
        let whole = !matches!(self.dialect, Dialect::Posix);
        let range = if whole { Range::WHOLE } else { self.range };
        let mode = self.taken_mode();
        parts.into_iter().map(|name| Held { name, mode, range }).collect()
    }

    /// What a request is to take, and from where in the line; sent as the `number`th.
    pub fn wishes(&mut self, req: &Req, number: u64) -> Option<Wish> {
        let (waits, rank) = match (req, self.dialect) {
            (Req::Open(..), Dialect::Open) | (Req::Lock(..), _) => (true, usual_rank()),
            (Req::Create(..), Dialect::Open) => (false, usual_rank()),
            (Req::Mkdir(_) | Req::Link(..), _) => (false, Priority::MAX.level()),
            (Req::Write(..), Dialect::Acquire) => (true, self.priority.unwrap_or_else(usual_rank)),
            _ => return None,
        };
        let (mut earliest, mut latest) = (number, number);
        if self.dialect == Dialect::Acquire && self.with_ticket {
            if let Some(ticket) = self.ticket {
                (earliest, latest) = (ticket.earliest, ticket.latest.min(number));
            }
            let name = self.name;
            self.ticket = Some(Ticket { name, earliest, latest });
        }
        Some(Wish {
            claims: self.claims(),
            waits,
            rank,
            earliest,
            latest,
        })
    }

    /// The request of an `acquire`.
    fn request(&self) -> String {
        let (first, second) = (self.lock(), NAMES[(self.name + 1) % NAMES.len()]);
        let mut text = format!("locks={first},{second} wait=forever");
        if let Some(priority) = self.priority {
            text += &format!(" priority={priority}");
        }
        if self.with_ticket {
            text += &format!(" ticket=t{0} session=s{0}", self.number);
        }
        text
    }

    fn taken_mode(&self) -> Mode {
        match self.dialect {
            Dialect::Flock | Dialect::Posix => self.mode,
            _ => Mode::Exclusive,
        }
    }

    /// Gives up the round: closes what is open.
    fn fails(&mut self) -> Next {
        if self.handles.is_empty() && !self.scratch {
            self.held.clear();
            self.stage = Stage::Idle;
            Next::Rest
        } else {
            Next::Send(self.close())
        }
    }

    /// Takes an answer.
    pub fn take(&mut self, answer: Answer) -> Next {
        let stage = self.stage;
        match (stage, answer) {
            // To those who cannot be seen, a lock made by one of them is a directory.
            (Stage::LookedUp, Answer::Entry(entry)) if entry.attr.kind == Kind::Directory => self.fails(),
            (Stage::LookedUp, Answer::Entry(entry)) => {
                self.node = entry.node;
                let access = if self.dialect == Dialect::Open {
                    Access::Write
                } else {
                    Access::Both
                };
                Next::Send(self.go(Stage::Opening, Req::Open(entry.node, mode(access, false))))
            }
            (Stage::LookedUp, Answer::Refused(Refusal::Absent)) => Next::Send(self.go(
                Stage::Created,
                Req::Create(LOCKS, self.lock(), mode(Access::Write, false)),
            )),
            (Stage::Created, Answer::Created(entry, opened)) => {
                self.handles.push(opened.handle);
                self.node = entry.node;
                if self.dialect == Dialect::Link {
                    return Next::Send(self.go(Stage::Opened, Req::Write(opened.handle, "0:session\n".to_owned())));
                }
                self.has()
            }
            // A lost race: the kernel walks the path once more.
            (Stage::Created | Stage::Opening, Answer::Refused(Refusal::Stale)) if self.dialect != Dialect::Link => {
                let (parent, name) = match self.dialect {
                    Dialect::Open => (LOCKS, self.lock()),
                    Dialect::Acquire => (ROOT, "acquire".to_owned()),
                    _ => (FLOCK, self.lock()),
                };
                Next::Send(self.go(Stage::LookedUp, Req::Lookup(parent, name)))
            }
            (Stage::Opening, Answer::Opened(opened)) => {
                self.handles.push(opened.handle);
                let handle = opened.handle;
                match self.dialect {
                    Dialect::Open => self.has(),
                    Dialect::Acquire => Next::Send(self.go(Stage::Requesting, Req::Write(handle, self.request()))),
                    _ => {
                        let (style, range) = match self.dialect {
                            Dialect::Posix => (LockStyle::Posix(self.number as u64 + 1), self.range),
                            _ => (LockStyle::Flock, Range::WHOLE),
                        };
                        let req = Req::Lock(self.node, handle, style, Some(self.mode), range, true);
                        Next::Send(self.go(Stage::Locking, req))
                    }
                }
            }
            (Stage::Locking, Answer::Done) => self.has(),
            (Stage::Requesting, Answer::Written(_)) => {
                self.has();
                let handle = self.handles[0];
                Next::HasAndSends(self.go(Stage::ReadToken, Req::Read(handle)))
            }
            (Stage::ReadToken, Answer::Data(line)) => {
                let line = String::from_utf8(line).expect("a line");
                let token = line
                    .trim_end()
                    .strip_prefix("token=")
                    .map(|token| token.parse().expect("a number"));
                self.stage = Stage::Holding;
                Next::Has(token)
            }
            (Stage::Opened, Answer::Written(_)) => {
                Next::Send(self.go(Stage::Linking, Req::Link(self.node, self.lock())))
            }
            (Stage::Linking, Answer::Entry(_)) => self.has(),
            (Stage::Made, Answer::Entry(entry)) => {
                self.directory = entry.node;
                self.has();
                Next::HasAndSends(self.go(
                    Stage::FileMade,
                    Req::Create(entry.node, "note".to_owned(), mode(Access::Write, false)),
                ))
            }
            (Stage::FileMade, Answer::Created(_, opened)) => {
                self.handles.push(opened.handle);
                Next::Send(self.go(
                    Stage::FileWritten,
                    Req::Write(opened.handle, format!("by {}", self.number)),
                ))
            }
            (Stage::FileWritten, Answer::Written(_)) => {
                let handle = self.handles[0];
                Next::Send(self.go(Stage::Reading, Req::Read(handle)))
            }
            (Stage::Reading, Answer::Data(data)) => {
                assert_eq!(
                    data,
                    format!("by {}", self.number).into_bytes(),
                    "what was written is there"
                );
                self.stage = Stage::Holding;
                Next::Rest
            }
            (Stage::Noting, Answer::Written(_)) => Next::Send(self.close()),
            (Stage::Emptying, Answer::Done) => {
                self.held.clear();
                Next::Send(self.go(Stage::Removing, Req::Rmdir(self.lock())))
            }
            (Stage::Removing | Stage::Closing, Answer::Done) => self.fails(),
            // Taken by another, or a signal ended the wait.
            (Stage::Made | Stage::Linking, Answer::Refused(Refusal::Taken)) => self.fails(),
            (Stage::Opening | Stage::Locking | Stage::Requesting, Answer::Refused(Refusal::Interrupted)) => {
                self.fails()
            }
            (stage, answer) => panic!("client {} {:?} {stage:?}: {answer:?}", self.number, self.dialect),
        }
    }

    /// The program is killed: the kernel closes what it had.
    pub fn dies(&mut self) -> Option<Req> {
        // Whether it was granted before that was noticed, nobody can say; then the next one begins anew.
        if let Some(ticket) = &mut self.ticket {
            ticket.latest = u64::MAX;
        }
        match self.fails() {
            Next::Send(req) => Some(req),
            _ => None,
        }
    }
}
