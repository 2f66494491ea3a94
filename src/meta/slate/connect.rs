//! The stack of object store wrappers between the bucket and the engine of an index.

use super::checksum::Checksummed;
use super::config::SlateConfig;
use super::read_window::ReadWindow;
use super::reason::FailureReason;
use super::verified::{OpenedFlag, VerifiedStore};
use super::wal::{Wal, WalStore};
use crate::meta::MetaError;
use crate::meta::error::chain;
use crate::sync::Arc;
use object_store::ObjectStore;
use object_store::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long the first request of an open may take; a wrong bucket or address shows here.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// What the store before an index is told of its open, and tells of it.
pub(super) struct OpenWatch {
    pub(super) opened: OpenedFlag,
    pub(super) wal: Arc<Wal>,
}

impl OpenWatch {
    pub(super) fn new(config: &SlateConfig) -> Self {
        Self {
            opened: OpenedFlag::default(),
            wal: Wal::new(config.local),
        }
    }
}

/// Makes sure of the object store, and puts before it what makes reads of it few.
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
    let around = match config.local {
        true => checked,
        false => Arc::new(ReadWindow::new(checked)),
    };
    let watched = WalStore::new(around, Arc::clone(&watch.wal));
    Ok((place, Arc::new(watched)))
}

/// Asks the object store one thing without the engine's patience.
async fn first_contact(object_store: &dyn ObjectStore, place: &Path) -> Result<(), MetaError> {
    match timeout(FIRST_CONTACT, object_store.list_with_delimiter(Some(place))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(MetaError::Unavailable(chain(&error))),
        Err(_) => Err(FailureReason::default().late("listing it", FIRST_CONTACT)),
    }
}
