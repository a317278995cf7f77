//! The nodes that the kernel knows: what each is, and how long we must remember it.
//!
//! 1. Names that hold state keep one node while the kernel or a handle refers to it.
//! 2. Files that take writes get a fresh node at each lookup, with the same st_ino: the kernel allows one
//!    writer at a time per node, and a waiting write must not stop anybody else's.
//! 3. The table is bounded: what was used longest ago is dropped unless a handle needs it. The kernel then
//!    hears ESTALE and looks the name up again.

use std::collections::{BTreeMap, btree_map};

use lru::LruCache;

use crate::types::{LockName, NodeId};

/// How many nodes are remembered.
const NODES_MAX: usize = 262_144;
/// How many nodes in use are passed over when room is needed.
const EVICTION_TRIES: usize = 64;
/// Nodes below this are the fixed ones.
const FIRST_NODE: u64 = 64;

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
}

/// The fixed part of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fixed {
    /// The mountpoint.
    Root = 1,
    /// `locks/`
    Locks,
    /// `flock/`
    Flock,
    /// `metrics/`
    Metrics,
    /// `acquire`
    Acquire,
    /// `control`
    Control,
    /// `last-error`
    LastError,
    /// `README`
    Readme,
    /// `metrics/locks.json`
    LocksJson,
}

impl Fixed {
    const ALL: [Self; 9] = [
        Self::Root,
        Self::Locks,
        Self::Flock,
        Self::Metrics,
        Self::Acquire,
        Self::Control,
        Self::LastError,
        Self::Readme,
        Self::LocksJson,
    ];

    /// Its directory and name; the root has none.
    pub fn place(self) -> Option<(Self, &'static str)> {
        match self {
            Self::Root => None,
            Self::Locks => Some((Self::Root, "locks")),
            Self::Flock => Some((Self::Root, "flock")),
            Self::Metrics => Some((Self::Root, "metrics")),
            Self::Acquire => Some((Self::Root, "acquire")),
            Self::Control => Some((Self::Root, "control")),
            Self::LastError => Some((Self::Root, "last-error")),
            Self::Readme => Some((Self::Root, "README")),
            Self::LocksJson => Some((Self::Metrics, "locks.json")),
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(self) -> bool {
        matches!(self, Self::Root | Self::Locks | Self::Flock | Self::Metrics)
    }

    /// Whether each lookup gives a fresh node: it takes writes, or its contents differ from open to open.
    pub fn is_fresh(self) -> bool {
        matches!(self, Self::Acquire | Self::Control | Self::LastError | Self::LocksJson)
    }

    /// The fixed entries of a directory, in the order that `ls -U` shows.
    pub fn children(self) -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(move |child| child.place().is_some_and(|(parent, _)| parent == self))
    }

    /// The child of that name.
    pub fn child(self, name: &[u8]) -> Option<Self> {
        self.children()
            .find(|child| child.place().is_some_and(|(_, own)| own.as_bytes() == name))
    }

    fn from_id(id: NodeId) -> Option<Self> {
        Self::ALL.into_iter().find(|fixed| *fixed as u64 == id.0)
    }
}

impl Node {
    /// st_ino: the same for a name each time it returns, also after a restart.
    pub fn ino(&self) -> u64 {
        match self {
            Self::Fixed(fixed) => *fixed as u64,
            Self::Lock(name) | Self::LockLink(name) => hash(b'l', &[name]),
            Self::LockDirectory(name) => hash(b'd', &[name]),
            Self::LockDirectoryFile(name, file) => hash(b'e', &[name, file]),
            Self::Scratch(name) => hash(b's', &[name]),
            Self::Flock(name) => hash(b'f', &[name]),
        }
    }

    /// The lock that the node is about.
    pub fn lock(&self) -> Option<&LockName> {
        match self {
            Self::Lock(name)
            | Self::LockDirectory(name)
            | Self::LockLink(name)
            | Self::LockDirectoryFile(name, _)
            | Self::Flock(name) => Some(name),
            Self::Fixed(_) | Self::Scratch(_) => None,
        }
    }
}

/// FNV-1a over the names, kept clear of the fixed numbers and of the sign bit.
fn hash(kind: u8, names: &[&LockName]) -> u64 {
    let bytes = std::iter::once(kind).chain(names.iter().flat_map(|name| name.as_str().bytes().chain([0])));
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
    /// The node that a name has, by its st_ino, which is smaller to keep and quicker to find than the name.
    by_ino: BTreeMap<u64, NodeId>,
    next: u64,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            known: LruCache::unbounded(),
            by_ino: BTreeMap::new(),
            next: FIRST_NODE,
        }
    }
}

impl Nodes {
    /// What a node is, if it is remembered.
    pub fn get(&mut self, id: NodeId) -> Option<Node> {
        match Fixed::from_id(id) {
            Some(fixed) => Some(Node::Fixed(fixed)),
            None => self.known.get(&id).map(|known| known.node.clone()),
        }
    }

    /// The id under which the kernel is told of a node now.
    pub fn looked_up(&mut self, node: Node) -> NodeId {
        let by_name = match node {
            Node::Fixed(fixed) if !fixed.is_fresh() => return NodeId(fixed as u64),
            Node::Fixed(_) => None,
            _ => Some(node.ino()),
        };
        if let Some(&id) = by_name.and_then(|ino| self.by_ino.get(&ino))
            && let Some(known) = self.known.get_mut(&id)
            // Two names may share a hash; then the second is a fresh node at each lookup.
            && known.node == node
        {
            known.lookups += 1;
            return id;
        }
        self.insert(node, by_name)
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

    fn insert(&mut self, node: Node, by_name: Option<u64>) -> NodeId {
        self.make_room();
        let id = NodeId(self.next);
        self.next += 1;
        if let Some(ino) = by_name {
            self.by_ino.entry(ino).or_insert(id);
        }
        self.known.put(
            id,
            Known {
                node,
                lookups: 1,
                pins: 0,
            },
        );
        id
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
        if let Some(known) = self.known.pop(&id)
            && let btree_map::Entry::Occupied(named) = self.by_ino.entry(known.node.ino())
            && *named.get() == id
        {
            named.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(name: &str) -> Node {
        Node::Lock(LockName::parse(name.as_bytes()).expect("test name"))
    }

    #[test]
    fn a_name_keeps_its_node_while_known_and_its_ino_for_ever() {
        let mut nodes = Nodes::default();
        let first = nodes.looked_up(lock("x.lock"));
        assert_eq!(nodes.looked_up(lock("x.lock")), first);
        let ino = nodes.get(first).expect("known").ino();
        nodes.forget(first, 2);
        assert_eq!(nodes.get(first), None);
        let second = nodes.looked_up(lock("x.lock"));
        assert_ne!(second, first, "an id is never given twice");
        assert_eq!(nodes.get(second).expect("known").ino(), ino);
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
