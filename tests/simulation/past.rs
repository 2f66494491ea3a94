//! Steps about the past: what it shows, labels, and retention.

use std::time::Duration;

use rewindfs::fs::FsError;
use rewindfs::store::{Author, Brake, InForce, Policy, ROOT, RunOptions, StoreError};

use crate::model::{FileState, Moment};
use crate::world::{STEP_MAX, World};

/// The name of the past.
const VERSIONS: &str = ".versions";

/// How long the policy of a world keeps a version that has ended.
const KEPT: Duration = Duration::from_secs(300);

impl World {
    /// Lets versions go that ended a while ago.
    pub(crate) async fn set_policy(&mut self) {
        let Some(writer) = &self.writer else { return };
        let mut policy = Policy::default();
        let keep = format!("keep-within={}s", KEPT.as_secs());
        for word in ["grid=off", "keep-last=0", "keep-removed=off", &keep] {
            policy.set(word).expect("a word of a policy");
        }
        let retention = writer.namespace.retention();
        let set = tokio::time::timeout(STEP_MAX, retention.set_policy(&policy, InForce::Now)).await;
        match set {
            Ok(Ok(_)) => self.model.keeps = Some(KEPT.as_nanos() as u64),
            other => self.violation(format!("a policy cannot be set: {other:?}")),
        }
    }

    /// Drops what the policy lets go.
    pub(crate) async fn prune(&mut self) {
        let Some(writer) = &self.writer else { return };
        let options = RunOptions {
            grace: Duration::ZERO,
            brake: Brake::Released,
        };
        let retention = writer.namespace.retention();
        match tokio::time::timeout(STEP_MAX, retention.run(options)).await {
            Ok(Ok(_) | Err(StoreError::Unavailable(_) | StoreError::Busy(_))) => {}
            Ok(Err(error)) => self.violation(format!("a prune failed: {error}")),
            Err(_) => self.violation("a prune did not end".to_owned()),
        }
    }

    /// Labels the present.
    pub(crate) async fn label(&mut self) {
        let Some(writer) = &self.writer else { return };
        let name = format!("label{}", self.model.labels.len());
        let author = Author::default();
        let history = writer.namespace.history();
        let made = history.create_label(ROOT, name.as_bytes(), None, &author);
        match tokio::time::timeout(STEP_MAX, made).await {
            Ok(Ok(label)) => {
                // The bucket has what a label shows, and no file is open.
                self.model.drained();
                let moment = self.model.present(label.timestamp.0);
                self.model.labels.push((name, moment));
            }
            // It may have been made; the next one needs another name.
            Ok(Err(StoreError::Unavailable(_) | StoreError::Exists)) => {}
            Ok(Err(error)) => self.violation(format!("a label cannot be made: {error}")),
            Err(_) => self.violation("a label was not made".to_owned()),
        }
    }

    /// Compares what every label shows.
    pub(crate) async fn compare_labels(&mut self) {
        for (name, moment) in self.model.labels.clone() {
            self.compare_moment(&name, &moment, false).await;
        }
    }

    /// Compares the tree at a moment of the past, and at a label.
    pub(crate) async fn compare_past(&mut self) {
        if !self.model.moments.is_empty() {
            let at = self.dice.below(self.model.moments.len() as u64) as usize;
            let moment = self.model.moments[at].clone();
            let Some(writer) = &self.writer else { return };
            let age = writer.namespace.now().0.saturating_sub(moment.timestamp);
            let may_be_gone = self.model.keeps.is_some_and(|kept| age >= kept);
            self.compare_moment(&stamp(moment.timestamp), &moment, may_be_gone)
                .await;
        }
        if !self.model.labels.is_empty() {
            let at = self.dice.below(self.model.labels.len() as u64) as usize;
            let (name, moment) = self.model.labels[at].clone();
            self.compare_moment(&name, &moment, false).await;
        }
    }

    /// Compares what a directory of the past shows: all of the moment, or an error or older states if a part of it may be gone.
    async fn compare_moment(&mut self, name: &str, moment: &Moment, may_be_gone: bool) {
        let Some(writer) = &self.writer else { return };
        let found = tokio::time::timeout(STEP_MAX, writer.files(&[VERSIONS, name])).await;
        self.report.moments += 1;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(FsError::Unavailable(_))) => return,
            Ok(Err(_)) if may_be_gone => return,
            Ok(Err(error)) => {
                return self.violation(format!("{VERSIONS}/{name} cannot be read: {error}"));
            }
            Err(_) => return self.violation(format!("a read of {VERSIONS}/{name} did not end")),
        };
        if may_be_gone {
            // A thinned time shows of each name the newest state that is left and not newer.
            let violations = self.model.compare_known(&found);
            return violations
                .into_iter()
                .for_each(|text| self.violation(format!("{VERSIONS}/{name}: {text}")));
        }
        let content = |state: &FileState| state.content().unwrap_or_default();
        let expected = moment.names.iter();
        let expected: Vec<_> = expected
            .map(|(name, state)| (name.clone(), content(state)))
            .collect();
        let found: Vec<_> = found.into_iter().collect();
        if found != expected {
            let names = |all: &[(String, Vec<u8>)]| -> Vec<String> {
                all.iter()
                    .map(|(name, bytes)| format!("{name} ({} bytes)", bytes.len()))
                    .collect()
            };
            let (found, expected) = (names(&found), names(&expected));
            self.violation(format!(
                "{VERSIONS}/{name} shows {found:?} instead of {expected:?}"
            ));
        }
    }

    /// The past since the last fsync may be another after a loss.
    pub(crate) fn forget_moments(&mut self) {
        self.model.moments.clear();
    }
}

/// A stamp of nanoseconds in UTC, as `.versions` takes it.
fn stamp(timestamp: u64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(timestamp)).expect("a time before 2554");
    time.strftime("%Y-%m-%dT%H-%M-%S.%9fZ").to_string()
}
