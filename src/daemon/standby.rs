//! A standby: it follows the writer of a namespace, and is the writer when that one has ended or is dead.
//!
//! Life: the opening for writing waits for the writer in the background, while the mount shows what the writer commits. When it has succeeded,
//! the mount serves the opened namespace, the kernel forgets what it kept, and the follower is closed.

use super::groups::Groups;
use super::{Core, close, notify};
use crate::backend::Backend;
use crate::config::StandbyConfig;
use crate::env::Env;
use crate::store::Namespace;
use crate::sync::Arc;
use sd_notify::NotifyState;
use std::time::Duration;

/// The pause after an opening that failed.
const AGAIN: Duration = Duration::from_secs(2);

/// What a standby needs to take the namespace.
struct Standby {
    config: StandbyConfig,
    backend: Backend,
    name: String,
    env: Arc<dyn Env>,
    groups: Groups,
}

impl Standby {
    /// Opens the namespace once its writer has ended or is dead; repeats an opening that fails.
    async fn open(&self) -> Namespace {
        let mut told = String::new();
        loop {
            let (store, env) = (self.config.store.clone(), Arc::clone(&self.env));
            let tasks = self.groups.below.clone();
            match Namespace::open(&self.backend, &self.name, store, env, tasks).await {
                Ok(namespace) => return namespace,
                Err(error) => {
                    let why = error.to_string();
                    // A writer of this machine with the same cache directory keeps it busy as long as it lives.
                    if why != told {
                        tracing::warn!(%error, "this standby cannot take the namespace yet");
                    }
                    told = why;
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Core {
    /// Takes the namespace when its writer has ended or is dead.
    pub(super) fn stand_by(
        self: &Arc<Self>,
        config: StandbyConfig,
        name: String,
        env: Arc<dyn Env>,
        groups: Groups,
    ) {
        let standby = Standby {
            config,
            backend: self.layers.backend.clone(),
            name,
            env,
            groups,
        };
        let (core, fs) = (Arc::clone(self), Arc::clone(&self.layers.fs));
        let (followed, ending) = (
            standby.groups.followed.clone(),
            standby.groups.standby.clone(),
        );
        drop(standby.groups.standby.spawn("standby-failed", async move {
            tokio::select! {
                task = followed.failed() => fs.poison(task),
                () = ending.stopped() => {}
                () = followed.stopped() => {}
            }
        }));
        let group = standby.groups.standby.clone();
        drop(group.clone().spawn("standby", async move {
            notify(&[NotifyState::Status("standing by")]);
            let namespace = tokio::select! {
                namespace = standby.open() => namespace,
                () = group.stopped() => return,
            };
            core.become_writer(namespace, standby).await;
        }));
    }

    async fn become_writer(self: &Arc<Self>, namespace: Namespace, standby: Standby) {
        let followed = self.layers.namespace().clone();
        let fs = Arc::clone(&self.layers.fs);
        fs.become_writer(namespace, standby.config.fs).await;
        let forgetting = Arc::clone(&fs);
        let telling = self
            .blocking
            .blocking("forget", move || forgetting.forget_tree());
        // What the kernel keeps is outdated for a second, the time for which a follower lets it keep anything, if it cannot be told.
        telling.await.ok();
        // A file that was opened while the namespaces were exchanged may still be the follower's.
        fs.reopen_files().await;
        close(&followed).await;
        self.follow_restores(&standby.groups.below);
        self.follow_lease(&standby.groups.below);
        tracing::info!("this standby is the writer of the namespace now");
        notify(&[NotifyState::Status("mounted")]);
    }
}
