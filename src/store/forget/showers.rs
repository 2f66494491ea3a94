//! What else shows versions, or their bytes, than the name whose versions are to be forgotten: labels, holds, other names of a
//! hard-linked file, and files with copies that share the stored bytes.
//!
//! No row leads from bytes to the contents that show them, so all rows of contents and states are scanned.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::meta::RowScan;
use crate::store::data::contents::ResolvedExtent;
use crate::store::forget::Forgetter;
use crate::store::forget::line::{ForgetLine, LineRows};
use crate::store::forget::report::{ForgottenVersion, ShownBy, ShownName};
use crate::store::forget::shown_bytes::{ShownBytes, is_brief};
use crate::store::model::error::StoreError;
use crate::store::model::version::{ContentRef, Ino, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::rows::{
    DentryBody, DentryRow, EntryState, InodeRow, InodeState, VersionRecord,
};
use crate::store::schema::tables::{
    BindingTable, DentryTable, InodeTable, LineageTable, LinkedVersionTable, OrphanTable,
    RangeTable, RowTable, VersionTable,
};

/// A name that showed a version of a hard-linked inode.
struct BoundTo {
    name: ShownName,
    /// Whether it leads to the inode now.
    is_live: bool,
}

/// Lineages whose rows have to do with some bytes.
#[derive(Debug, Default)]
pub(super) struct CitingLineages {
    /// Those with rows that show some of the bytes, and those that began over them.
    pub(super) showing: BTreeSet<u64>,
    /// Those with rows that cite an extent which has some of the bytes, even if they show others of it.
    pub(super) citing: BTreeSet<u64>,
    /// Others with rows that show a few bytes which are the same: a copy, or by chance.
    pub(super) alike: BTreeSet<u64>,
}

/// A content that a row shows, and the length of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShownContent {
    content: ContentRef,
    len: u64,
}

impl Forgetter {
    /// Returns the labels, holds and other names of hard-linked inodes that show versions which are to go.
    pub(super) async fn protected_by(&self, line: &ForgetLine) -> Result<Vec<ShownBy>, StoreError> {
        let mut shown_by = Vec::new();
        for version in &line.goes {
            shown_by.extend(self.hold_on(version).await?);
            let names = self.names_of(version).await?;
            for BoundTo { name, is_live } in names {
                self.labels_on(version, &name, &mut shown_by).await?;
                if is_live && !line.names.contains(&name) {
                    shown_by.push(ShownBy::Link(name));
                }
            }
        }
        let mut told = Vec::new();
        for shower in shown_by {
            if !told.contains(&shower) {
                told.push(shower);
            }
        }
        Ok(told)
    }

    async fn hold_on(&self, version: &ForgottenVersion) -> Result<Option<ShownBy>, StoreError> {
        let view = self.history.view();
        let until = view.hold_of(version.entry.ino, version.id).await?;
        let until = until.filter(|until| *until > self.core.now());
        Ok(until.map(|until| ShownBy::Hold {
            name: version.name.clone(),
            began: version.id.timestamp,
            until,
        }))
    }

    /// Returns the names that showed a version.
    async fn names_of(&self, version: &ForgottenVersion) -> Result<Vec<BoundTo>, StoreError> {
        let ino = version.entry.ino;
        let key = keys::linked_closed(ino, version.id);
        let own = BoundTo {
            name: version.name.clone(),
            is_live: false,
        };
        if self.core.index.get(&key).await?.is_none() {
            return Ok(vec![own]);
        }
        let began = version.id.timestamp;
        let ended = version.entry.ended.unwrap_or(Timestamp(u64::MAX));
        let (from, until) = (keys::bindings(ino), keys::after(&keys::bindings(ino)));
        let mut names = vec![own];
        for (key, value) in self.core.index.scan(from, until, usize::MAX).await? {
            let row = BindingTable::decode(&value)?;
            if let Some((id, name)) = keys::bound_name(&key)
                && id.timestamp < ended
                && row.end.is_none_or(|end| began < end)
            {
                names.push(BoundTo {
                    name: name.into(),
                    is_live: row.end.is_none(),
                });
            }
        }
        Ok(names)
    }

    async fn labels_on(
        &self,
        version: &ForgottenVersion,
        name: &ShownName,
        shown_by: &mut Vec<ShownBy>,
    ) -> Result<(), StoreError> {
        let view = self.history.view();
        let ended = version.entry.ended.unwrap_or(Timestamp(u64::MAX));
        let span = version.id.timestamp..ended;
        let mut memo = Default::default();
        for label in self.history.labels_between(span, usize::MAX).await? {
            if view.label_shows(&label, name.directory, &mut memo).await? {
                shown_by.push(ShownBy::Label {
                    directory: label.slot.directory,
                    name: label.slot.name.clone(),
                });
            }
        }
        Ok(())
    }

    /// Returns what shows some of the bytes, but for the rows of the line; `lineages` are those whose rows do.
    pub(super) async fn other_showers(
        &self,
        line: &LineRows,
        bytes: &ShownBytes,
        lineages: &BTreeSet<u64>,
    ) -> Result<Vec<ShownBy>, StoreError> {
        let wanted = |key: &Bytes| !line.0.contains(key);
        self.showers(lineages, wanted, Some(bytes)).await
    }

    /// Returns what shows contents of lineages whose rows have some bytes, whether or not it shows these bytes.
    pub(super) async fn states_of(
        &self,
        lineages: &CitingLineages,
    ) -> Result<Vec<ShownBy>, StoreError> {
        let states = self.showers(&lineages.showing, |_| true, None).await?;
        let stored = states.into_iter().map(|state| match state {
            ShownBy::Name(name) => ShownBy::Stored(name),
            other => other,
        });
        Ok(stored.collect())
    }

    /// Returns what shows contents of lineages: with `bytes`, only what shows some of these.
    async fn showers(
        &self,
        lineages: &BTreeSet<u64>,
        is_wanted: impl Fn(&Bytes) -> bool,
        bytes: Option<&ShownBytes>,
    ) -> Result<Vec<ShownBy>, StoreError> {
        if lineages.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let tables = [
            DentryTable::all(),
            InodeTable::all(),
            OrphanTable::all(),
            VersionTable::all(),
            LinkedVersionTable::all(),
        ];
        for table in tables {
            let mut rows = self.rows_of(table).await?;
            while let Some((key, value)) = rows.next().await? {
                if !is_wanted(&key) {
                    continue;
                }
                for shown in contents_of(&key, &value)? {
                    if !lineages.contains(&shown.content.cid) {
                        continue;
                    }
                    let shows = match bytes {
                        Some(bytes) => self.shows(shown, bytes).await?,
                        None => true,
                    };
                    if shows {
                        let shower = self.shower(&key).await?;
                        if !found.contains(&shower) {
                            found.push(shower);
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Returns the lineages whose rows have some of the bytes, or cite their extents. A few inline bytes count in the lineages `own` only,
    /// to which they belonged.
    pub(super) async fn lineages_with(
        &self,
        bytes: &ShownBytes,
        own: &BTreeSet<u64>,
    ) -> Result<CitingLineages, StoreError> {
        let mut found = CitingLineages::default();
        if bytes.is_empty() {
            return Ok(found);
        }
        let mut rows = self.rows_of(RangeTable::all()).await?;
        while let Some((key, value)) = rows.next().await? {
            let row = RangeTable::decode(&value)?;
            let Some(cid) = keys::lineage_of(&key) else {
                continue;
            };
            for slice in row.pieces() {
                if bytes.meets(&slice.source, slice.skip, slice.len) {
                    match is_brief(slice) && !own.contains(&cid) {
                        true => found.alike.insert(cid),
                        false => found.showing.insert(cid),
                    };
                }
                if bytes.are_in(&slice.source) {
                    found.citing.insert(cid);
                }
            }
        }
        let mut began_over = Vec::new();
        let mut rows = self.rows_of(LineageTable::all()).await?;
        while let Some((key, value)) = rows.next().await? {
            let row = LineageTable::decode(&value)?;
            began_over.extend(keys::lineage_of(&key).map(|cid| (cid, row.parent.cid)));
        }
        add_later(&mut found.showing, &began_over);
        add_later(&mut found.alike, &began_over);
        found.alike.retain(|cid| !found.showing.contains(cid));
        Ok(found)
    }

    async fn rows_of(&self, table: Bytes) -> Result<Box<dyn RowScan>, StoreError> {
        let end = keys::after(&table);
        Ok(self.core.index.rows().scan(table..end).await?)
    }

    /// Tells whether a content shows some of the bytes.
    async fn shows(&self, shown: ShownContent, bytes: &ShownBytes) -> Result<bool, StoreError> {
        let view = self.data.contents.view(&self.core.index);
        let resolved = view.resolve(shown.content, 0, shown.len).await?;
        Ok(resolved.iter().any(|(start, end, extent)| match extent {
            ResolvedExtent::Stored(source, skip) => {
                bytes.meets(source, *skip, (end - start) as u32)
            }
            ResolvedExtent::Staged(_) | ResolvedExtent::Zero => false,
        }))
    }

    /// Returns what a row is that shows something.
    async fn shower(&self, key: &Bytes) -> Result<ShownBy, StoreError> {
        let began = keys::trailing_id(key).map(|id| id.timestamp);
        if DentryTable::has(key)
            && let Some(name) = keys::dentry(key)
        {
            return Ok(ShownBy::Name(name.into()));
        }
        if let (true, Some(name), Some(began)) =
            (VersionTable::has(key), keys::record_slot(key), began)
        {
            return Ok(ShownBy::Version(name.into(), began));
        }
        let ino = keys::leading_ino(key).unwrap_or(Ino(0));
        let began = began.filter(|_| LinkedVersionTable::has(key));
        let from = keys::bindings(ino);
        let first = self.core.index.first(from.clone(), keys::after(&from));
        let bound = first.await?.and_then(|(key, _)| keys::bound_name(&key));
        Ok(match (bound, began) {
            (Some((_, name)), Some(began)) => ShownBy::Version(name.into(), began),
            (Some((_, name)), None) => ShownBy::Name(name.into()),
            (None, _) => ShownBy::OpenFile,
        })
    }
}

/// Adds the lineages that began over those of a set; `began_over` has each lineage with the one that it began over.
fn add_later(set: &mut BTreeSet<u64>, began_over: &[(u64, u64)]) {
    loop {
        let before = set.len();
        let later = began_over.iter().filter(|(_, over)| set.contains(over));
        let later: Vec<u64> = later.map(|(cid, _)| *cid).collect();
        set.extend(later);
        if set.len() == before {
            return;
        }
    }
}

/// Returns the stored contents that a row shows.
fn contents_of(key: &Bytes, value: &[u8]) -> Result<Vec<ShownContent>, StoreError> {
    let mut shown = Vec::new();
    match key.get(..2).unwrap_or_default() {
        b"CD" => {
            let row: DentryRow = DentryTable::decode(value)?;
            if let DentryBody::Own { node, state } = &row.body {
                add_state(node, state, &mut shown);
            }
        }
        b"CI" => {
            if let InodeRow::Linked(row) = InodeTable::decode(value)? {
                add_state(&row.node, &row.state, &mut shown);
            }
        }
        b"CO" => add_node(&OrphanTable::decode(value)?.node, &mut shown),
        b"HV" | b"HW" => {
            let record: VersionRecord = match VersionTable::has(key) {
                true => VersionTable::decode(value)?,
                false => LinkedVersionTable::decode(value)?,
            };
            if let Some(node) = &record.node {
                add_node(node, &mut shown);
            }
        }
        _ => {}
    }
    Ok(shown)
}

fn add_state(node: &InodeState, state: &EntryState, shown: &mut Vec<ShownContent>) {
    add_node(node, shown);
    if let Some(last) = state.hidden() {
        add_node(&last.node, shown);
    }
}

fn add_node(node: &InodeState, shown: &mut Vec<ShownContent>) {
    shown.extend(node.content.reference().map(|content| ShownContent {
        content,
        len: node.attrs.size,
    }));
}
