//! Reference-counted tokens; a key is cleaned up after its last token is dropped.
//!
//! A registry has one weak count per key. The drop of a key's last token only sends the key to a task, so that a drop is cheap
//! and possible in any context. Invariant: the clean-up of a key runs only while the key has no token, and no token can be
//! taken during it. A token that is taken between the last drop and the clean-up prevents the clean-up.

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::mpsc;

use crate::sync::{Arc, Weak};
use crate::task::Tasks;

/// The delay between two runs of the task, so that short-lived tokens do not wake it one by one.
const GATHER: Duration = Duration::from_millis(2);

/// The counts of all tokens of one kind; clones are the same registry.
pub(crate) struct TokenRegistry<K: Clone> {
    counts: Arc<DashMap<K, Weak<TokenState<K>>>>,
    unused: mpsc::UnboundedSender<K>,
}

impl<K: Hash + Eq + Clone> TokenRegistry<K> {
    /// Creates an empty registry. `clean_up` is called for a key whose last token was dropped. It runs while the key's entry is
    /// locked, so it must be short and must not use this registry. The task called `name` ends at the stop signal, after the
    /// clean-up of all keys dropped before; keys dropped later are not cleaned up.
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

    /// Takes a token of `key`.
    pub(crate) fn take(&self, key: K) -> Token<K> {
        let state = |key: &K| {
            Arc::new(TokenState {
                key: key.clone(),
                unused: self.unused.clone(),
            })
        };
        match self.counts.entry(key) {
            Entry::Occupied(mut entry) => {
                let found = entry.get().upgrade();
                let state = found.unwrap_or_else(|| {
                    let state = state(entry.key());
                    entry.insert(Arc::downgrade(&state));
                    state
                });
                Token { state }
            }
            Entry::Vacant(entry) => {
                let state = state(entry.key());
                entry.insert(Arc::downgrade(&state));
                Token { state }
            }
        }
    }

    /// Counts the tokens of `key`.
    pub(crate) fn count(&self, key: &K) -> usize {
        self.counts.get(key).map_or(0, |state| state.strong_count())
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

/// Cleans up the keys whose last token was dropped.
async fn sweep<K, F>(
    counts: Arc<DashMap<K, Weak<TokenState<K>>>>,
    mut list: mpsc::UnboundedReceiver<K>,
    tasks: Tasks,
    clean_up: F,
) where
    K: Hash + Eq + Clone + Send + Sync,
    F: Fn(&K) + Send + Sync,
{
    let clean_up = |key: K| clean_up_unused(&counts, key, &clean_up);
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

/// Cleans up a key, unless it has a token again. A key may have been sent more than once.
fn clean_up_unused<K: Hash + Eq + Clone>(
    counts: &DashMap<K, Weak<TokenState<K>>>,
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

/// The state that all tokens of a key share; its drop sends the key to the task.
#[derive(Debug)]
struct TokenState<K: Clone> {
    key: K,
    unused: mpsc::UnboundedSender<K>,
}

impl<K: Clone> Drop for TokenState<K> {
    fn drop(&mut self) {
        // Fails only after the stop signal.
        drop(self.unused.send(self.key.clone()));
    }
}

/// A counted reference to a key.
#[derive(Clone, Debug)]
#[must_use]
pub(crate) struct Token<K: Clone> {
    state: Arc<TokenState<K>>,
}

impl<K: Clone> Token<K> {
    /// The key of this token.
    pub(crate) fn key(&self) -> &K {
        &self.state.key
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
