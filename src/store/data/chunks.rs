//! How written bytes are divided: the spans of a content into chunks, each of which becomes an extent, and chunks into segments.

use bytes::Bytes;

use crate::cache::{Source as Staged, Span, StagingFile};
use crate::store::data::contents::PendingContent;
use crate::store::data::segment::{EXTENT, SEGMENT_MAX};
use crate::store::model::error::StoreError;
use crate::sync::Arc;

/// A content with more written bytes than this has segments of its own.
pub(crate) const OWN_SEGMENT: u64 = 1 << 20;

/// Part of a content that becomes one extent. Offset and length are in bytes of the file.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    parts: Vec<Span>,
}

/// Chunks of contents; a content is given by its index among the contents that are uploaded together.
pub(crate) type ContentParts = Vec<(usize, Vec<Chunk>)>;

/// What one segment will contain.
#[derive(Debug)]
pub(crate) struct SegmentPlan {
    pub(crate) parts: ContentParts,
    /// The staging file whose bytes are exactly these chunks in this order, so that it can be hard-linked as the segment.
    pub(crate) file: Option<Arc<StagingFile>>,
}

impl Chunk {
    /// Reads the bytes from memory and staging files into a buffer of zeros that is as long as the chunk.
    ///
    /// # Errors
    /// `Unavailable` when a staging file cannot be read.
    pub(super) fn read_into(&self, buffer: &mut [u8]) -> Result<(), StoreError> {
        let mut rest = buffer;
        for part in &self.parts {
            let (own, behind) = rest.split_at_mut(part.len as usize);
            match &part.source {
                Staged::Memory(bytes) => own.copy_from_slice(bytes),
                Staged::File { file, position } => file.read_into(*position, own)?,
                Staged::Zero | Staged::Reference { .. } => {}
            }
            rest = behind;
        }
        Ok(())
    }

    /// Reads the bytes from memory and staging files.
    ///
    /// # Errors
    /// `Unavailable` when a staging file cannot be read.
    pub(super) fn bytes(&self) -> Result<Bytes, StoreError> {
        let mut bytes = vec![0; self.len as usize];
        self.read_into(&mut bytes)?;
        Ok(bytes.into())
    }
}

impl From<ContentParts> for SegmentPlan {
    fn from(parts: ContentParts) -> Self {
        Self { parts, file: None }
    }
}

/// Divides the written bytes of a content of `len` bytes into chunks: adjacent spans are joined, and a chunk ends at each
/// multiple of [`EXTENT`] bytes of the file.
pub(super) fn cuts<'a>(spans: impl Iterator<Item = &'a Span>, len: u64) -> Vec<Chunk> {
    let mut cuts: Vec<Chunk> = Vec::new();
    for span in spans {
        if matches!(span.source, Staged::Zero | Staged::Reference { .. }) {
            continue;
        }
        let (mut at, end) = (span.offset, span.end().min(len));
        while at < end {
            let next = end.min((at / EXTENT + 1) * EXTENT);
            let part = part(span, at, next);
            match cuts.last_mut() {
                Some(last) if last.offset + last.len == at && at % EXTENT != 0 => {
                    last.len += next - at;
                    last.parts.push(part);
                }
                _ => cuts.push(Chunk {
                    offset: at,
                    len: next - at,
                    parts: vec![part],
                }),
            }
            at = next;
        }
    }
    cuts
}

/// Returns the part `from..to`, in bytes of the file, of a span.
fn part(span: &Span, from: u64, to: u64) -> Span {
    let skip = from - span.offset;
    let source = match &span.source {
        Staged::Memory(bytes) => {
            Staged::Memory(bytes.slice(skip as usize..(to - span.offset) as usize))
        }
        Staged::File { file, position } => Staged::File {
            file: Arc::clone(file),
            position: position + skip,
        },
        other => other.clone(),
    };
    Span {
        offset: from,
        len: to - from,
        seq: span.seq,
        source,
    }
}

/// Plans the segments: small contents share segments, a content above [`OWN_SEGMENT`] bytes has its own, and a span that is a
/// whole staging file which `links` accepts becomes a segment by itself.
pub(super) fn plan(
    contents: &[Arc<PendingContent>],
    links: impl Fn(&StagingFile) -> bool,
) -> Vec<SegmentPlan> {
    let (mut plans, mut data, mut filled): (Vec<SegmentPlan>, ContentParts, u64) =
        (Vec::new(), Vec::new(), 0);
    for (at, pending) in contents.iter().enumerate() {
        let (mut linked, mut rest) = (0, Vec::new());
        for span in pending.flushed.spans() {
            if let Some(file) = whole(span, pending.len).filter(|file| links(file)) {
                let parts = vec![(at, cuts(std::iter::once(span), pending.len))];
                let file = Some(Arc::clone(file));
                plans.push(SegmentPlan { parts, file });
                linked += span.len;
            } else {
                rest.push(span);
            }
        }
        let cuts = cuts(rest.into_iter(), pending.len);
        let bytes: u64 = cuts.iter().map(|c| c.len).sum();
        if bytes == 0 {
            continue;
        }
        if linked + bytes > OWN_SEGMENT {
            plans.extend(own(at, cuts).into_iter().map(SegmentPlan::from));
            continue;
        }
        if filled + bytes > SEGMENT_MAX {
            plans.push(std::mem::take(&mut data).into());
            filled = 0;
        }
        filled += bytes;
        data.push((at, cuts));
    }
    if !data.is_empty() {
        plans.push(data.into());
    }
    plans
}

/// Returns the staging file that contains the bytes of a span and nothing else, if it is large enough for a segment of its own:
/// more than [`OWN_SEGMENT`] and at most [`SEGMENT_MAX`] bytes.
fn whole(span: &Span, len: u64) -> Option<&Arc<StagingFile>> {
    match &span.source {
        Staged::File { file, position: 0 }
            if file.is_whole(span.len)
                && (OWN_SEGMENT + 1..=SEGMENT_MAX).contains(&span.len)
                && span.end() <= len =>
        {
            Some(file)
        }
        _ => None,
    }
}

/// Packs the chunks of one content into segments of at most [`SEGMENT_MAX`] bytes.
fn own(at: usize, cuts: Vec<Chunk>) -> Vec<ContentParts> {
    let mut plans = Vec::new();
    let (mut current, mut filled) = (Vec::new(), 0);
    for cut in cuts {
        if filled + cut.len > SEGMENT_MAX {
            plans.push(vec![(at, std::mem::take(&mut current))]);
            filled = 0;
        }
        filled += cut.len;
        current.push(cut);
    }
    plans.push(vec![(at, current)]);
    plans
}
