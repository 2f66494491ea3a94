//! Why a version that has ended is kept.

use crate::store::index::snapshot::Snapshot;
use crate::store::model::error::StoreError;
use crate::store::model::ids::{Dentry, DentryRef};
use crate::store::model::policy::Due;
use crate::store::model::version::{Ino, Timestamp, VersionId};
use crate::store::retention::Retention;
use crate::store::retention::report::{KeptBy, KeptUntil};
use crate::store::retention::shown::EndedVersion;
use crate::store::retention::verdict::Judge;
use crate::store::schema::keys;

impl Retention {
    /// Returns every rule that keeps a version of a name which has ended, and until when; none: the next run drops it.
    ///
    /// # Errors
    /// `NotFound` if the name has no such version that has ended; errors of the index.
    pub async fn why(
        &self,
        directory: Ino,
        name: &[u8],
        id: VersionId,
    ) -> Result<Vec<(KeptBy, KeptUntil)>, StoreError> {
        let slot: Dentry = DentryRef::new(directory, name).to_dentry();
        let rows = self.core.index.snapshot();
        let Some(version) = self.find_ended(&rows, &slot, id).await? else {
            return Ok(vec![(KeptBy::HardLink, KeptUntil::Open)]);
        };
        let Some(policy) = self.policy_in_force().await? else {
            return Err(StoreError::Invalid(
                "the namespace has no retention policy: every version is kept".to_owned(),
            ));
        };
        let now = self.core.now().min(Timestamp(self.core.env.now()));
        let protection = self.protection().await?;
        let mut judge = Judge::new(rows, &policy, now, protection);
        let rules = policy.rules(version.record.span()).into_iter();
        let mut reasons: Vec<(KeptBy, KeptUntil)> = rules
            .filter(|(_, due)| *due > Due::At(now))
            .map(|(rule, due)| match due {
                Due::At(at) => (KeptBy::Time(rule), KeptUntil::At(at)),
                Due::Never => (KeptBy::Time(rule), KeptUntil::Open),
            })
            .collect();
        reasons.extend(judge.beyond_time(&version).await?);
        Ok(reasons)
    }
    /// Returns the record of a version of a name, or of the state of a hard-linked inode that it is; `None` if that state is the
    /// current one.
    async fn find_ended(
        &self,
        rows: &Snapshot,
        slot: &Dentry,
        id: VersionId,
    ) -> Result<Option<EndedVersion>, StoreError> {
        let key = keys::closed(slot.parent, &slot.name, id).bytes();
        let own = EndedVersion::read(rows, &key).await?;
        if let Some(version) = own.filter(|version| version.record.node.is_some()) {
            return Ok(Some(version));
        }
        let view = self.history.view();
        let shown = view.entry_at(slot.parent, &slot.name, id.timestamp).await?;
        let shown = shown.filter(|shown| shown.version == id);
        let Some((ino, shared)) = shown.and_then(|shown| Some((shown.ino, shown.shared?))) else {
            return Err(StoreError::NotFound);
        };
        let key = keys::linked_closed(ino, shared.stamp.id).bytes();
        EndedVersion::read(rows, &key).await
    }
}
