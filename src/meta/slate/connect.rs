//! The stack of object store wrappers between the bucket and the engine of an index.

use super::checksum::Checksummed;
use super::config::SlateConfig;
use super::read_window::ReadWindow;
use super::reason::FailureReason;
use super::verified::{OpenedFlag, VerifiedStore};
use super::wal::{Wal, WalStore};
use super::window_files::WindowFiles;
use crate::meta::MetaError;
use crate::meta::error::chain;
use crate::sync::Arc;
use object_store::ObjectStore;
use object_store::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// The time limit of the first request of an open, which fails for a wrong bucket or address.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// The state that an open and the wrappers of its store share.
pub(super) struct OpenWatch {
    pub(super) opened: OpenedFlag,
    pub(super) wal: Arc<Wal>,
    /// Where tables are kept on disk; an inspection reads those of the bucket.
    pub(super) tables: Option<WindowFiles>,
}

impl OpenWatch {
    pub(super) fn new(config: &SlateConfig) -> Self {
        Self {
            opened: OpenedFlag::default(),
            wal: Wal::new(config.local),
            tables: None,
        }
    }
}

/// Checks that the object store answers, and wraps it for verification, read-ahead and the observation of the log.
pub(super) async fn connect(
    object_store: Arc<dyn ObjectStore>,
    path: &str,
    config: &SlateConfig,
    watch: &OpenWatch,
) -> Result<(Path, Arc<dyn ObjectStore>), MetaError> {
    let place = Path::from(path);
    first_contact(&*object_store, &place).await?;
    let marked = Arc::new(VerifiedStore::new(
        object_store,
        config.local,
        watch.opened.clone(),
    ));
    let checked: Arc<dyn ObjectStore> = Arc::new(Checksummed::new(marked));
    let windowed = match config.local {
        true => checked,
        false => Arc::new(ReadWindow::over(checked, watch.tables.clone())),
    };
    let watched = WalStore::new(windowed, Arc::clone(&watch.wal));
    Ok((place, Arc::new(watched)))
}

/// Sends one request to the object store, without the engine's retries.
async fn first_contact(object_store: &dyn ObjectStore, place: &Path) -> Result<(), MetaError> {
    match timeout(FIRST_CONTACT, object_store.list_with_delimiter(Some(place))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(MetaError::Unavailable(chain(&error))),
        Err(_) => Err(FailureReason::default().late("listing it", FIRST_CONTACT)),
    }
}
