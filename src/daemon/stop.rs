//! The end of a mount: signals, and how long the last upload may take.

use crate::store::{Namespace, UploadBacklog};
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the last upload may take after a signal; below systemd's default.
const SIGNAL_MAX: Duration = Duration::from_secs(60);

/// How long the end of a mount waits for the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Until everything is uploaded, or a signal sets a limit.
    Unbounded,
    /// For [`SIGNAL_MAX`], or until another signal.
    Bounded,
}

/// The signals SIGTERM and SIGINT, received one by one.
#[derive(Debug)]
pub struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    /// Starts to listen; from then on neither signal ends the process by itself. Needs a runtime.
    #[must_use]
    pub fn listen() -> Self {
        Self {
            terminate: listen_to(SignalKind::terminate()),
            interrupt: listen_to(SignalKind::interrupt()),
        }
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            () = next_of(&mut self.terminate) => {}
            () = next_of(&mut self.interrupt) => {}
        }
    }
}

fn listen_to(kind: SignalKind) -> Option<Signal> {
    signal(kind)
        .inspect_err(|error| tracing::warn!(%error, "a signal handler cannot be installed"))
        .ok()
}

async fn next_of(signal: &mut Option<Signal>) {
    let told = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if told.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Uploads everything, for as long as `patience` allows and something moves within `stall`; else returns what is left, as text.
pub(super) async fn drain(
    namespace: &Namespace,
    signals: &mut Signals,
    mut patience: Patience,
    stall: Duration,
) -> Result<(), String> {
    let mut draining = std::pin::pin!(namespace.drain_within(stall));
    loop {
        let why = tokio::select! {
            outcome = &mut draining => match outcome {
                Ok(()) => return Ok(()),
                Err(error) => error.to_string(),
            },
            () = tokio::time::sleep(SIGNAL_MAX), if patience == Patience::Bounded => {
                format!("not done within {} s", SIGNAL_MAX.as_secs())
            }
            () = signals.next() => match patience {
                Patience::Unbounded => {
                    patience = Patience::Bounded;
                    continue;
                }
                Patience::Bounded => "a second signal was received".to_owned(),
            },
        };
        if namespace.is_fenced() {
            let left = describe_fenced(&namespace.tree().pending());
            tracing::error!(left, "ended after the loss of the namespace");
            return Err(left);
        }
        let left = describe(&namespace.tree().pending());
        tracing::error!(why, left, "not everything was uploaded");
        return Err(format!("{left} ({why})"));
    }
}

const NOTHING: &str = "nothing stays in the cache directory";

fn is_nothing(pending: &UploadBacklog) -> bool {
    pending.files == 0 && pending.operations == 0
}

/// Describes the changes that stay here when a part of the mount has stopped.
pub(super) fn describe_stopped(pending: &UploadBacklog) -> String {
    match is_nothing(pending) {
        true => NOTHING.to_owned(),
        false => format!(
            "{} stay in the cache directory; the next mount with it uploads them",
            amounts(pending)
        ),
    }
}

/// Describes the changes that stay here when the mount lost its namespace.
fn describe_fenced(pending: &UploadBacklog) -> String {
    if is_nothing(pending) {
        return NOTHING.to_owned();
    }
    format!(
        "{} stay in the cache directory; the next mount with it makes conflict versions of their contents",
        amounts(pending)
    )
}

/// Describes, and logs, the changes that stay in the cache directory when a mount ends without an upload.
pub(super) fn kept(namespace: &Namespace, cache_dir: &Path) -> String {
    if namespace.is_fenced() {
        return describe_fenced(&namespace.tree().pending());
    }
    let pending = namespace.tree().pending();
    if is_nothing(&pending) {
        return "everything is in the bucket; nothing stays in the cache directory".to_owned();
    }
    let kept = format!(
        "kept in {}: {}; the next mount with this cache directory uploads them",
        cache_dir.display(),
        amounts(&pending)
    );
    tracing::warn!(kept, "ended without an upload");
    kept
}

/// Counts what is pending: files, bytes, operations.
pub(super) fn amounts(pending: &UploadBacklog) -> String {
    let (files, bytes) = (pending.files, pending.bytes);
    format!(
        "{files} files, {bytes} bytes, {} operations",
        pending.operations
    )
}

/// Describes what is pending, and the failures that delay it.
fn describe(pending: &UploadBacklog) -> String {
    let mut text = amounts(pending);
    for reason in &pending.failures {
        text.push_str("; ");
        text.push_str(reason);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_changes_are_counted_with_their_failures() {
        let pending = UploadBacklog {
            files: 2,
            bytes: 300,
            operations: 4,
            failures: vec!["data/1/2: refused".to_owned()],
            ..UploadBacklog::default()
        };
        assert_eq!(
            describe(&pending),
            "2 files, 300 bytes, 4 operations; data/1/2: refused"
        );
        let stays = "2 files, 300 bytes, 4 operations stay in the cache directory";
        assert!(describe_stopped(&pending).starts_with(stays));
        let nothing = describe_stopped(&UploadBacklog::default());
        assert_eq!(nothing, "nothing stays in the cache directory");
    }
}
