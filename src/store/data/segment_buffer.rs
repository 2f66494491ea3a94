//! The buffer in which a segment is built: a mapping of its own, which goes back to the system when the upload is over.
//!
//! Segments are built on many threads and have megabytes. From the heap, each thread's arena would keep the memory of its last
//! segments: eight uploads at a time made the process 100 MiB larger.

use bytes::{Bytes, BytesMut};
use memmap2::{Advice, MmapMut};

/// Bytes of a segment that is being built.
#[derive(Debug)]
pub(crate) enum SegmentBuffer {
    /// A mapping, and how many of its bytes are filled.
    Mapped { map: MmapMut, filled: usize },
    /// Memory of the heap: where the size is not known before, or no mapping was available.
    Heap(BytesMut),
}

impl SegmentBuffer {
    /// Returns an empty buffer that grows on the heap.
    pub(crate) fn new() -> Self {
        Self::Heap(BytesMut::new())
    }

    /// Returns an empty buffer for `capacity` bytes.
    pub(crate) fn sized(capacity: usize) -> Self {
        match MmapMut::map_anon(capacity) {
            Ok(map) => {
                // Else each page of 4 KiB is a page fault, 2,048 in a segment. A kernel without huge pages refuses, and nothing else changes.
                let _refused = map.advise(Advice::HugePage);
                Self::Mapped { map, filled: 0 }
            }
            Err(_) => Self::Heap(BytesMut::with_capacity(capacity)),
        }
    }

    /// Returns the number of bytes in the buffer.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Mapped { filled, .. } => *filled,
            Self::Heap(bytes) => bytes.len(),
        }
    }

    /// Appends bytes. A mapping that is too small is replaced by memory of the heap.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// Appends `len` zeros and returns them, for the caller to write its bytes there. A mapping that is too small is replaced by memory of
    /// the heap.
    pub(crate) fn grow(&mut self, len: usize) -> &mut [u8] {
        if let Self::Mapped { map, filled } = self
            && map.len() - *filled < len
        {
            let mut heap = BytesMut::with_capacity(*filled + len);
            heap.extend_from_slice(&map[..*filled]);
            *self = Self::Heap(heap);
        }
        match self {
            Self::Mapped { map, filled } => {
                let from = *filled;
                *filled += len;
                &mut map[from..*filled]
            }
            Self::Heap(heap) => {
                let from = heap.len();
                heap.resize(from + len, 0);
                &mut heap[from..]
            }
        }
    }

    /// Returns the bytes. Nothing is copied; a mapping ends with the last reference.
    pub(crate) fn freeze(self) -> Bytes {
        match self {
            Self::Mapped { map, filled } => Bytes::from_owner(map).slice(..filled),
            Self::Heap(bytes) => bytes.freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_the_capacity_are_kept() {
        let mut buffer = SegmentBuffer::sized(5000);
        buffer.append(&[1; 4000]);
        buffer.append(&[2; 1000]);
        assert!(matches!(buffer, SegmentBuffer::Mapped { .. }));
        buffer.append(&[3; 9]);
        assert!(matches!(buffer, SegmentBuffer::Heap(_)));
        buffer.append(&[4]);
        assert_eq!(buffer.len(), 5010);
        let expected = [&[1; 4000][..], &[2; 1000], &[3; 9], &[4]].concat();
        assert_eq!(buffer.freeze(), expected);
    }

    #[test]
    fn a_buffer_of_no_bytes_is_empty() {
        assert_eq!(SegmentBuffer::sized(0).freeze(), Bytes::new());
        assert_eq!(SegmentBuffer::new().len(), 0);
    }
}
