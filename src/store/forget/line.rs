//! The line of a name whose versions are to be forgotten: its states, their rows and their bytes.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::store::forget::report::{ForgottenVersion, ShownName};
use crate::store::forget::shown_bytes::ShownBytes;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{ContentRef, PastEntry};
use crate::store::schema::keys;

/// The keys of the rows of a line.
#[derive(Debug, Default)]
pub(super) struct LineRows(pub(super) BTreeSet<Bytes>);

/// The states of a name's line, split into those that go and those that stay.
#[derive(Debug, Default)]
pub(super) struct ForgetLine {
    pub(super) goes: Vec<ForgottenVersion>,
    pub(super) stays: Vec<PastEntry>,
    /// The names of the line.
    pub(super) names: BTreeSet<ShownName>,
    /// Its rows.
    pub(super) rows: LineRows,
}

/// What stays, as far as its bytes are concerned.
#[derive(Debug, Default)]
pub(super) struct ForgottenBytes {
    /// The contents that only versions show that go.
    pub(super) contents: BTreeSet<ContentRef>,
    /// The bytes that only these show.
    pub(super) bytes: ShownBytes,
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
