//! The plan of a restore: what has to change, so that a name shows again what it showed at a timestamp.
//!
//! The tree of then is compared with the live one. A directory that is live below the restored name keeps its number, wherever it was
//! moved to; one that a live directory stands in for, under the same name, takes that one's number; every other one is made again.
//! Invariant: a plan reads rows only; it is right as long as no name below the restored one changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;

use crate::store::history::History;
use crate::store::history::restore_tree::DirectoryNumber;
use crate::store::model::error::StoreError;
use crate::store::model::ids::Dentry;
use crate::store::model::version::{
    Content, EndOp, Ino, Kind, Origin, PastEntry, Retained, Stamp, Time, Timestamp,
};
use crate::store::schema::keys;
use crate::store::schema::rows::{DentryBody, DentryRow, EntryState, InodeRow, InodeState};
use crate::store::schema::tables::{DentryTable, RowTable};
use crate::store::tree::row_writer::{Unbinding, VersionEnd};

/// What a restore brings back, and where.
#[derive(Clone, Debug)]
pub(super) struct RestoreTarget {
    /// The restored name.
    pub(super) slot: Dentry,
    /// What it showed.
    pub(super) then: PastEntry,
    pub(super) at: Timestamp,
    /// The name that showed it, if that is another one.
    pub(super) origin: Option<Origin>,
    /// Whether names that were added since stay.
    pub(super) keeps_new: bool,
    /// Whether the name is new, so that nothing of the live tree is reused.
    pub(super) copies: bool,
}

/// A live name below the restored one.
#[derive(Clone, Debug)]
pub(super) struct LiveName {
    pub(super) slot: Dentry,
    pub(super) row: DentryRow,
}

/// A name that is made.
#[derive(Clone, Debug)]
pub(super) struct MadeName {
    pub(super) slot: Dentry,
    pub(super) origin: Option<Origin>,
    pub(super) entry: PastEntry,
    /// Of a directory.
    pub(super) number: Option<DirectoryNumber>,
}

/// A live name that ends, or leads to something else.
#[derive(Clone, Debug)]
pub(super) struct EndedName {
    pub(super) name: LiveName,
    /// Whether another inode takes the name.
    pub(super) is_replaced: bool,
    /// Whether the restore itself gave the name, to get another one out of the way.
    pub(super) is_aside: bool,
}

impl EndedName {
    pub(super) fn cause(&self) -> Unbinding {
        match self.is_replaced {
            true => Unbinding::Replaced,
            false => Unbinding::Removed,
        }
    }

    pub(super) fn end(&self, at: Timestamp) -> VersionEnd<'static> {
        VersionEnd::new(
            at,
            match (self.is_aside, self.is_replaced) {
                (true, _) => EndOp::Transient,
                (false, true) => EndOp::Replaced,
                (false, false) => EndOp::Deleted,
            },
        )
    }
}

/// A live directory that goes back to another name.
#[derive(Clone, Debug)]
pub(super) struct MovedDirectory {
    pub(super) from: LiveName,
    pub(super) to: MadeName,
}

/// A live inode whose state changes.
#[derive(Clone, Debug)]
pub(super) struct ChangedState {
    pub(super) name: LiveName,
    pub(super) entry: PastEntry,
}

/// What has to change.
#[derive(Debug, Default)]
pub(super) struct RestorePlan {
    pub(super) ended: Vec<EndedName>,
    pub(super) moved: Vec<MovedDirectory>,
    /// Files, links and special files whose inode stays.
    pub(super) states: Vec<ChangedState>,
    /// Directories whose mode, owner or extended attributes change.
    pub(super) attributes: Vec<ChangedState>,
    pub(super) made: Vec<MadeName>,
    /// New inodes with several names.
    pub(super) links: Vec<Vec<MadeName>>,
    /// Every live directory at or below the restored name.
    pub(super) directories: BTreeSet<Ino>,
    /// Every other live inode below it.
    pub(super) files: HashMap<Ino, Dentry>,
    /// Names whose state of then is not kept: forgotten ones, and directories by their policy. What is live there stays as it is, and
    /// what is not does not come back.
    pub(super) left: Vec<Dentry>,
    /// The number of names of then in each directory, and of directories among them.
    pub(super) counts: HashMap<Ino, (i64, i64)>,
    /// Directories that the restore has made in an earlier step, with the modification time that they have again.
    pub(super) times: HashMap<Ino, Time>,
}

impl RestorePlan {
    /// Returns the number of changes.
    pub(super) fn len(&self) -> usize {
        let links = self.links.iter().map(Vec::len).sum::<usize>();
        let kept = self.states.len() + self.attributes.len() + self.moved.len();
        self.ended.len() + kept + self.made.len() + links
    }

    /// Leaves a name as it is; `live` is the directory that stays for one of then.
    fn leave(&mut self, made: &mut MadeName, live: Option<Ino>) {
        self.left.push(made.slot.clone());
        made.number = live.map(|ino| DirectoryNumber { ino, generation: 0 });
        if live.is_none()
            && let Some((entries, directories)) = self.counts.get_mut(&made.slot.parent)
        {
            *entries -= 1;
            *directories -= i64::from(made.entry.kind == Kind::Directory);
        }
    }

    /// Plans what becomes of a live directory that stays.
    pub(super) fn place_directory(&mut self, name: &LiveName, then: MadeName) {
        if then.slot != name.slot {
            let (from, to) = (name.clone(), then);
            self.moved.push(MovedDirectory { from, to });
            return;
        }
        let DentryBody::Own { node, .. } = &name.row.body else {
            return;
        };
        // The root directory has no history of its attributes.
        let is_root = then.slot.parent == Ino(0);
        let has_other_version =
            own_version(&name.row).is_some_and(|stamp| stamp.id != then.entry.version);
        if !is_root && has_other_version && !has_attributes(node, &then.entry) {
            let (name, entry) = (name.clone(), then.entry);
            self.attributes.push(ChangedState { name, entry });
        }
    }

    /// Returns the live inodes that change, and all directories in which a name may.
    pub(super) fn inodes(&self, parent: Ino) -> BTreeSet<Ino> {
        let mut inodes = self.directories.clone();
        if parent != Ino(0) {
            inodes.insert(parent);
        }
        inodes.extend(self.ended.iter().map(|ended| ended.name.row.ino));
        inodes.extend(self.states.iter().map(|changed| changed.name.row.ino));
        inodes
    }
}

/// A name of then, before it is known what becomes of it.
struct FormerName {
    made: MadeName,
    /// The live directory that it is.
    live: Option<Ino>,
    /// Whether it stays as it is, with all below it.
    is_left: bool,
}

impl FormerName {
    fn of(made: MadeName, live: Option<Ino>) -> Self {
        Self {
            made,
            live,
            is_left: false,
        }
    }
}

/// The live tree at and below a name.
#[derive(Default)]
struct LiveTree {
    /// In the order of the walk: a directory before the names in it.
    order: Vec<LiveName>,
    by_slot: HashMap<Dentry, usize>,
    directories: HashMap<Ino, usize>,
}

impl LiveTree {
    /// Returns every inode that is no directory, with a name of it.
    fn files(&self) -> impl Iterator<Item = (Ino, Dentry)> + '_ {
        let leaves = self.order.iter().filter(|name| !is_directory(&name.row));
        leaves.map(|name| (name.row.ino, name.slot.clone()))
    }

    fn at(&self, slot: &Dentry) -> Option<&LiveName> {
        Some(&self.order[*self.by_slot.get(slot)?])
    }
}

pub(super) fn is_directory(row: &DentryRow) -> bool {
    matches!(&row.body, DentryBody::Own { node, .. } if node.kind == Kind::Directory)
}

/// Tells whether two states are the same but for the times that a restore sets.
fn is_same(node: &InodeState, entry: &PastEntry) -> bool {
    let (one, other) = (&node.attrs, &entry.attrs);
    let content = match (&node.content, &entry.content) {
        (Content::Target(one), Content::Target(other)) => one == other,
        (one, other) => one.reference() == other.reference(),
    };
    content
        && node.kind == entry.kind
        && (one.mode, one.uid, one.gid, one.rdev) == (other.mode, other.uid, other.gid, other.rdev)
        && (one.size, one.mtime) == (other.size, other.mtime)
        && node.xattrs == entry.xattrs
}

/// Tells whether a directory has the mode, owner and extended attributes of then.
fn has_attributes(node: &InodeState, entry: &PastEntry) -> bool {
    let (one, other) = (&node.attrs, &entry.attrs);
    (one.mode, one.uid, one.gid) == (other.mode, other.uid, other.gid)
        && node.xattrs == entry.xattrs
}

impl History {
    /// Compares the tree of then with the live one.
    pub(super) async fn plan_restore(
        &self,
        target: &RestoreTarget,
    ) -> Result<RestorePlan, StoreError> {
        let live = self.live_tree(&target.slot).await?;
        let mut plan = RestorePlan::default();
        let former = self.former_names(target, &live, &mut plan).await?;
        plan.directories.extend(live.directories.keys());
        plan.files.extend(live.files());
        let mut former: BTreeMap<Dentry, FormerName> = former
            .into_iter()
            .map(|name| (name.made.slot.clone(), name))
            .collect();
        let links = self.restored_links(&live, &former).await?;
        let claimed: HashMap<Ino, Dentry> = former
            .iter()
            .filter_map(|(slot, name)| Some((name.live?, slot.clone())))
            .collect();
        let mut stays: HashSet<Ino> = HashSet::from([target.slot.parent]);
        let mut left = inodes_left(&former);
        let left_names: HashSet<Dentry> = plan.left.iter().cloned().collect();
        for name in &live.order {
            let ino = name.row.ino;
            if let Some(slot) = claimed.get(&ino).filter(|_| is_directory(&name.row)) {
                stays.insert(ino);
                if let Some(then) = former.remove(slot) {
                    plan.place_directory(name, then.made);
                }
                continue;
            }
            if links.same.contains(&name.slot) {
                former.remove(&name.slot);
                continue;
            }
            let wanted = former.get(&name.slot);
            let is_new = wanted.is_none() && !claimed.values().any(|slot| *slot == name.slot);
            let is_left = left.contains(&name.slot.parent) || left_names.contains(&name.slot);
            if is_new && (target.keeps_new || is_left) && stays.contains(&name.slot.parent) {
                if is_directory(&name.row) {
                    stays.insert(ino);
                    left.extend(is_left.then_some(ino));
                }
                continue;
            }
            if let Some(wanted) = wanted
                && wanted.made.number.is_none()
                && !links.changed.contains(&name.slot)
                && !is_directory(&name.row)
                && let Some(changed) = self.state_change(name, &wanted.made.entry, target).await?
            {
                former.remove(&name.slot);
                plan.states.extend(changed);
                continue;
            }
            plan.ended.push(EndedName {
                name: name.clone(),
                is_replaced: !is_new,
                is_aside: false,
            });
        }
        for slots in links.groups {
            let names: Vec<MadeName> = slots
                .iter()
                .filter_map(|slot| Some(former.remove(slot)?.made))
                .collect();
            plan.links.push(names);
        }
        plan.made.extend(former.into_values().map(|name| name.made));
        Ok(plan)
    }

    /// Returns the change of a file whose inode keeps its name: `None` if the name gets another inode, and nothing inside if it has the
    /// state already.
    pub(super) async fn state_change(
        &self,
        name: &LiveName,
        entry: &PastEntry,
        target: &RestoreTarget,
    ) -> Result<Option<Option<ChangedState>>, StoreError> {
        let slot = &name.slot;
        let change = || {
            let (name, entry) = (name.clone(), entry.clone());
            Some(Some(ChangedState { name, entry }))
        };
        match &name.row.body {
            DentryBody::Own { node, state } => {
                let is_version =
                    matches!(state, EntryState::Version(stamp) if stamp.id == entry.version);
                let unchanged = (is_version && name.row.ino == entry.ino) || is_same(node, entry);
                Ok(match unchanged {
                    true => Some(None),
                    false if node.kind == entry.kind => change(),
                    false => None,
                })
            }
            DentryBody::Linked(_) => {
                let view = self.view();
                let now = view.entry_at(slot.parent, &slot.name, Timestamp(u64::MAX));
                let Some(now) = now.await? else {
                    return Ok(None);
                };
                if now.ino == entry.ino && now.version == entry.version {
                    return Ok(Some(None));
                }
                // A file that is restored alone keeps its other names, as when it is written. In a tree the names outside keep their state.
                let alone = *slot == target.slot && now.kind == entry.kind;
                Ok(if alone { change() } else { None })
            }
        }
    }

    /// Reads the live names at and below a name.
    async fn live_tree(&self, slot: &Dentry) -> Result<LiveTree, StoreError> {
        let mut live = LiveTree::default();
        let mut open = VecDeque::new();
        let add = |live: &mut LiveTree, open: &mut VecDeque<Ino>, name: LiveName| {
            let at = live.order.len();
            live.by_slot.insert(name.slot.clone(), at);
            // A directory of a damaged index may have two names, of which one is below itself.
            if is_directory(&name.row) && live.directories.insert(name.row.ino, at).is_none() {
                open.push_back(name.row.ino);
            }
            live.order.push(name);
        };
        if let Some(row) = self.tree.entry(slot.parent, &slot.name).await? {
            let slot = slot.clone();
            add(&mut live, &mut open, LiveName { slot, row });
        }
        while let Some(directory) = open.pop_front() {
            let from = keys::entries(directory);
            let end = keys::after(&from);
            for (key, value) in self.core.index.scan(from, end, usize::MAX).await? {
                let slot = Dentry::new(directory, keys::entry_name(&key));
                let row = DentryTable::decode(&value)?;
                add(&mut live, &mut open, LiveName { slot, row });
            }
        }
        Ok(live)
    }

    /// Lists the names of then, each directory with the number that it has or gets.
    async fn former_names(
        &self,
        target: &RestoreTarget,
        live: &LiveTree,
        plan: &mut RestorePlan,
    ) -> Result<Vec<FormerName>, StoreError> {
        let (mut claimed, mut visits) = (HashSet::new(), HashMap::<Ino, usize>::new());
        let top = MadeName {
            slot: target.slot.clone(),
            origin: target.origin.clone(),
            entry: target.then.clone(),
            number: None,
        };
        let (mut names, mut open) = (Vec::new(), vec![top]);
        let differ = self.view().common_horizons().await?.is_none();
        while let Some(mut made) = open.pop() {
            if made.entry.kept == Retained::Nothing {
                plan.leave(&mut made, None);
                continue;
            }
            if made.entry.kind != Kind::Directory {
                names.push(FormerName::of(made, None));
                continue;
            }
            let former = made.entry.ino;
            count_visit(&mut visits, former)?;
            let stands_in = live.at(&made.slot).filter(|name| is_directory(&name.row));
            let kept = match live.directories.get(&former) {
                Some(_) if !claimed.contains(&former) => Some(former),
                _ => stands_in.map(|name| name.row.ino),
            };
            let kept = kept.filter(|ino| !target.copies && claimed.insert(*ino));
            let is_top = made.slot == target.slot;
            if differ && !is_top && self.is_cut_off(former, target.at).await? {
                plan.leave(&mut made, kept);
                names.extend(kept.map(|live| FormerName {
                    is_left: true,
                    ..FormerName::of(made, Some(live))
                }));
                continue;
            }
            let fresh = |ino| DirectoryNumber { ino, generation: 0 };
            let number = match kept {
                Some(ino) => fresh(ino),
                None if target.copies => fresh(Ino(self.core.new_id())),
                None => self.number_of(former).await?,
            };
            made.number = Some(number);
            let listed = self.view().list_at(former, target.at).await?;
            let directories = listed.iter().filter(|(_, e)| e.kind == Kind::Directory);
            let counts = (listed.len() as i64, directories.count() as i64);
            plan.counts.insert(number.ino, counts);
            for (name, entry) in listed {
                let origin = (former != number.ino).then(|| Origin {
                    directory: former,
                    name: name.clone(),
                });
                open.push(MadeName {
                    slot: Dentry::new(number.ino, name),
                    origin,
                    entry,
                    number: None,
                });
            }
            names.push(FormerName::of(made, kept));
        }
        Ok(names)
    }

    /// Tells whether names that were one inode need a new inode together.
    pub(super) async fn have_other_links(&self, names: &[MadeName]) -> Result<bool, StoreError> {
        let (mut live, mut former) = (LiveTree::default(), BTreeMap::new());
        for name in names {
            let slot = &name.slot;
            if let Some(row) = self.tree.entry(slot.parent, &slot.name).await? {
                live.by_slot.insert(slot.clone(), live.order.len());
                let slot = slot.clone();
                live.order.push(LiveName { slot, row });
            }
            let (made, live) = (name.clone(), None);
            former.insert(name.slot.clone(), FormerName::of(made, live));
        }
        let links = self.restored_links(&live, &former).await?;
        Ok(!links.groups.is_empty())
    }

    /// Tells whether names are all the names of one inode that has the state of then.
    async fn are_same_links(
        &self,
        live: &LiveTree,
        former: &BTreeMap<Dentry, FormerName>,
        slots: &[Dentry],
    ) -> Result<bool, StoreError> {
        let inodes: Option<BTreeSet<Ino>> = slots
            .iter()
            .map(|slot| Some(live.at(slot)?.row.ino))
            .collect();
        let (Some(inodes), Some(first)) = (inodes, slots.first()) else {
            return Ok(false);
        };
        let (Some(ino), 1, Some(then)) = (inodes.first(), inodes.len(), former.get(first)) else {
            return Ok(false);
        };
        let row = self.core.index.row(&keys::inode(*ino)).await?;
        Ok(match row {
            Some(InodeRow::Linked(row)) => {
                row.nlink as usize == slots.len() && is_same(&row.node, &then.made.entry)
            }
            _ => false,
        })
    }

    /// Finds the inodes of then that had several of the restored names and whose names or state differ now.
    async fn restored_links(
        &self,
        live: &LiveTree,
        former: &BTreeMap<Dentry, FormerName>,
    ) -> Result<RestoredLinks, StoreError> {
        let mut groups: BTreeMap<Ino, Vec<Dentry>> = BTreeMap::new();
        for (slot, name) in former {
            if name.made.number.is_none() && name.made.entry.shared.is_some() {
                let group = groups.entry(name.made.entry.ino).or_default();
                group.push(slot.clone());
            }
        }
        groups.retain(|_, slots| slots.len() > 1);
        let mut links = RestoredLinks::default();
        for (ino, slots) in groups {
            let mut is_unchanged = true;
            for slot in &slots {
                let entry = former.get(slot).map(|name| &name.made.entry);
                let linked = live.at(slot).filter(|name| name.row.ino == ino);
                let now = match linked {
                    None => None,
                    Some(_) => {
                        let view = self.view();
                        let now = view.entry_at(slot.parent, &slot.name, Timestamp(u64::MAX));
                        now.await?
                    }
                };
                is_unchanged &= match (now, entry) {
                    (Some(now), Some(entry)) => now.version == entry.version,
                    _ => false,
                };
            }
            if !is_unchanged && self.are_same_links(live, former, &slots).await? {
                links.same.extend(slots);
            } else if !is_unchanged {
                links.changed.extend(slots.iter().cloned());
                links.groups.push(slots);
            }
        }
        Ok(links)
    }
}

/// Names that get one new inode together.
#[derive(Default)]
struct RestoredLinks {
    groups: Vec<Vec<Dentry>>,
    changed: HashSet<Dentry>,
    /// Names of another inode, which has the same names and the same state.
    same: HashSet<Dentry>,
}

/// Returns the live directories that stay as they are.
fn inodes_left(former: &BTreeMap<Dentry, FormerName>) -> HashSet<Ino> {
    let left = former.values().filter(|name| name.is_left);
    left.filter_map(|name| name.live).collect()
}

/// Returns the stamp of a name's own current version.
fn own_version(row: &DentryRow) -> Option<&Stamp> {
    match &row.body {
        DentryBody::Own {
            state: EntryState::Version(stamp),
            ..
        } => Some(stamp),
        _ => None,
    }
}

/// A name for messages.
pub(super) fn shown(name: &Bytes) -> String {
    name.escape_ascii().to_string()
}

/// How often a directory is in the tree of a time: once, and again where it was moved while the tree was removed.
const VISITS_MAX: usize = 64;

/// Counts a visit of a directory of then; in a damaged index it may be below itself.
fn count_visit(visits: &mut HashMap<Ino, usize>, directory: Ino) -> Result<(), StoreError> {
    let count = visits.entry(directory).or_default();
    *count += 1;
    match *count <= VISITS_MAX {
        true => Ok(()),
        false => Err(StoreError::Corrupt(format!(
            "directory {} was below itself",
            directory.0
        ))),
    }
}
