//! One level of keys, as a directory shows it.

use super::Backend;
use super::error::BackendError;
use super::limits::within;

impl Backend {
    /// Lists the names of the next level below `prefix` that have keys below them, ascending. Costs what lies at that level,
    /// not what lies below it.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, BackendError> {
        let path = self.path(prefix)?;
        let place = self.name(prefix);
        let deadline = self.base.config.deadline;
        within(deadline, &place, self.anchored()).await?;
        let listed = within(deadline, &place, async {
            let listed = self.store.list_with_delimiter(Some(&path)).await;
            listed.map_err(|e| self.failure(prefix, &e))
        });
        let found = listed.await?.common_prefixes;
        let mut names: Vec<String> = found
            .iter()
            .filter_map(|folder| folder.filename().map(str::to_owned))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Tells whether an object is there.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`.
    pub async fn has(&self, key: &str) -> Result<bool, BackendError> {
        match self.get_range(key, 0..1).await {
            Ok(_) => Ok(true),
            Err(BackendError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
