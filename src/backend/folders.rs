//! Listings of one level of keys, like a directory, and the walk over the levels of a local place.

use object_store::ListResult;
use object_store::path::Path;

use super::error::BackendError;
use super::limits::within;
use super::{Backend, ObjectInfo, info};

impl Backend {
    /// Lists the names directly below `prefix` that have keys below them, in ascending order. The cost depends on the number of
    /// names at that level only.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, BackendError> {
        let path = self.path(prefix)?;
        within(
            self.base.config.deadline,
            &self.name(prefix),
            self.check_root(),
        )
        .await?;
        let found = self.level(&path).await?.common_prefixes;
        let mut names: Vec<String> = found
            .iter()
            .filter_map(|folder| folder.filename().map(str::to_owned))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Gives all objects below `prefix` to `each` as the store lists them, in no order: they are not in memory at the same time.
    ///
    /// # Errors
    /// As [`Backend::list`], and that of `each`. Some objects have been given to it by then.
    pub async fn list_each<E: From<BackendError> + Send>(
        &self,
        prefix: &str,
        each: impl FnMut(ObjectInfo) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let path = self.path(prefix)?;
        let place = self.name(prefix);
        within(self.base.config.deadline, &place, self.check_root()).await?;
        let listing = self.store.list(Some(&path));
        self.each_listed(prefix, listing, each).await
    }

    /// Lists the objects and prefixes directly below `path`.
    async fn level(&self, path: &Path) -> Result<ListResult, BackendError> {
        let prefix = path.as_ref();
        within(self.base.config.deadline, &self.name(prefix), async {
            let listed = self.store.list_with_delimiter(Some(path)).await;
            listed.map_err(|e| self.failure(prefix, &e))
        })
        .await
    }

    /// Lists all objects below `path` whose keys come after `after`, in no order. For local places: the library would walk the
    /// whole tree and filter it, while this walk skips directories whose keys all come before `after`.
    pub(super) async fn walked(
        &self,
        path: Path,
        after: &Path,
    ) -> Result<Vec<ObjectInfo>, BackendError> {
        let (mut found, mut levels) = (Vec::new(), vec![path]);
        while let Some(path) = levels.pop() {
            let level = self.level(&path).await?;
            levels.extend(
                level
                    .common_prefixes
                    .into_iter()
                    .filter(|folder| reaches_behind(folder.as_ref(), after.as_ref())),
            );
            let behind = level.objects.into_iter().filter(|o| o.location > *after);
            found.extend(behind.map(info));
        }
        Ok(found)
    }

    /// Tells whether an object exists.
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

/// Tells whether a key below `folder` may come after `after`.
fn reaches_behind(folder: &str, after: &str) -> bool {
    let first = format!("{folder}/");
    after.starts_with(&first) || *first > *after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_walked_if_one_of_its_keys_may_come_after_the_offset() {
        for (folder, after, expected) in [
            ("log/00000", "log/00000/001/000", true),
            ("log/00000", "log/00000", true),
            ("log/00000", "log/00001/000", false),
            ("log/00002", "log/00001/fff", true),
            ("a", "a-b", true),
            ("a", "a0", false),
            ("b", "a/z", true),
        ] {
            assert_eq!(reaches_behind(folder, after), expected, "{folder} {after}");
            for name in ["", "0", "~"] {
                let key = format!("{folder}/{name}");
                assert!(expected || key.as_str() <= after, "{key} {after}");
            }
        }
    }
}
