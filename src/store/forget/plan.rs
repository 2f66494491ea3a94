//! What forgetting versions of a name would do: which versions, which bytes, and what stands in the way.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::store::data::contents::ResolvedExtent;
use crate::store::forget::Forgetter;
use crate::store::forget::line::ForgetLine;
use crate::store::forget::report::{ForgetPlan, ForgetRequest, ForgottenVersion};
use crate::store::forget::shown_bytes::ShownBytes;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{ContentRef, Ino, Kind, PastEntry, Retained};
use crate::store::schema::forget_keys;
use crate::store::schema::retention_rows::ForgottenRow;
use crate::sync::Arc;

impl Forgetter {
    /// Returns what forgetting would do, and changes nothing.
    ///
    /// # Errors
    /// Errors of the index; `Corrupt`.
    pub async fn plan(&self, request: &ForgetRequest) -> Result<ForgetPlan, StoreError> {
        let line = self.line(request).await?;
        let forgotten = self.forgotten_bytes(&line).await?;
        let mut shown_by = self.protected_by(&line).await?;
        let goes = line.goes.iter();
        let contents = goes.filter_map(|version| version.entry.content.reference());
        let mut lineages: BTreeSet<u64> = contents.map(|content| content.cid).collect();
        let cited = self.lineages_with(&forgotten, &lineages).await?;
        let others = self.other_showers(&line.rows, &forgotten, &cited.showing);
        shown_by.extend(others.await?);
        let alike = self.other_showers(&line.rows, &forgotten, &cited.alike);
        let shown_alike = alike.await?;
        lineages.extend(cited.citing);
        Ok(ForgetPlan {
            bytes: forgotten.bytes(),
            stay: line.stays.len() as u64,
            has_current: line.stays.iter().any(|state| state.ended.is_none()),
            shown_by,
            shown_alike,
            is_begun: self.is_begun(request.directory, &request.name).await?,
            row: ForgottenRow {
                lineages: lineages.into_iter().collect(),
                ..forgotten.to_row()
            },
            versions: line.goes,
        })
    }

    /// Tells whether a forget of a name was begun, and its bytes are not gone yet.
    ///
    /// # Errors
    /// Errors of the index.
    pub async fn is_begun(&self, directory: Ino, name: &[u8]) -> Result<bool, StoreError> {
        let begun = forget_keys::forgotten(directory, name);
        Ok(self.core.index.row(&begun).await?.is_some())
    }

    /// Splits the states of a name's line.
    pub(super) async fn line(&self, request: &ForgetRequest) -> Result<ForgetLine, StoreError> {
        let ForgetRequest {
            directory,
            name,
            before,
        } = request;
        let view = self.history.view();
        let list = view.history(*directory, name).await?;
        let (mut line, mut ids) = (ForgetLine::default(), BTreeSet::new());
        let own = Dentry::new(*directory, name.clone());
        line.names.insert(own.clone().into());
        for state in &list.versions {
            if state.kind == Kind::Directory || state.kept == Retained::Nothing {
                continue;
            }
            let earlier = list.earlier_name(state.version.timestamp);
            let name = match earlier {
                Some(earlier) => Dentry::new(earlier.parent, Bytes::copy_from_slice(earlier.name)),
                None => own.clone(),
            };
            line.names.insert(name.clone().into());
            let is_linked = state.shared.is_some();
            let of_inode = PastEntry::clone(state).of_inode();
            line.rows.add(&name, &of_inode, is_linked);
            // The state of a hard-linked inode may outlast the name.
            let ended = state.ended.and(of_inode.ended);
            if ended.is_none_or(|ended| before.is_some_and(|before| before < ended)) {
                line.stays.push(Arc::clone(state));
                continue;
            }
            let id = of_inode.version;
            if ids.insert(id) {
                line.goes.push(ForgottenVersion {
                    name: name.into(),
                    id,
                    entry: of_inode,
                });
            }
        }
        let transient = view.transient_states(&own, &list.versions).await?;
        line.add_transient(transient, *before);
        Ok(line)
    }

    /// Returns the bytes that only those versions of a line show that go.
    pub(super) async fn forgotten_bytes(
        &self,
        line: &ForgetLine,
    ) -> Result<ShownBytes, StoreError> {
        let mut kept = ShownBytes::default();
        let mut kept_contents = BTreeSet::new();
        for state in &line.stays {
            if let Some(content) = state.content.reference()
                && kept_contents.insert(content)
            {
                self.add_shown(&mut kept, content, state.attrs.size).await?;
            }
        }
        let (mut forgotten, mut contents) = (ShownBytes::default(), BTreeSet::new());
        for version in &line.goes {
            let entry = &version.entry;
            if let Some(content) = entry.content.reference()
                && !kept_contents.contains(&content)
                && contents.insert(content)
            {
                self.add_shown(&mut forgotten, content, entry.attrs.size)
                    .await?;
            }
        }
        forgotten.subtract(&kept);
        Ok(forgotten)
    }

    /// Adds the bytes that a content shows.
    pub(super) async fn add_shown(
        &self,
        shown: &mut ShownBytes,
        content: ContentRef,
        len: u64,
    ) -> Result<(), StoreError> {
        let view = self.data.contents.view(&self.core.index);
        for (start, end, extent) in view.resolve(content, 0, len).await? {
            if let ResolvedExtent::Stored(source, skip) = extent {
                // A slice is at most as long as a range.
                shown.add(&source, skip, (end - start) as u32);
            }
        }
        Ok(())
    }
}
