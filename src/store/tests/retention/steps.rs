//! The steps of a walk: each changes the namespace, and the model by the time that the store gave the change.

use super::past::Label;
use super::walk::Walk;
use super::words::{DAY, HOUR, SECOND, Words};
use super::work::{FILES, FOLDERS, LIMITS, POLICIES};
use super::*;
use crate::env::Env;
use crate::store::tests::labels::try_label;

impl Walk {
    /// A name of a file; every third time one of a few.
    pub(super) fn file(&mut self) -> Slot {
        let (directories, names) = match self.rng.below(3) {
            0 => (self.directories.len().min(3), 3),
            _ => (self.directories.len(), self.work.names),
        };
        let directory = self.directories[self.rng.below(directories)];
        slot(directory, FILES[self.rng.below(names)])
    }

    /// A name that a directory can get.
    pub(super) fn free_folder(&mut self) -> Slot {
        loop {
            let directory = self.directories[self.rng.below(self.directories.len())];
            let at = slot(directory, FOLDERS[self.rng.below(FOLDERS.len())]);
            // The tree of a removed directory stays for as long as before when its name is taken.
            let mut gone = self.past.removed_directories().into_iter();
            let is_offered = gone.any(|(_, gone)| gone.slot == at);
            if self.past.current(&at).is_none() && !is_offered {
                return at;
            }
        }
    }

    pub(super) fn dentry(slot: &Slot) -> DentryRef<'_> {
        DentryRef::new(Ino(slot.0), slot.1.as_bytes())
    }

    /// When the current version of a directory's name began.
    pub(super) async fn began(&self, slot: &Slot) -> u64 {
        let view = self.ns.history.view();
        let shown = view.entry_at(Ino(slot.0), slot.1.as_bytes(), self.ns.now());
        shown.await.unwrap().unwrap().version.timestamp.0
    }

    /// The newest version that the store lists for the name of a file.
    pub(super) async fn newest(&self, slot: &Slot) -> PastEntry {
        let view = self.ns.history.view();
        let name = slot.1.as_bytes();
        let versions = view.newest_file_versions(Ino(slot.0), name, 1).await;
        versions.unwrap().into_iter().next_back().unwrap()
    }

    pub(super) async fn step(&mut self) {
        match self.rng.below(16) {
            8 if self.rng.below(3) == 0 => self.label().await,
            10 if self.work.limits && self.rng.below(5) == 0 => {
                let directory = self.rng.below(self.directories.len() - 2) + 2;
                let words = LIMITS.get(self.rng.below(LIMITS.len() * 2)).copied();
                self.limit(self.directories[directory], words).await;
            }
            12 if self.work.trees => self.tree_step().await,
            _ => self.file_step().await,
        }
    }

    /// A step that waits for nothing to be in the bucket.
    pub(super) async fn file_step(&mut self) {
        // More than the time within which a rename makes a name transient.
        let pause = 11 * SECOND + self.rng.below(3 * HOUR as usize) as u64;
        self.cluster.env.advance(pause);
        let at = self.file();
        let author = author();
        match self.rng.below(14) {
            0 | 1 if self.past.current(&at).is_some() => {
                let removed = self.ns.tree.unlink(Ino(at.0), at.1.as_bytes(), &author);
                removed.await.unwrap();
                let end = self.newest(&at).await.ended.unwrap();
                self.past.remove(&at, end.0);
            }
            2 | 3 => {
                let to = self.file();
                let moves = to != at && !self.past.are_one_file(&at, &to);
                if moves && self.past.current(&at).is_some() {
                    self.rename(&at, &to).await;
                    let start = self.newest(&to).await.version.timestamp.0;
                    self.past.rename(&at, &to, start);
                }
            }
            4 | 5 if self.past.current(&at).is_some() => {
                let to = self.file();
                if self.past.current(&to).is_none() {
                    let tree = &self.ns.tree;
                    let found = tree.lookup(Ino(at.0), at.1.as_bytes()).await;
                    let ino = found.unwrap().unwrap().ino;
                    let linked = tree.link(ino, Ino(to.0), to.1.as_bytes(), &author);
                    linked.await.unwrap();
                    let start = self.newest(&to).await.version.timestamp.0;
                    self.past.link(&at, &to, start);
                }
            }
            6 | 7 if self.past.current(&at).is_some() => self.restore(&at).await,
            8 => self.move_directory().await,
            _ => {
                self.saved += 1;
                let text = self.text();
                save(&self.ns, Ino(at.0), at.1.as_bytes(), &text).await;
                let start = self.newest(&at).await.version.timestamp.0;
                self.past.save(&at, start, &text);
            }
        }
    }

    /// A text that no other save has; one of eight is too long for a row.
    pub(super) fn text(&mut self) -> Vec<u8> {
        let mut text = self.saved.to_string().into_bytes();
        let len = match self.rng.below(8) {
            0 => 5000,
            _ => 100 + self.rng.below(1000),
        };
        text.resize(len, b'.');
        text
    }

    /// Sets the policy of a directory; without words, takes it back.
    pub(super) async fn limit(&mut self, directory: Ino, words: Option<Words>) {
        let policy = words.map(|words| words.of_directory());
        let retention = &self.ns.retention;
        let set = retention.set_directory_policy(directory, policy).await;
        set.unwrap();
        let now = self.ns.now().0;
        self.past.limits.say(directory.0, words, now);
    }

    pub(super) async fn rename(&self, from: &Slot, to: &Slot) {
        let (from, to, author) = (Self::dentry(from), Self::dentry(to), author());
        let tree = &self.ns.tree;
        let moved = tree.rename(from, to, RenameMode::Replace, &author);
        moved.await.unwrap();
    }

    /// Moves a directory, not into itself.
    pub(super) async fn move_directory(&mut self) {
        let moved = self.directories[self.rng.below(self.directories.len())];
        let to = self.free_folder();
        let Some(from) = self.past.name_of(moved.0) else {
            return;
        };
        if !self.past.is_below(to.0, moved.0, u64::MAX) {
            self.rename(&from, &to).await;
            let start = self.began(&to).await;
            self.past.rename(&from, &to, start);
        }
    }

    /// Restores a file to a state that it still has.
    pub(super) async fn restore(&mut self, at: &Slot) {
        let now = self.cluster.env.now();
        let then = Timestamp(now - self.rng.below(40 * DAY as usize) as u64);
        let view = self.ns.history.view();
        let shown = view.entry_at(Ino(at.0), at.1.as_bytes(), then).await;
        let Some(shown) = shown.unwrap() else { return };
        let text = self.ns.history.read_past(&shown, 0, u32::MAX).await;
        let (name, added, author) = (Self::dentry(at), AddedNames::Remove, author());
        let restored = self.ns.history.restore(name, shown, then, added, &author);
        if let Some(made) = restored.await.unwrap().at {
            self.past.save(at, made.0, &text.unwrap());
            self.held_before(at, made.0).await;
        }
    }

    /// Makes a label, or removes one.
    pub(super) async fn label(&mut self) {
        let pause = 11 * SECOND + self.rng.below(HOUR as usize) as u64;
        self.cluster.env.advance(pause);
        let directory = self.file().0;
        let now = self.cluster.env.now();
        if self.past.labels.len() > 5 {
            let number = self.rng.below(self.past.labels.len());
            let label = self.past.labels[number].clone();
            // What has expired goes with the next run.
            if label.expires > now && label.held <= now {
                self.past.labels.remove(number);
                let (directory, name) = (Ino(label.directory), label.name.as_bytes());
                let removed = self.ns.history.remove_label(directory, name);
                removed.await.unwrap();
            }
            return;
        }
        self.saved += 1;
        self.ns.drain().await.unwrap();
        let name = format!("label-{}", self.saved);
        let expires = match self.rng.below(3) {
            0 => now + self.rng.below(30 * DAY as usize) as u64 + HOUR,
            _ => u64::MAX,
        };
        let asked = Some(Timestamp(expires)).filter(|_| expires < u64::MAX);
        let made = try_label(&self.ns, Ino(directory), name.as_bytes(), asked).await;
        self.past.labels.push(Label {
            directory,
            name,
            at: made.unwrap().timestamp.0,
            expires,
            held: 0,
        });
    }

    /// Sets a policy: a longer one, a stricter one that is pending for a day, or the one in force, which takes a pending one back.
    pub(super) async fn set_policy(&mut self) {
        let words = match self.rng.below(POLICIES.len() + 1) {
            0 => self.past.words,
            number => POLICIES[number - 1],
        };
        let retention = &self.ns.retention;
        let change = retention.set_policy(&words.policy(), InForce::Usual).await;
        let is_at_once = self.past.set_words(words, self.ns.now().0);
        match change.unwrap() {
            PolicyChange::InForce => assert!(is_at_once, "{words:?} are stricter"),
            PolicyChange::Pending(from) => {
                assert!(!is_at_once, "{words:?} are not stricter");
                self.past.pending = Some((words, from.0));
            }
        }
    }
}
