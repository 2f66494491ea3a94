//! Numbers that name batches.

/// A batch of the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BatchId {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

impl From<(u64, u64)> for BatchId {
    fn from((epoch, number): (u64, u64)) -> Self {
        Self { epoch, number }
    }
}

impl std::fmt::Display for BatchId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "batch {} of writer epoch {}", self.number, self.epoch)
    }
}
