//! What is fixed when an index is made and never changes: how its rows merge, and which rows share a tree.

use crate::meta::MergeFn;
use bytes::Bytes;
use slatedb::{MergeOperator, MergeOperatorError, PrefixExtractor, PrefixTarget};

/// The store's merge function in the engine's terms.
pub(super) struct RowMerge(pub(super) MergeFn);

impl MergeOperator for RowMerge {
    fn merge(
        &self,
        key: &Bytes,
        existing_value: Option<Bytes>,
        value: Bytes,
    ) -> Result<Bytes, MergeOperatorError> {
        Ok((self.0)(key, existing_value.as_deref(), &[value]))
    }

    fn merge_batch(
        &self,
        key: &Bytes,
        existing_value: Option<Bytes>,
        operands: &[Bytes],
    ) -> Result<Bytes, MergeOperatorError> {
        match operands {
            [] => existing_value.ok_or(MergeOperatorError::EmptyBatch),
            _ => Ok((self.0)(key, existing_value.as_deref(), operands)),
        }
    }
}

/// Keeps rows of different first bytes in separate trees, so that listing the present never reads the past.
pub(super) struct FirstByteSegments;

impl PrefixExtractor for FirstByteSegments {
    fn name(&self) -> &str {
        "rewindfs.first-byte"
    }

    fn prefix_len(&self, target: &PrefixTarget) -> Option<usize> {
        let (PrefixTarget::Point(bytes) | PrefixTarget::Prefix(bytes)) = target;
        (!bytes.is_empty()).then_some(1)
    }
}
