//! External merge sort of row changes by key: changes that exceed the memory limit are kept in temporary files.
//!
//! Changes are added in the order in which they were made; changes of the same key are merged. When the memory limit is
//! reached, the changes are written to a sorted run. Reading merges all runs, the oldest as the base.
//! Invariant: memory use is at most the limit and one buffer per run, and there are never more than [`RUNS_MAX`] runs.
//! The file of a run has no name, so it does not outlive the process, however the process ends.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;

use crate::meta::{Change, MergeFn, MetaError, RowScan};
use crate::store::model::error::StoreError;
use crate::sync::Arc;

/// Maximum number of runs; when it is reached, all runs are merged into one.
const RUNS_MAX: usize = 32;
/// Size of the buffer of a run that is read or written, in bytes.
const BUFFER: usize = 64 << 10;
/// Approximate memory that an entry takes in addition to its key and value, in bytes.
const ENTRY_BYTES: usize = 160;

/// Where rows are kept that exceed the memory limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spill {
    /// The directory of the temporary files.
    pub dir: PathBuf,
    /// The memory limit, in bytes of rows.
    pub memory: usize,
}

/// The rows that result from the changes added so far, ordered by key.
#[derive(Debug)]
pub(crate) struct SortedRows {
    merge: MergeFn,
    spill: Spill,
    newest: BTreeMap<Bytes, Change>,
    bytes: usize,
    runs: Vec<Arc<File>>,
}

impl SortedRows {
    pub(crate) fn new(merge: MergeFn, spill: Spill) -> Self {
        Self {
            merge,
            spill,
            newest: BTreeMap::new(),
            bytes: 0,
            runs: Vec::new(),
        }
    }

    /// Returns an empty set of rows with the same limit.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.merge, self.spill.clone())
    }

    /// Returns the number of runs on disk.
    #[cfg(test)]
    pub(crate) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Adds a change that was made after all changes added before.
    pub(crate) fn add(&mut self, key: Bytes, change: Change) -> Result<(), StoreError> {
        let older = self.newest.remove(&key);
        if let Some(older) = &older {
            self.bytes -= entry_bytes(&key, older);
        }
        let change = fold(self.merge, &key, older, change);
        self.bytes += entry_bytes(&key, &change);
        self.newest.insert(key, change);
        if self.bytes > self.spill.memory {
            self.write_run()?;
        }
        Ok(())
    }

    /// Writes the changes in memory to a new run.
    pub(crate) fn write_run(&mut self) -> Result<(), StoreError> {
        if self.newest.is_empty() {
            return Ok(());
        }
        let newest = std::mem::take(&mut self.newest);
        self.bytes = 0;
        let mut run = RunWriter::new(&self.spill)?;
        for (key, change) in &newest {
            run.add(key, change)?;
        }
        self.runs.push(run.finish()?);
        if self.runs.len() > RUNS_MAX {
            self.merge_runs()?;
        }
        Ok(())
    }

    /// Merges all runs into one. The result has no older run below it, so deleted rows are left out.
    fn merge_runs(&mut self) -> Result<(), StoreError> {
        let mut one = RunWriter::new(&self.spill)?;
        let mut rows = self.rows();
        while let Some((key, value)) = rows.row().map_err(|e| local(&self.spill, &e))? {
            one.add(&key, &Change::Put(value))?;
        }
        let one = one.finish()?;
        drop(rows);
        self.runs = vec![one];
        Ok(())
    }

    /// Returns the rows in the order of their keys.
    pub(crate) fn rows(&self) -> MergedRows<'_> {
        let runs = self
            .runs
            .iter()
            .map(|file| RunSource::Run(RunReader::new(file)));
        let newest = std::iter::once(RunSource::Memory(self.newest.iter()));
        MergedRows {
            merge: self.merge,
            sources: runs.chain(newest).collect(),
            heads: None,
        }
    }
}

fn entry_bytes(key: &Bytes, change: &Change) -> usize {
    let value = match change {
        Change::Put(value) | Change::Merge(value) => value.len(),
        Change::Delete => 0,
    };
    ENTRY_BYTES + key.len() + value
}

/// Merges an older and a newer change of the same key.
fn fold(merge: MergeFn, key: &Bytes, older: Option<Change>, newer: Change) -> Change {
    match (older, newer) {
        (Some(Change::Put(old)), Change::Merge(new)) => Change::Put(merge(key, Some(&old), &[new])),
        (Some(Change::Merge(old)), Change::Merge(new)) => {
            Change::Merge(merge(key, Some(&old), &[new]))
        }
        (Some(Change::Delete), Change::Merge(new)) => Change::Put(merge(key, None, &[new])),
        (_, newer) => newer,
    }
}

fn local(spill: &Spill, error: &std::io::Error) -> StoreError {
    StoreError::LocalDisk(format!(
        "a temporary file in {}: {error}; set TMPDIR to use another directory",
        spill.dir.display()
    ))
}

/// A run that is being written.
struct RunWriter<'a> {
    spill: &'a Spill,
    file: BufWriter<File>,
}

impl<'a> RunWriter<'a> {
    fn new(spill: &'a Spill) -> Result<Self, StoreError> {
        let file = tempfile::tempfile_in(&spill.dir).map_err(|e| local(spill, &e))?;
        Ok(Self {
            spill,
            file: BufWriter::with_capacity(BUFFER, file),
        })
    }

    fn add(&mut self, key: &Bytes, change: &Change) -> Result<(), StoreError> {
        let (kind, value): (u8, &[u8]) = match change {
            Change::Put(value) => (0, value),
            Change::Delete => (1, &[]),
            Change::Merge(value) => (2, value),
        };
        let mut parts = || -> std::io::Result<()> {
            self.file.write_all(&[kind])?;
            for part in [&key[..], value] {
                self.file.write_all(&(part.len() as u64).to_le_bytes())?;
                self.file.write_all(part)?;
            }
            Ok(())
        };
        parts().map_err(|e| local(self.spill, &e))
    }

    fn finish(self) -> Result<Arc<File>, StoreError> {
        let file = self
            .file
            .into_inner()
            .map_err(|e| local(self.spill, e.error()))?;
        Ok(Arc::new(file))
    }
}

/// A reader of a run from its beginning. Several readers can share the file.
struct RunReader(BufReader<FilePosition>);

/// A read position in a shared file.
struct FilePosition {
    file: Arc<File>,
    at: u64,
}

impl Read for FilePosition {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl RunReader {
    fn new(file: &Arc<File>) -> Self {
        let start = FilePosition {
            file: Arc::clone(file),
            at: 0,
        };
        Self(BufReader::with_capacity(BUFFER, start))
    }

    fn next(&mut self) -> std::io::Result<Option<(Bytes, Change)>> {
        let mut kind = [0];
        match self.0.read_exact(&mut kind) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (key, value) = (self.part()?, self.part()?);
        let change = match kind[0] {
            0 => Change::Put(value),
            1 => Change::Delete,
            _ => Change::Merge(value),
        };
        Ok(Some((key, change)))
    }

    fn part(&mut self) -> std::io::Result<Bytes> {
        let mut len = [0; 8];
        self.0.read_exact(&mut len)?;
        let len = usize::try_from(u64::from_le_bytes(len)).map_err(std::io::Error::other)?;
        let mut part = vec![0; len];
        self.0.read_exact(&mut part)?;
        Ok(part.into())
    }
}

/// Changes of distinct keys, in ascending order.
enum RunSource<'a> {
    Run(RunReader),
    Memory(std::collections::btree_map::Iter<'a, Bytes, Change>),
}

impl RunSource<'_> {
    fn next(&mut self) -> std::io::Result<Option<(Bytes, Change)>> {
        match self {
            Self::Run(run) => run.next(),
            Self::Memory(rows) => Ok(rows.next().map(|(k, c)| (k.clone(), c.clone()))),
        }
    }
}

/// The next change of a source; ordered by key, then by age, oldest first.
struct RunHead {
    key: Bytes,
    source: usize,
    change: Change,
}

impl RunHead {
    fn order(&self) -> (&Bytes, usize) {
        (&self.key, self.source)
    }
}

impl PartialEq for RunHead {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for RunHead {}

impl PartialOrd for RunHead {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RunHead {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// A cursor over the merged rows.
pub(crate) struct MergedRows<'a> {
    merge: MergeFn,
    /// The oldest source first.
    sources: Vec<RunSource<'a>>,
    /// `None` before the first row.
    heads: Option<BinaryHeap<Reverse<RunHead>>>,
}

impl MergedRows<'_> {
    fn row(&mut self) -> std::io::Result<Option<(Bytes, Bytes)>> {
        let mut heads = match self.heads.take() {
            Some(heads) => heads,
            None => {
                let mut heads = BinaryHeap::new();
                for source in 0..self.sources.len() {
                    self.draw(source, &mut heads)?;
                }
                heads
            }
        };
        let mut found = None;
        while let Some(Reverse(first)) = heads.pop() {
            self.draw(first.source, &mut heads)?;
            let mut change = first.change;
            while heads
                .peek()
                .is_some_and(|Reverse(next)| next.key == first.key)
            {
                let Some(Reverse(next)) = heads.pop() else {
                    break;
                };
                self.draw(next.source, &mut heads)?;
                change = fold(self.merge, &next.key, Some(change), next.change);
            }
            if let Change::Put(value) | Change::Merge(value) = change {
                found = Some((first.key, value));
                break;
            }
        }
        self.heads = Some(heads);
        Ok(found)
    }

    fn draw(
        &mut self,
        source: usize,
        heads: &mut BinaryHeap<Reverse<RunHead>>,
    ) -> std::io::Result<()> {
        if let Some((key, change)) = self.sources[source].next()? {
            heads.push(Reverse(RunHead {
                key,
                source,
                change,
            }));
        }
        Ok(())
    }
}

#[async_trait]
impl RowScan for MergedRows<'_> {
    async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, MetaError> {
        // Blocking reads are acceptable here: they are small and in the page cache, and a check runs in a process of
        // its own.
        self.row()
            .map_err(|error| MetaError::Unavailable(format!("a temporary file: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{Batch, MemoryStore, MetaRead, MetaStore};

    fn join(_key: &[u8], existing: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
        let operands = operands.concat();
        [existing.unwrap_or_default(), &operands].concat().into()
    }

    fn step(random: &mut u64) -> u64 {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random
    }

    async fn all(rows: &mut dyn RowScan) -> Vec<(Bytes, Bytes)> {
        let mut found = Vec::new();
        while let Some(row) = rows.next().await.unwrap() {
            found.push(row);
        }
        found
    }

    #[tokio::test]
    async fn sorted_rows_equal_those_of_a_memory_store_for_every_memory_limit() {
        let dir = tempfile::tempdir().unwrap();
        for memory in [0, 1_000, 20_000, usize::MAX] {
            let spill = Spill {
                dir: dir.path().to_owned(),
                memory,
            };
            let (mut sorted, twin) = (SortedRows::new(join, spill), MemoryStore::new(join));
            let mut random = 0x5eed;
            for n in 0..3_000_u32 {
                let key = Bytes::from(format!("C{}", step(&mut random) % 300));
                let mut batch = Batch::new();
                match step(&mut random) % 5 {
                    0 => batch.delete(key),
                    1 => batch.put(key, format!("[{n}]")),
                    _ => batch.merge(key, format!("{n}.")),
                }
                for (key, change) in batch.rows() {
                    sorted.add(key.clone(), change.clone()).unwrap();
                }
                twin.commit(batch).await.unwrap();
                assert!(sorted.bytes <= memory && sorted.runs() <= RUNS_MAX, "{n}");
            }
            assert_eq!(sorted.runs() > 1, memory < usize::MAX, "{memory}");
            let mut expected = twin.scan("A".into().."Z".into()).await.unwrap();
            let expected = all(&mut *expected).await;
            assert!(all(&mut sorted.rows()).await == expected, "{memory}");
            // The same rows are read again after all changes were written to disk.
            sorted.write_run().unwrap();
            assert!(all(&mut sorted.rows()).await == expected, "{memory}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
            assert!(all(&mut sorted.fresh().rows()).await.is_empty());
        }
    }

    #[test]
    fn the_error_names_a_directory_in_which_no_temporary_file_can_be_created() {
        let spill = Spill {
            dir: PathBuf::from("/nowhere/at/all"),
            memory: 0,
        };
        let mut sorted = SortedRows::new(join, spill);
        let refused = sorted.add(Bytes::from_static(b"k"), Change::Delete);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("/nowhere/at/all"), "{text}");
    }
}
