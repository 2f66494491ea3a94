//! Forgetting: all ended versions of a file go, and their bytes leave the bucket and this machine.
//!
//! The path of a saved byte, which forgetting follows to every place:
//! 1. the journal and a staging file on this machine, until the bucket has the byte and its operation is logged;
//! 2. an extent of a segment, or the range row itself (`C F`, small and fsynced alone); a symbolic link's target and extended
//!    attributes are in the rows of the state (`C D`, `C I`, `H V`, `H W`);
//! 3. rows lie in the index's write-ahead log, then in its tables, and stay in old ones after they were deleted;
//! 4. each batch of rows is also in a log object, until a checkpoint replaces that;
//! 5. blocks of segments are cached in memory and on disk.
//!
//! Steps, in this order (`carry_out.rs`): a row `G f` names the lineages; each version is deleted by one operation, the
//! oldest first; garbage collection deletes their range rows (`gc/lineage.rs`), and extents that are shown in part only are
//! replaced (`trim.rs`); segments without a shown extent are dead, others with such bytes are copied without them; the log gets a
//! checkpoint; the index's tables are rewritten (`meta/slate/rewrite.rs`); followers get time to read the newer state; then the
//! old objects are deleted, the cache drops their blocks, and a listing shows that they are gone. The row `G f` goes last.
//!
//! Invariants: no row and no object is deleted that something else needs: all deletions are those of garbage collection, earlier. A
//! crash at any point leaves a whole namespace; `G f` lets the next call go on where versions are deleted and bytes are not.

pub(crate) mod carry_out;
pub(crate) mod line;
pub(crate) mod plan;
pub(crate) mod purge;
pub(crate) mod report;
pub(crate) mod showers;
pub(crate) mod shown_bytes;
pub(crate) mod trim;

use crate::store::commit::Committer;
use crate::store::core::Core;
use crate::store::data::DataStore;
use crate::store::gc::Gc;
use crate::store::history::History;
use crate::store::tree::Tree;
use crate::sync::Arc;

/// Forgets versions of one namespace.
#[derive(Debug)]
pub struct Forgetter {
    pub(crate) core: Arc<Core>,
    pub(crate) data: Arc<DataStore>,
    pub(crate) commit: Arc<Committer>,
    pub(crate) tree: Arc<Tree>,
    pub(crate) history: Arc<History>,
    pub(crate) gc: Arc<Gc>,
    /// Held while bytes are forgotten, so that one call at a time does.
    pub(crate) turn: tokio::sync::Mutex<()>,
}
