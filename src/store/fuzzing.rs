//! What the fuzzer calls of the store.

use bytes::Bytes;

use crate::store::commit::log_object::LogObject;
use crate::store::data::{extent_map, segment};
use crate::store::model::policy::Policy;
use crate::store::model::takeover::dead_after;
use crate::store::salvage;
use crate::store::schema::journal_record::Record;
use crate::store::schema::manifest::Manifest;
use crate::store::schema::merge::merge as merge_rows;
use crate::store::schema::object_names::{self, SegmentId};
use crate::store::schema::tables::{
    AmountTable, CountTable, InodeTable, ROUND_TRIPS, RoundTrip, RowTable, SegmentTable,
};
use crate::store::schema::writer_object::WriterObject;
use crate::store::schema::{keys as row_keys, label_keys, retention_keys};

/// Label and decoder of each table.
pub(crate) const ROWS: &[(&str, RoundTrip)] = ROUND_TRIPS;

/// An identity whose checksum the target adds.
pub(crate) const MANIFEST: &[u8] = b"{\"format\":1,\"uuid\":\"00000000-0000-0000-0000-000000000001\",\"engine\":\"\",\"engine_version\":\"\",\"created\":0\n}";

/// An object of a writer.
pub(crate) const WRITER: &[u8] = b"{\"format\":1,\"writer\":\"00000000-0000-0000-0000-000000000001\",\"session\":\"00000000-0000-0000-0000-000000000002\",\"epoch\":1,\"host\":\"a\",\"phase\":\"writing\",\"beat\":1,\"lease_ms\":5000}";

/// Merges the parts of `bytes` in each table that merges. A merge of what cannot be decoded has a result as well.
pub(crate) fn merge(bytes: &[u8]) -> bool {
    let (first, rest) = bytes.split_at(bytes.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    let operands = [second, third, bytes].map(Bytes::copy_from_slice);
    for table in [
        AmountTable::PREFIX,
        CountTable::PREFIX,
        InodeTable::PREFIX,
        SegmentTable::PREFIX,
    ] {
        let one_by_one = operands.iter().fold(first.to_vec(), |value, operand| {
            merge_rows(&table, Some(&value), std::slice::from_ref(operand)).to_vec()
        });
        let at_once = merge_rows(&table, Some(first), &operands);
        assert!(at_once == one_by_one, "merges of {table:?} differ");
    }
    true
}

/// Takes keys apart.
pub(crate) fn keys(bytes: &[u8]) -> bool {
    let key = Bytes::copy_from_slice(bytes);
    let found = [
        row_keys::dentry(&key).is_some(),
        row_keys::leading_ino(&key).is_some(),
        row_keys::lineage_of(&key).is_some(),
        row_keys::trailing_ino(&key).is_some(),
        row_keys::range_number(&key).is_some(),
        row_keys::trailing_timestamp(&key).is_some(),
        row_keys::trailing_id(&key).is_some(),
        row_keys::record_slot(&key).is_some(),
        row_keys::bound_name(&key).is_some(),
        row_keys::location_start(&key).is_some(),
        row_keys::counted(&key).is_some(),
        row_keys::marked_inline(&key).is_some(),
        row_keys::segment_of(&key).is_some(),
        retention_keys::due_record(&key).is_some(),
        retention_keys::reviewed(&key).is_some(),
        retention_keys::labeled_record(&key).is_some(),
        retention_keys::label_place(&key).is_some(),
        retention_keys::hour_of_row(&key).is_some(),
        label_keys::label_slot(&key).is_some(),
        label_keys::timed_label(&key).is_some(),
        label_keys::held_version(&key).is_some(),
        label_keys::lapsing_row(&key).is_some(),
        !row_keys::entry_name(&key).is_empty(),
        !row_keys::interval_name(&key).is_empty(),
        !row_keys::after(&key).is_empty(),
    ];
    found.contains(&true)
}

/// Decodes a log object with this body and a right checksum, which a hostile bucket makes as well.
pub(crate) fn log_object(body: &[u8]) -> bool {
    let Ok(object) = LogObject::decode(&LogObject::seal(body.to_vec())) else {
        return false;
    };
    assert!(LogObject::decode(&object.encode()).is_ok_and(|again| again == object));
    let _read = (
        object.upto(),
        object.listed(),
        object.newest_applied().is_ok(),
    );
    object.batches().is_ok()
}

/// Decodes the footer of a segment that ends with this body and a right trailer.
pub(crate) fn footer(body: &[u8]) -> bool {
    let _of_anything = segment::footer(body).is_ok();
    let mut sealed = body.to_vec();
    sealed.extend_from_slice(&segment::trailer(body));
    segment::footer(&sealed).is_ok()
}

/// Decodes a journal record.
pub(crate) fn record(payload: &[u8]) -> bool {
    let Ok(record) = Record::decode(payload) else {
        return false;
    };
    let again = record.encode();
    assert!(Record::decode(&again).is_ok_and(|record| record.encode() == again));
    true
}

/// Takes the slices of two rows of a range, the first over the second; a byte says how long the first is.
pub(crate) fn slices(bytes: &[u8]) -> bool {
    extent_map::fuzz_slices(bytes)
}

/// Finds the states and names that a salvage writes of the records of a journal; a byte before each says how long it is.
pub(crate) fn salvaged(bytes: &[u8]) -> bool {
    let (mut records, mut rest) = (Vec::new(), bytes);
    while let Some((len, behind)) = rest.split_first() {
        let (record, behind) = behind.split_at(behind.len().min(usize::from(*len)));
        records.extend(Record::decode(record).ok());
        rest = behind;
    }
    salvage::fuzz_records(records)
}

/// Takes the key of a segment or of a log object apart.
pub(crate) fn names(key: &[u8]) -> bool {
    let Ok(key) = std::str::from_utf8(key) else {
        return false;
    };
    let log = object_names::object_numbers("log", key);
    let is_log = log
        .is_some_and(|(epoch, sequence)| object_names::object_key("log", epoch, sequence) == key);
    is_log || SegmentId::from_key(key).is_some_and(|id| id.key() == key)
}

/// Reads `namespace.json`.
pub(crate) fn manifest(text: &[u8]) -> bool {
    let _of_anything = Manifest::read(text).is_ok();
    let Ok(text) = String::from_utf8(text.to_vec()) else {
        return false;
    };
    Manifest::read(Manifest::seal(text).as_bytes()).is_ok()
}

/// Decodes the object of a writer, and encodes it again.
pub(crate) fn writer(bytes: &[u8]) -> bool {
    let Ok(object) = WriterObject::decode(bytes) else {
        return false;
    };
    let silence = dead_after(object.lease());
    assert!(silence > object.lease(), "{silence:?}");
    WriterObject::decode(&object.encode()).as_ref() == Ok(&object)
}

/// Reads a word of a retention policy, as a command line and `.history/policy` give it.
pub(crate) fn policy(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let (mut whole, mut of_directory) = (Policy::default(), Policy::unlimited());
    let _of_directory = of_directory.set_for_directory(text).is_ok();
    let is_set = whole.set(text).is_ok();
    let mut again = Policy::default();
    for (word, value) in whole.settings() {
        assert!(
            again.set(&format!("{word}={value}")).is_ok(),
            "{word}={value}"
        );
    }
    assert!(again == whole, "{text:?} is printed as another policy");
    is_set
}
