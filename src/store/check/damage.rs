//! Contents with bytes that cannot be read, and the files and versions that show them.
//!
//! Path: the range rows that cite a lost extent; the lineages that began over a content of theirs; the contents of all these
//! lineages that are shown, each resolved to the extents that it shows in the ranges in question; the rows that show such a content.
//! A part that a later write has replaced is no damage of the later content.
//! Invariant: memory grows with the damage only, up to the limits of [`LostExtents`] and [`CONTENTS_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::meta::MetaRead;
use crate::store::check::config::CheckStep;
use crate::store::check::finding::{Finding, Findings, PathFinder};
use crate::store::check::lost::{LostExtent, LostExtents};
use crate::store::check::shown::{self, StateAge};
use crate::store::data::contents::ContentStore;
use crate::store::data::extent_map::RANGE;
use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, Timestamp};
use crate::store::schema::damage_keys;
use crate::store::schema::keys;
use crate::store::schema::rows::{LineageRow, Loss, RangeRow};
use crate::store::schema::tables::{
    CountTable, DentryTable, LineageTable, LinkedVersionTable, RangeTable, RowTable, VersionTable,
};

/// Maximum number of damaged contents that are kept; the files of further ones are not named.
const CONTENTS_MAX: usize = 1_000_000;
/// Number of rows between two progress reports.
const ROWS_TOLD: u64 = 100_000;
/// Number of older versions of a file among which one without damage is searched for.
const OLDER_MAX: usize = 1_000;

/// Whether a mark in the index says that a content is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DamageMark {
    Unmarked,
    Marked,
}

/// A content with bytes that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DamagedContent {
    /// How many of its bytes cannot be read.
    pub(super) bytes: u64,
    /// The first extent that cannot be read.
    pub(super) first: LostExtent,
    pub(super) mark: DamageMark,
}

/// The contents with bytes that cannot be read.
#[derive(Debug, Default)]
pub(super) struct DamagedContents {
    pub(super) all: BTreeMap<ContentRef, DamagedContent>,
    /// Whether there are more than are kept.
    pub(super) is_cut: bool,
}

/// The ranges of lineages whose rows cite lost extents.
type DamagedRanges = BTreeMap<u64, BTreeSet<u64>>;

impl DamagedContents {
    /// Finds the contents that show a lost extent. `rows` and `index` are the same state.
    pub(super) async fn find(
        index: &dyn MetaRead,
        rows: &Snapshot,
        lost: &LostExtents,
    ) -> Result<Self, StoreError> {
        let mut damaged = Self::default();
        if lost.count == 0 {
            return Ok(damaged);
        }
        let mut ranges = citing_ranges(index, lost).await?;
        add_descendants(index, &mut ranges).await?;
        let store = ContentStore::default();
        for (cid, ranges) in &ranges {
            let mut lineage = DamagedLineage::read(index, *cid).await?;
            for range in ranges {
                let states = lineage.states(index, *range).await?;
                let mut last: Option<(usize, Option<DamagedContent>)> = None;
                for (content, damage) in &mut lineage.contents {
                    let state = states.partition_point(|at| *at <= content.timestamp);
                    let known = last.filter(|(of, _)| *of == state);
                    let shown = match known {
                        Some((_, shown)) => shown,
                        None => shown_damage(&store, rows, *content, *range, lost).await?,
                    };
                    last = Some((state, shown));
                    if let Some(shown) = shown {
                        damage
                            .get_or_insert(DamagedContent { bytes: 0, ..shown })
                            .bytes += shown.bytes;
                    }
                }
            }
            for (content, damage) in lineage.contents {
                if let Some(found) = damage {
                    damaged.add(index, content, found).await?;
                }
            }
        }
        damaged.is_cut |= lost.is_cut();
        Ok(damaged)
    }

    async fn add(
        &mut self,
        index: &dyn MetaRead,
        content: ContentRef,
        found: DamagedContent,
    ) -> Result<(), StoreError> {
        if self.all.len() >= CONTENTS_MAX {
            self.is_cut = true;
            return Ok(());
        }
        let mark = match index.get(&damage_keys::damaged(content)).await? {
            Some(_) => DamageMark::Marked,
            None => DamageMark::Unmarked,
        };
        self.all.insert(content, DamagedContent { mark, ..found });
        Ok(())
    }
}

/// The contents of a lineage whose rows cite lost extents.
struct DamagedLineage {
    cid: u64,
    /// The contents that are shown, oldest first, and their damage so far.
    contents: Vec<(ContentRef, Option<DamagedContent>)>,
    /// When it was truncated.
    cuts: Vec<Timestamp>,
}

impl DamagedLineage {
    async fn read(index: &dyn MetaRead, cid: u64) -> Result<Self, StoreError> {
        let mut contents = Vec::new();
        let from = keys::counts(cid);
        let mut counts = index.scan(from.clone()..keys::after(&from)).await?;
        while let Some((key, value)) = counts.next().await? {
            let is_shown = CountTable::decode(&value)? > 0;
            let content = keys::counted(&key).filter(|_| is_shown);
            contents.extend(content.map(|content| (content, None)));
        }
        Ok(Self {
            cid,
            contents,
            cuts: timestamps(index, keys::cuts(cid)).await?,
        })
    }

    /// Returns when what the lineage shows in a range changed, ascending: between two of these, all contents show the same there.
    async fn states(&self, index: &dyn MetaRead, range: u64) -> Result<Vec<Timestamp>, StoreError> {
        let from = keys::range(self.cid, range, Timestamp(u64::MAX)).bytes();
        let end = keys::range_end(self.cid, range);
        let mut states = self.cuts.clone();
        let mut rows = index.scan(from..end).await?;
        while let Some((key, _)) = rows.next().await? {
            states.extend(keys::trailing_timestamp(&key));
        }
        states.sort_unstable();
        Ok(states)
    }
}

/// Returns the timestamps at the end of the keys with a prefix.
async fn timestamps(index: &dyn MetaRead, prefix: Bytes) -> Result<Vec<Timestamp>, StoreError> {
    let mut found = Vec::new();
    let mut rows = index.scan(prefix.clone()..keys::after(&prefix)).await?;
    while let Some((key, _)) = rows.next().await? {
        found.extend(keys::trailing_timestamp(&key));
    }
    Ok(found)
}

/// Returns the damage that a content shows in a range.
async fn shown_damage(
    store: &ContentStore,
    rows: &Snapshot,
    content: ContentRef,
    range: u64,
    lost: &LostExtents,
) -> Result<Option<DamagedContent>, StoreError> {
    let mut found: Option<DamagedContent> = None;
    for piece in store.pieces(rows, content, range).await?.iter() {
        if let Some(first) = lost.of(&piece.source) {
            let damage = found.get_or_insert(DamagedContent {
                bytes: 0,
                first,
                mark: DamageMark::Unmarked,
            });
            damage.bytes += u64::from(piece.len);
        }
    }
    Ok(found)
}

/// Returns the ranges of each lineage whose rows cite a lost extent.
async fn citing_ranges(
    index: &dyn MetaRead,
    lost: &LostExtents,
) -> Result<DamagedRanges, StoreError> {
    let mut ranges = DamagedRanges::new();
    let mut rows = index
        .scan(RangeTable::all()..keys::after(&RangeTable::PREFIX))
        .await?;
    while let Some((key, value)) = rows.next().await? {
        let row: RangeRow = RangeTable::decode(&value)?;
        if row
            .pieces()
            .iter()
            .any(|piece| lost.of(&piece.source).is_some())
            && let (Some(cid), Some(range)) = (keys::lineage_of(&key), keys::range_number(&key))
        {
            ranges.entry(cid).or_default().insert(range);
        }
    }
    Ok(ranges)
}

/// Adds the lineages that began over contents of those in `ranges`, and those that began over these.
async fn add_descendants(
    index: &dyn MetaRead,
    ranges: &mut DamagedRanges,
) -> Result<(), StoreError> {
    let mut flow = ControlFlow::Continue(());
    while flow.is_continue() && !ranges.is_empty() {
        flow = ControlFlow::Break(());
        let mut rows = index
            .scan(LineageTable::all()..keys::after(&LineageTable::PREFIX))
            .await?;
        while let Some((key, value)) = rows.next().await? {
            let LineageRow { parent, len } = LineageTable::decode(&value)?;
            let (Some(cid), Some(above)) = (keys::lineage_of(&key), ranges.get(&parent.cid)) else {
                continue;
            };
            let shown = |range: &&u64| range.saturating_mul(RANGE) < len;
            let shown: Vec<u64> = above.iter().filter(shown).copied().collect();
            for range in shown {
                if ranges.entry(cid).or_default().insert(range) {
                    flow = ControlFlow::Continue(());
                }
            }
        }
    }
    Ok(())
}

/// The states that show damaged contents.
#[derive(Debug, Default)]
pub(super) struct DamagedStates {
    /// States without a mark.
    pub(super) unmarked: Findings,
    /// States with a mark in the index.
    pub(super) marked: Findings,
}

impl DamagedStates {
    /// Finds the files and versions that show damaged contents. For the current state of a file the newest older version without damage
    /// is named too.
    pub(super) async fn name(
        index: &dyn MetaRead,
        contents: &DamagedContents,
        paths: &mut PathFinder<'_>,
        step: &(impl Fn(CheckStep) + Sync),
    ) -> Result<Self, StoreError> {
        let mut named = Self::default();
        if contents.all.is_empty() {
            return Ok(named);
        }
        let mut count = 0;
        for table in shown::TABLES {
            let from = Bytes::copy_from_slice(&table);
            let mut rows = index.scan(from.clone()..keys::after(&from)).await?;
            while let Some((key, value)) = rows.next().await? {
                count += 1;
                if count % ROWS_TOLD == 0 {
                    step(CheckStep::Naming(count));
                }
                for state in shown::states(&key, &value)? {
                    let Some(damage) = contents.all.get(&state.content) else {
                        continue;
                    };
                    let findings = match damage.mark {
                        DamageMark::Unmarked => &mut named.unmarked,
                        DamageMark::Marked => &mut named.marked,
                    };
                    if findings.is_full() {
                        findings.count += 1;
                        continue;
                    }
                    let intact = match state.age {
                        StateAge::Current => older_intact(index, &key, contents).await?,
                        StateAge::Past => None,
                    };
                    findings.push_named(Finding {
                        subject: paths.shown_by(&key, state.version).await?,
                        what: sentence(damage, state.size),
                        intact,
                    });
                }
            }
        }
        Ok(named)
    }
}

/// Says what is wrong with a state of `size` bytes.
fn sentence(damage: &DamagedContent, size: u64) -> String {
    let DamagedContent { bytes, first, .. } = damage;
    let key = first.segment.key();
    let why = match first.loss {
        Loss::Missing => format!("{key} is missing or too short"),
        Loss::Changed => format!("bytes of {key} do not match their hash"),
    };
    format!("{bytes} of {size} bytes cannot be read: {why}")
}

/// Returns when the newest ended version without damage began, of the file whose current state the row at `key` has.
async fn older_intact(
    index: &dyn MetaRead,
    key: &Bytes,
    contents: &DamagedContents,
) -> Result<Option<Timestamp>, StoreError> {
    let from = match DentryTable::has(key) {
        true => keys::dentry(key).map(|at| keys::history(at.parent, &at.name)),
        false => keys::leading_ino(key).map(keys::linked_history),
    };
    let Some(from) = from else { return Ok(None) };
    let mut rows = index.seek(from.clone()..keys::after(&from)).await?;
    for _ in 0..OLDER_MAX {
        let Some((key, value)) = rows.next().await? else {
            break;
        };
        let record = match LinkedVersionTable::has(&key) {
            true => LinkedVersionTable::decode(&value)?,
            false => VersionTable::decode(&value)?,
        };
        let Some((began, content)) = shown::restorable(&record) else {
            continue;
        };
        if content.is_none_or(|content| !contents.all.contains_key(&content)) {
            return Ok(Some(began));
        }
    }
    Ok(None)
}
