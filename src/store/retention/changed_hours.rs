//! In which hours names of the namespace changed: `.versions` of the root directory lists the ends of these hours, for changes below.
//!
//! The first operation of an hour that changes a name writes the hour's row (`tree/row_writer.rs`). A run of retention deletes rows that lead
//! to the same exact time as a newer one.

use std::collections::BTreeMap;

use crate::store::history::horizons::Horizons;
use crate::store::index::changed_hours::time_of;
use crate::store::model::error::StoreError;
use crate::store::model::version::Timestamp;
use crate::store::retention::Retention;
use crate::store::schema::journal_record::Dependencies;
use crate::store::schema::keys;
use crate::store::schema::retention_keys;
use crate::store::schema::tables::{ChangedHourTable, RowTable};

/// The most rows that one operation deletes.
const DELETED_MAX: usize = 10_000;

impl Retention {
    /// Deletes the rows of hours whose change a newer hour's row leads to as well: to the same exact time.
    ///
    /// # Errors
    /// Errors of the index and the queue.
    pub(crate) async fn thin_changed_hours(&self, horizons: &Horizons) -> Result<(), StoreError> {
        let (from, end) = (
            ChangedHourTable::all(),
            keys::after(&ChangedHourTable::all()),
        );
        let rows = self.core.index.scan(from, end, usize::MAX).await?;
        let mut newest: BTreeMap<Timestamp, u64> = BTreeMap::new();
        let mut gone = Vec::new();
        for hour in rows
            .iter()
            .filter_map(|(key, _)| retention_keys::hour_of_row(key))
        {
            let shown = horizons.exact_from(Timestamp(time_of(hour).end.0 - 1));
            gone.extend(newest.insert(shown, hour));
        }
        if gone.is_empty() {
            return Ok(());
        }
        let dependencies = Dependencies {
            touches: vec![ChangedHourTable::all()],
            ..Dependencies::default()
        };
        let answer = self.core.clock.begin();
        let mut txn = self.commit.txn(answer.at(), dependencies);
        for hour in gone.into_iter().take(DELETED_MAX) {
            txn.delete(retention_keys::changed_hour(hour));
        }
        self.commit.enqueue(txn).map(drop)
    }
}
