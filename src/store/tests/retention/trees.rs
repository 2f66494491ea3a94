//! Steps of a walk on whole directories, which are removed file by file and undeleted, and on holds.

use super::removed::GoneDirectory;
use super::walk::Walk;
use super::words::{DAY, HOUR, SECOND};
use super::*;
use crate::env::Env;
use crate::store::tests::labels::mkdir;

/// For how long a restore holds the version that it replaces.
const UNDO_TIME: u64 = 30 * DAY;

impl Walk {
    pub(super) async fn tree_step(&mut self) {
        // Longer than the gap that ends a run of removals.
        let pause = 61 * SECOND + self.rng.below(HOUR as usize) as u64;
        self.cluster.env.advance(pause);
        match self.rng.below(8) {
            0 | 1 => self.remove_tree().await,
            2 | 3 => self.undelete_tree().await,
            4 if self.directories.len() < self.work.directories => {
                let at = self.free_folder();
                let made = mkdir(&self.ns, Ino(at.0), at.1.as_bytes()).await;
                let start = self.began(&at).await;
                self.past.make_directory(&at, made.0, start);
                self.directories.push(made);
            }
            5 => self.hold_label().await,
            6 => self.release().await,
            _ => self.hold().await,
        }
    }

    /// The directories that exist below a directory and itself, each after those below it.
    fn tree_of(&self, top: Ino) -> Vec<Ino> {
        let mut tree = vec![top];
        let mut next = 0;
        while let Some(above) = tree.get(next).copied() {
            let mut below = self.directories.clone();
            below.retain(|it| self.past.limits.parent(it.0, u64::MAX) == Some(above.0));
            tree.extend(below);
            next += 1;
        }
        tree.reverse();
        tree
    }

    /// Removes a directory as `rm -r` does, within seconds, minutes or hours.
    async fn remove_tree(&mut self) {
        let top = self.directories[self.rng.below(self.directories.len())];
        let tree = self.tree_of(top);
        // The root directory, and one with a policy to the end, stay.
        let stays = [self.directories[0], self.directories[1]];
        if tree.iter().any(|it| stays.contains(it)) || self.directories.len() < tree.len() + 3 {
            return;
        }
        let who = author();
        let pause = [SECOND, 50 * SECOND, 40 * 60 * SECOND][self.rng.below(3)];
        for directory in tree {
            let names = slot(directory, "")..slot(Ino(directory.0 + 1), "");
            let names = self.past.names.range(names).map(|(name, _)| name.clone());
            let mut names: Vec<_> = names.collect();
            names.retain(|name| self.past.current(name).is_some());
            for name in names {
                self.cluster.env.advance(pause);
                let removed = self.ns.tree.unlink(directory, name.1.as_bytes(), &who);
                removed.await.unwrap();
                self.past.remove(&name, self.ended(&name).await);
            }
            let name = self.past.name_of(directory.0).unwrap();
            self.cluster.env.advance(pause);
            let removed = self.ns.tree.rmdir(Ino(name.0), name.1.as_bytes(), &who);
            removed.await.unwrap();
            self.past.remove(&name, self.ended(&name).await);
            self.directories.retain(|it| *it != directory);
            self.seen.removed += 1;
        }
    }

    /// When the newest version of a name ended.
    async fn ended(&self, name: &Slot) -> u64 {
        let from = keys::history(Ino(name.0), name.1.as_bytes());
        let newest = self
            .ns
            .core
            .index
            .first(from.clone(), keys::after(&from))
            .await;
        let (_, record) = newest.unwrap().unwrap();
        VersionTable::decode(&record).unwrap().end.0
    }

    /// Undeletes a removed directory with what is left of it, under its own name or another one.
    async fn undelete_tree(&mut self) {
        let mut gone = self.past.removed_directories();
        gone.retain(|(_, it)| {
            self.directories.contains(&Ino(it.slot.0)) && self.past.current(&it.slot).is_none()
        });
        if gone.is_empty() {
            return;
        }
        let (top, GoneDirectory { slot: from, .. }) = gone.swap_remove(self.rng.below(gone.len()));
        let Some(tree) = self.past.removed_tree(top) else {
            return;
        };
        let to = match self.rng.below(2) {
            0 => from.clone(),
            _ => self.free_folder(),
        };
        let (old, new, who) = (Self::dentry(&from), Self::dentry(&to), author());
        let history = &self.ns.history;
        let back = history.undelete(old, new, RenameMode::NoReplace, &who);
        assert_eq!(back.await.unwrap().moved.ino, Ino(top));
        let at = self.began(&to).await;
        let back = self.past.undelete(top, &to, tree, at);
        self.seen.undeleted += back.len() as u32;
        self.directories.extend(back.into_iter().map(Ino));
        // What is there now is what the model has undeleted.
        let view = self.ns.history.view();
        for directory in self.tree_of(Ino(top)) {
            let found = self.listed(&view, directory, Timestamp(at)).await;
            assert_eq!(
                found,
                self.past.listed(directory.0, at, true),
                "{directory:?}"
            );
        }
    }

    /// The name and the start of a version of a file that is left, in a directory that exists.
    fn left(&mut self, is_wanted: impl Fn(&past::Made) -> bool) -> Option<(Slot, u64)> {
        let mut left = Vec::new();
        for (name, all) in &self.past.names {
            if self.directories.contains(&Ino(name.0)) {
                let made = all
                    .iter()
                    .filter(|made| !made.dropped && made.directory.is_none());
                let made = made.filter(|made| is_wanted(made));
                left.extend(made.map(|made| (name.clone(), made.start)));
            }
        }
        match left.len() {
            0 => None,
            count => Some(left.swap_remove(self.rng.below(count))),
        }
    }

    async fn shown(&self, name: &Slot, at: u64) -> PastEntry {
        let view = self.ns.history.view();
        let shown = view.entry_at(Ino(name.0), name.1.as_bytes(), Timestamp(at));
        shown.await.unwrap().unwrap()
    }

    /// Holds a version for a time, or for longer than before.
    async fn hold(&mut self) {
        let Some((name, start)) = self.left(|_| true) else {
            return;
        };
        let until = self.cluster.env.now() + HOUR + self.rng.below(40 * DAY as usize) as u64;
        if self.past.held_until(&name, start) < until {
            let (entry, end) = (self.shown(&name, start).await, Timestamp(until));
            let who = author();
            let history = &self.ns.history;
            let held = history.hold_version(Self::dentry(&name), &entry, end, &who);
            held.await.unwrap();
            self.past.hold(&name, start, until);
            self.seen.held += 1;
        }
    }

    /// Ends the hold of a version.
    async fn release(&mut self) {
        let now = self.ns.now().0;
        if let Some((name, start)) = self.left(|made| made.held > now) {
            self.end_hold(&name, start).await;
        }
    }

    async fn end_hold(&mut self, name: &Slot, start: u64) {
        let entry = self.shown(name, start).await;
        let history = &self.ns.history;
        let released = history.release_version(Self::dentry(name), &entry);
        released.await.unwrap();
        self.past.hold(name, start, 0);
    }

    /// A restore at `at` holds the version that it replaced; half of these holds end at once.
    pub(super) async fn held_before(&mut self, name: &Slot, at: u64) {
        let replaced = self.past.truth(name, at - 1).unwrap();
        let start = replaced.start;
        let until = at + UNDO_TIME;
        if self.past.held_until(name, start) < until {
            self.past.hold(name, start, until);
        }
        if !self.work.trees || self.rng.below(2) == 0 {
            self.end_hold(name, start).await;
        }
    }

    /// Holds a label, or ends its hold.
    async fn hold_label(&mut self) {
        let now = self.cluster.env.now();
        let until = now + HOUR + self.rng.below(20 * DAY as usize) as u64;
        let mut labels: Vec<_> = self.past.labels.iter_mut().collect();
        labels.retain(|label| label.expires.max(label.held) > now);
        if labels.is_empty() {
            return;
        }
        let label = labels.swap_remove(self.rng.below(labels.len()));
        let (directory, name) = (Ino(label.directory), label.name.as_bytes());
        let history = &self.ns.history;
        if label.held > now {
            history.release_label(directory, name).await.unwrap();
            label.held = 0;
        } else {
            let held = history.hold_label(directory, name, Timestamp(until));
            held.await.unwrap();
            label.held = until;
        }
    }
}
