//! The steps that rename and undelete.

use super::*;

impl Session {
    pub(super) async fn undelete(&mut self, from: &str, to: &str, mode: RenameMode) -> bool {
        let (Some(from), Some(to)) = (self.slot(from), self.slot(to)) else {
            return false;
        };
        let tree = &self.tree;
        if tree.slots.contains_key(&from) || !tree.gone.contains_key(&from) {
            return false;
        }
        let ends = (
            DentryRef::new(self.ino(from.0), &from.1),
            DentryRef::new(self.ino(to.0), &to.1),
        );
        let done = self
            .ns
            .history
            .undelete(ends.0, ends.1, mode, &author())
            .await;
        match tree.slots.get(&to) {
            Some(_) if mode == RenameMode::NoReplace => {
                assert!(
                    matches!(done, Err(StoreError::Exists)),
                    "undelete {from:?} to {to:?}: found {done:?}, expected Exists"
                );
            }
            Some(there) if tree.is_directory(there.id) => {
                assert!(
                    matches!(done, Err(StoreError::IsDirectory)),
                    "undelete {from:?} to {to:?}: found {done:?}, expected IsDirectory"
                );
            }
            _ => self.tree.undelete(&from, to, done.unwrap().moved.ino),
        }
        true
    }

    pub(super) async fn rename(&mut self, from: &str, to: &str, mode: RenameMode) -> bool {
        let (Some(a), Some(b)) = (self.slot(from), self.slot(to)) else {
            return false;
        };
        let Some(source) = self.find(from) else {
            return false;
        };
        let target = self.find(to);
        let ends = (
            DentryRef::new(self.ino(a.0), &a.1),
            DentryRef::new(self.ino(b.0), &b.1),
        );
        let result = self.ns.tree.rename(ends.0, ends.1, mode, &author()).await;
        let tree = &self.tree;
        let inside = |id: Id, into: Id| tree.is_directory(id) && tree.is_below(into, id);
        let exchange = mode == RenameMode::Exchange;
        let expected = match target {
            Some(_) if mode == RenameMode::NoReplace => Err("already exists"),
            None if exchange => Err("not found"),
            _ if inside(source, b.0) => Err("a directory cannot be moved into itself"),
            Some(target) if exchange && inside(target, a.0) => {
                Err("a directory cannot be moved into itself")
            }
            Some(target) if !exchange && target != source => {
                match (tree.is_directory(source), tree.is_directory(target)) {
                    (true, false) => Err("not a directory"),
                    (false, true) => Err("is a directory"),
                    (true, true) if !tree.is_empty(target) => Err("directory not empty"),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        };
        let result = result.map(drop).map_err(|e| e.to_string());
        assert_eq!(
            result,
            expected.map_err(str::to_owned),
            "rename {from} to {to}, {mode:?}"
        );
        if expected.is_ok() {
            self.tree.rename(&a, &b, mode);
        }
        true
    }
}
