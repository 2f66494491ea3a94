//! Complete listings of live directories, each as the kernel may have copied it.
//!
//! The kernel keeps the names of a directory over an open where this table has them as well. A reader of the kernel's copy that
//! loses it on the way goes on here, at the same name: positions mean something in one snapshot only.
//! Invariant: the table has at most [`NAMES_MAX`] names; of a directory it has the names of one stamp.

use crate::fs::dir_snapshot::DirSnapshot;
use crate::store::Ino;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
use std::collections::{HashMap, VecDeque};
use tokio::sync::Mutex as AsyncMutex;

/// Number of names in the table; about 6 MiB.
const NAMES_MAX: usize = 65_536;

/// Number of names of one directory in it.
const DIRECTORY_MAX: usize = 8_192;

/// Bits of an offset that are the position, up to which an offset also names its snapshot.
const POSITION_BITS: u32 = 20;

/// Number of snapshots that offsets tell apart. With the position they take 31 bits, all that old 32-bit programs read.
const SERIALS: u64 = 1 << 11;

/// Marks the offset of a position that has more than [`POSITION_BITS`] bits.
const LARGE: u64 = 1 << 40;

/// The names that a reader of a directory sees, shared by the handles that the kernel serves from one copy.
pub(crate) struct SharedSnapshot {
    serial: u64,
    /// The names. Held while they are drawn.
    pub(crate) names: AsyncMutex<DirSnapshot>,
}

impl SharedSnapshot {
    /// The offset at which a listing goes on at `position`.
    pub(crate) fn offset(&self, position: u64) -> u64 {
        match position >> POSITION_BITS {
            0 => self.serial << POSITION_BITS | position,
            _ => LARGE | position,
        }
    }

    /// Whether `offset` was made by this snapshot, as far as offsets tell.
    pub(crate) fn has_made(&self, offset: u64) -> bool {
        offset & LARGE != 0 || offset >> POSITION_BITS == self.serial
    }
}

/// The position that an offset of any snapshot means.
pub(crate) fn position(offset: u64) -> u64 {
    match offset & LARGE {
        0 => offset & ((1 << POSITION_BITS) - 1),
        _ => offset & !LARGE,
    }
}

/// The table; shared by all calls.
#[derive(Default)]
pub(crate) struct Listings {
    last_serial: AtomicU64,
    /// A leaf lock.
    kept: Mutex<KeptListings>,
}

#[derive(Default)]
struct KeptListings {
    rows: HashMap<Ino, KeptListing>,
    /// The directories, the longest kept first.
    order: VecDeque<Ino>,
    names: usize,
}

struct KeptListing {
    stamp: u64,
    names: usize,
    snapshot: Arc<SharedSnapshot>,
}

impl Listings {
    /// Makes a snapshot of which offsets can be told from those of others.
    pub(crate) fn snapshot(&self, names: DirSnapshot) -> Arc<SharedSnapshot> {
        let serial = self.last_serial.fetch_add(1, Ordering::Relaxed) % SERIALS;
        let names = AsyncMutex::new(names);
        Arc::new(SharedSnapshot { serial, names })
    }

    /// The listing of a directory that has the stamp `stamp`.
    pub(crate) fn get(&self, directory: Ino, stamp: u64) -> Option<Arc<SharedSnapshot>> {
        let kept = lock(&self.kept);
        let row = kept.rows.get(&directory)?;
        (row.stamp == stamp).then(|| Arc::clone(&row.snapshot))
    }

    /// The listing of a directory that is kept, whatever its stamp.
    pub(crate) fn newest(&self, directory: Ino) -> Option<Arc<SharedSnapshot>> {
        let kept = lock(&self.kept);
        let row = kept.rows.get(&directory)?;
        Some(Arc::clone(&row.snapshot))
    }

    /// Keeps a complete listing of `names` names, whose directory had `stamp` before they were read; one that is too long is not kept.
    pub(crate) fn keep(
        &self,
        directory: Ino,
        stamp: u64,
        names: usize,
        snapshot: &Arc<SharedSnapshot>,
    ) {
        let mut kept = lock(&self.kept);
        if kept
            .rows
            .get(&directory)
            .is_some_and(|row| row.stamp == stamp)
        {
            return;
        }
        kept.remove(directory);
        if names > DIRECTORY_MAX {
            return;
        }
        while kept.names + names > NAMES_MAX {
            let Some(oldest) = kept.order.front().copied() else {
                break;
            };
            kept.remove(oldest);
        }
        let snapshot = Arc::clone(snapshot);
        let row = KeptListing {
            stamp,
            names,
            snapshot,
        };
        kept.names += names;
        kept.order.push_back(directory);
        kept.rows.insert(directory, row);
    }

    /// Drops the listing of a directory that the kernel has forgotten.
    pub(crate) fn forget(&self, directory: Ino) {
        lock(&self.kept).remove(directory);
    }
}

impl KeptListings {
    fn remove(&mut self, directory: Ino) {
        if let Some(row) = self.rows.remove(&directory) {
            self.names -= row.names;
            self.order.retain(|kept| *kept != directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(listings: &Listings) -> Arc<SharedSnapshot> {
        listings.snapshot(DirSnapshot::new(5, 1, Vec::new(), None))
    }

    #[test]
    fn an_offset_has_its_position_and_tells_its_snapshot_from_the_next() {
        let listings = Listings::default();
        let (one, two) = (snapshot(&listings), snapshot(&listings));
        for at in [1, 2, (1 << POSITION_BITS) - 1] {
            assert_eq!(position(one.offset(at)), at);
            assert!(one.offset(at) < 1 << 31 && one.offset(at) != two.offset(at));
            assert!(one.has_made(one.offset(at)) && !two.has_made(one.offset(at)));
        }
        for at in [1 << POSITION_BITS, 1 << 31] {
            assert_eq!(position(one.offset(at)), at);
            assert!(one.has_made(one.offset(at)));
        }
    }

    #[test]
    fn a_listing_is_kept_for_one_stamp() {
        let listings = Listings::default();
        listings.keep(Ino(5), 1, 2, &snapshot(&listings));
        assert!(listings.get(Ino(5), 1).is_some() && listings.get(Ino(5), 2).is_none());
        listings.keep(Ino(5), 2, 2, &snapshot(&listings));
        assert!(listings.get(Ino(5), 1).is_none() && listings.get(Ino(5), 2).is_some());
        listings.forget(Ino(5));
        assert!(listings.get(Ino(5), 2).is_none());
        assert_eq!(lock(&listings.kept).names, 0);
    }

    #[test]
    fn the_longest_kept_listings_make_room_and_a_long_one_is_not_kept() {
        let listings = Listings::default();
        for number in 0..=8 {
            listings.keep(Ino(number), 1, DIRECTORY_MAX, &snapshot(&listings));
        }
        assert!(listings.get(Ino(0), 1).is_none());
        assert!((1..=8).all(|number| listings.get(Ino(number), 1).is_some()));
        listings.keep(Ino(9), 1, DIRECTORY_MAX + 1, &snapshot(&listings));
        assert!(listings.get(Ino(9), 1).is_none());
        assert_eq!(lock(&listings.kept).names, NAMES_MAX);
    }
}
