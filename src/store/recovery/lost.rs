//! Operations in the journal whose bytes did not survive the machine, and the later ones that depend on them.
//!
//! The journal and the staging files are written, not fsynced: after a loss of power a record may be there without the bytes that it refers
//! to. Such an operation never happened, and neither did what was built on it: an operation that the queue would have committed after it.
//! Invariant: no operation and no flushed state that has a span of lost bytes becomes a version.

use std::collections::HashSet;

use bytes::Bytes;

use crate::cache::{DirtySnapshot, Referent, Source};
use crate::store::model::ids::{ContentBase, OperationId};
use crate::store::model::version::{ContentRef, Ino};
use crate::store::schema::journal_record::{Dependencies, OperationRecord};

/// What a span of lost bytes refers to. No content has this number.
pub(crate) const LOST: Referent = Referent(u64::MAX, u64::MAX);

/// The source of lost bytes.
pub(crate) fn lost_bytes() -> Source {
    Source::Reference {
        of: LOST,
        position: 0,
    }
}

/// Tells whether a state has lost bytes.
pub(crate) fn has_lost_bytes(state: &DirtySnapshot) -> bool {
    let mut spans = state.spans();
    spans.any(|span| matches!(&span.source, Source::Reference { of, .. } if *of == LOST))
}

/// The operations of a journal that are left out.
#[derive(Debug, Default)]
pub(crate) struct LostOperations {
    /// Left out by an earlier recovery: what the journal has behind it does not depend on them.
    known: HashSet<OperationId>,
    /// Left out by this recovery, in journal order.
    found: Vec<OperationId>,
    touched: HashSet<Bytes>,
    /// Directories that one of them creates, moves, removes or replaces.
    shaped: HashSet<Ino>,
    /// Directories whose names one of them changes.
    within: HashSet<Ino>,
    contents: HashSet<ContentRef>,
    /// Inodes whose names one of them changes: what was written to them afterwards was written under other names.
    moved: HashSet<Ino>,
    /// The same, of those that an earlier recovery left out, up to its end.
    known_moved: HashSet<Ino>,
}

impl LostOperations {
    /// `known` are those that an earlier recovery left out.
    pub(crate) fn new(known: HashSet<OperationId>) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }

    /// Tells whether an earlier recovery left an operation out.
    pub(crate) fn is_known(&self, id: OperationId) -> bool {
        self.known.contains(&id)
    }

    /// Tells whether nothing of a write session can be kept.
    pub(crate) fn has_session(&self, ino: Ino, base: Option<ContentBase>) -> bool {
        self.has_base(base) || self.moved.contains(&ino) || self.known_moved.contains(&ino)
    }

    /// Another writer begins: what is behind this in the journal does not depend on what the recoveries up to now left out.
    pub(crate) fn begin_epoch(&mut self) {
        self.known_moved.clear();
    }

    /// Notes that an operation that is left out changes the names of an inode.
    pub(crate) fn add_moved(&mut self, id: OperationId, ino: Ino) {
        match self.is_known(id) {
            true => self.known_moved.insert(ino),
            false => self.moved.insert(ino),
        };
    }

    /// Tells whether the content that an operation changes was never stored.
    pub(crate) fn has_base(&self, base: Option<ContentBase>) -> bool {
        base.is_some_and(|base| self.contents.contains(&base.content))
    }

    /// Tells whether a content was never stored.
    pub(crate) fn has_content(&self, content: ContentRef) -> bool {
        self.contents.contains(&content)
    }

    /// Tells whether an operation would have waited for one that is lost: the rule of the queue, without those that an earlier recovery
    /// left out.
    pub(crate) fn reaches(&self, dependencies: &Dependencies) -> bool {
        let Dependencies {
            touches,
            within,
            below,
            makes,
            moves,
            removes,
        } = dependencies;
        let mut shaped = within
            .iter()
            .chain(below)
            .chain(makes)
            .chain(moves)
            .chain(removes);
        touches.iter().any(|key| self.touched.contains(key))
            || shaped.any(|directory| self.shaped.contains(directory))
            || removes
                .iter()
                .any(|directory| self.within.contains(directory))
    }

    /// Adds an operation that is left out.
    pub(crate) fn add(&mut self, id: OperationId, record: &OperationRecord) {
        self.contents
            .extend(record.content.as_ref().map(|content| content.content));
        if self.is_known(id) {
            return;
        }
        self.found.push(id);
        let dependencies = &record.dependencies;
        self.touched.extend(dependencies.touches.iter().cloned());
        self.within.extend(&dependencies.within);
        let made = dependencies.makes.iter().chain(&dependencies.moves);
        self.shaped.extend(made.chain(&dependencies.removes));
    }

    /// Returns those that this recovery found, in journal order.
    pub(crate) fn found(&self) -> &[OperationId] {
        &self.found
    }
}
