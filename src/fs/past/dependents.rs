//! Past nodes whose attributes are those of a live inode, and what tells the kernel when these change.
//!
//! A version that has not ended, and every virtual directory, shows attributes of the live tree. The kernel may keep them as long
//! as live ones, because a change of the live inode makes it forget them before the change is answered.
//! Invariant: a node is noted here before its attributes are given. So a change is in the attributes, or finds the node noted, or
//! is seen by the call that gives them ([`Dependents::changes`]).

use crate::store::Ino;
use crate::sync::{AtomicU64, OnceLock, Ordering};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;

/// Makes the kernel forget the attributes of a node.
pub(crate) type Forget = Box<dyn Fn(u64) + Send + Sync>;

/// The nodes by the live inode they depend on.
#[derive(Default)]
pub(crate) struct Dependents {
    // Leaf locks: no row is held across an await or a call out of this file.
    nodes: DashMap<Ino, Vec<u64>>,
    changes: AtomicU64,
    forget: OnceLock<Forget>,
}

impl Dependents {
    /// Sets the function that tells the kernel of changes; it is set once.
    pub(crate) fn tell(&self, forget: Forget) {
        // These tables have one mount, so that there is no second function.
        drop(self.forget.set(forget));
    }

    /// Whether the kernel learns of changes.
    pub(crate) fn are_told(&self) -> bool {
        self.forget.get().is_some()
    }

    /// Notes that the node `number` shows attributes of `ino`.
    pub(crate) fn note(&self, ino: Ino, number: u64) {
        let mut nodes = self.nodes.entry(ino).or_default();
        if !nodes.contains(&number) {
            nodes.push(number);
        }
    }

    /// The kernel does not reference the node any more.
    pub(crate) fn drop_node(&self, ino: Ino, number: u64) {
        if let Place::Occupied(mut nodes) = self.nodes.entry(ino) {
            nodes.get_mut().retain(|other| *other != number);
            if nodes.get().is_empty() {
                nodes.remove();
            }
        }
    }

    /// The number of changes. Attributes that were read before a change and are given after it may be outdated.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Attributes of `ino` have changed; called before that is answered.
    pub(crate) fn changed(&self, ino: Ino) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let Some(forget) = self.forget.get() else {
            return;
        };
        let nodes = self.nodes.get(&ino).map(|nodes| nodes.clone());
        for number in nodes.into_iter().flatten() {
            forget(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, Mutex, lock};

    #[test]
    fn a_change_is_told_to_the_nodes_that_show_it() {
        let dependents = Dependents::default();
        dependents.note(Ino(5), 50);
        dependents.changed(Ino(5));
        assert!(!dependents.are_told());
        let told = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&told);
        dependents.tell(Box::new(move |number| lock(&list).push(number)));
        for number in [51, 52, 52] {
            dependents.note(Ino(5), number);
        }
        dependents.note(Ino(6), 60);
        let changes = dependents.changes();
        dependents.changed(Ino(5));
        assert_eq!(std::mem::take(&mut *lock(&told)), [50, 51, 52]);
        dependents.drop_node(Ino(5), 51);
        dependents.drop_node(Ino(6), 60);
        dependents.drop_node(Ino(7), 60);
        dependents.changed(Ino(5));
        dependents.changed(Ino(6));
        assert_eq!(*lock(&told), [50, 52]);
        assert_eq!(dependents.changes(), changes + 3);
    }
}
