//! The end of a mount: signals, and how long it may take to bring everything to the bucket.

use crate::store::{Namespace, UploadBacklog};
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long a signal leaves for bringing everything to the bucket; below what systemd grants by default.
const SIGNAL_MAX: Duration = Duration::from_secs(60);

/// How long the end may wait for the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Until it is done, or a signal bounds it.
    Unbounded,
    /// [`SIGNAL_MAX`], and not beyond another signal.
    Bounded,
}

/// SIGTERM and SIGINT, told one by one.
#[derive(Debug)]
pub struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    /// Starts listening; from here on neither signal ends the process by itself. Needs a runtime.
    #[must_use]
    pub fn listen() -> Self {
        Self {
            terminate: listen_to(SignalKind::terminate()),
            interrupt: listen_to(SignalKind::interrupt()),
        }
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            () = next_of(&mut self.terminate) => {}
            () = next_of(&mut self.interrupt) => {}
        }
    }
}

fn listen_to(kind: SignalKind) -> Option<Signal> {
    signal(kind)
        .inspect_err(|error| tracing::warn!(%error, "a signal cannot be listened for"))
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

/// Brings everything to the bucket as long as `patience` lasts and something moves within `stall`; says what is left otherwise.
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
                Patience::Bounded => "a second signal came".to_owned(),
            },
        };
        if namespace.is_fenced() {
            let left = describe_fenced(&namespace.tree().pending());
            tracing::error!(left, "ended without the namespace");
            return Err(left);
        }
        let left = describe(&namespace.tree().pending());
        tracing::error!(why, left, "not everything was brought to the bucket");
        return Err(format!("{left} ({why})"));
    }
}

const NOTHING: &str = "nothing stays in the cache directory";

fn is_nothing(pending: &UploadBacklog) -> bool {
    pending.files == 0 && pending.operations == 0
}

/// Says what stays here of a mount in which something has stopped.
pub(super) fn describe_stopped(pending: &UploadBacklog) -> String {
    match is_nothing(pending) {
        true => NOTHING.to_owned(),
        false => format!(
            "{} stay in the cache directory; the next mount with it brings them to the bucket",
            amounts(pending)
        ),
    }
}

/// Says what stays here of a mount that lost its namespace.
fn describe_fenced(pending: &UploadBacklog) -> String {
    if is_nothing(pending) {
        return NOTHING.to_owned();
    }
    format!(
        "{} stay in the cache directory, whose next mount makes versions (conflict) of their contents",
        amounts(pending)
    )
}

/// Says what stays in the cache directory of a mount that ends without the bucket.
pub(super) fn kept(namespace: &Namespace, cache_dir: &Path) -> String {
    if namespace.is_fenced() {
        return describe_fenced(&namespace.tree().pending());
    }
    let pending = namespace.tree().pending();
    if pending.files == 0 && pending.operations == 0 {
        return "everything is in the bucket; nothing stays in the cache directory".to_owned();
    }
    let kept = format!(
        "kept in {}: {}; the next mount with this cache directory brings them to the bucket",
        cache_dir.display(),
        amounts(&pending)
    );
    tracing::warn!(kept, "ended without the bucket");
    kept
}

pub(super) fn amounts(pending: &UploadBacklog) -> String {
    let (files, bytes) = (pending.files, pending.bytes);
    format!(
        "{files} files, {bytes} bytes, {} operations",
        pending.operations
    )
}

/// Says what is pending, and what holds it back.
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
    fn what_is_left_is_counted_and_explained() {
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
