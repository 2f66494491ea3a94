//! Why a version that has ended is kept.

use crate::store::model::error::StoreError;
use crate::store::model::ids::{Dentry, DentryRef};
use crate::store::model::policy::Due;
use crate::store::model::version::{Ino, Timestamp, VersionId};
use crate::store::retention::Retention;
use crate::store::retention::report::{KeptBy, KeptUntil};
use crate::store::retention::verdict::{EndedVersion, Judge};
use crate::store::schema::keys;
use crate::store::tree::version_record::VersionRows;

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
        let key = keys::closed(slot.parent, &slot.name, id).bytes();
        let Some(version) = EndedVersion::read(&rows, &key).await? else {
            // A state of a hard-linked file is recorded under its inode.
            let list = VersionRows::Of(slot);
            return match list.newest_at(&rows, id.timestamp).await? {
                Some(binding) if binding.node.is_none() => {
                    Ok(vec![(KeptBy::HardLink, KeptUntil::Open)])
                }
                _ => Err(StoreError::NotFound),
            };
        };
        let Some(policy) = self.policy().await? else {
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
}
