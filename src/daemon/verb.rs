//! Verbs that a command asks of this mount: those that read, and those that change; and what the kernel learns of restores in steps.

use super::Core;
use crate::store::RestoredStep;
use crate::sync::Arc;
use crate::task::Tasks;
use crate::verbs::{self, ChangeVerb, ReadVerb, RowSender};

impl Core {
    /// Lets the kernel follow the steps of restores, also of one that an earlier mount has begun.
    pub(super) fn follow_restores(&self, tasks: &Tasks) {
        let mut steps = self.layers.namespace().history().follow_restores();
        let (fs, blocking) = (Arc::clone(&self.layers.fs), self.blocking.clone());
        let ending = tasks.clone();
        let follow = async move {
            loop {
                let step = tokio::select! {
                    step = steps.recv() => step,
                    () = ending.stopped() => None,
                };
                let Some(RestoredStep { changes, followed }) = step else {
                    return;
                };
                let fs = Arc::clone(&fs);
                let telling = blocking.blocking("forget", move || fs.follow_changes(changes));
                // The step is made. What the kernel keeps is outdated for a minute if it cannot be told.
                telling.await.ok();
                followed.send(()).ok();
            }
        };
        drop(tasks.spawn("follow-restores", follow));
    }

    /// Sends the rows of a verb until it is done or the command has gone.
    pub(super) async fn read(&self, verb: &ReadVerb, rows: RowSender) -> Result<(), String> {
        tokio::select! {
            outcome = verbs::run(self.layers.namespace(), verb, &rows) => {
                outcome.map_err(|error| error.to_string())
            }
            () = rows.closed() => Ok(()),
        }
    }

    /// Makes the changes of a verb. They run as a request of the mount: a command that goes does not interrupt them.
    pub(super) async fn change(
        self: &Arc<Self>,
        verb: ChangeVerb,
        rows: RowSender,
    ) -> Result<(), String> {
        let mountpoint = self.mounted.mountpoint().display();
        if self.layers.fs.follows() {
            return Err(format!(
                "{mountpoint}: is mounted read-only; make the change in the mount that writes"
            ));
        }
        if self.mounted.is_read_only() {
            return Err(format!(
                "{mountpoint}: was remounted read-only; `mount -o remount,rw {mountpoint}` permits changes again"
            ));
        }
        let core = Arc::clone(self);
        let running = self.requests.spawn("verb", async move {
            let namespace = core.layers.namespace();
            let changed = verbs::change(namespace, &verb, &core.versions_name, &rows).await;
            let changes = changed.map_err(|error| error.to_string())?;
            let fs = Arc::clone(&core.layers.fs);
            let telling = core
                .blocking
                .blocking("forget", move || fs.follow_changes(changes));
            // The change is made. What the kernel keeps is outdated for a minute if it cannot be told.
            telling.await.ok();
            Ok(())
        });
        match running.await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!(
                "{mountpoint}: the change failed, see the mount's log"
            )),
        }
    }
}
