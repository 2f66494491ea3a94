//! The nodes of the past that the kernel knows, and their numbers.
//!
//! A number is a hash of what the node is, with bit 63 set, so it is the same after a restart and never a live inode's.
//! Invariant: one number never means two things at a time: a node whose number is taken gets the next one of its own
//! sequence. Nothing that a node is can change; a later lookup may put a newer copy of its attributes under the number.

use super::dependents::Dependents;
use crate::store::{Ino, Kind, PastEntry, Predecessor, Timestamp};
use crate::sync::{Arc, Mutex, lock};
use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;

/// The bit that tells a past node's number from a live inode's.
const PAST: u64 = 1 << 63;

/// Tells whether `number` is a past node's.
pub(crate) fn is_past(number: u64) -> bool {
    number & PAST != 0
}

/// A state of a slot, and the question that led to it.
#[derive(Debug, Clone)]
pub(crate) struct PastState {
    /// The directory asked.
    pub(crate) dir: Ino,
    /// The name asked for.
    pub(crate) name: Bytes,
    /// The instant asked for.
    pub(crate) at: Timestamp,
    /// The answer.
    pub(crate) entry: PastEntry,
    /// How many names led to it then; one where only the name asked for counts.
    pub(crate) links: u32,
}

/// Which state a pointer of `@files/NAME` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pointer {
    /// The current one.
    Latest,
    /// The one before it.
    Previous,
}

/// `latest` or `previous` in `@files/NAME`, as it was when it was found. The kernel caches the target of a symbolic link for
/// as long as it knows the node, so that another target is another node.
#[derive(Debug, Clone)]
pub(crate) struct PointerLink {
    /// The live directory.
    pub(crate) dir: Ino,
    /// The name whose history it is in.
    pub(crate) slot: Bytes,
    /// Which of the two.
    pub(crate) pointer: Pointer,
    /// The state's name in the history.
    pub(crate) target: Bytes,
}

/// What a node of the past is.
#[derive(Debug, Clone)]
pub(crate) enum PastKind {
    /// `.versions` of a live directory.
    Versions(Ino),
    /// `.versions/TIME`: the directory `dir` as of `at`, asked for through the live directory `asked`.
    Time {
        /// The directory that stood there then.
        dir: Ino,
        /// The instant.
        at: Timestamp,
        /// Whose `.versions` it was asked of.
        asked: Ino,
    },
    /// A directory inside a `TIME`; its instant is the question's.
    Tree(Box<PastState>),
    /// Anything else that has versions, in one of them.
    State(Box<PastState>),
    /// `@files` of a live directory.
    Files(Ino),
    /// `@files/NAME` of a live directory.
    History(Ino, Bytes),
    /// `latest` or `previous` in `@files/NAME`.
    Pointer(Box<PointerLink>),
    /// `@deleted` of a live directory.
    Deleted(Ino),
    /// A removed directory in `@deleted`, as of the instant before it was emptied.
    Gone(Box<PastState>),
    /// `@log` of a live directory.
    Log(Ino),
    /// `@help`.
    Help,
}

impl PastKind {
    /// Its kind as a file.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Versions(_)
            | Self::Time { .. }
            | Self::Tree(_)
            | Self::Files(_)
            | Self::History(..)
            | Self::Deleted(_)
            | Self::Gone(_) => Kind::Directory,
            Self::State(seen) => seen.entry.kind,
            Self::Pointer(..) => Kind::Symlink,
            Self::Help | Self::Log(_) => Kind::File,
        }
    }

    /// The live inode whose attributes it shows, if those can change. Of a past directory asked for through another one, and of
    /// what can be renamed out, the kernel keeps none.
    pub(crate) fn depends_on(&self) -> Option<Ino> {
        match self {
            Self::Versions(dir)
            | Self::Files(dir)
            | Self::History(dir, _)
            | Self::Deleted(dir)
            | Self::Log(dir) => Some(*dir),
            Self::Time { dir, asked, .. } => (dir == asked).then_some(*dir),
            Self::Tree(seen) | Self::State(seen) => {
                (!seen.entry.is_over()).then_some(seen.entry.ino)
            }
            Self::Pointer(_) | Self::Gone(_) | Self::Help => None,
        }
    }

    /// Spells out which node this is when found as `name` in `parent`; equal spellings are the same node. A directory is
    /// one per path, because the kernel allows it one place only; a version is one wherever it is found, and so are all names
    /// that a file had at an instant.
    pub(crate) fn identity(&self, parent: u64, name: &[u8]) -> Identity {
        let mut spelling = Vec::with_capacity(40 + name.len());
        let mut spell = |kind: u8, numbers: &[u64], name: &[u8]| {
            spelling.push(kind);
            for number in numbers {
                spelling.extend_from_slice(&number.to_be_bytes());
            }
            spelling.extend_from_slice(name);
        };
        match self {
            Self::Versions(dir) => spell(b'V', &[dir.0], b""),
            Self::Time { dir, at, .. } => spell(b'T', &[parent, dir.0, at.0], name),
            Self::Tree(seen) => spell(b'D', &[parent, seen.entry.ino.0, seen.at.0], name),
            Self::State(seen) => {
                let version = seen.entry.version;
                let suffix = u64::from(version.suffix);
                let state = [seen.entry.ino.0, version.timestamp.0, suffix];
                // The kernel keeps one link count per number, and one content.
                match seen.links {
                    0 | 1 => spell(b'S', &state, b""),
                    links => spell(b'K', &state, &links.to_be_bytes()),
                }
            }
            Self::Files(dir) => spell(b'F', &[dir.0], b""),
            Self::History(dir, slot) => spell(b'H', &[dir.0], slot),
            Self::Pointer(link) => {
                let kind = match link.pointer {
                    Pointer::Latest => b'L',
                    Pointer::Previous => b'P',
                };
                // No name holds a NUL.
                let path = [&link.slot[..], &[0], &link.target[..]].concat();
                spell(kind, &[link.dir.0], &path);
            }
            Self::Help => spell(b'?', &[], b""),
            Self::Deleted(dir) => spell(b'R', &[dir.0], b""),
            Self::Gone(seen) => spell(b'G', &[parent, seen.entry.ino.0, seen.at.0], name),
            Self::Log(dir) => spell(b'J', &[dir.0], b""),
        }
        Identity(spelling)
    }
}

/// Which node a node is, spelt out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity(Vec<u8>);

/// Parts of a history that lie under other names; one for all copies of a node.
type Predecessors = Arc<Mutex<Option<Arc<[Predecessor]>>>>;

/// A node of the past.
#[derive(Debug)]
pub(crate) struct PastNode {
    number: u64,
    parent: u64,
    identity: Identity,
    what: PastKind,
    /// Of `@files/NAME`: under which other names its history goes on, once all of it was read.
    predecessors: Predecessors,
}

impl PastNode {
    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The number of the node it was found in; the live directory's for `.versions`.
    pub(crate) fn parent(&self) -> u64 {
        self.parent
    }

    /// The live directory whose removed names it shows, if it is an `@deleted`.
    pub(crate) fn deleted_of(&self) -> Option<Ino> {
        match self.what {
            PastKind::Deleted(dir) => Some(dir),
            _ => None,
        }
    }

    /// The live directory it stands for, as it was or is.
    pub(crate) fn live_directory(&self) -> Option<Ino> {
        match &self.what {
            PastKind::Versions(dir)
            | PastKind::Files(dir)
            | PastKind::Deleted(dir)
            | PastKind::Log(dir) => Some(*dir),
            PastKind::Time { asked, .. } => Some(*asked),
            _ => None,
        }
    }

    /// The name in a live directory whose states it leads to.
    pub(crate) fn live_name(&self) -> Option<(Ino, &Bytes)> {
        match &self.what {
            PastKind::History(dir, slot) => Some((*dir, slot)),
            _ => None,
        }
    }

    /// The name it has in the directory it was found in, as that was.
    pub(crate) fn name(&self) -> Option<&Bytes> {
        match &self.what {
            PastKind::Tree(seen) | PastKind::State(seen) | PastKind::Gone(seen) => Some(&seen.name),
            _ => None,
        }
    }

    /// The instant of the version it shows, or as of which it shows a directory.
    pub(crate) fn instant(&self) -> Option<Timestamp> {
        match &self.what {
            PastKind::State(seen) => Some(seen.entry.version.timestamp),
            PastKind::Tree(seen) | PastKind::Gone(seen) => Some(seen.at),
            PastKind::Time { at, .. } => Some(*at),
            _ => None,
        }
    }

    /// What it is.
    pub(crate) fn what(&self) -> &PastKind {
        &self.what
    }

    /// What [`Self::remember`] was told last.
    pub(crate) fn predecessors(&self) -> Option<Arc<[Predecessor]>> {
        lock(&self.predecessors).clone()
    }

    /// Keeps what reading a whole history told, so that its versions are found one by one afterwards.
    pub(crate) fn remember(&self, predecessors: Vec<Predecessor>) {
        *lock(&self.predecessors) = Some(predecessors.into());
    }
}

/// All past nodes the kernel holds.
pub(crate) struct NodeTable {
    // Leaf locks: no row is held across an await or a call out of this file.
    rows: DashMap<u64, NodeRow>,
    dependents: Arc<Dependents>,
    hash: fn(&[u8]) -> u64,
}

struct NodeRow {
    node: Arc<PastNode>,
    lookups: u64,
    /// What one of its copies depends on.
    depends_on: Option<Ino>,
}

impl NodeTable {
    /// An empty table, which notes in `dependents` what shows live attributes.
    pub(crate) fn new(dependents: Arc<Dependents>) -> Self {
        Self {
            rows: DashMap::new(),
            dependents,
            hash: fnv1a,
        }
    }
}

impl NodeTable {
    /// Counts one lookup of `what`, found as `name` in `parent`.
    pub(crate) fn enter(&self, parent: u64, name: &[u8], what: PastKind) -> Arc<PastNode> {
        let identity = what.identity(parent, name);
        let mut turn = 0;
        loop {
            let number = self.candidate(&identity, turn);
            let place = self.rows.entry(number);
            if let Place::Occupied(row) = &place
                && row.get().node.identity != identity
            {
                turn += 1;
                continue;
            }
            let predecessors = match &place {
                Place::Occupied(row) => Arc::clone(&row.get().node.predecessors),
                Place::Vacant(_) => Predecessors::default(),
            };
            let node = Arc::new(PastNode {
                number,
                parent,
                identity,
                what,
                predecessors,
            });
            let mut row = place.or_insert_with(|| NodeRow::new(&node));
            row.node = Arc::clone(&node);
            row.lookups += 1;
            self.note(&mut row);
            return node;
        }
    }

    /// Counts one more lookup of a node the kernel knew.
    pub(crate) fn again(&self, node: &Arc<PastNode>) {
        let mut row = self
            .rows
            .entry(node.number)
            .or_insert_with(|| NodeRow::new(node));
        row.lookups += 1;
        self.note(&mut row);
    }

    fn note(&self, row: &mut NodeRow) {
        if let Some(ino) = row.node.what.depends_on()
            && row.depends_on != Some(ino)
        {
            row.depends_on = Some(ino);
            self.dependents.note(ino, row.node.number);
        }
    }

    /// The number that entering `what` would give.
    pub(crate) fn number(&self, parent: u64, name: &[u8], what: &PastKind) -> u64 {
        let identity = what.identity(parent, name);
        let mut turn = 0;
        loop {
            let number = self.candidate(&identity, turn);
            match self.rows.get(&number) {
                Some(row) if row.node.identity != identity => turn += 1,
                _ => return number,
            }
        }
    }

    /// The node with this number, if the kernel holds it.
    pub(crate) fn node(&self, number: u64) -> Option<Arc<PastNode>> {
        let row = self.rows.get(&number)?;
        Some(Arc::clone(&row.node))
    }

    /// Gives back `count` lookups.
    pub(crate) fn forget(&self, number: u64, count: u64) {
        if let Place::Occupied(mut row) = self.rows.entry(number) {
            let left = row.get().lookups.saturating_sub(count);
            row.get_mut().lookups = left;
            if left == 0 {
                let row = row.remove();
                if let Some(ino) = row.depends_on {
                    self.dependents.drop_node(ino, row.node.number);
                }
            }
        }
    }

    fn candidate(&self, identity: &Identity, turn: u64) -> u64 {
        // An odd step visits every number before it repeats one.
        let start = (self.hash)(&identity.0);
        start.wrapping_add(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | PAST
    }
}

impl NodeRow {
    fn new(node: &Arc<PastNode>) -> Self {
        Self {
            node: Arc::clone(node),
            lookups: 0,
            depends_on: None,
        }
    }
}

/// FNV-1a with 64 bits, and a final mix, since its high bits are weak for short input. Fixed for ever: numbers follow from
/// it.
fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> NodeTable {
        NodeTable::new(Arc::default())
    }

    fn files(dir: u64) -> PastKind {
        PastKind::Files(Ino(dir))
    }

    #[test]
    fn a_number_is_the_same_every_time_and_never_a_live_one() {
        let (one, two) = (table(), table());
        let number = one.enter(7, b"@files", files(3)).number();
        assert!(is_past(number));
        assert_eq!(two.number(9, b"@files", &files(3)), number);
        assert_ne!(two.number(7, b"@files", &files(4)), number);
        assert_ne!(two.number(7, b"", &PastKind::Versions(Ino(3))), number);
        // Numbers are kept by backup tools and NFS clients: a change of the hash shows here.
        assert_eq!(two.number(0, b"", &PastKind::Help), 0xc083_6f55_248e_05c2);
    }

    #[test]
    fn a_directory_is_one_per_path() {
        let table = table();
        let time = |at| PastKind::Time {
            dir: Ino(3),
            at: Timestamp(at),
            asked: Ino(3),
        };
        let first = table.number(9, b"2026", &time(5));
        assert_ne!(first, table.number(9, b"2026-11", &time(5)));
        assert_ne!(first, table.number(9, b"2026", &time(6)));
        assert_ne!(first, table.number(8, b"2026", &time(5)));
    }

    #[test]
    fn a_node_stands_while_lookups_are_held() {
        let table = table();
        let node = table.enter(7, b"@files", files(3));
        assert_eq!(table.enter(7, b"@files", files(3)).number(), node.number());
        table.again(&node);
        table.forget(node.number(), 2);
        assert!(table.node(node.number()).is_some());
        table.forget(node.number(), 1);
        assert!(table.node(node.number()).is_none());
        table.forget(node.number(), 1);
    }

    #[test]
    fn nodes_that_collide_get_numbers_of_their_own() {
        let table = NodeTable {
            hash: |_| 5,
            ..table()
        };
        let numbers: Vec<u64> = (0..50)
            .map(|dir| table.enter(1, b"@files", files(dir)).number())
            .collect();
        for (dir, number) in (0..50).zip(&numbers) {
            assert!(is_past(*number));
            assert_eq!(table.number(1, b"@files", &files(dir)), *number);
            let node = table.node(*number).unwrap();
            assert!(matches!(node.what(), PastKind::Files(found) if found.0 == dir));
        }
    }
}
