//! The state between two heartbeats of a writer.

use crate::backend::ObjectState;
use crate::store::schema::writer_object::WriterObject;
use std::time::Duration;

/// How long a notice of a waiting process is heeded. It repeats its notice in a third of this time.
pub(crate) const NOTICE_KEPT: Duration = Duration::from_secs(30);

/// What is known of the object in the bucket.
#[derive(Debug)]
pub(crate) enum KnownState {
    /// It has this state.
    State(ObjectState),
    /// It does not exist.
    Absent,
    /// It must be read: a write had no answer, or it was changed.
    Unknown,
}

/// The state between two heartbeats.
#[derive(Debug)]
pub(crate) struct BeatState {
    pub(crate) known: KnownState,
    /// The last object that this process wrote or tried to write.
    pub(crate) object: WriterObject,
    /// The uptime until which another process waits.
    pub(crate) watched_until: Duration,
}
