//! lseek(2) for data and holes.

use crate::cache::Source;
use crate::store::data::contents::ResolvedExtent;
use crate::store::model::error::StoreError;
use crate::store::tree::file::File;

/// What [`File::seek`] searches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// The next byte that is not in a hole (SEEK_DATA).
    Data,
    /// The next hole; the end of the file counts as one (SEEK_HOLE).
    Hole,
}

impl File {
    /// Returns the offset of the next data or hole at or after `offset`; `None` where lseek(2) fails with ENXIO.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn seek(&self, offset: u64, whence: Whence) -> Result<Option<u64>, StoreError> {
        let locked = self.lock().await?;
        let file = locked.as_file().ok_or(StoreError::IsDirectory)?;
        let size = file.attrs.size;
        if offset >= size {
            return Ok(None);
        }
        let view = self.tree.read_view(file, offset..size);
        drop(locked);
        let resolve = view.resolve().await?;
        let is_hole = |s: &ResolvedExtent| {
            matches!(
                s,
                ResolvedExtent::Zero | ResolvedExtent::Staged(Source::Zero)
            )
        };
        let wanted = resolve
            .iter()
            .find(|(_, _, s)| is_hole(s) == (whence == Whence::Hole));
        Ok(match (wanted, whence) {
            (Some((start, ..)), _) => Some(*start),
            (None, Whence::Hole) => Some(size),
            (None, Whence::Data) => None,
        })
    }
}
