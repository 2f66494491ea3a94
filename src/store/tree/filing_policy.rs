//! By which policy a version that ends is filed.
//!
//! A version below a directory with a policy of its own is filed by both. Where the directories above are not all in memory, it is filed
//! as if the strictest policy of any directory were theirs: the run that finds it due reads where the directories were, and files it
//! anew.

use crate::store::model::policy::Policy;
use crate::store::model::version::{Ino, ROOT};
use crate::store::tree::Tree;
use crate::store::tree::version_record::VersionRows;
use crate::sync::Arc;

/// The most directories above a directory that are looked at.
const DEPTH_MAX: usize = 4096;

impl Tree {
    /// Returns the policy by which a version of these records is filed that ends now; `None` if every version is kept.
    pub(crate) fn filing_policy(&self, rows: &VersionRows) -> Option<Arc<Policy>> {
        let policy = self.core.policy()?;
        let directories = self.core.directory_policies();
        if directories.is_empty() {
            return Some(policy);
        }
        let above = match rows {
            VersionRows::Of(slot) => self.known_above(slot.parent),
            // Its names may be anywhere.
            VersionRows::Linked(_) => None,
        };
        let Some(above) = above else {
            return Some(Arc::new(directories.shortest(&policy)));
        };
        let own = above.iter().filter_map(|above| directories.now(*above));
        let limited = own.fold(None, |limited: Option<Policy>, own| {
            Some(limited.as_ref().unwrap_or(&policy).limited_by(own))
        });
        Some(limited.map_or(policy, Arc::new))
    }

    /// Returns a directory and those above it; `None` if one of them is not in memory.
    fn known_above(&self, directory: Ino) -> Option<Vec<Ino>> {
        let mut above = vec![directory];
        let mut at = directory;
        while at != ROOT && above.len() < DEPTH_MAX {
            at = self.inodes.known(at)?.parent()?;
            above.push(at);
        }
        Some(above)
    }
}
