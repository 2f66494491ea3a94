//! The bytes of a journal file. All numbers are little-endian.
//!
//! A file: magic (8), format (u32), namespace (16), CRC32C of these (u32); then records until the end.
//! A record: length (u32), CRC32C of file number, position and length (u32), CRC32C of the payload (u32), payload.
//! The first check lets a reader find the next record behind a damaged one, and since it holds the place, neither zeros
//! nor journal bytes inside a payload pass for a record.

use std::ops::Range;
use uuid::Uuid;

/// The one format this program writes and reads.
const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"rewindJ\n";

/// The size of a file's header, in bytes.
pub(super) const FILE_HEADER: usize = 32;

/// The size of a record's header, in bytes.
pub(super) const RECORD_HEADER: usize = 12;

/// What the head of a file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum JournalHeader {
    /// Written by this format for this namespace.
    Ours,
    /// Written for another namespace.
    Foreign(Uuid),
    /// Written by another format.
    Unknown(u32),
    /// Cut off, or zeros: a crash came before it was written.
    Torn,
    /// Not a journal, or changed since.
    Damaged,
}

/// Makes a file's header.
pub(super) fn file_header(namespace: Uuid) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..28].copy_from_slice(namespace.as_bytes());
    let check = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&check.to_le_bytes());
    header
}

/// Reads the header of a file with these bytes.
pub(super) fn read_header(bytes: &[u8], namespace: Uuid) -> JournalHeader {
    let Some(header) = bytes.first_chunk::<FILE_HEADER>() else {
        return JournalHeader::Torn;
    };
    if *header == [0; FILE_HEADER] {
        return JournalHeader::Torn;
    }
    let format = number(header, 8);
    if header[..8] == MAGIC && format != Some(FORMAT) {
        return format.map_or(JournalHeader::Damaged, JournalHeader::Unknown);
    }
    if header[..8] != MAGIC || number(header, 28) != Some(crc32c::crc32c(&header[..28])) {
        return JournalHeader::Damaged;
    }
    match Uuid::from_slice(&header[12..28]) {
        Ok(found) if found == namespace => JournalHeader::Ours,
        Ok(found) => JournalHeader::Foreign(found),
        Err(_) => JournalHeader::Damaged,
    }
}

/// Replaces `buffer` by the record of `payload` at `position` of file number `file`.
pub(super) fn encode(buffer: &mut Vec<u8>, file: u64, position: u64, len: u32, payload: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(&len.to_le_bytes());
    buffer.extend_from_slice(&place_check(file, position, len).to_le_bytes());
    buffer.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    buffer.extend_from_slice(payload);
}

/// What a file holds behind its header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Where the payloads of good records lie, in order.
    pub(super) payloads: Vec<Range<usize>>,
    /// Bytes in front of a good record that are none themselves.
    pub(super) damage: Vec<Range<usize>>,
    /// Where the last good record ends.
    pub(super) end: usize,
}

/// Finds the records of file number `file`.
pub(super) fn scan(bytes: &[u8], file: u64) -> Contents {
    let mut contents = Contents {
        end: FILE_HEADER,
        ..Contents::default()
    };
    while contents.end < bytes.len() {
        let good = |start: &usize| payload_at(bytes, file, *start).is_some();
        let Some(start) = (contents.end..bytes.len()).find(good) else {
            break;
        };
        if start > contents.end {
            contents.damage.push(contents.end..start);
        }
        if let Some(payload) = payload_at(bytes, file, start) {
            contents.end = payload.end;
            contents.payloads.push(payload);
        }
    }
    contents
}

/// Finds the records of a file that has a good one between `bytes` and `bytes`; tells whether the header could be read.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_scan(bytes: &[u8]) -> bool {
    let namespace = Uuid::from_u128(1);
    let mut file = file_header(namespace).to_vec();
    file.extend_from_slice(bytes);
    let (start, mut record) = (file.len(), Vec::new());
    encode(&mut record, 1, start as u64, 4, b"good");
    file.extend_from_slice(&record);
    file.extend_from_slice(bytes);
    let contents = scan(&file, 1);
    let good = start + RECORD_HEADER..start + record.len();
    assert!(
        contents.payloads.contains(&good),
        "a good record was not found"
    );
    assert!(contents.end <= file.len());
    let _of_anything = read_header(bytes, namespace);
    read_header(&file, namespace) == JournalHeader::Ours
}

/// Gives the payload of the record that starts at `start`, if there is a good one.
fn payload_at(bytes: &[u8], file: u64, start: usize) -> Option<Range<usize>> {
    let rest = bytes.get(start..)?;
    let len = number(rest, 0)?;
    if number(rest, 4)? != place_check(file, start as u64, len) {
        return None;
    }
    let payload = start + RECORD_HEADER..start + RECORD_HEADER + len as usize;
    let good = crc32c::crc32c(bytes.get(payload.clone())?) == number(rest, 8)?;
    good.then_some(payload)
}

fn place_check(file: u64, position: u64, len: u32) -> u32 {
    let mut place = [0; 20];
    place[..8].copy_from_slice(&file.to_le_bytes());
    place[8..16].copy_from_slice(&position.to_le_bytes());
    place[16..].copy_from_slice(&len.to_le_bytes());
    crc32c::crc32c(&place)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}
