//! Up to which segment of this epoch the log is complete: what a search for uncited segments relies on.

/// Segments of this epoch that are cited durably, or never will be.
#[derive(Debug, Default)]
pub(crate) struct ResolvedSegments {
    /// All below this one.
    pub(crate) known: u64,
    /// What becomes known once everything up to a place in the queue is durable.
    pub(crate) next: Option<ResolvedWatermark>,
}

#[derive(Debug)]
pub(crate) struct ResolvedWatermark {
    pub(crate) queued: u64,
    pub(crate) segment: u64,
}
