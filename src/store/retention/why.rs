//! Why versions that have ended are kept.

use bytes::Bytes;

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::policy::Due;
use crate::store::model::role::Role;
use crate::store::model::version::{Ino, PastEntry, Timestamp};
use crate::store::retention::Retention;
use crate::store::retention::report::{KeptBy, KeptUntil};
use crate::store::retention::shown::EndedVersion;
use crate::store::schema::keys;

/// A state of a file that has ended, and the name under which it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedState<'a> {
    /// The directory of the name.
    pub directory: Ino,
    /// The name.
    pub name: Bytes,
    /// The state.
    pub entry: &'a PastEntry,
}

/// What keeps a version that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptReasons {
    /// The namespace has no policy: every version is kept.
    Everything,
    /// These rules, and until when each does; none: the next run drops the version.
    Rules(Vec<(KeptBy, KeptUntil)>),
}

impl Retention {
    /// Returns for each of the states what keeps it. Labels and holds are read once, however many states there are.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn reasons(&self, states: &[EndedState<'_>]) -> Result<Vec<KeptReasons>, StoreError> {
        let Some(policy) = self.policy_in_force().await? else {
            return Ok(vec![KeptReasons::Everything; states.len()]);
        };
        // The newest timestamp that a follower knows may be long ago.
        let clock = Timestamp(self.core.env.now());
        let now = match self.core.role {
            Role::Writer => self.core.now().min(clock),
            Role::Follower(_) => clock,
        };
        let rows = self.core.index.snapshot();
        let mut judge = self.judge(rows.clone(), &policy, now).await?;
        let mut all = Vec::with_capacity(states.len());
        for state in states {
            let mut reasons = Vec::new();
            match find_ended(&rows, state).await? {
                Some(version) => {
                    let rules = judge.rules(&version).await?.into_iter();
                    let rules = rules.filter(|(_, due)| *due > Due::At(now));
                    reasons.extend(rules.map(|(rule, due)| match due {
                        Due::At(at) => (KeptBy::Time(rule), KeptUntil::At(at)),
                        Due::Never => (KeptBy::Time(rule), KeptUntil::Open),
                    }));
                    reasons.extend(judge.beyond_time(&version).await?);
                }
                // The file has the state still, under another name.
                None if state.entry.shared.is_some() => {
                    reasons.push((KeptBy::HardLink, KeptUntil::Open));
                }
                // A run has dropped it since it was listed.
                None => {}
            }
            all.push(KeptReasons::Rules(reasons));
        }
        Ok(all)
    }
}

/// Returns the record of a state of a name, or of a hard-linked inode; `None` if there is none.
async fn find_ended(
    rows: &Snapshot,
    state: &EndedState<'_>,
) -> Result<Option<EndedVersion>, StoreError> {
    let key = match &state.entry.shared {
        Some(shared) => keys::linked_closed(state.entry.ino, shared.stamp.id).bytes(),
        None => keys::closed(state.directory, &state.name, state.entry.version).bytes(),
    };
    EndedVersion::read(rows, &key).await
}
