//! Tokens that come and go: in time, in every order of short programs, and on many threads.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use tokio::runtime::Handle;

type Cleaned = Arc<Mutex<Vec<u32>>>;

fn registry(tasks: &Tasks) -> (TokenRegistry<u32>, Cleaned) {
    let cleaned = Cleaned::default();
    let list = Arc::clone(&cleaned);
    let registry = TokenRegistry::new("test-tokens", tasks, move |key: &u32| {
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
    let registry = TokenRegistry::new("test-tokens", &tasks, move |key: &u32| {
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

/// A key whose clone in the middle of a last drop, when the count is zero and the key not yet listed, lets others take a step.
#[derive(PartialEq, Eq, Hash)]
struct Key;

thread_local! {
    static MEANWHILE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

impl Clone for Key {
    fn clone(&self) -> Self {
        if let Some(step) = MEANWHILE.with(RefCell::take) {
            step();
        }
        Self
    }
}

/// A registry whose list is worked off by hand, and what ought to be true of it.
struct Bench {
    registry: TokenRegistry<Key>,
    list: mpsc::UnboundedReceiver<Key>,
    tokens: Vec<Token<Key>>,
    /// Taken since the last clean-up.
    used: bool,
}

impl Bench {
    fn new() -> Rc<RefCell<Self>> {
        let (unused, list) = mpsc::unbounded_channel();
        Rc::new(RefCell::new(Self {
            registry: TokenRegistry {
                counts: Arc::default(),
                unused,
            },
            list,
            tokens: Vec::new(),
            used: false,
        }))
    }

    fn take(&mut self) {
        let token = self.registry.take(Key);
        self.tokens.push(token);
        self.used = true;
        assert_eq!(self.registry.count(&Key), self.tokens.len());
    }

    /// The task works off one key.
    fn work(&mut self) {
        let Ok(key) = self.list.try_recv() else {
            return;
        };
        let cleaned = Cell::new(false);
        clean_up_unused(&self.registry.counts, key, &|_| cleaned.set(true));
        if cleaned.get() {
            assert!(self.tokens.is_empty(), "cleaned up under a token");
            assert!(self.used, "cleaned up twice");
            self.used = false;
        }
    }

    /// Drops the oldest token; if it is the last, `meanwhile` happens in the middle.
    fn drop_one(bench: &Rc<RefCell<Self>>, meanwhile: &'static [Step]) {
        let mut inner = bench.borrow_mut();
        if inner.tokens.is_empty() {
            return;
        }
        let token = inner.tokens.remove(0);
        drop(inner);
        let others = Rc::clone(bench);
        let steps = move || meanwhile.iter().for_each(|step| step.run(&others));
        MEANWHILE.set(Some(Box::new(steps)));
        drop(token);
        // Not run if it was not the last.
        drop(MEANWHILE.take());
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take,
    Work,
    Drop(&'static [Self]),
}

impl Step {
    fn run(self, bench: &Rc<RefCell<Bench>>) {
        match self {
            Self::Take => bench.borrow_mut().take(),
            Self::Work => bench.borrow_mut().work(),
            Self::Drop(meanwhile) => Bench::drop_one(bench, meanwhile),
        }
    }
}

/// Register, drop, register, drop and the clean-up between, before and in the middle of them: all programs of six steps.
#[test]
fn every_order_of_taking_dropping_and_cleaning_up_is_right() {
    use Step::{Drop, Take, Work};
    const STEPS: [Step; 7] = [
        Take,
        Work,
        Drop(&[]),
        Drop(&[Take]),
        Drop(&[Work]),
        Drop(&[Take, Drop(&[]), Work]),
        Drop(&[Work, Take, Drop(&[Work, Take])]),
    ];
    const LEN: u32 = 6;
    let mut cleaned = 0;
    for program in 0..STEPS.len().pow(LEN) {
        let bench = Bench::new();
        for place in 0..LEN {
            let step = STEPS[program / STEPS.len().pow(place) % STEPS.len()];
            let before = bench.borrow().used;
            step.run(&bench);
            cleaned += u32::from(before && !bench.borrow().used);
        }
        while !bench.borrow().tokens.is_empty() {
            Bench::drop_one(&bench, &[]);
        }
        while !bench.borrow().list.is_empty() {
            bench.borrow_mut().work();
        }
        let bench = bench.borrow();
        assert!(!bench.used, "program {program}: not cleaned up at the end");
        assert!(bench.registry.counts.is_empty(), "program {program}");
    }
    assert!(cleaned > 1000, "the programs clean up in the middle too");
}
