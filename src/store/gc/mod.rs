//! Garbage collection: frees the storage of contents that no row shows and of segments that no row references.
//!
//! One background task works in cycles. A cycle merges and deletes the rows of unneeded contents, marks unreferenced
//! segments dead and deletes them after the grace period, copies the live part of half-dead segments, and deletes
//! segments that crashed writers left without a reference.
//! Invariant: a segment that a row may have referenced is deleted only after a durable row has recorded it as
//! unreferenced for the grace period or longer.

pub(crate) mod checkpoint;
pub(crate) mod compaction;
pub(crate) mod hasten;
pub(crate) mod inline;
pub(crate) mod lineage;
pub(crate) mod segments;
pub(crate) mod state;
pub(crate) mod task;
pub(crate) mod temp_files;
pub(crate) mod uncited;

use std::sync::atomic::AtomicU64;

use crate::store::commit::Committer;
use crate::store::core::Core;
use crate::store::data::DataStore;
use crate::store::gc::state::{CheckpointProgress, GcCycle, InlineMoves, WaitingSegments};
use crate::sync::{Arc, Mutex};

/// The garbage collector of one namespace, with its counters and the state that it keeps between cycles.
#[derive(Debug)]
pub struct Gc {
    pub(crate) core: Arc<Core>,
    pub(crate) data: Arc<DataStore>,
    pub(crate) commit: Arc<Committer>,
    /// State between cycles; held during a cycle, so that one runs at a time.
    pub(crate) turn: tokio::sync::Mutex<GcCycle>,
    /// The checkpoint that is being made; held during a step.
    pub(crate) checkpoint: tokio::sync::Mutex<CheckpointProgress>,
    /// Whether the namespace is being closed.
    pub(crate) ending: tokio::sync::watch::Sender<bool>,
    /// Segments that were dead at this timestamp, or before it, are deleted without a grace period.
    pub(crate) due_upto: AtomicU64,
    pub(crate) inline_moves: Arc<InlineMoves>,
    /// Segments deleted since the namespace was opened.
    pub(crate) segments: AtomicU64,
    /// Bytes of the deleted segments.
    pub(crate) bytes: AtomicU64,
    /// Bytes that compaction copied.
    pub(crate) copied: AtomicU64,
    /// Number of dead segments that wait for the end of the grace period, and the bytes of their extents.
    pub(crate) waiting: Mutex<(u64, u64)>,
    /// Uncited segments that wait for their deletion.
    pub(crate) uncited: Mutex<WaitingSegments>,
}

impl Gc {
    pub(crate) fn new(core: Arc<Core>, data: Arc<DataStore>, commit: Arc<Committer>) -> Self {
        Self {
            core,
            data,
            commit,
            turn: tokio::sync::Mutex::default(),
            checkpoint: tokio::sync::Mutex::default(),
            ending: tokio::sync::watch::Sender::default(),
            due_upto: AtomicU64::new(0),
            inline_moves: Arc::default(),
            segments: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            waiting: Mutex::default(),
            uncited: Mutex::default(),
        }
    }
}
