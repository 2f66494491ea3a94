//! The namespace that a rebuild makes: its identity, its index, and the comparison of the index with the segments.
//!
//! Invariant: until the rebuild is complete, its `namespace.json` says so, and no other call of rebuild has written it since.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::backend::Backend;
use crate::env::Env;
use crate::meta::{Batch, MetaRead, MetaStore, RowScan, SlateFollower, SlateStore};
use crate::store::admin::delete_parts;
use crate::store::data::segment_walk::{ListedSegment, SegmentWalk};
use crate::store::model::error::StoreError;
use crate::store::model::ids::UsageChange;
use crate::store::rebuild::engine::slate;
use crate::store::rebuild::gather::{GatheredRows, LogAgreement, ROWS_TOLD};
use crate::store::rebuild::old_namespace::OldNamespace;
use crate::store::rebuild::report::{NewerSegments, RebuildLosses, RebuildStep};
use crate::store::replay::recount::Recount;
use crate::store::replay::sorted::Spill;
use crate::store::schema::applied_row::AppliedRow;
use crate::store::schema::keys;
use crate::store::schema::manifest::{Manifest, RebuildStage, existing_part};
use crate::store::schema::object_names::SegmentId;
use crate::store::schema::rows::SegmentRow;
use crate::store::schema::tables::{
    AppliedTable, LabelTable, LinkedVersionTable, RowTable, SegmentTable, VersionTable,
};

/// Refresh interval of the index; one state of it is read.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
/// Bytes of rows in one batch.
const BATCH_BYTES: usize = 4 << 20;
/// The first writer after a rebuild has an epoch above the next but one multiple of this: writers of which the bucket has no object may have had
/// the epochs between, and their journals name them.
const EPOCH_STEP: u64 = 1 << 12;

/// What lies at the place of the new namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaceState {
    Unused,
    /// A call of the same rebuild was not completed.
    HalfMade,
}

/// The namespace that is being made.
#[derive(Debug)]
pub(super) struct NewNamespace {
    place: Backend,
    identity: Manifest,
    call: Uuid,
}

/// What the new index has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IndexContents {
    pub(super) rows: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) versions: u64,
    pub(super) labels: u64,
    pub(super) wrong_counts: u64,
    pub(super) losses: RebuildLosses,
    pub(super) newer: NewerSegments,
}

/// Fails unless a rebuild of `old` can make the namespace `to`.
///
/// # Errors
/// `Invalid`, with the next command; `Unavailable`.
pub(super) async fn check_place(
    backend: &Backend,
    to: &str,
    old: &OldNamespace,
) -> Result<(), StoreError> {
    place_state(&backend.child(to), to, old).await.map(drop)
}

async fn place_state(
    place: &Backend,
    to: &str,
    old: &OldNamespace,
) -> Result<PlaceState, StoreError> {
    let found = Manifest::find(place).await?;
    let refused = |why: &str| Err(StoreError::Invalid(format!("--to {to}: {why}")));
    let Some(found) = found else {
        return match existing_part(place).await? {
            None => Ok(PlaceState::Unused),
            Some(part) => refused(&format!(
                "objects lie below {part}/ there, without a namespace.json: choose a name that is not used"
            )),
        };
    };
    match &found.rebuild {
        Some(RebuildStage::Building { from, .. }) if *from == old.name => Ok(PlaceState::HalfMade),
        Some(RebuildStage::Building { from, .. }) => refused(&format!(
            "it is the half-made result of a rebuild of namespace {from}: choose a name that is not used"
        )),
        _ if old.identity.replaced_by.as_deref() == Some(to) => refused(&format!(
            "namespace {} was rebuilt as this one: mount it with --namespace {to}",
            old.name
        )),
        _ => refused("the namespace exists: choose a name that is not used"),
    }
}

impl NewNamespace {
    /// Makes the identity of the namespace `to`, whose index is to be written. Deletes what an earlier call left of its index.
    ///
    /// # Errors
    /// As [`check_place`]; `Busy` if another process made it meanwhile.
    pub(super) async fn begin(
        backend: &Backend,
        to: &str,
        old: &OldNamespace,
        env: &dyn Env,
    ) -> Result<Self, StoreError> {
        let place = backend.child(to);
        let state = place_state(&place, to, old).await?;
        let highest = old.highest_epoch().await?;
        let call = env.new_id();
        let identity = Manifest {
            uuid: old.identity.uuid,
            created: old.identity.created,
            settings: old.identity.settings.clone(),
            objects_of: Some(old.owner.clone()),
            epoch_base: (highest / EPOCH_STEP)
                .saturating_add(2)
                .saturating_mul(EPOCH_STEP),
            rebuild: Some(RebuildStage::Building {
                from: old.name.clone(),
                call,
            }),
            ..Manifest::fresh(env)
        };
        match state {
            PlaceState::Unused => {
                if !identity.make(&place).await? {
                    return Err(other_call(to));
                }
            }
            PlaceState::HalfMade => {
                identity.replace(&place).await?;
                let _deleted = delete_parts(&place, &["meta"], 0, &mut |_| {}).await?;
            }
        }
        Ok(Self {
            place,
            identity,
            call,
        })
    }

    /// Writes the index. The row `G A` gets `totals` added, and names a batch of its own if the log does not give these rows: then the next
    /// writer logs a list of all rows.
    ///
    /// # Errors
    /// `Unavailable`, `Fenced`; `LocalDisk` or `Unavailable` if a temporary file fails.
    pub(super) async fn write(
        &self,
        gathered: &GatheredRows,
        totals: UsageChange,
        step: &(impl Fn(RebuildStep) + Sync),
    ) -> Result<(), StoreError> {
        let store = self.place.object_store();
        let index = SlateStore::open(store, "meta", slate(&self.place)).await?;
        let written = self.write_rows(&index, gathered, totals, step).await;
        let closed = index.close().await;
        written?;
        Ok(closed?)
    }

    async fn write_rows(
        &self,
        index: &SlateStore,
        gathered: &GatheredRows,
        totals: UsageChange,
        step: &(impl Fn(RebuildStep) + Sync),
    ) -> Result<(), StoreError> {
        let applied_key = keys::applied();
        let mut applied = AppliedRow::default();
        let (mut batch, mut bytes, mut count, mut told) = (Batch::new(), 0, 0_u64, 0_u64);
        let mut scan = gathered.rows.rows();
        while let Some((key, value)) = scan.next().await? {
            if key == *applied_key {
                applied = AppliedTable::decode(&value)?;
                continue;
            }
            bytes += key.len() + value.len();
            count += 1;
            batch.put(key, value);
            if bytes >= BATCH_BYTES {
                index.commit(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            if count - told >= ROWS_TOLD {
                told = count;
                step(RebuildStep::Written(count));
            }
        }
        applied.bytes = applied.bytes.wrapping_add(totals.bytes);
        applied.files = applied.files.wrapping_add(totals.files);
        if gathered.log == LogAgreement::Differs {
            let epoch = index.epoch().saturating_add(self.identity.epoch_base);
            let _number = applied.next_batch(epoch);
        }
        applied_key.put(&mut batch, &applied);
        let newest = index.commit(batch).await?;
        index.durable(newest).await?;
        // The write-ahead log of an index is compared with the row `G A` in its tables.
        Ok(index.write_tables().await?)
    }

    /// Reads the whole index again: recounts its counts, and looks for the segments that it cites. `unresolved` is the first segment that it may
    /// not know.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`; `LocalDisk` if temporary files cannot be written.
    pub(super) async fn verify(
        &self,
        old: &OldNamespace,
        unresolved: SegmentId,
        spill: &Spill,
        step: &(impl Fn(RebuildStep) + Sync),
    ) -> Result<IndexContents, StoreError> {
        let store = self.place.object_store();
        let index = SlateFollower::open(store, "meta", &slate(&self.place), NEVER).await?;
        let mut contents = IndexContents::default();
        let read = async {
            contents.read(&index, spill, step).await?;
            contents
                .compare(
                    &index,
                    &old.home.objects,
                    unresolved,
                    self.identity.epoch_base,
                )
                .await
        };
        let read = read.await;
        index.close().await?;
        read?;
        Ok(contents)
    }

    /// Fails if another call of rebuild has begun to write the namespace.
    ///
    /// # Errors
    /// `Busy`, `Unavailable`.
    pub(super) async fn check_own(&self, to: &str) -> Result<(), StoreError> {
        let found = Manifest::find(&self.place).await?;
        match found.and_then(|found| found.rebuild) {
            Some(RebuildStage::Building { call, .. }) if call == self.call => Ok(()),
            _ => Err(other_call(to)),
        }
    }

    /// Notes that the index is complete. The next writer brings back what is in `newer` segments, from `unresolved` on.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(super) async fn complete(
        &self,
        newer: NewerSegments,
        unresolved: SegmentId,
    ) -> Result<(), StoreError> {
        let SegmentId { epoch, sequence } = unresolved;
        let complete = Manifest {
            rebuild: (newer.segments > 0).then_some(RebuildStage::Recovering { epoch, sequence }),
            ..self.identity.clone()
        };
        complete.replace(&self.place).await
    }
}

fn other_call(to: &str) -> StoreError {
    StoreError::Busy(format!(
        "--to {to}: another `rewindfs rebuild` writes this namespace; run one at a time"
    ))
}

impl IndexContents {
    /// Counts what all rows of an index have.
    async fn read(
        &mut self,
        index: &SlateFollower,
        spill: &Spill,
        step: &(impl Fn(RebuildStep) + Sync),
    ) -> Result<(), StoreError> {
        let mut counts = Recount::new(spill.clone());
        let all = Bytes::from_static(b"C")..Bytes::from_static(b"I");
        let mut scan = index.scan(all).await?;
        while let Some((key, value)) = scan.next().await? {
            counts.row(&key, &value)?;
            self.count(&key, &value)?;
            self.rows += 1;
            if self.rows.is_multiple_of(ROWS_TOLD) {
                step(RebuildStep::Verified(self.rows));
            }
        }
        self.wrong_counts = counts.finish().await?.count;
        Ok(())
    }

    fn count(&mut self, key: &Bytes, value: &Bytes) -> Result<(), StoreError> {
        if VersionTable::has(key) {
            let record = VersionTable::decode(value)?;
            self.versions += u64::from(record.node.is_some());
        } else if LinkedVersionTable::has(key) {
            self.versions += 1;
        } else if LabelTable::has(key) {
            self.labels += 1;
        } else if *key == *keys::applied() {
            let applied = AppliedTable::decode(value)?;
            self.files = applied.files.max(0).cast_unsigned();
            self.bytes = applied.bytes.max(0).cast_unsigned();
        }
        Ok(())
    }

    /// Compares the rows of segments with the segments that exist: which are missing, and which no row cites.
    async fn compare(
        &mut self,
        index: &SlateFollower,
        objects: &Backend,
        unresolved: SegmentId,
        last_epoch: u64,
    ) -> Result<(), StoreError> {
        let first = SegmentId {
            epoch: 0,
            sequence: 0,
        };
        let mut walk = SegmentWalk::new(objects, first);
        let mut listed = walk.next_segment().await?;
        let rows = SegmentTable::all()..keys::after(&SegmentTable::PREFIX);
        let mut scan = index.scan(rows).await?;
        loop {
            let row = match scan.next().await? {
                Some((key, value)) => Some((segment_of(&key)?, SegmentTable::decode(&value)?)),
                None => None,
            };
            // The objects before the row have no row.
            while let Some(object) = listed
                && row.as_ref().is_none_or(|(id, _)| object.id < *id)
            {
                self.note_uncited(object, unresolved, last_epoch);
                listed = walk.next_segment().await?;
            }
            let Some((id, row)) = row else {
                return Ok(());
            };
            match listed {
                Some(object) if object.id == id => listed = walk.next_segment().await?,
                _ if is_needed(&row) => self.losses.add_segment(id.key()),
                _ => {}
            }
        }
    }

    fn note_uncited(&mut self, object: ListedSegment, unresolved: SegmentId, last_epoch: u64) {
        if object.id >= unresolved && object.id.epoch <= last_epoch {
            self.newer.segments += 1;
            self.newer.bytes += object.bytes;
        }
    }
}

fn segment_of(key: &[u8]) -> Result<SegmentId, StoreError> {
    let (epoch, sequence) =
        keys::segment_of(key).ok_or_else(|| StoreError::Corrupt("G B key".to_owned()))?;
    Ok(SegmentId { epoch, sequence })
}

/// Tells whether files need a segment. The extents of a dead one are cited in another segment, or not at all.
fn is_needed(row: &SegmentRow) -> bool {
    row.dead_since.is_none() && row.extents.values().any(|(_, citing)| *citing > 0)
}
