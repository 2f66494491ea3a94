//! The line of a name whose versions are to be forgotten: its states, their rows and their bytes.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::store::forget::report::{ForgottenVersion, ShownName};
use crate::store::history::transient::TransientState;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{ContentRef, PastEntry, Timestamp};
use crate::store::schema::keys;
use crate::sync::Arc;

/// The keys of the rows of a line.
#[derive(Debug, Default)]
pub(super) struct LineRows(pub(super) BTreeSet<Bytes>);

/// The states of a name's line, split into those that go and those that stay.
#[derive(Debug, Default)]
pub(super) struct ForgetLine {
    pub(super) goes: Vec<ForgottenVersion>,
    pub(super) stays: Vec<Arc<PastEntry>>,
    /// The names of the line.
    pub(super) names: BTreeSet<ShownName>,
    /// Its rows.
    pub(super) rows: LineRows,
}

impl ForgetLine {
    /// Adds the states of transient names that ended at or before `before`, but for those whose content a state shows that stays: they
    /// go with that.
    pub(super) fn add_transient(&mut self, states: Vec<TransientState>, before: Option<Timestamp>) {
        let stays = self.stays.iter();
        let kept: BTreeSet<ContentRef> = stays
            .filter_map(|state| state.content.reference())
            .collect();
        for TransientState { name, state } in states {
            self.rows.add(&name, &state, false);
            let content = state.content.reference();
            let is_later = state
                .ended
                .is_none_or(|ended| before.is_some_and(|at| at < ended));
            if is_later || content.is_some_and(|content| kept.contains(&content)) {
                continue;
            }
            self.goes.push(ForgottenVersion {
                name: name.into(),
                id: state.version,
                entry: state,
            });
        }
        self.goes.sort_by_key(|version| version.id);
    }
}

impl LineRows {
    /// Adds the row of a state.
    pub(super) fn add(&mut self, name: &Dentry, state: &PastEntry, is_linked: bool) {
        let (ino, id) = (state.ino, state.version);
        let key = match (is_linked, state.ended.is_some()) {
            (true, true) => keys::linked_closed(ino, id).bytes(),
            (true, false) => keys::inode(ino).bytes(),
            (false, true) => keys::closed(name.parent, &name.name, id).bytes(),
            (false, false) => keys::entry(name.parent, &name.name).bytes(),
        };
        self.0.insert(key);
    }
}
