//! What a mount tells of leases: a wait for another writer, and to the kernel that another process may have changed the tree.

use super::{Core, notify};
use crate::store::{AwaitedWriter, LeaseStanding, Takeover};
use crate::sync::Arc;
use crate::task::Tasks;
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time::Instant;

/// How often a wait is told again.
const AGAIN: Duration = Duration::from_secs(30);

/// By how much systemd extends its limit for the start at each message. The next one comes before.
const START_EXTENSION: Duration = Duration::from_secs(60);

/// Tells what the opening of a namespace waits for, once it has waited for a second, then whenever it waits for something else, and at intervals.
/// Returns the error when it cannot be told: the command that waits has ended.
pub async fn tell_waiting(
    takeover: &Takeover,
    tell: impl Fn(&str) -> std::io::Result<()>,
) -> std::io::Error {
    let Takeover::Wait(progress) = takeover else {
        return std::future::pending().await;
    };
    let mut progress = progress.subscribe();
    let mut told: Option<(String, Instant)> = None;
    loop {
        let awaited = progress.borrow_and_update().clone();
        if let Some(awaited) = awaited
            && awaited.silence >= Duration::from_secs(1)
        {
            let (subject, message) = (subject(&awaited), message(&awaited));
            let is_due = told
                .as_ref()
                .is_none_or(|(last, at)| *last != subject || at.elapsed() >= AGAIN);
            if is_due {
                if let Err(error) = tell(&message) {
                    return error;
                }
                told = Some((subject, Instant::now()));
            }
            let extension = u32::try_from(START_EXTENSION.as_micros()).unwrap_or(u32::MAX);
            notify(&[
                NotifyState::Status(&message),
                NotifyState::ExtendTimeoutUsec(extension),
            ]);
        }
        if progress.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn subject(awaited: &AwaitedWriter) -> String {
    let host = awaited
        .host
        .as_deref()
        .unwrap_or("a machine that writer.json does not name");
    match &awaited.failure {
        Some(failure) => {
            format!("waiting for the writer on {host}: the bucket does not answer: {failure}")
        }
        None => format!("waiting for the writer on {host}"),
    }
}

fn message(awaited: &AwaitedWriter) -> String {
    format!(
        "{}; no heartbeat for {} s, it counts as dead after {} s; --takeover now takes the namespace at once",
        subject(awaited),
        awaited.silence.as_secs(),
        awaited.dead_after.as_secs()
    )
}

impl Core {
    /// Makes the kernel forget the tree when another process may have changed it: after a lease that was over, and when it is lost.
    pub(super) fn follow_lease(self: &Arc<Self>, tasks: &Tasks) {
        let Some(mut status) = self.layers.namespace().lease_status() else {
            return;
        };
        let (core, ending) = (Arc::clone(self), tasks.clone());
        let follow = async move {
            let mut seen = status.borrow_and_update().clone();
            loop {
                tokio::select! {
                    () = ending.stopped() => return,
                    changed = status.changed() => if changed.is_err() {
                        return;
                    },
                }
                let now = status.borrow_and_update().clone();
                let is_lost = now.standing != LeaseStanding::Held;
                if is_lost || now.lapses != seen.lapses {
                    let fs = Arc::clone(&core.layers.fs);
                    let telling = core.blocking.blocking("forget", move || fs.forget_tree());
                    // What the kernel keeps is outdated until the end of its time if it cannot be told.
                    telling.await.ok();
                }
                if is_lost {
                    return;
                }
                seen = now;
            }
        };
        drop(tasks.spawn("follow-lease", follow));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::WaitProgress;
    use crate::sync::{Mutex, lock};

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_told_once_and_again_when_its_reason_changes() {
        let progress = WaitProgress::default();
        let takeover = Takeover::Wait(Arc::clone(&progress));
        let told = Mutex::new(Vec::new());
        let steps = async {
            for second in 0..3_u64 {
                let failure = (second == 2).then(|| "refused".to_owned());
                progress.send_replace(Some(AwaitedWriter {
                    host: Some("alice".to_owned()),
                    silence: Duration::from_secs(second + 1),
                    dead_after: Duration::from_secs(60),
                    failure,
                }));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = steps => {}
            error = tell_waiting(&takeover, |message| {
                lock(&told).push(message.to_owned());
                Ok(())
            }) => panic!("{error}"),
        }
        let told = told.into_inner().unwrap();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].contains("the writer on alice; no heartbeat for 1 s"),
            "{told:?}"
        );
        assert!(
            told[1].contains("the bucket does not answer: refused"),
            "{told:?}"
        );
    }
}
