//! The nodes of the past that the kernel knows, and their numbers.
//!
//! A number is a hash of the node's identity, with bit 63 set, so it is the same after a restart and never a live inode's. Only a root
//! of the past has the number that the kernel gives every root.
//! Invariant: one number never means two nodes at a time: a node whose number is taken gets the next one of its own sequence.
//! The identity of a node never changes; a later lookup may put a newer copy of its attributes under the number.

use super::dependents::Dependents;
use super::node::{Identity, PastItem, PastObject, Refound};
use crate::store::{Ino, ROOT};
use crate::sync::Arc;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;

/// The bit that tells a past node's number from a live inode's.
const PAST: u64 = 1 << 63;

/// Tells whether `number` is a past node's.
pub(crate) fn is_past(number: u64) -> bool {
    number & PAST != 0
}

/// A node of the past.
#[derive(Debug)]
pub(crate) struct PastNode {
    number: u64,
    parent: u64,
    identity: Identity,
    item: PastItem,
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

    /// Its type.
    pub(super) fn item(&self) -> &PastItem {
        &self.item
    }

    /// What it has whatever its type.
    pub(crate) fn object(&self) -> &dyn PastObject {
        self.item.object()
    }
}

/// All nodes of the past that the kernel references.
pub(crate) struct NodeTable {
    // Leaf locks: no row is held across an await or a call out of this file.
    rows: DashMap<u64, NodeRow>,
    dependents: Arc<Dependents>,
    hash: fn(&[u8]) -> u64,
}

struct NodeRow {
    node: Arc<PastNode>,
    lookups: u64,
    /// The live inode that one of its copies depends on.
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
    /// Enters the root of the whole tree. It stays: the kernel references a root without a lookup.
    pub(crate) fn enter_root(&self, item: PastItem) {
        let node = Arc::new(PastNode {
            number: ROOT.0,
            parent: ROOT.0,
            identity: item.object().identity(ROOT.0, b""),
            item,
        });
        self.again(&node);
    }

    /// Counts one lookup of `item`, found as `name` in `parent`.
    pub(crate) fn enter(&self, parent: u64, name: &[u8], item: PastItem) -> Arc<PastNode> {
        let identity = item.object().identity(parent, name);
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
            let item = match &place {
                Place::Occupied(row) if item.object().refound() == Refound::First => {
                    row.get().node.item.clone()
                }
                _ => item,
            };
            let node = Arc::new(PastNode {
                number,
                parent,
                identity,
                item,
            });
            let mut row = place.or_insert_with(|| NodeRow::new(&node));
            row.node = Arc::clone(&node);
            row.lookups += 1;
            self.note(&mut row);
            return node;
        }
    }

    /// Counts one more lookup of a node that the kernel referenced.
    pub(crate) fn again(&self, node: &Arc<PastNode>) {
        let mut row = self
            .rows
            .entry(node.number)
            .or_insert_with(|| NodeRow::new(node));
        row.lookups += 1;
        self.note(&mut row);
    }

    fn note(&self, row: &mut NodeRow) {
        if let Some(ino) = row.node.object().depends_on()
            && row.depends_on != Some(ino)
        {
            row.depends_on = Some(ino);
            self.dependents.note(ino, row.node.number);
        }
    }

    /// The number that entering `item` would give.
    pub(crate) fn number(&self, parent: u64, name: &[u8], item: &PastItem) -> u64 {
        let identity = item.object().identity(parent, name);
        let mut turn = 0;
        loop {
            let number = self.candidate(&identity, turn);
            match self.rows.get(&number) {
                Some(row) if row.node.identity != identity => turn += 1,
                _ => return number,
            }
        }
    }

    /// The node with this number, if the kernel references it.
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
        let start = (self.hash)(identity.bytes());
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

/// FNV-1a with 64 bits, and a final mix, since its high bits are weak for short input. It must never change: the numbers of
/// nodes follow from it.
fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::super::dir_at::{DirAt, Sight};
    use super::super::files_dir::FilesDir;
    use super::super::help_file::HelpFile;
    use super::super::time_dir::TimeDir;
    use super::super::versions_dir::VersionsDir;
    use super::*;
    use crate::store::Timestamp;

    fn table() -> NodeTable {
        NodeTable::new(Arc::default())
    }

    fn files(dir: u64) -> PastItem {
        PastItem::dir(FilesDir(Ino(dir)))
    }

    #[test]
    fn a_number_is_the_same_every_time_and_never_a_live_one() {
        let (one, two) = (table(), table());
        let number = one.enter(7, b"@files", files(3)).number();
        assert!(is_past(number));
        assert_eq!(two.number(9, b"@files", &files(3)), number);
        assert_ne!(two.number(7, b"@files", &files(4)), number);
        let versions = PastItem::dir(VersionsDir(Ino(3)));
        assert_ne!(two.number(7, b"", &versions), number);
        // Numbers are kept by backup tools and NFS clients: a change of the hash shows here.
        assert_eq!(
            two.number(0, b"", &PastItem::file(HelpFile)),
            0xc083_6f55_248e_05c2
        );
    }

    #[test]
    fn a_directory_is_one_per_path() {
        let table = table();
        let time = |at| {
            let (dir, at) = (Ino(3), Timestamp(at));
            PastItem::dir(TimeDir {
                then: DirAt {
                    dir,
                    at,
                    sight: Sight::Exact,
                },
                asked: dir,
            })
        };
        let first = table.number(9, b"2026", &time(5));
        assert_ne!(first, table.number(9, b"2026-11", &time(5)));
        assert_ne!(first, table.number(9, b"2026", &time(6)));
        assert_ne!(first, table.number(8, b"2026", &time(5)));
    }

    #[test]
    fn a_node_is_kept_while_lookups_are_counted() {
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
            assert_eq!(node.object().depends_on(), Some(Ino(dir)));
        }
    }
}
