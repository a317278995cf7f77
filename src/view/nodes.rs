//! The nodes that the kernel knows: what each is, and how long we must remember it.
//!
//! 1. Names that hold state keep one node, whose id follows from the name: a daemon that takes over from one that died
//!    gives the same ids without having been told of them.
//! 2. Files that take writes get a fresh node at each lookup, with the same st_ino: the kernel allows one
//!    writer at a time per node, and a waiting write must not stop anybody else's. Their ids are counted, and no later
//!    life of the daemon counts through the same ones.
//! 3. The table is bounded: what was used longest ago is dropped unless a handle needs it. The kernel then
//!    hears ESTALE and looks the name up again, as it does for what a former life of the daemon told it.

mod figure;
mod fixed;

use lru::LruCache;

pub use figure::Figure;
pub use fixed::Fixed;

use crate::types::{LockName, NodeId};

/// How many nodes are remembered.
const NODES_MAX: usize = 262_144;
/// How many nodes in use are passed over when room is needed.
const EVICTION_TRIES: usize = 64;
/// Nodes below this are the fixed ones.
const FIRST_NODE: u64 = 64;
/// The bit of ids that are counted; no id that follows from a name has it.
const COUNTED: u64 = 1 << 63;
/// How many bits of a counted id are the count; the bits above are the life of the daemon.
const COUNT_BITS: u32 = 40;

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// One of the fixed directories and files.
    Fixed(Fixed),
    /// A lock in `locks/`, seen as a regular file.
    Lock(LockName),
    /// A lock made by mkdir, seen by its keeper.
    LockDirectory(LockName),
    /// A lock made by symlink, as its maker saw it once.
    LockLink(LockName),
    /// A file in a lock made by mkdir.
    LockDirectoryFile(LockName, LockName),
    /// A scratch file in `locks/`.
    Scratch(LockName),
    /// A lock in `flock/`.
    Flock(LockName),
    /// `metrics/events.csv`, as it was when it was looked up: from this offset on.
    Events(u64),
    /// A directory in `metrics/by-lock/`.
    LockFigures(LockName),
    /// A file in one of those.
    LockFigure(LockName, Figure),
}

impl Node {
    /// st_ino: the same for a name each time it returns, also after a restart.
    pub fn ino(&self) -> u64 {
        match self {
            Self::Fixed(fixed) => *fixed as u64,
            Self::Lock(name) | Self::LockLink(name) => hash(b'l', &[name.as_str()]),
            Self::LockDirectory(name) => hash(b'd', &[name.as_str()]),
            Self::LockDirectoryFile(name, file) => hash(b'e', &[name.as_str(), file.as_str()]),
            Self::Scratch(name) => hash(b's', &[name.as_str()]),
            Self::Flock(name) => hash(b'f', &[name.as_str()]),
            Self::Events(_) => Fixed::EventsCsv as u64,
            Self::LockFigures(name) => hash(b'm', &[name.as_str()]),
            Self::LockFigure(name, figure) => hash(b'n', &[name.as_str(), figure.name()]),
        }
    }

    /// Whether it shows figures of the past.
    pub fn is_figures(&self) -> bool {
        match self {
            Self::Fixed(fixed) => fixed.is_figures() || *fixed == Fixed::ByLock,
            Self::Events(_) | Self::LockFigures(_) | Self::LockFigure(..) => true,
            _ => false,
        }
    }

    /// The id of a name's node, if no other name has the same.
    fn named_id(&self) -> NodeId {
        NodeId(match self {
            // It has the st_ino of the lock as a file, but to the kernel one id has one file type.
            Self::LockLink(name) => hash(b'k', &[name.as_str()]),
            _ => self.ino(),
        })
    }

    /// The lock that the node is about.
    pub fn lock(&self) -> Option<&LockName> {
        match self {
            Self::Lock(name)
            | Self::LockDirectory(name)
            | Self::LockLink(name)
            | Self::LockDirectoryFile(name, _)
            | Self::Flock(name) => Some(name),
            Self::Fixed(_) | Self::Scratch(_) | Self::Events(_) | Self::LockFigures(_) | Self::LockFigure(..) => None,
        }
    }
}

/// FNV-1a over the names, kept clear of the fixed numbers and of the sign bit.
fn hash(kind: u8, names: &[&str]) -> u64 {
    let bytes = std::iter::once(kind).chain(names.iter().flat_map(|name| name.bytes().chain([0])));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 1).max(FIRST_NODE)
}

#[derive(Debug)]
struct Known {
    node: Node,
    /// How often the kernel was told of it and has not forgotten.
    lookups: u64,
    /// How many handles and waiting opens need it.
    pins: u32,
}

/// The nodes that are remembered.
#[derive(Debug)]
pub struct Nodes {
    known: LruCache<NodeId, Known>,
    /// The next counted id.
    next: u64,
}

impl Default for Nodes {
    fn default() -> Self {
        Self::in_life(0)
    }
}

impl Nodes {
    /// No nodes yet; the life of the daemon keeps counted ids apart from those of former lives.
    pub fn in_life(life: u64) -> Self {
        Self {
            known: LruCache::unbounded(),
            next: COUNTED | (life << COUNT_BITS) & !COUNTED,
        }
    }

    /// What a node is, if it is remembered.
    pub fn get(&mut self, id: NodeId) -> Option<Node> {
        match Fixed::from_id(id) {
            Some(fixed) => Some(Node::Fixed(fixed)),
            None => self.known.get(&id).map(|known| known.node.clone()),
        }
    }

    /// The id under which the kernel is told of a node now.
    pub fn looked_up(&mut self, node: Node) -> NodeId {
        let id = match node {
            Node::Fixed(fixed) if !fixed.is_fresh() => return NodeId(fixed as u64),
            Node::Fixed(_) | Node::Events(_) => return self.insert_counted(node),
            _ => node.named_id(),
        };
        match self.known.get_mut(&id) {
            Some(known) if known.node == node => {
                known.lookups += 1;
                id
            }
            // Two names may share a hash; then the second is a fresh node at each lookup.
            Some(_) => self.insert_counted(node),
            None => {
                self.insert(id, node, 1);
                id
            }
        }
    }

    /// Remembers a name that the kernel may know from a former life of the daemon, however often it was told.
    pub fn remember(&mut self, node: Node) {
        let id = node.named_id();
        if !self.known.contains(&id) {
            self.insert(id, node, 0);
        }
    }

    /// Remembers what an open file of a former life was opened by: one of these, whichever has that id by its name, or
    /// else the first.
    pub fn remember_open(&mut self, id: NodeId, candidates: impl IntoIterator<Item = Node>) {
        let mut candidates = candidates.into_iter().peekable();
        let first = candidates.peek().cloned();
        let node = candidates.find(|node| node.named_id() == id).or(first);
        if let Some(node) = node
            && Fixed::from_id(id).is_none()
        {
            if !self.known.contains(&id) {
                self.insert(id, node, 0);
            }
            self.pin(id);
        }
    }

    /// The kernel dropped so many references.
    pub fn forget(&mut self, id: NodeId, count: u64) {
        let Some(known) = self.known.peek_mut(&id) else { return };
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups == 0 && known.pins == 0 {
            self.remove(id);
        }
    }

    /// A handle needs the node.
    pub fn pin(&mut self, id: NodeId) {
        if let Some(known) = self.known.peek_mut(&id) {
            known.pins += 1;
        }
    }

    /// A handle no longer needs it.
    pub fn unpin(&mut self, id: NodeId) {
        let Some(known) = self.known.peek_mut(&id) else { return };
        known.pins = known.pins.saturating_sub(1);
        if known.lookups == 0 && known.pins == 0 {
            self.remove(id);
        }
    }

    fn insert_counted(&mut self, node: Node) -> NodeId {
        let id = NodeId(self.next);
        self.next += 1;
        self.insert(id, node, 1);
        id
    }

    fn insert(&mut self, id: NodeId, node: Node, lookups: u64) {
        self.make_room();
        let pins = 0;
        self.known.put(id, Known { node, lookups, pins });
    }

    fn make_room(&mut self) {
        if self.known.len() < NODES_MAX {
            return;
        }
        for _ in 0..EVICTION_TRIES {
            let Some((&id, known)) = self.known.peek_lru() else {
                return;
            };
            if known.pins == 0 {
                return self.remove(id);
            }
            self.known.promote(&id);
        }
    }

    fn remove(&mut self, id: NodeId) {
        self.known.pop(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(name: &str) -> Node {
        Node::Lock(LockName::parse(name.as_bytes()).expect("test name"))
    }

    #[test]
    fn a_name_keeps_its_node_for_ever() {
        let mut nodes = Nodes::default();
        let first = nodes.looked_up(lock("x.lock"));
        assert_eq!(nodes.looked_up(lock("x.lock")), first);
        let ino = nodes.get(first).expect("known").ino();
        nodes.forget(first, 2);
        assert_eq!(nodes.get(first), None);
        let mut later = Nodes::in_life(1);
        for nodes in [&mut nodes, &mut later] {
            assert_eq!(nodes.looked_up(lock("x.lock")), first);
            assert_eq!(nodes.get(first).expect("known").ino(), ino);
        }
        let link = Node::LockLink(LockName::parse(b"x.lock").expect("test name"));
        assert_eq!(link.ino(), ino);
        assert_ne!(nodes.looked_up(link), first, "one id has one file type");
    }

    #[test]
    fn counted_ids_are_of_one_life_only() {
        let acquire = || Node::Fixed(Fixed::Acquire);
        let mut seen = std::collections::BTreeSet::new();
        for life in 0..3 {
            let mut nodes = Nodes::in_life(life);
            for _ in 0..3 {
                assert!(seen.insert(nodes.looked_up(acquire())));
            }
        }
    }

    #[test]
    fn what_was_open_in_a_former_life_keeps_its_node_until_it_is_closed() {
        let (file, flock) = (
            lock("x.lock"),
            Node::Flock(LockName::parse(b"x.lock").expect("test name")),
        );
        let mut nodes = Nodes::in_life(1);
        let id = flock.named_id();
        nodes.remember_open(id, [file.clone(), flock.clone()]);
        nodes.remember_open(NodeId(COUNTED | 7), [file.clone(), flock.clone()]);
        assert_eq!(nodes.get(id), Some(flock));
        assert_eq!(nodes.get(NodeId(COUNTED | 7)), Some(file), "another name had its hash");
        nodes.forget(id, 9);
        assert!(nodes.get(id).is_some(), "a count that is not known does no harm");
        nodes.unpin(id);
        assert_eq!(nodes.get(id), None);
    }

    #[test]
    fn files_that_take_writes_get_a_fresh_node_each_time() {
        let mut nodes = Nodes::default();
        let (a, b) = (
            nodes.looked_up(Node::Fixed(Fixed::Acquire)),
            nodes.looked_up(Node::Fixed(Fixed::Acquire)),
        );
        assert_ne!(a, b);
        assert_eq!(nodes.get(a), nodes.get(b));
    }

    #[test]
    fn a_pinned_node_outlives_the_kernels_interest() {
        let mut nodes = Nodes::default();
        let id = nodes.looked_up(lock("x.lock"));
        nodes.pin(id);
        nodes.forget(id, 1);
        assert!(nodes.get(id).is_some());
        nodes.unpin(id);
        assert_eq!(nodes.get(id), None);
    }

    #[test]
    fn every_fixed_name_is_found_in_its_directory() {
        for fixed in Fixed::ALL {
            if let Some((parent, name)) = fixed.place() {
                assert_eq!(parent.child(name.as_bytes()), Some(fixed));
            }
        }
        assert_eq!(Fixed::Root.child(b"queue"), None);
    }
}
