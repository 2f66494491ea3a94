//! The bytes of a file that are known from extents of several of its states: newer extents hide older ones.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::store::schema::rows::ExtentSource;

/// A part of a file, and the extent that has its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoveredPart {
    /// Length in bytes.
    pub(crate) len: u64,
    /// Number of bytes of the extent before the part.
    pub(crate) skip: u64,
    pub(crate) source: ExtentSource,
}

/// Parts of a file by their offsets in it, in bytes; they do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileCover {
    parts: BTreeMap<u64, CoveredPart>,
}

impl FileCover {
    /// Returns the parts, ascending.
    pub(crate) fn parts(&self) -> &BTreeMap<u64, CoveredPart> {
        &self.parts
    }

    /// Drops everything from `len` on, as a truncation does.
    pub(crate) fn cut(&mut self, len: u64) {
        let _dropped = self.parts.split_off(&len);
        if let Some((start, part)) = self.parts.iter_mut().next_back() {
            part.len = part.len.min(len - start);
        }
    }

    /// Adds a part over those before it.
    pub(crate) fn add(&mut self, start: u64, part: CoveredPart) {
        let end = start.saturating_add(part.len);
        if start == end {
            return;
        }
        let below = self.parts.range(..start).next_back();
        let first = below.map_or(start, |(below, _)| *below);
        let hidden: Vec<u64> = self.parts.range(first..end).map(|(at, _)| *at).collect();
        for at in hidden {
            let Some(old) = self.parts.remove(&at) else {
                continue;
            };
            let old_end = at + old.len;
            if at < start {
                let head = CoveredPart {
                    len: old.len.min(start - at),
                    ..old.clone()
                };
                self.parts.insert(at, head);
            }
            if old_end > end {
                let tail = CoveredPart {
                    len: old_end - end,
                    skip: old.skip + (end - at),
                    ..old
                };
                self.parts.insert(end, tail);
            }
        }
        self.parts.insert(start, part);
    }

    /// Returns the ranges of a file of `len` bytes that no part covers, ascending.
    pub(crate) fn gaps(&self, len: u64) -> Vec<Range<u64>> {
        let (mut gaps, mut at) = (Vec::new(), 0);
        for (start, part) in &self.parts {
            if at < *start {
                gaps.push(at..*start);
            }
            at = start + part.len;
        }
        if at < len {
            gaps.push(at..len);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn part(len: u64, byte: u8) -> CoveredPart {
        CoveredPart {
            len,
            skip: 0,
            source: ExtentSource::Inline(Bytes::from(vec![byte; len as usize])),
        }
    }

    fn shown(cover: &FileCover) -> String {
        let mut text = String::new();
        for (start, part) in cover.parts() {
            while (text.len() as u64) < *start {
                text.push('.');
            }
            let ExtentSource::Inline(bytes) = &part.source else {
                continue;
            };
            let bytes = &bytes[part.skip as usize..(part.skip + part.len) as usize];
            text.extend(bytes.iter().map(|byte| *byte as char));
        }
        text
    }

    #[test]
    fn newer_parts_hide_older_ones_and_a_cut_hides_what_is_behind_it() {
        let mut cover = FileCover::default();
        cover.add(2, part(6, b'a'));
        assert_eq!(shown(&cover), "..aaaaaa");
        cover.add(4, part(2, b'b'));
        assert_eq!(shown(&cover), "..aabbaa");
        cover.add(0, part(3, b'c'));
        assert_eq!(shown(&cover), "cccabbaa");
        assert!(cover.gaps(8).is_empty());
        cover.cut(5);
        assert_eq!(shown(&cover), "cccab");
        cover.add(7, part(1, b'd'));
        assert_eq!(cover.gaps(10), [5..7, 8..10]);
        cover.add(1, part(9, b'e'));
        assert_eq!(shown(&cover), "ceeeeeeeee");
        cover.add(3, part(0, b'f'));
        assert_eq!(shown(&cover), "ceeeeeeeee");
        cover.cut(0);
        assert_eq!(cover, FileCover::default());
    }
}
