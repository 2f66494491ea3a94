//! Reference-counted tokens; a key is cleaned up after its last token is dropped.
//!
//! A registry keeps one weak count per key. Dropping a key's last token does nothing at once: it puts the key on a
//! list that a task works off, so a drop is cheap and safe anywhere. Invariant: the clean-up of a key runs only
//! while no token of it exists, and none can be taken before it has ended; a token taken between the
//! last drop and the clean-up wins.

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::mpsc;

use crate::sync::{Arc, Weak};
use crate::task::Tasks;

/// How long the task gathers keys, so that tokens that come and go cost no wake-up each.
const GATHER: Duration = Duration::from_millis(2);

/// The counts of all tokens of one kind; clones are the same registry.
pub(crate) struct TokenRegistry<K: Clone> {
    counts: Arc<DashMap<K, Weak<HeldToken<K>>>>,
    unused: mpsc::UnboundedSender<K>,
}

impl<K: Hash + Eq + Clone> TokenRegistry<K> {
    /// Makes an empty registry. `clean_up` is called for a key whose last token was dropped; it runs under the key's
    /// entry, so it must be short and must not use this registry: longer work it hands on. The task called
    /// `name` ends at the stop signal, after what was dropped before it; later drops are not cleaned up.
    pub(crate) fn new<F>(name: &'static str, tasks: &Tasks, clean_up: F) -> Self
    where
        K: Send + Sync + 'static,
        F: Fn(&K) + Send + Sync + 'static,
    {
        let (unused, list) = mpsc::unbounded_channel();
        let counts = Arc::new(DashMap::new());
        let sweep = sweep(Arc::clone(&counts), list, tasks.clone(), clean_up);
        drop(tasks.spawn(name, sweep));
        Self { counts, unused }
    }

    /// Takes a token of `key`, the first or one more.
    pub(crate) fn take(&self, key: K) -> Token<K> {
        let held = |key: &K| {
            Arc::new(HeldToken {
                key: key.clone(),
                unused: self.unused.clone(),
            })
        };
        match self.counts.entry(key) {
            Entry::Occupied(mut entry) => {
                let found = entry.get().upgrade();
                let held = found.unwrap_or_else(|| {
                    let held = held(entry.key());
                    entry.insert(Arc::downgrade(&held));
                    held
                });
                Token { held }
            }
            Entry::Vacant(entry) => {
                let held = held(entry.key());
                entry.insert(Arc::downgrade(&held));
                Token { held }
            }
        }
    }

    /// How many tokens of `key` there are.
    pub(crate) fn count(&self, key: &K) -> usize {
        self.counts.get(key).map_or(0, |held| held.strong_count())
    }
}

impl<K: Clone> Clone for TokenRegistry<K> {
    fn clone(&self) -> Self {
        Self {
            counts: Arc::clone(&self.counts),
            unused: self.unused.clone(),
        }
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for TokenRegistry<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRegistry")
            .field("keys", &self.counts.len())
            .finish_non_exhaustive()
    }
}

/// Works off the list of keys whose last token was dropped.
async fn sweep<K, F>(
    counts: Arc<DashMap<K, Weak<HeldToken<K>>>>,
    mut list: mpsc::UnboundedReceiver<K>,
    tasks: Tasks,
    clean_up: F,
) where
    K: Hash + Eq + Clone + Send + Sync,
    F: Fn(&K) + Send + Sync,
{
    let clean_up = |key: K| work_off(&counts, key, &clean_up);
    let stopped = tasks.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            key = list.recv() => {
                let Some(key) = key else { return };
                clean_up(key);
            }
            () = &mut stopped => break,
        }
        while let Ok(key) = list.try_recv() {
            clean_up(key);
        }
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = &mut stopped => break,
        }
    }
    while let Ok(key) = list.try_recv() {
        clean_up(key);
    }
}

/// Cleans a listed key up. It may be listed more than once, or be in use again: what counts is whether it is unused now.
fn work_off<K: Hash + Eq + Clone>(
    counts: &DashMap<K, Weak<HeldToken<K>>>,
    key: K,
    clean_up: &impl Fn(&K),
) {
    if let Entry::Occupied(entry) = counts.entry(key)
        && entry.get().strong_count() == 0
    {
        clean_up(entry.key());
        entry.remove();
    }
}

/// What all tokens of a key share; the last of them lists the key.
#[derive(Debug)]
struct HeldToken<K: Clone> {
    key: K,
    unused: mpsc::UnboundedSender<K>,
}

impl<K: Clone> Drop for HeldToken<K> {
    fn drop(&mut self) {
        // Fails only after the stop signal, when nothing is cleaned up any more.
        drop(self.unused.send(self.key.clone()));
    }
}

/// One counted reference: a clone counts one more, a drop one less.
#[derive(Clone, Debug)]
#[must_use]
pub(crate) struct Token<K: Clone> {
    held: Arc<HeldToken<K>>,
}

impl<K: Clone> Token<K> {
    /// What it refers to.
    pub(crate) fn key(&self) -> &K {
        &self.held.key
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
