//! `.versions/@files/NAME/STAMP.EXT`: one entry per state that stood under a name, oldest first, and the links `latest`
//! and `previous` to the last two.

use super::node::{PastKind, PastNode, PastState, Pointer, PointerLink};
use super::{Found, Lasting, Past, stamp, state_node};
use crate::fs::error::{FsError, FsResult};
use crate::store::{Ino, Kind, PastEntry, Predecessor, Timestamp};
use bytes::Bytes;
use std::ops::RangeInclusive;

/// The name of the link to the current state.
const LATEST: &[u8] = b"latest";
/// The name of the link to the state before the current one.
const PREVIOUS: &[u8] = b"previous";
/// The newest states that tell how the last two of all are printed: nine digits where neighbours share a millisecond.
const NEWEST: usize = 3;

impl Past {
    /// `@files/NAME` for the name `name` of the live directory `dir`.
    pub(super) async fn find_history(&self, dir: Ino, name: &[u8]) -> FsResult<Found> {
        self.namespace.history().settle(self.namespace.now()).await;
        let for_good = self.namespace.history().finality().listed_for_good();
        let past = self.namespace.history().view();
        let newest = past.newest_file_versions(dir, name, 1).await?.pop();
        let newest = newest.ok_or(FsError::NotFound)?;
        // A version that is not listed for good may turn out to be one of a name in passing; the name may have older ones.
        let stays = newest.version.timestamp < for_good
            || past
                .file_version(dir, name, Timestamp(0)..=for_good)
                .await?
                .is_some();
        let lasting = match stays {
            true => Lasting::Kept,
            false => Lasting::Passing,
        };
        Ok(Found {
            what: PastKind::History(dir, Bytes::copy_from_slice(name)),
            lasting,
        })
    }

    /// What `name` is in `@files/SLOT`, which `node` shows.
    pub(super) async fn find_state(
        &self,
        node: &PastNode,
        dir: Ino,
        slot: &Bytes,
        name: &[u8],
    ) -> FsResult<Found> {
        if let Some(pointer) = pointer(name) {
            self.namespace.history().settle(self.namespace.now()).await;
            let past = self.namespace.history().view();
            let states = past.newest_file_versions(dir, slot, NEWEST).await?;
            let links = pointers(dir, slot, &state_names(slot, &states));
            let link = links.into_iter().find(|link| link.pointer == pointer);
            return Ok(Found {
                what: PastKind::Pointer(Box::new(link.ok_or(FsError::NotFound)?)),
                lasting: Lasting::Passing,
            });
        }
        let printed = name
            .strip_suffix(extension(slot))
            .ok_or(FsError::NotFound)?;
        let period = stamp::parse_printed(printed).ok_or(FsError::NotFound)?;
        // A later state of the same period would have this name, and a name in passing loses its states.
        let lasting = Lasting::of(
            self.namespace
                .history()
                .finality()
                .is_listed_for_good(period.last),
        );
        self.namespace.history().settle(period.last).await;
        let began = period.instants();
        let past = self.namespace.history().view();
        let state = match past.file_version(dir, slot, began.clone()).await? {
            Some(state) => state,
            None => self.find_earlier(node, dir, slot, &began).await?,
        };
        Ok(Found {
            what: state_of(dir, slot, state),
            lasting,
        })
    }

    /// The state that began within `began` under a name from which a rename or an undelete led to `slot`.
    async fn find_earlier(
        &self,
        node: &PastNode,
        dir: Ino,
        slot: &Bytes,
        began: &RangeInclusive<Timestamp>,
    ) -> FsResult<PastEntry> {
        if let Some(known) = node.predecessors() {
            match self.find_in(&known, began).await? {
                EarlierState::Found(state) => return Ok(*state),
                EarlierState::Nowhere => return Err(FsError::NotFound),
                EarlierState::Outdated => {}
            }
        }
        let history = self.namespace.history().view().history(dir, slot).await?;
        match self.find_in(&history.predecessors, began).await? {
            EarlierState::Found(state) => {
                node.remember(history.predecessors);
                Ok(*state)
            }
            EarlierState::Nowhere | EarlierState::Outdated => {
                node.remember(history.predecessors);
                Err(FsError::NotFound)
            }
        }
    }

    async fn find_in(
        &self,
        predecessors: &[Predecessor],
        began: &RangeInclusive<Timestamp>,
    ) -> FsResult<EarlierState> {
        let past = self.namespace.history().view();
        for part in predecessors {
            if !past.leads_to(part).await? {
                return Ok(EarlierState::Outdated);
            }
            let found = past.earlier_file_version(part, began).await?;
            if let Some(state) = found {
                return Ok(EarlierState::Found(Box::new(state)));
            }
        }
        Ok(EarlierState::Nowhere)
    }

    /// The names that have versions in the live directory `dir`.
    pub(super) async fn list_files(&self, dir: Ino) -> FsResult<Vec<(Bytes, PastKind)>> {
        self.namespace.history().settle(self.namespace.now()).await;
        let names = self
            .namespace
            .history()
            .view()
            .names_with_versions(dir)
            .await;
        let names = names.map_err(|error| FsError::from(error).by_number())?;
        let histories = names
            .into_iter()
            .map(|name| (name.clone(), PastKind::History(dir, name)));
        Ok(histories.collect())
    }

    /// The states of `slot` in the live directory `dir`, and the links to the last two; `node` shows them.
    pub(super) async fn list_history(
        &self,
        node: &PastNode,
        dir: Ino,
        slot: &Bytes,
    ) -> FsResult<Vec<(Bytes, PastKind)>> {
        self.namespace.history().settle(self.namespace.now()).await;
        let history = self.namespace.history().view().history(dir, slot).await?;
        node.remember(history.predecessors);
        let mut states = history.versions;
        // Directories have trees instead.
        states.retain(|state| state.kind != Kind::Directory);
        if states.is_empty() {
            // It had some when it was looked up: pruned, which is not the same as nothing.
            return Err(FsError::Stale);
        }
        let names = state_names(slot, &states);
        let links = pointers(dir, slot, &names).into_iter().map(|link| {
            let name = Bytes::from_static(pointer_name(link.pointer));
            (name, PastKind::Pointer(Box::new(link)))
        });
        let nodes = states.into_iter().map(|state| state_of(dir, slot, state));
        Ok(names.into_iter().zip(nodes).chain(links).collect())
    }
}

/// What the earlier parts of a history say about a span of time.
enum EarlierState {
    /// A state began in it.
    Found(Box<PastEntry>),
    /// None did.
    Nowhere,
    /// The history goes on elsewhere now.
    Outdated,
}

fn pointer(name: &[u8]) -> Option<Pointer> {
    match name {
        LATEST => Some(Pointer::Latest),
        PREVIOUS => Some(Pointer::Previous),
        _ => None,
    }
}

fn pointer_name(pointer: Pointer) -> &'static [u8] {
    match pointer {
        Pointer::Latest => LATEST,
        Pointer::Previous => PREVIOUS,
    }
}

/// The links to the last two of the states in `@files/SLOT`, which have these names, oldest first.
fn pointers(dir: Ino, slot: &Bytes, names: &[Bytes]) -> Vec<PointerLink> {
    let newest_first = names.iter().rev();
    [Pointer::Latest, Pointer::Previous]
        .into_iter()
        .zip(newest_first)
        .map(|(pointer, target)| PointerLink {
            dir,
            slot: slot.clone(),
            pointer,
            target: target.clone(),
        })
        .collect()
}

fn state_of(dir: Ino, slot: &Bytes, state: PastEntry) -> PastKind {
    state_node(PastState {
        dir,
        name: slot.clone(),
        at: state.version.timestamp,
        entry: state,
        links: 1,
    })
}

/// The names of states in order: stamps, each with the extension of the file's own name.
fn state_names(slot: &[u8], states: &[PastEntry]) -> Vec<Bytes> {
    let instants: Vec<Timestamp> = states.iter().map(|state| state.version.timestamp).collect();
    let named = stamp::print_all(&instants).into_iter().map(|stamp| {
        let mut name = stamp.into_bytes();
        name.extend_from_slice(extension(slot));
        Bytes::from(name)
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
