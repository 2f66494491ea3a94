//! Sets of stored bytes: parts of extents, and inline bytes.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::store::data::segment::hash;
use crate::store::schema::retention_rows::{ForgottenInline, ForgottenPart, ForgottenRow};
use crate::store::schema::rows::{ExtentSlice, ExtentSource};

/// Inline bytes that are shorter than this may be the same by chance.
const BRIEF: usize = 16;

/// An extent: epoch and sequence of its segment, and its offset there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ExtentPlace {
    segment: (u64, u64),
    offset: u32,
}

/// Bytes that contents show.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShownBytes {
    /// Of each extent, which of its bytes: ascending, without overlaps.
    extents: BTreeMap<ExtentPlace, Vec<Range<u32>>>,
    /// Inline bytes, by their hash, with their number.
    inline: BTreeMap<[u8; 16], u32>,
}

impl ShownBytes {
    /// Adds `len` bytes of an extent behind its first `skip`.
    pub(crate) fn add(&mut self, source: &ExtentSource, skip: u32, len: u32) {
        match source {
            ExtentSource::Segment {
                epoch,
                sequence,
                offset,
                ..
            } => {
                let place = ExtentPlace {
                    segment: (*epoch, *sequence),
                    offset: *offset,
                };
                let parts = self.extents.entry(place).or_default();
                *parts = union(std::mem::take(parts), skip..skip.saturating_add(len));
            }
            ExtentSource::Inline(bytes) => {
                let shown = bytes.slice(inline_part(bytes, skip, len));
                if !shown.is_empty() {
                    self.inline.insert(hash(&shown), shown.len() as u32);
                }
            }
            ExtentSource::Zero => {}
        }
    }

    /// Removes what the other set has.
    pub(crate) fn subtract(&mut self, other: &Self) {
        for (place, gone) in &other.extents {
            if let Some(parts) = self.extents.get_mut(place) {
                for gone in gone {
                    *parts = without(std::mem::take(parts), gone);
                }
            }
        }
        self.extents.retain(|_, parts| !parts.is_empty());
        self.inline
            .retain(|hash, _| !other.inline.contains_key(hash));
    }

    /// Tells whether `len` bytes of an extent behind its first `skip` have one of these.
    pub(crate) fn meets(&self, source: &ExtentSource, skip: u32, len: u32) -> bool {
        match source {
            ExtentSource::Segment {
                epoch,
                sequence,
                offset,
                hash,
                ..
            } => {
                let place = ExtentPlace {
                    segment: (*epoch, *sequence),
                    offset: *offset,
                };
                let shown = skip..skip.saturating_add(len);
                let mut parts = self.extents.get(&place).into_iter().flatten();
                let is_part = parts.any(|part| part.start < shown.end && shown.start < part.end);
                // A copy of inline bytes that was moved into a segment.
                is_part || self.inline.contains_key(hash)
            }
            ExtentSource::Inline(bytes) => {
                let shown = bytes.slice(inline_part(bytes, skip, len));
                self.inline.contains_key(&hash(&shown))
            }
            ExtentSource::Zero => false,
        }
    }

    /// Adds the bytes of a row.
    pub(crate) fn add_row(&mut self, row: &ForgottenRow) {
        for part in &row.extents {
            let place = ExtentPlace {
                segment: (part.epoch, part.sequence),
                offset: part.offset,
            };
            let parts = self.extents.entry(place).or_default();
            *parts = union(std::mem::take(parts), part.start..part.end);
        }
        let inline = row.inline.iter();
        self.inline.extend(inline.map(|one| (one.hash, one.len)));
    }

    /// Returns a row with these bytes, and no lineages.
    pub(crate) fn to_row(&self) -> ForgottenRow {
        let extents = self.extents.iter().flat_map(|(place, parts)| {
            parts.iter().map(|part| ForgottenPart {
                epoch: place.segment.0,
                sequence: place.segment.1,
                offset: place.offset,
                start: part.start,
                end: part.end,
            })
        });
        let inline = self.inline.iter();
        ForgottenRow {
            lineages: Vec::new(),
            extents: extents.collect(),
            inline: inline
                .map(|(hash, len)| ForgottenInline {
                    hash: *hash,
                    len: *len,
                })
                .collect(),
        }
    }

    /// Tells whether some of these are in an extent, whatever is shown of it.
    pub(crate) fn are_in(&self, source: &ExtentSource) -> bool {
        match source {
            ExtentSource::Segment { len, .. } => self.meets(source, 0, *len),
            ExtentSource::Inline(_) | ExtentSource::Zero => false,
        }
    }

    /// The number of bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let parts = self.extents.values().flatten();
        let in_extents: u64 = parts.map(|part| u64::from(part.end - part.start)).sum();
        let inline: u64 = self.inline.values().map(|len| u64::from(*len)).sum();
        in_extents + inline
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.extents.is_empty() && self.inline.is_empty()
    }
}

/// Tells whether the bytes that a slice shows are so few that others are the same by chance.
pub(crate) fn is_brief(slice: &ExtentSlice) -> bool {
    match &slice.source {
        ExtentSource::Inline(bytes) => inline_part(bytes, slice.skip, slice.len).len() < BRIEF,
        ExtentSource::Segment { .. } | ExtentSource::Zero => false,
    }
}

/// The part of inline bytes that a slice shows.
fn inline_part(bytes: &Bytes, skip: u32, len: u32) -> Range<usize> {
    let from = (skip as usize).min(bytes.len());
    from..(from + len as usize).min(bytes.len())
}

fn union(parts: Vec<Range<u32>>, added: Range<u32>) -> Vec<Range<u32>> {
    let mut added = added;
    let mut all = Vec::with_capacity(parts.len() + 1);
    for part in parts {
        if part.end < added.start || added.end < part.start {
            all.push(part);
        } else {
            added = added.start.min(part.start)..added.end.max(part.end);
        }
    }
    all.push(added);
    all.sort_unstable_by_key(|part| part.start);
    all
}

fn without(parts: Vec<Range<u32>>, gone: &Range<u32>) -> Vec<Range<u32>> {
    let cut = |part: Range<u32>| {
        let left = part.start..part.end.min(gone.start);
        let right = part.start.max(gone.end)..part.end;
        [left, right].into_iter().filter(|part| !part.is_empty())
    };
    parts.into_iter().flat_map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(sequence: u64) -> ExtentSource {
        ExtentSource::Segment {
            epoch: 1,
            sequence,
            offset: 0,
            len: 100,
            hash: [0; 16],
        }
    }

    #[test]
    fn parts_of_extents_are_joined_subtracted_and_found() {
        let mut all = ShownBytes::default();
        all.add(&extent(1), 0, 10);
        all.add(&extent(1), 20, 10);
        all.add(&extent(1), 5, 20);
        all.add(&extent(2), 0, 100);
        assert_eq!(all.bytes(), 130);
        let mut kept = ShownBytes::default();
        kept.add(&extent(1), 10, 5);
        kept.add(&extent(2), 0, 100);
        all.subtract(&kept);
        assert_eq!(all.bytes(), 25);
        assert!(!all.meets(&extent(1), 10, 5) && all.meets(&extent(1), 10, 6));
        assert!(!all.meets(&extent(2), 0, 100) && !all.meets(&extent(3), 0, 100));
        assert!(!all.meets(&ExtentSource::Zero, 0, 100));
        assert!(all.are_in(&extent(1)) && !all.are_in(&extent(2)));
        let mut read = ShownBytes::default();
        read.add_row(&all.to_row());
        assert_eq!((read.bytes(), read.to_row()), (25, all.to_row()));
    }

    #[test]
    fn inline_bytes_are_found_by_what_they_are() {
        let long = |fill: u8| ExtentSource::Inline(vec![fill; 20].into());
        let mut all = ShownBytes::default();
        all.add(&long(1), 0, 20);
        all.add(&long(2), 0, 20);
        all.add(&long(3), 0, 5);
        assert_eq!(all.bytes(), 45);
        let mut kept = ShownBytes::default();
        kept.add(&long(2), 0, 20);
        all.subtract(&kept);
        assert!(all.meets(&long(1), 0, 20) && !all.meets(&long(2), 0, 20));
        assert!(all.meets(&long(3), 4, 5) && !all.meets(&long(3), 0, 20));
        let shown = |len| ExtentSlice {
            start: 0,
            len,
            skip: 20 - len,
            source: long(1),
        };
        assert!(is_brief(&shown(15)) && !is_brief(&shown(16)));
    }
}
