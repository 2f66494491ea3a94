//! `user.versions.*`: what a version says about itself, as read-only extended attributes.

use super::stamp::{self, Precision};
use crate::store::{Op, PastEntry};
use bytes::Bytes;

const PREFIX: &[u8] = b"user.versions.";

/// Tells whether an attribute's name is one of ours, known or not.
pub(crate) fn is_ours(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// The value of the attribute `name` for a version; `None` when there is none of that name or nothing to say.
pub(crate) fn value(entry: &PastEntry, name: &[u8]) -> Option<Bytes> {
    let text = match name.strip_prefix(PREFIX)? {
        // All nine digits: as a TIME it leads to this version and no later one.
        b"time" => stamp::print(entry.version.instant, Precision::Nanos),
        b"id" => entry.version.to_string(),
        b"op" => op(entry.op).to_owned(),
        b"user" => entry.author.uid.to_string(),
        b"host" => entry.host.clone(),
        b"pid_name" => entry.author.process.clone(),
        b"size" => entry.attrs.size.to_string(),
        b"renamed_from" => {
            return entry
                .renamed_from
                .as_ref()
                .map(|origin| origin.name.clone());
        }
        _ => return None,
    };
    Some(Bytes::from(text))
}

fn op(op: Op) -> &'static str {
    match op {
        Op::Create => "create",
        Op::Write => "write",
        Op::Truncate => "truncate",
        Op::Rename => "rename",
        Op::Link => "link",
        Op::Undelete => "undelete",
        Op::Recovered => "recovered",
        Op::Conflict => "conflict",
        Op::Restore => "restore",
    }
}
