//! The past of a namespace: versions, removed names, the tree at a timestamp, labels and holds, undelete, and the deletion of versions.
//!
//! Reads combine current rows, version records and directory locations; no read changes a row. Labels, undelete and the
//! deletion of versions enqueue transactions like any change of the live tree.

pub(crate) mod as_of;
pub(crate) mod damaged;
pub(crate) mod delete_version;
pub(crate) mod deleted;
pub(crate) mod digest;
pub(crate) mod directories;
pub(crate) mod directories_above;
pub(crate) mod directory_horizons;
pub(crate) mod finality;
pub(crate) mod forming_labels;
pub(crate) mod holds;
pub(crate) mod horizons;
pub(crate) mod label_expiry;
pub(crate) mod label_reads;
pub(crate) mod labels;
pub(crate) mod links;
pub(crate) mod read_ahead;
pub(crate) mod restore;
pub(crate) mod restore_before;
pub(crate) mod restore_cached;
pub(crate) mod restore_lock;
pub(crate) mod restore_pin;
pub(crate) mod restore_plan;
pub(crate) mod restore_progress;
pub(crate) mod restore_rows;
pub(crate) mod restore_running;
pub(crate) mod restore_step_plan;
pub(crate) mod restore_steps;
pub(crate) mod restore_tree;
pub(crate) mod restore_walk;
pub(crate) mod transient;
pub(crate) mod undelete;
pub(crate) mod version_list;
pub(crate) mod versions;
pub(crate) mod view;

use crate::store::commit::Committer;
use crate::store::core::Core;
use crate::store::data::DataStore;
use crate::store::history::forming_labels::FormingLabels;
use crate::store::history::restore_lock::RestoreLock;
use crate::store::tree::Tree;
use crate::sync::Arc;

/// The past of one namespace.
#[derive(Debug)]
pub struct History {
    pub(crate) core: Arc<Core>,
    pub(crate) data: Arc<DataStore>,
    pub(crate) commit: Arc<Committer>,
    pub(crate) tree: Arc<Tree>,
    pub(crate) restore_lock: RestoreLock,
    pub(crate) forming_labels: FormingLabels,
}
