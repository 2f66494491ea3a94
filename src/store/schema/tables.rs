//! The tables of the index. One declaration each: the letters of its keys, the type of its values, its line in
//! docs/FORMAT.md, and what its rows add to the counts that `check` recounts. A test compares the page with the
//! declarations.

use std::marker::PhantomData;
use std::ops::Deref;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::meta::Batch;
use crate::store::model::error::StoreError;
use crate::store::model::policy::Policy;
use crate::store::model::version::Timestamp;
use crate::store::schema::applied_row::{AppliedRow, EpochWatermark};
use crate::store::schema::label_rows::{HoldRow, LabelRow};
use crate::store::schema::restore_rows::SteppedRestoreRow;
use crate::store::schema::retention_rows::{
    CapRow, DirectoryPolicyRow, ForgottenRow, WaitingDrops,
};
use crate::store::schema::rows::{
    BindingRow, CheckpointRow, DamagedRow, DentryRow, DirectoryLocation, ImportedRow, InodeRow,
    LineageRow, LocationRow, LogPlace, MovedRow, OrphanRow, PendingPolicy, RangeRow, SearchedRow,
    SegmentRow, UncitedRow, VersionRecord, decode, encode,
};
use crate::store::schema::tally::{self, RowTally};

/// A table of the index. Keys begin with `PREFIX`; values are encoded rows of one type.
pub(crate) trait RowTable {
    /// The first two bytes of every key.
    const PREFIX: [u8; 2];
    /// The name of the table in messages: the two letters with a space between.
    const LABEL: &'static str;
    /// The columns of the table in docs/FORMAT.md: the bytes after the two letters, and the value.
    #[cfg(test)]
    const PAGE: [&'static str; 2];
    /// The type of a value.
    type Value: Serialize + DeserializeOwned;

    /// Decodes a value.
    ///
    /// # Errors
    /// `Corrupt`, naming the table.
    fn decode(value: &[u8]) -> Result<Self::Value, StoreError> {
        decode(Self::LABEL, value)
    }

    /// Returns the prefix of all keys of the table.
    fn all() -> Bytes {
        Bytes::copy_from_slice(&Self::PREFIX)
    }

    /// Tells whether a key is of this table.
    fn has(key: &[u8]) -> bool {
        key.starts_with(&Self::PREFIX)
    }
}

/// The key of one row of table `T`.
pub(crate) struct RowKey<T> {
    bytes: Bytes,
    table: PhantomData<fn() -> T>,
}

impl<T: RowTable> RowKey<T> {
    /// Makes a key of bytes that begin with the table's prefix.
    pub(super) fn new(bytes: Bytes) -> Self {
        debug_assert!(T::has(&bytes));
        Self {
            bytes,
            table: PhantomData,
        }
    }

    /// Returns the key of a row that a scan of this table found.
    ///
    /// # Errors
    /// `Corrupt` for a key of another table.
    pub(crate) fn scanned(bytes: Bytes) -> Result<Self, StoreError> {
        match T::has(&bytes) {
            true => Ok(Self::new(bytes)),
            false => Err(StoreError::Corrupt(format!("{} key", T::LABEL))),
        }
    }

    /// The key as the index stores it.
    pub(crate) fn bytes(self) -> Bytes {
        self.bytes
    }

    /// Adds to `rows` a put of the row.
    pub(crate) fn put(self, rows: &mut Batch, value: &T::Value) {
        rows.put(self.bytes, encode(value));
    }

    /// Adds to `rows` a delete of the row.
    pub(crate) fn delete(self, rows: &mut Batch) {
        rows.delete(self.bytes);
    }
}

/// A table whose rows are merged: `merge.rs` has a rule for it. In another table an operand would replace the row.
pub(crate) trait MergedTable: RowTable {}

impl MergedTable for AmountTable {}
impl MergedTable for CountTable {}
impl MergedTable for InodeTable {}
impl MergedTable for SegmentTable {}

impl<T: MergedTable> RowKey<T> {
    /// Adds to `rows` that an operand is merged into the row.
    pub(crate) fn merge(self, rows: &mut Batch, operand: &T::Value) {
        rows.merge(self.bytes, encode(operand));
    }
}

impl<T> Clone for RowKey<T> {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            table: PhantomData,
        }
    }
}

impl<T> Deref for RowKey<T> {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl<T> std::fmt::Debug for RowKey<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bytes.fmt(f)
    }
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident $label:literal $prefix:literal $value:ty, $key:literal, $says:literal $(=> $counts:path)?;)*) => {
        $(
            $(#[$doc])*
            pub(crate) enum $name {}

            impl RowTable for $name {
                const PREFIX: [u8; 2] = *$prefix;
                const LABEL: &'static str = $label;
                #[cfg(test)]
                const PAGE: [&'static str; 2] = [$key, $says];
                type Value = $value;
            }
        )*

        /// Adds a row's contribution to `tally`.
        ///
        /// # Errors
        /// `Corrupt`, naming the table of the row.
        pub(crate) fn count(key: &[u8], value: &[u8], tally: &mut RowTally) -> Result<(), StoreError> {
            match key.first_chunk::<2>() {
                $($(Some(prefix) if *prefix == $name::PREFIX => {
                    $counts(key, $name::decode(value)?, tally);
                })?)*
                Some(_) | None => {}
            }
            Ok(())
        }

        /// Label and round trip of every table, for the fuzzer.
        #[cfg(any(test, feature = "fuzzing"))]
        pub(crate) const ROUND_TRIPS: &[(&str, RoundTrip)] = &[$(($label, round_trip::<$name>)),*];

        /// Label and page columns of every table.
        #[cfg(test)]
        const PAGES: &[(&str, [&str; 2])] = &[$(($label, $name::PAGE)),*];
    };
}

/// Decodes a value; tells whether it was accepted.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) type RoundTrip = fn(&[u8]) -> bool;

/// Decodes a value, encodes and decodes it again, and counts it as a row; tells whether it was accepted.
#[cfg(any(test, feature = "fuzzing"))]
fn round_trip<T: RowTable>(value: &[u8]) -> bool {
    let Ok(row) = T::decode(value) else {
        return false;
    };
    let again = encode(&row);
    let twice = T::decode(&again).map(|row| encode(&row));
    assert!(
        twice.is_ok_and(|twice| twice == again),
        "{}: another row after a round trip",
        T::LABEL
    );
    let (key, mut tally) = ([&T::PREFIX[..], &[0; 40]].concat(), RowTally::default());
    count(&key, value, &mut tally).is_ok()
}

tables! {
    /// A name in a directory.
    DentryTable "C D" b"CD" DentryRow, "directory, name", "`DentryRow`" => tally::dentry;
    /// A directory, or an inode with several names.
    InodeTable "C I" b"CI" InodeRow, "inode", "`InodeRow` (merged)" => tally::inode;
    /// The name of an inode.
    LocationTable "C N" b"CN" LocationRow, "inode", "`LocationRow`, of everything but directories";
    /// An inode whose current state is no version.
    ProvisionalTable "C U" b"CU" (), "inode", "`()`: the current state of this inode is not a version yet";
    /// An inode without a name that is open.
    OrphanTable "C O" b"CO" OrphanRow, "inode", "`OrphanRow`: unlinked but open" => tally::orphan;
    /// A directory that is being restored.
    RestoredTreeTable "C P" b"CP" (), "inode", "`()`: a directory that is being restored in several batches and has no name yet";
    /// A restore that is made in steps.
    SteppedRestoreTable "C R" b"CR" SteppedRestoreRow, "inode", "`SteppedRestoreRow`: a directory that is being restored in steps, and how far";
    /// A range of a content.
    RangeTable "C F" b"CF" RangeRow, "cid, range number, ~timestamp", "`RangeRow`; a range is 8 MiB of a content" => tally::range;
    /// A truncation of a lineage: the length in bytes from the key's timestamp on.
    CutTable "C K" b"CK" u64, "cid, ~timestamp", "`u64`: a truncation, the length from then on";
    /// The content that a lineage began over.
    LineageTable "C L" b"CL" LineageRow, "cid", "`LineageRow`: the content a lineage began over, and how many bytes of it show" => tally::lineage;
    /// A version of a name that has ended.
    VersionTable "H V" b"HV" VersionRecord, "directory, name, `00`, ~timestamp, suffix (`u32`)", "`VersionRecord`: a version of a name that has ended" => tally::version;
    /// A version of a hard-linked inode that has ended.
    LinkedVersionTable "H W" b"HW" VersionRecord, "inode, ~timestamp, suffix (`u32`)", "`VersionRecord`: a version of a hard-linked inode that has ended" => tally::version;
    /// A name of a hard-linked inode: since when it has led to the inode, and until when it did.
    BindingTable "H B" b"HB" BindingRow, "inode, ~timestamp, suffix (`u32`), directory, name", "`BindingRow`: that name led to the inode from then on, and until when; its own row is the `H V` or `C D` of that id" => tally::binding;
    /// How many names an inode had.
    LinkCountTable "H L" b"HL" u32, "inode, ~timestamp", "`u32`: how many names the inode had from then on; absent: one";
    /// Parent and name that a directory had.
    DirectoryLocationTable "H N" b"HN" DirectoryLocation, "directory, ~start", "`DirectoryLocation`: parent and name that a directory had";
    /// An imported version by its id in the source.
    ImportedTable "H E" b"HE" ImportedRow, "foreign id", "`ImportedRow`: directory, name and version of an import, by its id in the source; the row may outlive the version";
    /// Versions in the order in which the rules of time stop keeping them.
    DueTable "G X" b"GX" (), "due time, key of an `H V` or `H W`", "`()`: a version that the rules of time keep until then" => tally::filing;
    /// Versions that retention keeps because of a name, and that are due by the rules of time.
    KeptTable "G F" b"GF" (), "directory, name, `00`, key of an `H V` or `H W`", "`()`: a version that is kept as long as that name exists, or does not exist; without a name: as long as that hard-linked inode has names" => tally::filing;
    /// Names whose kept versions are to be reviewed.
    ReviewTable "G Z" b"GZ" Timestamp, "directory, name", "`timestamp`: the versions in `G F` of that name are to be reviewed, since that operation";
    /// Versions that a label keeps, and that are due by the rules of time.
    LabeledTable "G P" b"GP" (), "timestamp, directory, key of an `H V`", "`()`: a version that the label of that directory keeps which shows that timestamp" => tally::filing;
    /// Removed labels whose versions are to be reviewed.
    RemovedLabelTable "G J" b"GJ" Timestamp, "timestamp, directory", "`timestamp`: that label was removed then, and its versions in `G P` are to be reviewed";
    /// The oldest times that are exact.
    HorizonTable "G I" b"GI" Timestamp, "tier (`u8`)", "`timestamp`: the oldest time of that tier at which every version is kept that stood then";
    /// Hours in which names changed.
    ChangedHourTable "G h" b"Gh" (), "hour since 1970", "`()`: a name of the namespace changed in that hour, and its end is found by no newer row";
    /// A stricter policy that is not in force yet.
    PendingPolicyTable "G C" b"GC" PendingPolicy, "nothing", "`PendingPolicy`: a stricter policy that is not in force yet; absent: none";
    /// The policy that the limit of the history leaves.
    CapTable "G d" b"Gd" CapRow, "nothing", "`CapRow`: the policy to which `history-max` has shortened `G Q`; absent: it has not";
    /// Drops that wait for a confirmation.
    WaitingTable "G b" b"Gb" WaitingDrops, "nothing", "`WaitingDrops`: drops ahead of time that wait for a confirmation; absent: none";
    /// Names whose versions are being forgotten.
    ForgottenTable "G f" b"Gf" ForgottenRow, "directory, name", "`ForgottenRow`: ended versions of that name are being forgotten, and their bytes are not gone yet";
    /// How far the versions are filed by a new policy.
    RefileTable "G V" b"GV" Bytes, "nothing", "`bytes`: key of the version record up to which all are filed by the policy in force; absent: all are";
    /// The policy of the namespace.
    PolicyTable "G Q" b"GQ" Policy, "nothing", "`Policy`: the retention policy; absent: every version is kept";
    /// The policies of a directory.
    DirectoryPolicyTable "G q" b"Gq" DirectoryPolicyRow, "directory", "`DirectoryPolicyRow`: the policies that a directory has or had, and which times are exact in spite of them; absent: none";
    /// A label of a directory.
    LabelTable "G S" b"GS" LabelRow, "directory, label", "`LabelRow`: a label of the directory" => tally::label;
    /// Labels in the order of what they show.
    LabelTimeTable "G T" b"GT" (), "timestamp, directory, label", "`()`: a label that shows the directory as of the timestamp" => tally::filing;
    /// A hold on a version.
    HoldTable "G H" b"GH" HoldRow, "inode, ~timestamp, suffix (`u32`)", "`HoldRow`: a hold on a version of the inode" => tally::hold;
    /// Labels and holds in the order in which they lapse.
    LapseTable "G Y" b"GY" (), "time, key of a `G S` or `G H`", "`()`: a label that expires then, or a hold that ends then" => tally::filing;
    /// How many rows show a content.
    CountTable "G R" b"GR" i64, "cid, timestamp", "`i64` (merged): how many rows show that content" => tally::content_count;
    /// How many rows use each extent of a segment.
    SegmentTable "G B" b"GB" SegmentRow, "segment epoch, segment sequence", "`SegmentRow` (merged)" => tally::segment_count;
    /// Bytes that rows store, what labels keep, and the largest live sizes.
    AmountTable "G a" b"Ga" i64, "kind (`u8`: 0 to 5); for 2 segment epoch and sequence, for 3 a day, for 4 and 5 timestamp and directory of a label", "`i64` (merged): bytes; for 5 a number" => tally::amount;
    /// A content that a row no longer shows.
    DroppedTable "G D" b"GD" (), "cid, timestamp, timestamp of the operation", "`()`: a row stopped showing that content; kept until garbage collection has reviewed the lineage";
    /// A segment that a row no longer uses.
    EmptiedTable "G E" b"GE" (), "segment epoch, segment sequence, timestamp of the operation", "`()`: a row stopped citing that segment; kept until garbage collection has reviewed the segment, and for a dead one until it is deleted";
    /// Lineages with rows whose bytes are to be moved into segments.
    InlineTable "G i" b"Gi" (), "cid", "`()`: rows of that lineage have more inline bytes than stay in a row, and are to be moved into a segment";
    /// Where the extents of a compacted segment are.
    MovedTable "G M" b"GM" MovedRow, "segment epoch, segment sequence", "`MovedRow`: where the cited extents of a compacted segment are now" => tally::moved;
    /// A content with bytes that cannot be read.
    DamagedTable "G x" b"Gx" DamagedRow, "cid, timestamp", "`DamagedRow`: bytes of that content are lost or changed, as `check --repair` found; absent: none are known to be";
    /// A segment of an ended writer that no row uses.
    UncitedTable "G N" b"GN" UncitedRow, "segment epoch, segment sequence", "`UncitedRow`: a segment of an ended writer that neither a row nor the log cites";
    /// How far segments have been searched for uncited ones.
    SearchedTable "G O" b"GO" SearchedRow, "nothing", "`SearchedRow`: how far segments have been searched for uncited ones; absent: all zero";
    /// Which operations the index has.
    AppliedTable "G A" b"GA" AppliedRow, "nothing", "`AppliedRow`" => tally::applied;
    /// Watermarks of earlier writers.
    ArchivedWatermarkTable "G W" b"GW" Vec<EpochWatermark>, "nothing", "`[EpochWatermark]`, ascending by epoch: watermarks that are not in `G A`; absent: none";
    /// The newest log object.
    LoggedTable "G L" b"GL" LogPlace, "nothing", "`LogPlace`: the newest log object, written by a batch after it; absent: none yet";
    /// The newest checkpoint of the log.
    CheckpointTable "G K" b"GK" CheckpointRow, "nothing", "`CheckpointRow`: the newest checkpoint of the log; absent: none yet";
    /// The lowest inode with a provisional state.
    LowestProvisionalTable "G U" b"GU" u64, "nothing", "`u64`: no `C U` row has a lower inode; absent: 0";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_page_has_the_line_of_every_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FORMAT.md");
        let page = std::fs::read_to_string(page).unwrap();
        for (label, [key, value]) in PAGES {
            let line = format!("| `{label}` | {key} | {value} |");
            assert!(page.lines().any(|found| found == line), "missing: {line}");
        }
    }

    #[test]
    fn a_value_of_another_format_is_refused_with_the_label_of_its_table() {
        for (label, error) in [
            ("H V", VersionTable::decode(&[2, 0]).unwrap_err()),
            ("H W", LinkedVersionTable::decode(&[2, 0]).unwrap_err()),
            ("C D", DentryTable::decode(&[]).unwrap_err()),
        ] {
            assert!(error.to_string().contains(label), "{error}");
        }
    }
}
