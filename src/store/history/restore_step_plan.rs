//! The plan of one step of a restore: the next changes of the walk, as many as one operation takes.
//!
//! Three walks, one after the other, each a directory before what is in it:
//! - *Place* walks the tree of then. A directory of then that is live below the restored one goes back to its name, wherever it is now;
//!   else a live one that was not there then and has the name stands in for it; else it is made again. Names get their state of then. What
//!   has the name of something else and is a directory gets a name aside, since directories of then may be in it.
//! - *Link* walks it again. All directories of then are in their place now, so that all names of a hard-linked file are found.
//! - *Remove* walks the live tree. What was not there then goes, a directory after what is in it.
//!
//! A move of a directory is the last change of its step: what is planned next reads where it is.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;

use crate::store::history::History;
use crate::store::history::label_reads::DirectoryThen;
use crate::store::history::restore_plan::{
    ChangedState, EndedName, LiveName, MadeName, MovedDirectory, RestorePlan, RestoreTarget,
    is_directory,
};
use crate::store::history::restore_tree::DirectoryNumber;
use crate::store::history::restore_walk::{NameThen, RestoreWalk};
use crate::store::model::error::StoreError;
use crate::store::model::ids::{DIRECTORIES_ABOVE_MAX, Dentry};
use crate::store::model::version::{Ino, Kind, Origin, PastEntry, ROOT, Retained, Timestamp};
use crate::store::schema::keys;
use crate::store::schema::restore_rows::RestoreFrame;
use crate::store::schema::rows::InodeRow;

/// The changes of a step.
#[derive(Debug, Default)]
pub(super) struct StepPlan {
    pub(super) plan: RestorePlan,
    /// The directories that it makes.
    made: HashSet<Ino>,
    /// Whether the next change has to see it done.
    is_closed: bool,
}

impl StepPlan {
    pub(super) fn is_full(&self, most: usize) -> bool {
        self.is_closed || self.plan.len() >= most
    }

    /// Adds a directory to those that are locked, unless it is made.
    fn change_in(&mut self, directory: Ino) {
        if !self.made.contains(&directory) {
            self.plan.directories.insert(directory);
        }
    }

    fn end(&mut self, name: LiveName, is_replaced: bool, is_aside: bool) {
        self.change_in(name.slot.parent);
        self.plan.ended.push(EndedName {
            name,
            is_replaced,
            is_aside,
        });
    }

    fn make(&mut self, made: MadeName) {
        self.change_in(made.slot.parent);
        self.plan.made.push(made);
    }

    /// Counts the names that the directories begin with which the step makes.
    pub(super) fn count_made(&mut self) {
        let plan = &mut self.plan;
        let names = plan.made.iter().chain(plan.links.iter().flatten());
        for name in names.chain(plan.moved.iter().map(|moved| &moved.to)) {
            if self.made.contains(&name.slot.parent) {
                let counts = plan.counts.entry(name.slot.parent).or_default();
                counts.0 += 1;
                counts.1 += i64::from(name.number.is_some());
            }
        }
    }
}

/// The name that a directory has while another one has its name.
fn aside(began: Timestamp, directory: Ino) -> Bytes {
    format!(".rewindfs-restore-{}-{}", began.0, directory.0).into()
}

/// A name of then, with the directory and the name where it belongs now.
fn made_name(frame: &RestoreFrame, then: &NameThen, number: Option<DirectoryNumber>) -> MadeName {
    let former = frame.former.filter(|former| *former != frame.number);
    MadeName {
        slot: Dentry::new(frame.number, then.name.clone()),
        origin: former.map(|directory| Origin {
            directory,
            name: then.name.clone(),
        }),
        entry: then.entry.clone(),
        number,
    }
}

impl History {
    /// Plans the next changes of *Place*, at most about `most`. The walk is at its end when it returns with room for more.
    pub(super) async fn plan_places(
        &self,
        walk: &mut RestoreWalk,
        step: &mut StepPlan,
        most: usize,
    ) -> Result<(), StoreError> {
        while !step.is_full(most) {
            let Some(frame) = walk.frame() else { break };
            let Some(then) = walk.next_then(&self.view()).await? else {
                walk.leave();
                continue;
            };
            if let Some(mtime) = frame.mtime {
                step.plan.times.insert(frame.number, mtime);
            }
            if then.entry.kept == Retained::Nothing {
                let name = then.name.clone();
                walk.left.insert(Dentry::new(frame.number, name));
                walk.seen(then.name);
                continue;
            }
            let live = match step.made.contains(&frame.number) {
                true => None,
                false => self.live_name(frame.number, &then.name).await?,
            };
            match then.entry.kind {
                Kind::Directory => self.place_directory(walk, step, then, live).await?,
                _ => self.place_file(walk, step, then, live).await?,
            }
        }
        Ok(())
    }

    async fn live_name(
        &self,
        directory: Ino,
        name: &Bytes,
    ) -> Result<Option<LiveName>, StoreError> {
        let slot = Dentry::new(directory, name.clone());
        let row = self.tree.entry(directory, name).await?;
        Ok(row.map(|row| LiveName { slot, row }))
    }

    async fn place_directory(
        &self,
        walk: &mut RestoreWalk,
        step: &mut StepPlan,
        then: NameThen,
        live: Option<LiveName>,
    ) -> Result<(), StoreError> {
        let Some(frame) = walk.frame() else {
            return Ok(());
        };
        let former = then.entry.ino;
        let itself = self.live_below(walk, former).await?;
        let is_left = self.is_cut_off(former, walk.row.at).await?;
        if is_left {
            let name = then.name.clone();
            walk.left.insert(Dentry::new(frame.number, name));
        }
        let stays = match (&itself, &live) {
            (Some(itself), Some(live)) => itself.slot == live.slot,
            (None, Some(live)) => {
                is_directory(&live.row) && !self.was_below(walk, live.row.ino).await?
            }
            (_, None) => false,
        };
        if let Some(live) = live.as_ref().filter(|_| stays) {
            let number = DirectoryNumber {
                ino: live.row.ino,
                generation: 0,
            };
            let made = made_name(&frame, &then, Some(number));
            let before = step.plan.len();
            step.plan.place_directory(live, made);
            if step.plan.len() > before {
                step.plan.directories.insert(live.row.ino);
            }
            walk.seen(then.name);
            if !is_left {
                walk.enter(Some(former), live.row.ino, None);
            }
            return Ok(());
        }
        if is_left && itself.is_none() {
            walk.seen(then.name);
            return Ok(());
        }
        if let Some(live) = live {
            if is_directory(&live.row) {
                walk.put_back(then);
                return self.set_aside(walk, step, live).await;
            }
            step.end(live, true, false);
        }
        self.bring_directory(walk, step, then, itself).await
    }

    /// Moves a directory to its name of then, or makes it.
    async fn bring_directory(
        &self,
        walk: &mut RestoreWalk,
        step: &mut StepPlan,
        then: NameThen,
        itself: Option<LiveName>,
    ) -> Result<(), StoreError> {
        let Some(frame) = walk.frame() else {
            return Ok(());
        };
        let former = then.entry.ino;
        let number = match &itself {
            Some(itself) => DirectoryNumber {
                ino: itself.row.ino,
                generation: 0,
            },
            None => self.number_of(former).await?,
        };
        let made = made_name(&frame, &then, Some(number));
        let mtime = then.entry.attrs.mtime;
        let is_left = walk.left.contains(&made.slot);
        walk.seen(then.name);
        match itself {
            Some(from) => {
                step.change_in(from.slot.parent);
                step.change_in(frame.number);
                step.plan.directories.insert(number.ino);
                step.plan.moved.push(MovedDirectory { from, to: made });
                step.is_closed = true;
                if !is_left {
                    walk.enter(Some(former), number.ino, None);
                }
            }
            None => {
                step.make(made);
                step.made.insert(number.ino);
                walk.enter(Some(former), number.ino, Some(mtime));
            }
        }
        Ok(())
    }

    async fn place_file(
        &self,
        walk: &mut RestoreWalk,
        step: &mut StepPlan,
        then: NameThen,
        live: Option<LiveName>,
    ) -> Result<(), StoreError> {
        let Some(frame) = walk.frame() else {
            return Ok(());
        };
        if then.entry.shared.is_some() && self.linked_then(walk, &then.entry).await?.len() > 1 {
            walk.row.has_links = true;
            walk.seen(then.name);
            return Ok(());
        }
        let made = made_name(&frame, &then, None);
        if let Some(live) = live {
            if is_directory(&live.row) {
                walk.put_back(then);
                return self.set_aside(walk, step, live).await;
            }
            let target = step_target(&made);
            let changed = self.state_change(&live, &then.entry, &target).await?;
            let runs = |changed: &ChangedState| self.rewrites_program(changed);
            match changed.filter(|changed| !changed.as_ref().is_some_and(runs)) {
                Some(changed) => step.plan.states.extend(changed),
                None => {
                    step.end(live, true, false);
                    step.make(made);
                }
            }
        } else {
            step.make(made);
        }
        walk.seen(then.name);
        Ok(())
    }

    /// Gives a directory a name aside: something else gets its name.
    async fn set_aside(
        &self,
        walk: &RestoreWalk,
        step: &mut StepPlan,
        from: LiveName,
    ) -> Result<(), StoreError> {
        let slot = &from.slot;
        let view = self.view();
        let now = view.entry_at(slot.parent, &slot.name, Timestamp(u64::MAX));
        let entry = now.await?.ok_or(StoreError::Stale)?;
        let ino = from.row.ino;
        let to = MadeName {
            slot: Dentry::new(slot.parent, aside(walk.row.began, ino)),
            origin: None,
            entry,
            number: Some(DirectoryNumber { ino, generation: 0 }),
        };
        step.change_in(slot.parent);
        step.plan.directories.insert(ino);
        step.plan.moved.push(MovedDirectory { from, to });
        step.is_closed = true;
        Ok(())
    }

    /// Returns the name of a directory of then, if it is live below the restored one.
    async fn live_below(
        &self,
        walk: &RestoreWalk,
        directory: Ino,
    ) -> Result<Option<LiveName>, StoreError> {
        if directory == walk.directory || directory == ROOT {
            return Ok(None);
        }
        let Some(name) = self.live_directory(directory).await? else {
            return Ok(None);
        };
        let is_below = self.tree.is_at_or_below(directory, walk.directory).await?;
        Ok(Some(name).filter(|_| is_below))
    }

    async fn live_directory(&self, directory: Ino) -> Result<Option<LiveName>, StoreError> {
        match self.core.index.row(&keys::inode(directory)).await? {
            Some(InodeRow::Directory(row)) => match row.place {
                Some((_, place)) => self.live_name(place.parent, &place.name).await,
                None => Ok(None),
            },
            Some(InodeRow::Linked(_)) | None => Ok(None),
        }
    }

    /// Tells whether a directory was in the restored tree then.
    async fn was_below(&self, walk: &mut RestoreWalk, directory: Ino) -> Result<bool, StoreError> {
        let above = DirectoryThen {
            directory: walk.row.former,
            at: walk.row.at,
        };
        let view = self.view();
        view.is_below(directory, above, &mut walk.memo).await
    }

    /// Returns the names of then in the restored tree of a hard-linked inode, in ascending order.
    async fn linked_then(
        &self,
        walk: &mut RestoreWalk,
        entry: &PastEntry,
    ) -> Result<Vec<Dentry>, StoreError> {
        let view = self.view();
        let from = keys::bindings(entry.ino);
        let end = keys::after(&from);
        let mut names = BTreeSet::new();
        for (key, _) in view.rows.scan(from, end, usize::MAX).await? {
            names.extend(keys::bound_name(&key).map(|(_, name)| name));
        }
        let mut linked = Vec::new();
        for name in names {
            let shown = view.entry_at(name.parent, &name.name, walk.row.at).await?;
            let is_kept = |shown: &PastEntry| shown.kept != Retained::Nothing;
            if shown.is_some_and(|shown| shown.ino == entry.ino && is_kept(&shown))
                && self.was_below(walk, name.parent).await?
                && !self.is_cut_off(name.parent, walk.row.at).await?
            {
                linked.push(name);
            }
        }
        Ok(linked)
    }
}

impl History {
    /// Plans the next changes of *Link*, as [`Self::plan_places`] does.
    pub(super) async fn plan_links(
        &self,
        walk: &mut RestoreWalk,
        step: &mut StepPlan,
        most: usize,
    ) -> Result<(), StoreError> {
        while !step.is_full(most) {
            let Some(frame) = walk.frame() else { break };
            let Some(then) = walk.next_then(&self.view()).await? else {
                walk.leave();
                continue;
            };
            if then.entry.kind == Kind::Directory {
                let live = self.live_name(frame.number, &then.name).await?;
                walk.seen(then.name);
                let is_left = self.is_cut_off(then.entry.ino, walk.row.at).await?;
                if let Some(live) = live.filter(|live| !is_left && is_directory(&live.row)) {
                    walk.enter(Some(then.entry.ino), live.row.ino, None);
                }
                continue;
            }
            let names = match then.entry.shared.is_some() {
                true => self.linked_then(walk, &then.entry).await?,
                false => Vec::new(),
            };
            let first = names.first();
            let is_first = first
                .is_some_and(|first| Some(first.parent) == frame.former && first.name == then.name);
            if is_first && names.len() > 1 && !self.link_names(walk, step, names).await? {
                walk.put_back(then);
                continue;
            }
            walk.seen(then.name);
        }
        Ok(())
    }

    /// Plans one new inode for names that were one and are not; `false` if something had to get out of the way first.
    async fn link_names(
        &self,
        walk: &mut RestoreWalk,
        step: &mut StepPlan,
        names: Vec<Dentry>,
    ) -> Result<bool, StoreError> {
        let mut made = Vec::new();
        for name in names {
            let Some(number) = self.placed(walk, name.parent).await? else {
                continue;
            };
            let view = self.view();
            let entry = view.entry_at(name.parent, &name.name, walk.row.at).await?;
            let Some(entry) = entry else {
                continue;
            };
            let frame = RestoreFrame {
                former: Some(name.parent),
                number,
                mtime: None,
                after: None,
            };
            let name = name.name;
            made.push(made_name(&frame, &NameThen { name, entry }, None));
        }
        if !self.have_other_links(&made).await? {
            return Ok(true);
        }
        let mut replaced = Vec::new();
        for name in &made {
            let live = self.live_name(name.slot.parent, &name.slot.name).await?;
            let Some(live) = live else { continue };
            if is_directory(&live.row) {
                // What is planned already goes first.
                match step.plan.len() {
                    0 => self.set_aside(walk, step, live).await?,
                    _ => step.is_closed = true,
                }
                return Ok(false);
            }
            replaced.push(live);
        }
        for live in replaced {
            step.end(live, true, false);
        }
        for name in &made {
            step.change_in(name.slot.parent);
            let then = self.mtime_of_then(name, walk.row.at).await?;
            step.plan.times.extend(then);
        }
        step.plan.links.push(made);
        Ok(true)
    }

    /// Returns where a directory of then is now: what has its path below the restored one.
    async fn placed(&self, walk: &RestoreWalk, former: Ino) -> Result<Option<Ino>, StoreError> {
        let (view, mut names, mut at) = (self.view(), Vec::new(), former);
        while at != walk.row.former {
            let place = view.place_at(at, walk.row.at).await?;
            let Some(place) = place.filter(|_| names.len() < DIRECTORIES_ABOVE_MAX) else {
                return Ok(None);
            };
            names.push(place.name);
            at = place.parent;
        }
        let mut directory = walk.directory;
        while let Some(name) = names.pop() {
            match self.live_name(directory, &name).await? {
                Some(live) if is_directory(&live.row) => directory = live.row.ino,
                _ => return Ok(None),
            }
        }
        Ok(Some(directory))
    }
}

impl History {
    /// Plans the next changes of *Remove*, as [`Self::plan_places`] does.
    pub(super) async fn plan_removals(
        &self,
        walk: &mut RestoreWalk,
        step: &mut StepPlan,
        most: usize,
    ) -> Result<(), StoreError> {
        while !step.is_full(most) {
            let Some(frame) = walk.frame() else { break };
            let view = self.view();
            let Some(live) = walk.next_live(&view).await? else {
                walk.leave();
                if frame.former.is_none() {
                    let gone = self.live_directory(frame.number).await?;
                    let gone = gone.ok_or(StoreError::Stale)?;
                    let is_aside = gone.slot.name == aside(walk.row.began, frame.number);
                    step.end(gone, false, is_aside);
                }
                continue;
            };
            let (name, ino) = (live.slot.name.clone(), live.row.ino);
            let then = match frame.former {
                Some(former) => view.entry_at(former, &name, walk.row.at).await?,
                None => None,
            };
            walk.seen(name.clone());
            let is_aside = name == aside(walk.row.began, ino);
            match (then, is_directory(&live.row)) {
                (Some(then), true) if then.kind == Kind::Directory => {
                    if !self.is_cut_off(then.ino, walk.row.at).await? {
                        walk.enter(Some(then.ino), ino, None);
                    }
                }
                (Some(_), _) => {}
                (None, _) if frame.former.is_some() && walk.row.keeps_new && !is_aside => {}
                (None, true) => walk.enter(None, ino, None),
                (None, false) => step.end(live, false, false),
            }
        }
        Ok(())
    }

    /// Returns the directory of a name with its modification time of now, if it is that of then: the restore has made the directory.
    async fn mtime_of_then(
        &self,
        name: &MadeName,
        at: Timestamp,
    ) -> Result<Option<(Ino, crate::store::model::version::Time)>, StoreError> {
        let directory = name.slot.parent;
        let former = match &name.origin {
            Some(origin) => origin.directory,
            None => directory,
        };
        let then = self.view().directory_entry_at(former, at).await?;
        let now = self.tree.stat(directory).await?.attrs.mtime;
        let then = then.map(|then| then.attrs.mtime);
        Ok(then
            .filter(|then| *then == now)
            .map(|then| (directory, then)))
    }
}

/// A target that no name is: a step restores no name of its own.
fn step_target(made: &MadeName) -> RestoreTarget {
    RestoreTarget {
        slot: Dentry::new(Ino(0), Bytes::new()),
        then: made.entry.clone(),
        at: Timestamp(0),
        origin: None,
        keeps_new: false,
        copies: false,
    }
}
