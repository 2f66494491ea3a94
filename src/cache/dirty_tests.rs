//! The dirty map against a plain vector of bytes, and the cases worth a name.

use proptest::prelude::*;

use super::*;

impl DirtyMap {
    /// The spans, ascending by offset.
    fn spans(&self) -> impl Iterator<Item = &Span> {
        self.layer.spans.values()
    }

    /// The lowest length the file was truncated to since the base, in bytes.
    fn cut(&self) -> Option<u64> {
        self.layer.cut()
    }

    /// Tells whether nothing was changed since the base.
    fn is_clean(&self) -> bool {
        self.layer.spans.is_empty() && self.layer.cuts.is_empty()
    }
}
use crate::cache::staging::StagingDir;

/// Lays pieces over a base, as every reader of a dirty file does.
fn overlay(pieces: Vec<Piece>, range: Range<u64>, base: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = range.start;
    let mut previous_zero = false;
    for Piece { range, source } in pieces {
        assert!(range.start == at && range.end > at, "a gap or an overlap");
        at = range.end;
        let len = (range.end - range.start) as usize;
        let zero = matches!(source, Some(Source::Zero));
        assert!(!(zero && previous_zero), "zeros in two pieces");
        previous_zero = zero;
        match source {
            Some(Source::Memory(bytes)) => {
                assert_eq!(bytes.len(), len);
                out.extend_from_slice(&bytes);
            }
            Some(Source::File { file, position }) => {
                out.extend_from_slice(&file.read_at(position, len).unwrap());
            }
            Some(Source::Zero) => out.resize(out.len() + len, 0),
            Some(Source::Reference { of, position }) => {
                // What is referred to holds nothing but its number, where it was written at its beginning.
                assert!(position < 1 << 20);
                out.resize(out.len() + len, of.0 as u8);
            }
            None => {
                let from = (range.start as usize).min(base.len());
                let to = (range.end as usize).min(base.len());
                let end = out.len() + len;
                out.extend_from_slice(&base[from..to]);
                out.resize(end, 0);
            }
        }
    }
    assert_eq!(at, range.end.max(range.start), "the range's end is missing");
    out
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Memory,
    File,
    NewFile,
    Elsewhere,
}

/// Offsets and lengths are in units, so that changes meet at their edges.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, len: u64, place: Place },
    Append { len: u64, place: Place },
    Punch { offset: u64, len: u64 },
    Truncate { len: u64 },
    Fix,
    Rebase { which: usize },
    RebaseAgain { which: usize },
    Read { offset: u64, len: u64 },
}

fn change() -> impl Strategy<Value = Change> {
    let place = || {
        prop_oneof![
            Just(Place::Memory),
            Just(Place::File),
            Just(Place::NewFile),
            Just(Place::Elsewhere)
        ]
    };
    let (offset, len) = (0..48_u64, 0..12_u64);
    prop_oneof![
        6 => (offset.clone(), len.clone(), place())
            .prop_map(|(offset, len, place)| Change::Write { offset, len, place }),
        3 => (len.clone(), place()).prop_map(|(len, place)| Change::Append { len, place }),
        2 => (offset.clone(), len.clone()).prop_map(|(offset, len)| Change::Punch { offset, len }),
        3 => (0..60_u64).prop_map(|len| Change::Truncate { len }),
        3 => Just(Change::Fix),
        2 => any::<usize>().prop_map(|which| Change::Rebase { which }),
        1 => any::<usize>().prop_map(|which| Change::RebaseAgain { which }),
        2 => (offset, 0..30_u64).prop_map(|(offset, len)| Change::Read { offset, len }),
    ]
}

/// A file as it should be, beside the map that says how it is.
struct World {
    unit: u64,
    base: Vec<u8>,
    content: Vec<u8>,
    /// The number of the last change that wrote or punched each byte.
    touched: Vec<u64>,
    map: DirtyMap,
    /// Fixed states that are not the base yet, with what they must read as.
    snapshots: Vec<(DirtySnapshot, Vec<u8>)>,
    rebased: Vec<DirtySnapshot>,
    dir: StagingDir,
    file: Arc<StagingFile>,
    files: u64,
    stamp: u8,
    _temp: tempfile::TempDir,
}

impl World {
    fn new(base_units: u64, unit: u64) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = StagingDir::open(temp.path()).unwrap();
        let file = Arc::new(dir.create(0).unwrap());
        let base: Vec<u8> = (0..base_units * unit)
            .map(|at| 128 + (at % 101) as u8)
            .collect();
        Self {
            unit,
            content: base.clone(),
            touched: vec![0; base.len()],
            base,
            map: DirtyMap::new(),
            snapshots: Vec::new(),
            rebased: Vec::new(),
            dir,
            file,
            files: 0,
            stamp: 0,
            _temp: temp,
        }
    }

    fn write(&mut self, offset: u64, len: u64, place: Place) {
        // No two writes put the same bytes, and none puts zeros or what the first base had.
        self.stamp = self.stamp % 127 + 1;
        let bytes = vec![self.stamp; len as usize];
        if matches!(place, Place::NewFile) {
            self.files += 1;
            self.file = Arc::new(self.dir.create(self.files).unwrap());
        }
        let source = match place {
            Place::Memory => Source::Memory(Bytes::from(bytes.clone())),
            Place::Elsewhere => Source::Reference {
                of: Referent(u64::from(self.stamp), 0),
                position: 0,
            },
            Place::File | Place::NewFile => Source::File {
                position: self.file.append(&bytes).unwrap(),
                file: Arc::clone(&self.file),
            },
        };
        let before = self.map.seq();
        assert_eq!(self.map.write(offset, len, source), before + 1);
        if len > 0 {
            let end = (offset + len) as usize;
            self.content.resize(end.max(self.content.len()), 0);
            self.content[offset as usize..end].copy_from_slice(&bytes);
            self.touched.resize(self.content.len(), 0);
            self.touched[offset as usize..end].fill(before + 1);
        }
    }

    fn apply(&mut self, change: Change) {
        let (unit, size) = (self.unit, self.content.len() as u64);
        match change {
            Change::Write { offset, len, place } => self.write(offset * unit, len * unit, place),
            Change::Append { len, place } => self.write(size, len * unit, place),
            Change::Punch { offset, len } => {
                let start = (offset * unit).min(size);
                let end = (start + len * unit).min(size);
                let seq = self.map.punch(start, end - start);
                self.touched[start as usize..end as usize].fill(seq);
                self.content[start as usize..end as usize].fill(0);
            }
            Change::Truncate { len } => {
                self.map.truncate(len * unit, size);
                self.content.resize((len * unit) as usize, 0);
                self.touched.resize(self.content.len(), 0);
            }
            Change::Fix if self.snapshots.len() < 4 => {
                let snapshot = self.map.fix();
                assert_eq!(snapshot.seq(), self.map.seq());
                self.snapshots.push((snapshot, self.content.clone()));
            }
            Change::Rebase { which } if !self.snapshots.is_empty() => {
                let which = which % self.snapshots.len();
                for (snapshot, content) in self.snapshots.drain(..=which) {
                    self.base = content;
                    self.rebased.push(snapshot);
                }
                self.map.rebase(self.rebased.last().unwrap());
            }
            Change::RebaseAgain { which } if !self.rebased.is_empty() => {
                self.map.rebase(&self.rebased[which % self.rebased.len()]);
            }
            Change::Read { offset, len } => {
                let range = offset * unit + unit / 3..(offset + len) * unit;
                let read = overlay(self.map.pieces(range.clone()), range.clone(), &self.base);
                let mut expected = self.content.clone();
                expected.resize(expected.len().max(range.end as usize), 0);
                let expected = expected.get(range.start as usize..range.end as usize);
                assert_eq!(read, expected.unwrap_or_default());
            }
            Change::Fix | Change::Rebase { .. } | Change::RebaseAgain { .. } => {}
        }
    }

    fn check(&self) {
        // Behind the end, too: what a later growth will uncover must be zero.
        let range = 0..self.content.len() as u64 + 3;
        let mut expected = self.content.clone();
        expected.extend([0; 3]);
        assert_eq!(
            overlay(self.map.pieces(range.clone()), range, &self.base),
            expected
        );
        for (index, (snapshot, content)) in self.snapshots.iter().enumerate() {
            let range = 0..content.len() as u64;
            let over = |snapshot: &DirtySnapshot, base| {
                overlay(snapshot.pieces(range.clone()), range.clone(), base)
            };
            assert_eq!(&over(snapshot, &self.base), content);
            for (earlier, earlier_content) in &self.snapshots[..index] {
                assert_eq!(&over(snapshot, earlier_content), content);
                assert_eq!(&over(&snapshot.since(earlier), earlier_content), content);
            }
        }
        self.check_spans();
    }

    fn check_spans(&self) {
        let (mut data, mut memory) = (0, 0);
        let mut last: Option<&Span> = None;
        for span in self.map.spans() {
            assert!(span.len > 0 && span.seq > 0 && span.seq <= self.map.seq());
            match span.source {
                Source::Memory(_) => (data, memory) = (data + span.len, memory + span.len),
                Source::File { .. } => data += span.len,
                Source::Zero | Source::Reference { .. } => {}
            }
            // A rebase to any of the snapshots will forget exactly the bytes that were not touched since.
            for snapshot in self.snapshots.iter().map(|(snapshot, _)| snapshot.seq()) {
                let bytes = &self.touched[span.offset as usize..span.end() as usize];
                assert!(
                    bytes
                        .iter()
                        .all(|seq| (*seq > snapshot) == (span.seq > snapshot))
                );
            }
            if let Some(last) = last {
                assert!(last.end() <= span.offset);
                let apart = last.seq <= self.map.snapshotted || span.seq <= self.map.snapshotted;
                let in_memory = matches!(span.source, Source::Memory(_));
                assert!(
                    apart || in_memory || last.joined(span).is_none(),
                    "not joined"
                );
            }
            last = Some(span);
        }
        assert_eq!((self.map.bytes(), self.map.memory_bytes()), (data, memory));
        let clean = self.map.spans().next().is_none() && self.map.cut().is_none();
        assert_eq!(self.map.is_clean(), clean);
        assert!(self.map.layer.cuts.len() <= self.snapshots.len() + self.rebased.len() + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// After any changes, snapshots and rebases the map and every snapshot have the same bytes as the vector.
    #[test]
    fn reads_as_a_vector_of_bytes(
        base in 0..40_u64,
        unit in prop_oneof![3 => Just(1_u64), 1 => Just(700)],
        changes in prop::collection::vec(change(), 1..50),
    ) {
        let mut world = World::new(base, unit);
        for change in changes {
            world.apply(change);
            world.check();
        }
    }
}

fn memory(bytes: &'static [u8]) -> Source {
    Source::Memory(Bytes::from_static(bytes))
}

fn staging() -> (tempfile::TempDir, Arc<StagingFile>) {
    let temp = tempfile::tempdir().unwrap();
    let dir = StagingDir::open(temp.path()).unwrap();
    let file = Arc::new(dir.create(0).unwrap());
    (temp, file)
}

fn read(map: &DirtyMap, len: u64, base: &[u8]) -> Vec<u8> {
    overlay(map.pieces(0..len), 0..len, base)
}

#[test]
fn what_a_truncation_took_does_not_come_back() {
    let mut map = DirtyMap::new();
    map.write(6, 2, memory(b"xy"));
    map.truncate(3, 8);
    map.truncate(8, 3);
    assert_eq!(map.cut(), Some(3));
    assert_eq!(read(&map, 8, b"abcdef"), b"abc\0\0\0\0\0");
    map.write(5, 1, memory(b"z"));
    assert_eq!(read(&map, 8, b"abcdef"), b"abc\0\0z\0\0");
    assert!(map.pieces(3..8).iter().all(|piece| piece.source.is_some()));
}

#[test]
fn a_truncation_after_the_fix_outlives_its_rebase() {
    let mut map = DirtyMap::new();
    map.truncate(2, 4);
    map.write(2, 4, memory(b"wxyz"));
    let snapshot = map.fix();
    map.truncate(5, 6);
    map.truncate(8, 5);
    assert_eq!(map.cut(), Some(2));
    assert_eq!(read(&map, 8, b"abcd"), b"abwxy\0\0\0");
    map.rebase(&snapshot);
    assert_eq!(map.cut(), Some(5));
    assert_eq!(map.spans().count(), 0);
    assert_eq!(read(&map, 8, b"abwxyz"), b"abwxy\0\0\0");
}

#[test]
fn a_later_fix_contains_an_earlier_one_that_is_not_the_base_yet() {
    let mut map = DirtyMap::new();
    map.write(0, 4, memory(b"1111"));
    let first = map.fix();
    map.write(2, 4, memory(b"2222"));
    let second = map.fix();
    map.write(5, 2, memory(b"33"));
    assert_eq!(overlay(second.pieces(0..6), 0..6, b""), b"112222");
    map.rebase(&first);
    assert_eq!(read(&map, 7, b"1111"), b"1122233");
    assert_eq!(overlay(second.pieces(0..6), 0..6, b"1111"), b"112222");
    map.rebase(&second);
    assert_eq!(read(&map, 7, b"112222"), b"1122233");
    let before = map.fix();
    map.rebase(&first);
    assert_eq!(before.spans().count(), map.spans().count());
    map.rebase(&before);
    assert!(map.is_clean());
}

#[test]
fn spans_of_different_fixes_are_not_joined() {
    let (_temp, file) = staging();
    let part = |position| Source::File {
        file: Arc::clone(&file),
        position,
    };
    let mut map = DirtyMap::new();
    map.write(0, 10, part(0));
    map.write(10, 10, part(10));
    assert_eq!(map.spans().count(), 1);
    let snapshot = map.fix();
    map.write(20, 10, part(20));
    map.write(30, 10, part(30));
    assert_eq!(map.spans().count(), 2);
    map.rebase(&snapshot);
    let left: Vec<_> = map.spans().map(|span| (span.offset, span.end())).collect();
    assert_eq!(left, [(20, 40)]);
}

#[test]
fn a_sequential_gibibyte_is_one_span() {
    const WRITE: u64 = 128 * 1024;
    let (_temp, file) = staging();
    let mut map = DirtyMap::new();
    for index in 0..8192 {
        let position = index * WRITE;
        let file = Arc::clone(&file);
        map.write(position, WRITE, Source::File { file, position });
    }
    assert_eq!((map.spans().count(), map.bytes()), (1, 1 << 30));
    assert_eq!(Arc::strong_count(&file), 2);
}

#[test]
fn lines_in_memory_make_few_spans() {
    let mut map = DirtyMap::new();
    for line in 0..640 {
        map.write(
            line * 100,
            100,
            Source::Memory(Bytes::from(vec![line as u8; 100])),
        );
    }
    assert_eq!((map.spans().count(), map.memory_bytes()), (16, 64_000));
}

#[test]
fn a_fix_copies_nothing_and_an_unchanged_map_neither() {
    let mut map = DirtyMap::new();
    for index in 0..10_000 {
        map.write(index * 7919 % 10_000 * 8192, 4096, Source::Zero);
    }
    assert_eq!(map.spans().count(), 10_000);
    let (one, two) = (map.fix(), map.fix());
    assert!(Arc::ptr_eq(&one.layer, &two.layer) && Arc::ptr_eq(&one.layer, &map.layer));
    map.truncate(u64::MAX, u64::MAX);
    assert!(Arc::ptr_eq(&one.layer, &map.layer));
    map.punch(0, 1);
    assert_eq!(one.spans().next().unwrap().len, 4096);
}

#[test]
fn the_largest_offsets_are_in_order() {
    let mut map = DirtyMap::new();
    map.write(u64::MAX - 2, 10, Source::Zero);
    assert_eq!(map.spans().next().unwrap().len, 2);
    assert_eq!(map.pieces(0..u64::MAX).len(), 2);
    map.truncate(0, u64::MAX);
    assert_eq!(map.pieces(0..u64::MAX).len(), 1);
    assert!(map.pieces(5..5).is_empty());
}
