//! Formats of what is stored: rows of the index, records of the journal, the manifest, object names.

pub(crate) mod amounts;
pub(crate) mod applied_row;
pub(crate) mod damage_keys;
pub(crate) mod forget_keys;
pub(crate) mod journal_record;
pub(crate) mod keys;
pub(crate) mod label_keys;
pub(crate) mod label_rows;
pub(crate) mod manifest;
pub(crate) mod merge;
pub(crate) mod object_names;
pub(crate) mod restore_rows;
pub(crate) mod retention_keys;
pub(crate) mod retention_rows;
pub(crate) mod rows;
pub(crate) mod tables;
pub(crate) mod tally;
pub(crate) mod writer_object;
