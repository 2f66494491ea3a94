//! A walk over the segments of a namespace in the order of their names, one folder of the bucket at a time.
//!
//! Invariant: memory is bounded by the names in one folder and in those above it, at most 4,096 each.

use crate::backend::{Backend, ObjectInfo};
use crate::store::model::error::StoreError;
use crate::store::schema::object_names::SegmentId;

/// Number of folders in a segment's key, `data` included.
const DEPTH: usize = 5;

/// A segment in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedSegment {
    pub(crate) id: SegmentId,
    /// Length in bytes.
    pub(crate) bytes: u64,
}

/// A walk over segments, oldest first.
#[derive(Debug)]
pub(crate) struct SegmentWalk<'a> {
    backend: &'a Backend,
    /// The key of the first segment.
    from: String,
    /// Folders that are still to be listed; the next one last.
    folders: Vec<String>,
    /// Segments that are listed and not returned yet; the next one last.
    listed: Vec<ListedSegment>,
}

impl<'a> SegmentWalk<'a> {
    /// Begins a walk at the segment `from`, which need not exist.
    pub(crate) fn new(backend: &'a Backend, from: SegmentId) -> Self {
        Self {
            backend,
            from: from.key(),
            folders: vec!["data".to_owned()],
            listed: Vec::new(),
        }
    }

    /// Returns the next segment; `None` after the last one.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn next_segment(&mut self) -> Result<Option<ListedSegment>, StoreError> {
        loop {
            if let Some(segment) = self.listed.pop() {
                return Ok(Some(segment));
            }
            let Some(folder) = self.folders.pop() else {
                return Ok(None);
            };
            match folder.split('/').count() {
                DEPTH => self.list(&folder).await?,
                _ => self.open(&folder).await?,
            }
        }
    }

    async fn open(&mut self, folder: &str) -> Result<(), StoreError> {
        let below = self.backend.folders(folder).await?;
        let below = below.into_iter().rev();
        let below = below.map(|name| format!("{folder}/{name}"));
        // A folder is before the walk if its name is before the beginning of the first key.
        let is_in = |path: &String| path.as_str() >= &self.from[..path.len().min(self.from.len())];
        self.folders.extend(below.filter(is_in));
        Ok(())
    }

    async fn list(&mut self, folder: &str) -> Result<(), StoreError> {
        let objects = self.backend.list(folder).await?.into_iter().rev();
        let is_in = |object: &ObjectInfo| object.key >= self.from;
        let segment = |object: ObjectInfo| {
            let id = SegmentId::from_key(&object.key)?;
            let bytes = object.size;
            Some(ListedSegment { id, bytes })
        };
        self.listed = objects.filter(is_in).filter_map(segment).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendConfig;

    #[tokio::test]
    async fn a_walk_returns_every_segment_from_any_one_on_in_order() {
        let backend = Backend::open("memory://segment-walk", &BackendConfig::default()).unwrap();
        let ids = [
            (1, 1),
            (1, 0xfff),
            (1, 0x1000),
            (1, 0x0100_0000),
            (2, 5),
            (0x1001, 7),
        ];
        let ids = ids.map(|(epoch, sequence)| SegmentId { epoch, sequence });
        for id in ids {
            backend.put(&id.key(), "12345".into()).await.unwrap();
        }
        backend.put("data/x", "1".into()).await.unwrap();
        let zero = SegmentId {
            epoch: 0,
            sequence: 0,
        };
        for from in std::iter::once(zero).chain(ids) {
            let mut walk = SegmentWalk::new(&backend, from);
            let mut found = Vec::new();
            while let Some(segment) = walk.next_segment().await.unwrap() {
                assert_eq!(segment.bytes, 5);
                found.push(segment.id);
            }
            let expected: Vec<_> = ids.into_iter().filter(|id| *id >= from).collect();
            assert_eq!(found, expected, "{from:?}");
        }
    }
}
