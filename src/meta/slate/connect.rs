//! The stack of object store wrappers between the bucket and the engine of an index.

use super::checksum::Checksummed;
use super::config::SlateConfig;
use super::deletions::JoinedDeletions;
use super::log_probes::LogProbes;
use super::polls::{KeptAnswers, PollConfig, PollStore};
use super::read_window::ReadWindow;
use super::reason::FailureReason;
use super::verified::{OpenedFlag, VerifiedStore};
use super::wal::{Wal, WalStore};
use super::window_files::WindowFiles;
use crate::meta::MetaError;
use crate::meta::error::chain;
use crate::sync::Arc;
use crate::task::Tasks;
use object_store::ObjectStore;
use object_store::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// The time limit of the first request of an open, which fails for a wrong bucket or address.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// The time between two polls of a writer's manifest from which its process counts as paused. The engine polls every second.
const WRITER_PAUSE: Duration = Duration::from_secs(3);

/// The number of polls of the log for one of the manifest, of a follower whose writer writes nothing.
const FOLLOWER_POLLS: u32 = 60;

/// The tasks beside an engine that writes; they are stopped when this is dropped.
#[derive(Debug)]
pub(super) struct EngineTasks(pub(super) Tasks);

impl Drop for EngineTasks {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What the engine is opened for.
pub(super) enum EngineRole {
    /// To write.
    Writer(Tasks),
    /// To follow a writer, with this time between two polls.
    Follower(Duration),
    /// To read once.
    Reader,
}

/// The state that an open and the wrappers of its store share.
pub(super) struct OpenWatch {
    role: EngineRole,
    pub(super) opened: OpenedFlag,
    pub(super) wal: Arc<Wal>,
    /// Where tables are kept on disk; an inspection reads those of the bucket.
    pub(super) tables: Option<WindowFiles>,
}

impl OpenWatch {
    pub(super) fn new(config: &SlateConfig, role: EngineRole) -> Self {
        Self {
            role,
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
    if !config.opening.is_reached() {
        first_contact(&*object_store, &place).await?;
        config.opening.set_reached();
    }
    let marked = Arc::new(VerifiedStore::new(
        object_store,
        config.local,
        watch.opened.clone(),
    ));
    let checked: Arc<dyn ObjectStore> = Arc::new(Checksummed::new(marked));
    if config.local {
        let watched = WalStore::new(checked, Arc::clone(&watch.wal));
        return Ok((place, Arc::new(watched)));
    }
    let windows = Arc::clone(&config.opening.windows);
    let windowed = Arc::new(ReadWindow::over(checked, windows, watch.tables.clone()));
    let watched = Arc::new(WalStore::new(windowed, Arc::clone(&watch.wal)));
    Ok((place, with_few_polls(watched, config, watch)))
}

/// Wraps a store for what its role repeats: polls, and deletions of single objects.
fn with_few_polls(
    store: Arc<dyn ObjectStore>,
    config: &SlateConfig,
    watch: &OpenWatch,
) -> Arc<dyn ObjectStore> {
    let (keep, opened) = (config.polls_kept, watch.opened.clone());
    let pause = WRITER_PAUSE;
    let answers = Arc::clone(&config.opening.answers);
    match &watch.role {
        EngineRole::Reader => {
            let config = PollConfig { keep, pause };
            Arc::new(PollStore::new(store, config, opened, answers))
        }
        EngineRole::Writer(tasks) => {
            let joined = Arc::new(JoinedDeletions::new(store, tasks));
            let config = PollConfig { keep, pause };
            Arc::new(PollStore::new(joined, config, opened, answers))
        }
        EngineRole::Follower(every) => {
            // Objects of the log are deleted a minute after their rows are in tables, so a follower looks earlier if it polls more often.
            let keep = keep.min(*every * FOLLOWER_POLLS);
            let answers = Arc::<KeptAnswers>::default();
            let pause = WRITER_PAUSE.max(*every * 2);
            let config = PollConfig { keep, pause };
            let probes = LogProbes::new(store, *every / 2, Arc::clone(&answers));
            Arc::new(PollStore::new(Arc::new(probes), config, opened, answers))
        }
    }
}

/// Sends one request to the object store, without the engine's retries.
async fn first_contact(object_store: &dyn ObjectStore, place: &Path) -> Result<(), MetaError> {
    match timeout(FIRST_CONTACT, object_store.list_with_delimiter(Some(place))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(MetaError::Unavailable(chain(&error))),
        Err(_) => Err(FailureReason::default().late("listing it", FIRST_CONTACT)),
    }
}
