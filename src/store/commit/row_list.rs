//! The rows of the index in parts of limited size, for a list of all rows in the log.

use bytes::Bytes;

use crate::meta::{Batch, MetaRead};
use crate::store::model::error::StoreError;

/// Every key of the index lies between these.
const BEGIN: &[u8] = b"C";
const END: &[u8] = b"I";

/// Some of the rows of one state of the index.
#[derive(Debug)]
pub(crate) struct RowsPart {
    pub(crate) rows: Batch,
    /// The key before which every row was read, in this part or an earlier one.
    pub(crate) covers: Bytes,
}

/// Returns the key at which the first part begins.
pub(crate) fn begin() -> Bytes {
    Bytes::from_static(BEGIN)
}

/// Returns a part without rows, behind all others.
pub(crate) fn end() -> RowsPart {
    RowsPart {
        rows: Batch::new(),
        covers: Bytes::from_static(END),
    }
}

/// Tells whether no row remains behind the parts that cover the keys before `covers`.
pub(crate) fn is_all(covers: &[u8]) -> bool {
    covers >= END
}

/// Reads rows from the key `from` on until they have `max` bytes.
///
/// # Errors
/// Errors of the meta store.
pub(crate) async fn part(
    index: &dyn MetaRead,
    from: Bytes,
    max: usize,
) -> Result<RowsPart, StoreError> {
    let mut scan = index.scan(from..Bytes::from_static(END)).await?;
    let (mut rows, mut bytes) = (Batch::new(), 0);
    while let Some((key, value)) = scan.next().await? {
        if bytes >= max {
            let covers = Bytes::copy_from_slice(&key);
            return Ok(RowsPart { rows, covers });
        }
        bytes += key.len() + value.len();
        rows.put(Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
    }
    let covers = Bytes::from_static(END);
    Ok(RowsPart { rows, covers })
}
