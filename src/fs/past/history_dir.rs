//! `.versions/@files/NAME/STAMP.EXT`: one entry per version of a name, oldest first, and the links `latest` and `previous` to the
//! last two.

use super::node::{
    Found, Identity, LivePlace, NodeKind, PastDir, PastItem, PastNames, PastObject, Refound,
};
use super::pointer::{Pointer, PointerLink};
use super::reader::{Lasting, PastReader};
use super::shown::ShownAttrs;
use super::stamp;
use super::state::PastState;
use super::state_file::StateFile;
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{Ino, Kind, PastEntry, Predecessor, Timestamp};
use crate::sync::{Arc, Mutex, lock};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::RangeInclusive;

/// Number of newest versions that are read to print the names of the last two: a name has nine digits after the second if a
/// neighbour began in the same millisecond, and the second last has two neighbours.
const NEWEST: usize = 3;
/// What a printed stamp means at most, nanoseconds.
const MILLISECOND: u64 = 1_000_000;

/// The versions of a name in a live directory.
#[derive(Debug)]
pub(super) struct HistoryDir {
    dir: Ino,
    name: Bytes,
    /// The other names under which the history continues; `None` until the whole history was read. With them a single version is
    /// found by a seek. The mutex is a leaf lock.
    predecessors: Mutex<Option<Arc<[Predecessor]>>>,
}

/// What the earlier parts of a history say about a period.
enum EarlierState {
    /// A version began in it.
    Found(Box<PastEntry>),
    /// None did.
    Nowhere,
    /// The history continues elsewhere now.
    Outdated,
}

impl HistoryDir {
    /// The versions of `name` in the live directory `dir`.
    pub(super) fn new(dir: Ino, name: Bytes) -> Self {
        Self {
            dir,
            name,
            predecessors: Mutex::default(),
        }
    }

    /// `@files/NAME` for the name `name` of the live directory `dir`.
    ///
    /// # Errors
    /// `NotFound` when the name has no versions; those of the store.
    pub(super) async fn find(past: &PastReader, dir: Ino, name: &[u8]) -> FsResult<Found> {
        past.settle_now().await;
        let history = past.namespace.history();
        let for_good = history.finality().listed_for_good();
        let view = history.view();
        let newest = view.newest_file_versions(dir, name, 1).await?.pop();
        let newest = newest.ok_or(FsError::NotFound)?;
        // A version that is not listed for good may turn out to be one of a transient name; the name may have older ones.
        let stays = newest.version.timestamp < for_good
            || view
                .file_version(dir, name, Timestamp(0)..=for_good)
                .await?
                .is_some();
        Ok(Found {
            item: PastItem::dir(Self::new(dir, Bytes::copy_from_slice(name))),
            lasting: match stays {
                true => Lasting::Kept,
                false => Lasting::Passing,
            },
        })
    }

    /// What `latest` or `previous` leads to.
    async fn find_pointer(&self, past: &PastReader, pointer: Pointer) -> FsResult<Found> {
        past.settle_now().await;
        let history = past.namespace.history();
        let view = history.view();
        let newest = view.newest_file_versions(self.dir, &self.name, NEWEST);
        let newest = newest.await?;
        let names = state_names(&self.name, newest.iter());
        let link = self.pointers(&names).find(|link| link.pointer == pointer);
        Ok(Found {
            item: PastItem::file(link.ok_or(FsError::NotFound)?),
            lasting: Lasting::Passing,
        })
    }

    /// The version that began within `began` under a name from which a rename or an undelete led to this one.
    async fn find_earlier(
        &self,
        past: &PastReader,
        began: &RangeInclusive<Timestamp>,
    ) -> FsResult<PastEntry> {
        let known = lock(&self.predecessors).clone();
        if let Some(known) = known {
            match find_in(past, &known, began).await? {
                EarlierState::Found(state) => return Ok(*state),
                EarlierState::Nowhere => return Err(FsError::NotFound),
                EarlierState::Outdated => {}
            }
        }
        let history = past.namespace.history();
        let list = history.view().history(self.dir, &self.name).await?;
        let found = find_in(past, &list.predecessors, began).await?;
        self.remember(list.predecessors);
        match found {
            EarlierState::Found(state) => Ok(*state),
            EarlierState::Nowhere | EarlierState::Outdated => Err(FsError::NotFound),
        }
    }

    /// Keeps what a read of the whole history told.
    fn remember(&self, predecessors: Vec<Predecessor>) {
        *lock(&self.predecessors) = Some(predecessors.into());
    }

    /// The links to the last two of the versions, which have these names, oldest first.
    fn pointers<'a>(&'a self, names: &'a [Bytes]) -> impl Iterator<Item = PointerLink> + 'a {
        let newest_first = names.iter().rev();
        let pointers = [Pointer::Latest, Pointer::Previous].into_iter();
        pointers
            .zip(newest_first)
            .map(|(pointer, target)| PointerLink {
                dir: self.dir,
                name: self.name.clone(),
                pointer,
                target: target.clone(),
            })
    }

    /// The node of one of the versions.
    fn state_item(&self, entry: Arc<PastEntry>) -> PastItem {
        PastItem::file(StateFile(PastState {
            dir: self.dir,
            name: self.name.clone(),
            at: entry.version.timestamp,
            entry,
            links: 1,
        }))
    }
}

#[async_trait]
impl PastObject for HistoryDir {
    fn identity(&self, _parent: u64, _name: &[u8]) -> Identity {
        Identity::new(NodeKind::HistoryDir, &[self.dir.0], &self.name)
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Name(self.dir, &self.name)
    }

    async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        past.mirrored(self.dir).await
    }

    fn depends_on(&self) -> Option<Ino> {
        Some(self.dir)
    }

    fn refound(&self) -> Refound {
        Refound::First
    }

    async fn xattr(&self, past: &PastReader, name: &[u8]) -> FsResult<Option<Bytes>> {
        past.access_list(self.dir, name).await
    }
}

#[async_trait]
impl PastDir for HistoryDir {
    async fn lookup(&self, past: &PastReader, _caller: &Caller, name: &[u8]) -> FsResult<Found> {
        if let Some(pointer) = Pointer::parse(name) {
            return self.find_pointer(past, pointer).await;
        }
        let printed = name.strip_suffix(extension(&self.name));
        let printed = printed.ok_or(FsError::NotFound)?;
        let period = stamp::parse_printed(printed).ok_or(FsError::NotFound)?;
        let history = past.namespace.history();
        // A later version of the same period would have this name, and a transient name loses its versions.
        let lasting = Lasting::of(history.finality().is_listed_for_good(period.last));
        history.settle(period.last).await;
        let began = period.timestamps();
        let view = history.view();
        let own = view.file_version(self.dir, &self.name, began.clone());
        let state = match own.await? {
            Some(state) => state,
            None => self.find_earlier(past, &began).await?,
        };
        Ok(Found {
            item: self.state_item(Arc::new(state)),
            lasting,
        })
    }

    async fn list(&self, past: &PastReader) -> FsResult<PastNames> {
        let history = past.namespace.history();
        // Asked before the read: what becomes final afterwards may be another state than the one that is read.
        let finality = history.finality();
        past.settle_now().await;
        let list = history.view().history(self.dir, &self.name).await?;
        self.remember(list.predecessors);
        let mut states = list.versions;
        // Directories have trees instead.
        states.retain(|state| state.kind != Kind::Directory);
        if states.is_empty() {
            // It had versions when it was looked up: they were deleted, which is not the same as an empty directory.
            return Err(FsError::Stale);
        }
        let names = state_names(&self.name, states.iter().map(Arc::as_ref));
        let links: Vec<(Bytes, Found)> = self
            .pointers(&names)
            .map(|link| {
                let found = Found {
                    lasting: Lasting::Passing,
                    item: PastItem::file(link.clone()),
                };
                (Bytes::from_static(link.pointer.name()), found)
            })
            .collect();
        let found = states.into_iter().map(|state| {
            let last = Timestamp(state.version.timestamp.0.saturating_add(MILLISECOND));
            Found {
                lasting: Lasting::of(finality.is_listed_for_good(last)),
                item: self.state_item(state),
            }
        });
        Ok(PastNames::Whole(
            names.into_iter().zip(found).chain(links).collect(),
        ))
    }
}

/// The version that began within `began` in one of the earlier parts of a history.
async fn find_in(
    past: &PastReader,
    predecessors: &[Predecessor],
    began: &RangeInclusive<Timestamp>,
) -> FsResult<EarlierState> {
    let view = past.namespace.history().view();
    for part in predecessors {
        if !view.leads_to(part).await? {
            return Ok(EarlierState::Outdated);
        }
        if let Some(state) = view.earlier_file_version(part, began).await? {
            return Ok(EarlierState::Found(Box::new(state)));
        }
    }
    Ok(EarlierState::Nowhere)
}

/// The names of versions in order: stamps, each with the extension of the file's own name.
fn state_names<'a>(name: &[u8], states: impl Iterator<Item = &'a PastEntry>) -> Vec<Bytes> {
    let times: Vec<Timestamp> = states.map(|state| state.version.timestamp).collect();
    let named = stamp::print_all(&times).into_iter().map(|stamp| {
        let mut printed = stamp.into_bytes();
        printed.extend_from_slice(extension(name));
        Bytes::from(printed)
    });
    named.collect()
}

/// The last extension of a name with its dot, so that viewers know what to do with a version. A leading dot hides, it
/// extends nothing; and what would make a name too long is left out.
fn extension(name: &[u8]) -> &[u8] {
    const STAMP_MAX: usize = 30;
    let stem = name.iter().take_while(|byte| **byte == b'.').count();
    match name.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if dot > stem && dot + 1 < name.len() && name.len() - dot + STAMP_MAX <= 255 => {
            &name[dot..]
        }
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::extension;

    #[test]
    fn the_extension_is_the_last_one() {
        for (name, expected) in [
            (&b"report.pdf"[..], &b".pdf"[..]),
            (b"a.tar.gz", b".gz"),
            (b".bashrc", b""),
            (b"..x", b""),
            (b".config.toml", b".toml"),
            (b"Makefile", b""),
            (b"trailing.", b""),
            (b"odd.\xff\xfe", b".\xff\xfe"),
        ] {
            assert_eq!(extension(name), expected, "{name:?}");
        }
        let long = [b"x.".as_slice(), &[b'y'; 230]].concat();
        assert_eq!(extension(&long), b"");
        assert_eq!(extension(&long[..226]).len() + 30, 255);
    }
}
