//! Does the log tell the whole story? Its objects, replayed into the twin, against the rows of the index.

use bytes::Bytes;

use super::error::StoreError;
use super::log::{self, Base};
use super::namespace::check_name;
use super::rows;
use crate::backend::Backend;
use crate::meta::{MemoryStore, MetaRead, MetaStore, SlateConfig, SlateStore};

/// What [`audit_log`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Log objects read.
    pub objects: usize,
    /// Rows of the index.
    pub rows: usize,
    /// Keys, printed, whose rows differ or are missing on one side.
    pub differing: Vec<String>,
}

/// Replays the log of a namespace that nobody writes and compares the outcome with every row of its index.
///
/// # Errors
/// `Unavailable`, `Corrupt`; `Invalid` for a bad name.
pub async fn audit_log(backend: &Backend, name: &str) -> Result<Audit, StoreError> {
    check_name(name)?;
    let backend = backend.child(name);
    let mut twin = MemoryStore::new(rows::merge);
    let objects = log::read_all(&backend).await?;
    for object in &objects {
        if object.base == Base::Nothing {
            twin = MemoryStore::new(rows::merge);
        }
        for batch in object.batches()? {
            if !batch.is_empty() {
                twin.commit(batch).await?;
            }
        }
    }
    let config = SlateConfig {
        local: backend.is_local(),
        ..SlateConfig::new(rows::merge)
    };
    let index = SlateStore::open(backend.object_store(), "meta", config).await?;
    let compared = compare(&index, &twin).await;
    index.close().await?;
    let (rows, differing) = compared?;
    Ok(Audit {
        objects: objects.len(),
        rows,
        differing,
    })
}

/// Rows of `one`, and the keys at which the two differ.
pub(crate) async fn compare(
    one: &dyn MetaRead,
    other: &dyn MetaRead,
) -> Result<(usize, Vec<String>), StoreError> {
    let all = || Bytes::from_static(b"C")..Bytes::from_static(b"I");
    let (mut left, mut right) = (one.scan(all()).await?, other.scan(all()).await?);
    let (mut a, mut b) = (left.next().await?, right.next().await?);
    let (mut rows, mut differing) = (0, Vec::new());
    loop {
        let keys = (a.as_ref().map(|r| &r.0), b.as_ref().map(|r| &r.0));
        let order = match keys {
            (None, None) => return Ok((rows, differing)),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(x), Some(y)) => x.cmp(y),
        };
        if a != b
            && let Some(key) = if order.is_le() { keys.0 } else { keys.1 }
        {
            differing.push(key.escape_ascii().to_string());
        }
        if order.is_le() {
            rows += 1;
            a = left.next().await?;
        }
        if order.is_ge() {
            b = right.next().await?;
        }
    }
}
