//! Changes of names in the model: create, link, remove, undelete, rename, exchange.

use super::*;
use crate::store::model::ignored_names::is_backup_of;

impl Tree {
    pub(crate) fn create(&mut self, slot: Slot, ino: Ino, kind: Kind) -> Id {
        let id = self.node(ino, kind);
        let alive = if kind == Kind::File {
            NEVER
        } else {
            self.now()
        };
        let bound = self.next();
        self.slots.insert(
            slot,
            Entry {
                id,
                bound,
                alive,
                behind: None,
            },
        );
        id
    }

    pub(crate) fn link(&mut self, id: Id, slot: Slot) {
        self.save_all(id);
        self.write_back(id);
        let now = self.now();
        for old in self.slots_of(id) {
            let entry = self.slots.get_mut(&old).unwrap();
            entry.alive = entry.alive.min(now);
            entry.behind = None;
        }
        let bound = self.next();
        self.slots.insert(
            slot,
            Entry {
                id,
                bound,
                alive: now,
                behind: None,
            },
        );
        self.nodes[id].names += 1;
        self.nodes[id].linked = true;
    }

    pub(crate) fn remove(&mut self, slot: &Slot) {
        let id = self.slots[slot].id;
        self.save_all(id);
        let shown = self.shown(&self.slots[slot]);
        self.ended(slot, shown.clone());
        self.left(slot, shown.as_ref(), false);
        if let Some(shown) = shown.filter(|shown| !self.is_directory(shown.id)) {
            let node = &self.nodes[shown.id];
            let gone = Gone {
                state: (shown.id, shown.version.1),
                mode: node.mode,
                xattrs: node.xattrs.clone(),
                text: shown.text,
            };
            self.gone.insert(slot.clone(), gone);
        }
        self.slots.remove(slot);
        self.lost_name(id);
    }

    /// The attributes of a file were changed. A version has the attributes its state ended with: a name that was removed while the
    /// state went on under another name shows the new ones.
    pub(crate) fn attributes_changed(&mut self, id: Id) {
        let node = &self.nodes[id];
        let Some((version, _)) = node.version.as_ref().filter(|_| node.names > 0) else {
            return;
        };
        let state = (id, *version);
        for gone in self.gone.values_mut().filter(|gone| gone.state == state) {
            (gone.mode, gone.xattrs) = (node.mode, node.xattrs.clone());
        }
    }

    /// A state of the name has ended: a file removed under the name earlier is not its last state any more.
    fn ended(&mut self, slot: &Slot, shown: Option<Shown>) {
        if shown.is_some() {
            self.gone.remove(slot);
        }
    }

    /// A name that showed a state does not exist any more.
    fn left(&mut self, slot: &Slot, shown: Option<&Shown>, transient: bool) {
        if shown.is_some() {
            let now = self.timestamps[self.timestamps.len() - 1];
            self.ends.insert(slot.clone(), (now, transient));
        }
    }

    /// Restores a removed file as a new inode.
    pub(crate) fn undelete(&mut self, from: &Slot, to: Slot, ino: Ino) {
        let there = self.slots.get(&to).cloned();
        if let Some(there) = &there {
            self.save_all(there.id);
        }
        let there = there.map(|_| self.slots[&to].clone());
        if let Some(there) = &there {
            self.ended(&to, self.shown(there));
            self.lost_name(there.id);
        }
        let back = self.gone.remove(from).unwrap();
        let (id, now) = (self.node(ino, Kind::File), self.now());
        let (version, bound) = (self.next(), self.next());
        let node = &mut self.nodes[id];
        (node.mode, node.xattrs) = (back.mode, back.xattrs);
        node.text = back.text.to_vec();
        node.state = State::Version;
        node.version = Some((version, back.text));
        node.last = now;
        let entry = Entry {
            id,
            bound,
            alive: there.map_or(now, |there| there.alive.min(now)),
            behind: None,
        };
        self.slots.insert(to, entry);
    }

    fn lost_name(&mut self, id: Id) {
        let node = &mut self.nodes[id];
        node.names -= 1;
        if node.names == 0 {
            node.flushes.clear();
        }
    }

    pub(crate) fn rename(&mut self, from: &Slot, to: &Slot, mode: RenameMode) {
        let source = self.slots[from].id;
        let target = self.slots.get(to).map(|e| e.id);
        if Some(source) == target {
            return;
        }
        self.save_all(source);
        self.write_back(source);
        if let Some(target) = target {
            self.save_all(target);
            if mode == RenameMode::Exchange {
                self.write_back(target);
            }
        }
        let now = self.now();
        let (moved, there) = (self.slots[from].clone(), self.slots.get(to).cloned());
        let bounds = (self.next(), self.next());
        if mode == RenameMode::Exchange {
            self.exchange((from, moved), (to, there.unwrap()), bounds, now);
            return;
        }
        let (mut behind, shown) = (None, self.shown(&moved));
        self.ended(from, shown.clone());
        if let Some(there) = &there {
            self.ended(to, self.shown(there));
            let own = !self.nodes[there.id].linked && !self.is_directory(there.id);
            if own && self.is_unborn(source) {
                behind = self.shown(there);
            }
            self.lost_name(there.id);
        }
        let alive = match (self.is_unborn(source), &there) {
            (true, Some(there)) if behind.is_some() => there.alive,
            (true, _) => NEVER,
            (false, there) => there.as_ref().map_or(now, |t| t.alive.min(now)),
        };
        let alive = if self.nodes[source].linked {
            there.as_ref().map_or(now, |t| t.alive.min(now))
        } else {
            alive
        };
        self.slots.remove(from);
        self.slots.insert(
            to.clone(),
            Entry {
                id: source,
                bound: bounds.0,
                alive,
                behind,
            },
        );
        let own = !self.nodes[source].linked && !self.is_directory(source);
        let stays = moved.behind.is_some() || is_backup_of(&from.1, &to.1);
        let transient = own && !stays && moved.alive != NEVER && self.is_new(from, moved.alive);
        self.left(from, shown.as_ref(), transient);
        if transient {
            for step in moved.alive..self.past.len() {
                if let Some(shown) = self.past[step].get_mut(from) {
                    shown.passed = true;
                }
            }
        }
    }

    fn exchange(
        &mut self,
        (from, moved): (&Slot, Entry),
        (to, there): (&Slot, Entry),
        bounds: (u64, u64),
        now: usize,
    ) {
        let alive = |entry: &Entry, tree: &Self| match tree.is_unborn(entry.id) {
            true => NEVER,
            false => now,
        };
        self.ended(from, self.shown(&moved));
        self.ended(to, self.shown(&there));
        let (a, b) = (alive(&moved, self), alive(&there, self));
        let (a, b) = (
            a.min(if a == NEVER { a } else { there.alive }),
            b.min(if b == NEVER { b } else { moved.alive }),
        );
        self.slots.insert(
            to.clone(),
            Entry {
                id: moved.id,
                bound: bounds.0,
                alive: a,
                behind: None,
            },
        );
        self.slots.insert(
            from.clone(),
            Entry {
                id: there.id,
                bound: bounds.1,
                alive: b,
                behind: None,
            },
        );
    }
}
