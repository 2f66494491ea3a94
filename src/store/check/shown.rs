//! The states that the rows of an index show: which content belongs to which version.

use bytes::Bytes;

use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, Kind, Retained, Timestamp};
use crate::store::schema::rows::{
    DentryBody, EntryState, InodeRow, InodeState, OrphanRow, VersionRecord,
};
use crate::store::schema::tables::{
    DentryTable, InodeTable, LinkedVersionTable, OrphanTable, RowTable, VersionTable,
};

/// The tables whose rows show contents.
pub(super) const TABLES: [[u8; 2]; 5] = [
    DentryTable::PREFIX,
    InodeTable::PREFIX,
    OrphanTable::PREFIX,
    VersionTable::PREFIX,
    LinkedVersionTable::PREFIX,
];

/// Whether a state is the one that a file has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateAge {
    Current,
    Past,
}

/// A state of a file with stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShownState {
    pub(super) content: ContentRef,
    /// Its length in bytes.
    pub(super) size: u64,
    /// When the version began; `None` for a state that is no version.
    pub(super) version: Option<Timestamp>,
    pub(super) age: StateAge,
}

impl ShownState {
    fn of(node: &InodeState, version: Option<Timestamp>, age: StateAge) -> Option<Self> {
        Some(Self {
            content: node.content.reference()?,
            size: node.attrs.size,
            version,
            age,
        })
    }

    /// Returns the current state, and the version that the past shows in its place.
    fn live(node: &InodeState, state: &EntryState) -> Vec<Self> {
        let version = match state {
            EntryState::Version(stamp) => Some(stamp.id.timestamp),
            EntryState::Unborn { .. } | EntryState::Provisional(_) => None,
        };
        let hidden = state.hidden().and_then(|last| {
            let version = Some(last.stamp.id.timestamp);
            Self::of(&last.node, version, StateAge::Past)
        });
        let current = Self::of(node, version, StateAge::Current);
        current.into_iter().chain(hidden).collect()
    }
}

/// Returns the states with stored bytes that a row shows; none for a row of any table that is not in [`TABLES`].
///
/// # Errors
/// `Corrupt`, naming the table of the row.
pub(super) fn states(key: &[u8], value: &Bytes) -> Result<Vec<ShownState>, StoreError> {
    let table = key.first_chunk::<2>().copied().unwrap_or_default();
    Ok(match table {
        DentryTable::PREFIX => match DentryTable::decode(value)?.body {
            DentryBody::Own { node, state } => ShownState::live(&node, &state),
            DentryBody::Linked(_) => Vec::new(),
        },
        InodeTable::PREFIX => match InodeTable::decode(value)? {
            InodeRow::Linked(row) => ShownState::live(&row.node, &row.state),
            InodeRow::Directory(_) => Vec::new(),
        },
        OrphanTable::PREFIX => {
            let row: OrphanRow = OrphanTable::decode(value)?;
            let open = ShownState::of(&row.node, None, StateAge::Past);
            open.into_iter().collect()
        }
        VersionTable::PREFIX => ended(&VersionTable::decode(value)?),
        LinkedVersionTable::PREFIX => ended(&LinkedVersionTable::decode(value)?),
        _ => Vec::new(),
    })
}

fn ended(record: &VersionRecord) -> Vec<ShownState> {
    let version = Some(record.stamp.id.timestamp);
    let node = record.node.as_ref();
    let state = node.and_then(|node| ShownState::of(node, version, StateAge::Past));
    state.into_iter().collect()
}

/// Returns when the version of a record began, if it is one that a file can be restored to, and its content.
pub(super) fn restorable(record: &VersionRecord) -> Option<(Timestamp, Option<ContentRef>)> {
    let node = record.node.as_ref()?;
    let is_whole = record.kept != Retained::Nothing && node.kind == Kind::File;
    is_whole.then(|| (record.stamp.id.timestamp, node.content.reference()))
}
