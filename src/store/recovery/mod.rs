//! Recovery at a mount, before the first request is served: replays the journal, and keeps what another writer
//! superseded as conflict versions.
//!
//! A crash during recovery leaves a journal from which the next mount can run the whole recovery again.

pub(crate) mod bring_back;
pub(crate) mod conflict;
pub(crate) mod conflict_version;
pub(crate) mod cover;
pub(crate) mod evidence;
pub(crate) mod first_rows;
pub(crate) mod footers;
pub(crate) mod journal;
pub(crate) mod lost;
pub(crate) mod mount;
pub(crate) mod replay;
pub(crate) mod replayed_session;
pub(crate) mod superseded;

use crate::store::commit::Committer;
use crate::store::core::Core;
use crate::store::data::DataStore;
use crate::store::history::History;
use crate::store::tree::Tree;
use crate::sync::Arc;

/// The recovery of one namespace; it exists only during the mount.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) core: Arc<Core>,
    pub(crate) data: Arc<DataStore>,
    pub(crate) commit: Arc<Committer>,
    pub(crate) tree: Arc<Tree>,
    pub(crate) history: Arc<History>,
}
