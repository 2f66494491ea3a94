//! Up to which segment of this epoch the log names every citation; the search for uncited segments relies on it.

/// Which segments of this epoch are cited by a durable batch, or never will be.
#[derive(Debug, Default)]
pub(crate) struct ResolvedSegments {
    /// All with a lower sequence.
    pub(crate) known: u64,
    /// The next value of `known`, which holds as soon as every operation up to `queued` is durable.
    pub(crate) next: Option<ResolvedWatermark>,
}

/// A future value of [`ResolvedSegments::known`].
#[derive(Debug)]
pub(crate) struct ResolvedWatermark {
    /// Order of the newest operation in the queue when it was read.
    pub(crate) queued: u64,
    /// Every segment with a lower sequence is cited by an operation up to `queued`, or never will be.
    pub(crate) segment: u64,
}
