//! The status of a mount, collected from its layers.

use super::groups::Groups;
use crate::backend::Backend;
use crate::config::Config;
use crate::control::{
    BacklogReport, CompletedReport, ConflictReport, HistoryReport, LeaseReport, ReclaimReport,
    RequestReport, ShownTime, StatusReport, UsageReport,
};
use crate::env::Env;
use crate::fs::SyncOn;
use crate::fuse::Mounted;
use crate::store::{self, Namespace, UploadBacklog};
use crate::sync::Arc;

/// The facts that do not change while a mount lives, and the sources of the others.
#[derive(Debug)]
pub(super) struct StatusCollector {
    namespace: String,
    /// The mode of the mount while it follows another process.
    following_mode: &'static str,
    sync_on: &'static str,
    mounted_ns: u64,
    shown_time: Option<ShownTime>,
    backend: Backend,
    env: Arc<dyn Env>,
    groups: Groups,
}

impl StatusCollector {
    /// Makes the collector of a mount with `config`; reports a panic in `groups`.
    pub(super) fn new(
        config: &Config,
        backend: Backend,
        env: Arc<dyn Env>,
        groups: Groups,
    ) -> Self {
        Self {
            namespace: config.namespace.clone(),
            following_mode: match config.standby {
                Some(_) => "standby",
                None => "read-only",
            },
            sync_on: match config.fs.sync_on {
                SyncOn::Release => "release",
                SyncOn::Close => "close",
                SyncOn::Interval => "interval",
            },
            mounted_ns: env.now(),
            shown_time: None,
            backend,
            env,
            groups,
        }
    }

    /// Notes that the mount shows the whole tree as of `time`.
    pub(super) fn shows(&mut self, time: ShownTime) {
        self.shown_time = Some(time);
    }

    /// The time whose whole tree the mount shows.
    pub(super) fn shown_time(&self) -> Option<&ShownTime> {
        self.shown_time.as_ref()
    }

    /// Names the task that panicked.
    pub(super) fn poisoned(&self) -> Option<&'static str> {
        self.groups.poisoned()
    }

    /// Collects the status.
    pub(super) fn status(&self, mounted: &Mounted, namespace: &Namespace) -> StatusReport {
        let usage = namespace.tree().usage();
        let counters = self.backend.counters();
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mountpoint: mounted.mountpoint().display().to_string(),
            url: self.backend.url().to_owned(),
            namespace: self.namespace.clone(),
            uuid: namespace.uuid().to_string(),
            mode: match namespace.shown() {
                Some(_) => self.following_mode,
                None if mounted.is_read_only() => "read-write, mounted read-only",
                None => "read-write",
            }
            .to_owned(),
            sync_on: self.sync_on.to_owned(),
            mounted_ns: self.mounted_ns,
            shown_ns: namespace.shown().map(|at| at.0),
            at: self.shown_time.clone(),
            fenced: namespace.is_fenced(),
            lease: lease(namespace),
            conflicts: conflicts(namespace),
            pending: backlog(namespace.tree().pending(), self.env.now()),
            usage: UsageReport {
                bytes: usage.bytes,
                files: usage.files,
            },
            history: namespace.retention().history_state().map(history),
            completed_restore: namespace.history().completed_restore().map(completed),
            reclaimed: reclaimed(namespace.gc().reclaimed()),
            requests: RequestReport {
                put: counters.put,
                get: counters.get,
                list: counters.list,
                delete: counters.delete,
                head: counters.head,
                failures: counters.failures,
                bytes_up: counters.bytes_up,
                bytes_down: counters.bytes_down,
            },
            poisoned: self.groups.poisoned().map(str::to_owned),
        }
    }
}

fn lease(namespace: &Namespace) -> Option<LeaseReport> {
    let remaining = namespace.lease_remaining()?;
    let status = namespace.lease_status()?.borrow().clone();
    Some(LeaseReport {
        remaining_ms: u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX),
        lapses: status.lapses,
        watched_by: status.watched_by,
    })
}

fn completed(done: store::CompletedRestore) -> CompletedReport {
    CompletedReport {
        path: done.path,
        as_of_ns: done.at.0,
        changes: done.changes,
        left: done.left,
    }
}

fn history(state: store::HistoryState) -> HistoryReport {
    let waiting = state.waiting.map(|waiting| waiting.drops);
    let waiting = waiting.unwrap_or_default();
    HistoryReport {
        bytes: state.bytes,
        max_bytes: state.max,
        shortened_ns: state.shortened.map(|since| since.0),
        waiting_versions: waiting.versions,
        waiting_bytes: waiting.bytes,
        stopped: state.stopped,
    }
}

fn reclaimed(done: store::GcCounters) -> ReclaimReport {
    ReclaimReport {
        bytes: done.bytes,
        objects: done.segments,
        waiting_bytes: done.waiting_bytes,
        waiting_objects: done.waiting_segments,
        uncited_bytes: done.uncited_bytes,
        uncited_objects: done.uncited_segments,
    }
}

/// The conflicts of this mount: changes in its journal that another writer had superseded.
pub(super) fn conflicts(namespace: &Namespace) -> ConflictReport {
    let found = namespace.conflicts();
    ConflictReport {
        versions: found.versions,
        places: found.places,
        dropped: found.dropped,
    }
}

/// Reports what is pending; its age is measured from `now`, in nanoseconds.
fn backlog(pending: UploadBacklog, now: u64) -> BacklogReport {
    let oldest_ns = pending.oldest.map(|oldest| oldest.0);
    BacklogReport {
        files: pending.files,
        bytes: pending.bytes,
        operations: pending.operations,
        oldest_ns,
        // The namespace's clock may run ahead of this machine's.
        oldest_age_ms: oldest_ns.map(|oldest| now.saturating_sub(oldest) / 1_000_000),
        failures: pending.failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Timestamp;

    #[test]
    fn the_age_of_the_oldest_is_never_negative() {
        let pending = |oldest| UploadBacklog {
            oldest: Some(Timestamp(oldest)),
            ..UploadBacklog::default()
        };
        assert_eq!(
            backlog(pending(1_000_000), 4_500_000).oldest_age_ms,
            Some(3)
        );
        assert_eq!(
            backlog(pending(9_000_000), 4_500_000).oldest_age_ms,
            Some(0)
        );
        assert_eq!(backlog(UploadBacklog::default(), 1).oldest_age_ms, None);
    }
}
