//! `user.versions.*`: what a version or a label says about itself, as extended attributes that are read-only, but for holds.

use super::stamp::{self, Precision};
use crate::fs::error::FsResult;
use crate::store::{Kind, Label, Namespace, Op, PastEntry};
use bytes::Bytes;

const PREFIX: &[u8] = b"user.versions.";

/// The attribute that says until when a label or a version is held, the only one that can be set.
pub(crate) const HOLD: &[u8] = b"user.versions.hold";

/// The attribute of a live directory that has its own policy.
pub(crate) const KEEP: &[u8] = b"user.versions.keep";

/// Tells whether an attribute's name has the prefix of these attributes.
pub(crate) fn is_ours(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// The value of the attribute `name` for a version; `None` when there is none of that name or nothing to say.
///
/// # Errors
/// Those of reading the version's rows and bytes.
pub(crate) async fn value(
    namespace: &Namespace,
    entry: &PastEntry,
    name: &[u8],
) -> FsResult<Option<Bytes>> {
    match name.strip_prefix(PREFIX) {
        Some(b"size_stored") if entry.kind == Kind::File => {
            let stored = namespace.history().stored_past(entry).await?;
            Ok(Some(Bytes::from(stored.to_string())))
        }
        Some(b"sha256") if entry.kind == Kind::File => {
            let digest = namespace.history().sha256_past(entry).await?;
            Ok(digest.map(Bytes::from))
        }
        Some(b"hold") => {
            let entry = entry.clone().of_inode();
            let view = namespace.history().view();
            let until = view.hold_of(entry.ino, entry.version).await?;
            Ok(until.map(|until| Bytes::from(stamp::print_exact(until))))
        }
        Some(b"damaged") => {
            let damage = namespace.history().damage_of(entry).await?;
            let text = damage.map(|damage| {
                let found = stamp::print_exact(damage.found);
                format!("{} bytes cannot be read, found {found}", damage.bytes)
            });
            Ok(text.map(Bytes::from))
        }
        Some(own) => Ok(known(entry, own)),
        None => Ok(None),
    }
}

/// The value of the attribute `name` for a label; `None` when a label has nothing to say about it.
pub(super) fn of_label(label: &Label, name: &[u8]) -> Option<Bytes> {
    let text = match name.strip_prefix(PREFIX)? {
        b"time" => stamp::print_exact(label.timestamp),
        b"hold" => stamp::print_exact(label.hold?),
        b"expires" => stamp::print_exact(label.expires?),
        b"user" => label.author.uid.to_string(),
        b"host" => label.host.clone(),
        b"pid_name" => label.author.process.clone(),
        _ => return None,
    };
    Some(Bytes::from(text))
}

/// What is in the version's own row.
fn known(entry: &PastEntry, name: &[u8]) -> Option<Bytes> {
    let text = match name {
        // All nine digits: as a TIME it leads to this version and no later one.
        b"time" => stamp::print(entry.version.timestamp, Precision::Nanos),
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

/// Returns the name of an operation.
pub(crate) fn op(op: Op) -> &'static str {
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
        Op::Import => "import",
    }
}
