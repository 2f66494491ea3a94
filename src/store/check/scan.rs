//! What a check collects from the rows of an index in one scan.

use crate::meta::MetaRead;
use crate::store::check::comparison::{IndexRow, all_rows};
use crate::store::check::config::{CheckConfig, CheckStep};
use crate::store::check::names::NameRows;
use crate::store::check::references::References;
use crate::store::model::error::StoreError;
use crate::store::replay::recount::Recount;

/// Number of rows between two progress reports.
const ROWS_TOLD: u64 = 10_000;

/// What is collected from the rows of an index.
pub(super) struct ScannedRows {
    pub(super) counts: Recount,
    pub(super) references: References,
    pub(super) names: NameRows,
}

impl ScannedRows {
    pub(super) fn new(config: &CheckConfig) -> Self {
        Self {
            counts: Recount::new(config.spill.clone()),
            references: References::new(&config.share()),
            names: NameRows::new(config.share()),
        }
    }

    /// Adds a row of the index.
    pub(super) fn row(&mut self, row: IndexRow<'_>) -> Result<(), StoreError> {
        self.counts.row(row.key, row.value)?;
        self.references.row(row.key, row.value)?;
        self.names.row(row.key, row.value)
    }

    /// Adds all rows of an index.
    pub(super) async fn scan_all(
        &mut self,
        index: &dyn MetaRead,
        step: &(impl Fn(CheckStep) + Sync),
    ) -> Result<u64, StoreError> {
        let mut all = index.scan(all_rows()).await?;
        let mut count = 0;
        while let Some((key, value)) = all.next().await? {
            let (key, value) = (&key, &value);
            self.row(IndexRow { key, value })?;
            count += 1;
            if count % ROWS_TOLD == 0 {
                step(CheckStep::Rows(count));
            }
        }
        Ok(count)
    }
}
