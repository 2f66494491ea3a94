//! Counted references to things that are cleaned up when nobody holds them any more.
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
pub struct Registry<K: Clone> {
    counts: Arc<DashMap<K, Weak<Held<K>>>>,
    unused: mpsc::UnboundedSender<K>,
}

impl<K: Hash + Eq + Clone> Registry<K> {
    /// Makes an empty registry. `clean_up` is called for a key whose last token was dropped; it runs under the key's
    /// entry, so it must be short and must not use this registry: longer work it hands on. The task called
    /// `name` ends at the stop signal, after what was dropped before it; later drops are not cleaned up.
    pub fn new<F>(name: &'static str, tasks: &Tasks, clean_up: F) -> Self
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
    pub fn take(&self, key: K) -> Token<K> {
        let held = |key: &K| {
            Arc::new(Held {
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
    pub fn count(&self, key: &K) -> usize {
        self.counts.get(key).map_or(0, |held| held.strong_count())
    }
}

impl<K: Clone> Clone for Registry<K> {
    fn clone(&self) -> Self {
        Self {
            counts: Arc::clone(&self.counts),
            unused: self.unused.clone(),
        }
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for Registry<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("keys", &self.counts.len())
            .finish_non_exhaustive()
    }
}

/// Works off the list of keys whose last token was dropped.
async fn sweep<K, F>(
    counts: Arc<DashMap<K, Weak<Held<K>>>>,
    mut list: mpsc::UnboundedReceiver<K>,
    tasks: Tasks,
    clean_up: F,
) where
    K: Hash + Eq + Clone + Send + Sync,
    F: Fn(&K) + Send + Sync,
{
    let clean_up = |key: K| {
        // A key may be listed more than once, or be in use again: what counts is whether it is unused now.
        if let Entry::Occupied(entry) = counts.entry(key)
            && entry.get().strong_count() == 0
        {
            clean_up(entry.key());
            entry.remove();
        }
    };
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

/// What all tokens of a key share; the last of them lists the key.
#[derive(Debug)]
struct Held<K: Clone> {
    key: K,
    unused: mpsc::UnboundedSender<K>,
}

impl<K: Clone> Drop for Held<K> {
    fn drop(&mut self) {
        // Fails only after the stop signal, when nothing is cleaned up any more.
        drop(self.unused.send(self.key.clone()));
    }
}

/// One counted reference: a clone counts one more, a drop one less.
#[derive(Clone, Debug)]
#[must_use]
pub struct Token<K: Clone> {
    held: Arc<Held<K>>,
}

impl<K: Clone> Token<K> {
    /// What it refers to.
    pub fn key(&self) -> &K {
        &self.held.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{AtomicU64, Mutex, Ordering, lock};
    use tokio::runtime::Handle;

    type Cleaned = Arc<Mutex<Vec<u32>>>;

    fn registry(tasks: &Tasks) -> (Registry<u32>, Cleaned) {
        let cleaned = Cleaned::default();
        let list = Arc::clone(&cleaned);
        let registry = Registry::new("test-tokens", tasks, move |key: &u32| {
            lock(&list).push(*key);
        });
        (registry, cleaned)
    }

    async fn settle() {
        tokio::time::sleep(10 * GATHER).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_drop_cleans_up_once_and_later() {
        let (registry, cleaned) = registry(&Tasks::new(Handle::current()));
        let one = registry.take(5);
        let two = one.clone();
        let three = registry.take(5);
        assert_eq!((registry.count(&5), registry.count(&6)), (3, 0));
        drop((one, three));
        settle().await;
        assert_eq!((registry.count(&5), lock(&cleaned).len()), (1, 0));
        assert_eq!(*two.key(), 5);
        drop(two);
        assert_eq!((registry.count(&5), lock(&cleaned).len()), (0, 0));
        settle().await;
        assert_eq!(*lock(&cleaned), [5]);
        assert!(registry.counts.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_taken_meanwhile_wins() {
        let (registry, cleaned) = registry(&Tasks::new(Handle::current()));
        drop(registry.take(5));
        let again = registry.take(5);
        settle().await;
        assert_eq!((registry.count(&5), lock(&cleaned).len()), (1, 0));
        drop(again);
        settle().await;
        assert_eq!(*lock(&cleaned), [5]);
    }

    #[tokio::test(start_paused = true)]
    async fn two_drops_before_the_clean_up_are_one() {
        let (registry, cleaned) = registry(&Tasks::new(Handle::current()));
        drop(registry.take(5));
        drop(registry.take(5));
        settle().await;
        assert_eq!(*lock(&cleaned), [5]);
    }

    #[tokio::test]
    async fn the_task_ends_at_the_stop_signal_and_with_its_registry() {
        let tasks = Tasks::new(Handle::current());
        let (registry, cleaned) = registry(&tasks);
        drop(registry.take(1));
        tasks.stop();
        tasks.join().await;
        assert_eq!(*lock(&cleaned), [1]);
        drop(registry.take(2));
        assert_eq!(*lock(&cleaned), [1]);

        let tasks = Tasks::new(Handle::current());
        let (registry, cleaned) = tests::registry(&tasks);
        let last = registry.take(3);
        drop(registry);
        drop(last);
        tasks.join().await;
        assert_eq!(*lock(&cleaned), [3]);
    }

    /// Tokens come and go on several threads; no clean-up may run while a token is held.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_clean_up_runs_under_a_token() {
        const KEYS: u32 = 3;
        let tasks = Tasks::new(Handle::current());
        let held: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
        let (in_use, wrong) = (Arc::clone(&held), Arc::new(AtomicU64::new(0)));
        let (count, cleaned) = (Arc::clone(&wrong), Arc::new(AtomicU64::new(0)));
        let runs = Arc::clone(&cleaned);
        let registry = Registry::new("test-tokens", &tasks, move |key: &u32| {
            runs.fetch_add(1, Ordering::SeqCst);
            // Taken under the entry, so no holder can have counted itself in since the check.
            let users = in_use[*key as usize].load(Ordering::SeqCst);
            count.fetch_add(users, Ordering::SeqCst);
        });
        let mut threads = Vec::new();
        for seed in 0..4_u32 {
            let (registry, held) = (registry.clone(), Arc::clone(&held));
            threads.push(std::thread::spawn(move || {
                for round in 0..20_000_u32 {
                    let key = (seed + round / 7) % KEYS;
                    let token = registry.take(key);
                    held[key as usize].fetch_add(1, Ordering::SeqCst);
                    assert!(registry.count(&key) > 0);
                    held[key as usize].fetch_sub(1, Ordering::SeqCst);
                    drop(token);
                    if round % 256 == 0 {
                        std::thread::yield_now();
                    }
                }
            }));
        }
        drop(registry);
        tasks.join().await;
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(wrong.load(Ordering::SeqCst), 0);
        assert!(cleaned.load(Ordering::SeqCst) >= u64::from(KEYS));
        assert_eq!(tasks.poisoned(), None);
    }
}
