use super::*;
use crate::sync::{Arc, AtomicU64, Mutex, lock};
use tokio::task::JoinSet;

/// An engine that counts its flushes; each takes 20 ms and covers what was committed when it began.
#[derive(Default)]
struct Engine {
    committed: AtomicU64,
    durable: AtomicU64,
    flushes: AtomicU64,
    refusal: Mutex<Option<MetaError>>,
}

impl Engine {
    fn commit(&self) -> Commit {
        Commit(self.committed.fetch_add(1, Ordering::SeqCst) + 1)
    }

    async fn flush(&self) -> Result<(), MetaError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        let covers = self.committed.load(Ordering::SeqCst);
        let refusal = lock(&self.refusal).clone();
        tokio::time::sleep(Duration::from_millis(20)).await;
        match refusal {
            Some(error) => Err(error),
            None => {
                self.durable.fetch_max(covers, Ordering::SeqCst);
                Ok(())
            }
        }
    }

    fn refuse(&self, error: Option<MetaError>) {
        *lock(&self.refusal) = error;
    }
}

fn coordinator() -> (Arc<Engine>, Arc<FlushCoordinator>) {
    let engine = Arc::new(Engine::default());
    let (reached, flushed) = (Arc::clone(&engine), Arc::clone(&engine));
    let coordinator = FlushCoordinator::new(
        Box::new(move || Commit(reached.durable.load(Ordering::SeqCst))),
        Box::new(move || {
            let engine = Arc::clone(&flushed);
            Box::pin(async move { engine.flush().await })
        }),
    );
    (engine, Arc::new(coordinator))
}

#[tokio::test(start_paused = true)]
async fn a_lone_caller_does_not_gather() {
    let (engine, coordinator) = coordinator();
    let begin = Instant::now();
    coordinator.durable(engine.commit()).await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_millis(20));
    assert_eq!(engine.flushes.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn callers_at_the_same_time_share_one_flush() {
    let (engine, coordinator) = coordinator();
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let (engine, coordinator) = (Arc::clone(&engine), Arc::clone(&coordinator));
        callers.spawn(async move { coordinator.durable(engine.commit()).await });
    }
    let begin = Instant::now();
    for outcome in callers.join_all().await {
        outcome.unwrap();
    }
    // The first came alone and had its own; everyone else came while that one ran.
    assert!(engine.flushes.load(Ordering::SeqCst) <= 2);
    assert!(begin.elapsed() <= Duration::from_millis(45));
}

#[tokio::test(start_paused = true)]
async fn a_commit_during_a_flush_waits_for_the_next_one() {
    let (engine, coordinator) = coordinator();
    let first = engine.commit();
    let mut early = JoinSet::new();
    let theirs = Arc::clone(&coordinator);
    early.spawn(async move { theirs.durable(first).await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let second = engine.commit();
    coordinator.durable(second).await.unwrap();
    early.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(engine.flushes.load(Ordering::SeqCst), 2);
    assert_eq!(engine.durable.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_durable_already_costs_nothing() {
    let (engine, coordinator) = coordinator();
    let commit = engine.commit();
    engine.flush().await.unwrap();
    coordinator.durable(commit).await.unwrap();
    assert_eq!(engine.flushes.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_reaches_every_caller_once_and_is_not_kept() {
    let (engine, coordinator) = coordinator();
    let refusal = MetaError::Unavailable("planted".to_owned());
    engine.refuse(Some(refusal.clone()));
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (engine, coordinator) = (Arc::clone(&engine), Arc::clone(&coordinator));
        callers.spawn(async move { coordinator.durable(engine.commit()).await });
    }
    let begin = Instant::now();
    for outcome in callers.join_all().await {
        assert_eq!(outcome.unwrap_err(), refusal);
    }
    assert!(engine.flushes.load(Ordering::SeqCst) <= 2);
    assert!(begin.elapsed() < Duration::from_millis(50));
    engine.refuse(None);
    coordinator.durable(Commit(8)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_caller_passes_the_turn_on() {
    let (engine, coordinator) = coordinator();
    let commit = engine.commit();
    let given_up =
        tokio::time::timeout(Duration::from_millis(5), coordinator.durable(commit)).await;
    assert!(given_up.is_err());
    coordinator.durable(commit).await.unwrap();
    assert_eq!(engine.flushes.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_flush_without_effect_is_not_success() {
    let coordinator = FlushCoordinator::new(
        Box::new(Commit::default),
        Box::new(|| Box::pin(async { Ok(()) })),
    );
    let outcome = coordinator.durable(Commit(1)).await;
    assert!(matches!(outcome, Err(MetaError::Unavailable(_))));
}

/// Callers that each commit, wait until that is durable, and begin again after a moment of their own.
async fn come_back(engine: &Arc<Engine>, coordinator: &Arc<FlushCoordinator>, pauses: &[u64]) {
    let mut callers = JoinSet::new();
    for pause in pauses {
        let (engine, coordinator) = (Arc::clone(engine), Arc::clone(coordinator));
        let pause = Duration::from_millis(*pause);
        callers.spawn(async move {
            for _ in 0..100 {
                tokio::time::sleep(pause).await;
                coordinator.durable(engine.commit()).await.unwrap();
            }
        });
    }
    callers.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_back_soon_share_each_flush() {
    let (engine, coordinator) = coordinator();
    let pauses = [1, 2, 3, 4, 5, 6, 7, 8];
    let begin = Instant::now();
    come_back(&engine, &coordinator, &pauses).await;
    let flushes = engine.flushes.load(Ordering::SeqCst);
    assert!(flushes <= 110, "{flushes} flushes for a hundred of each");
    let took = begin.elapsed();
    assert!(took <= Duration::from_millis(3200), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn callers_that_do_not_come_back_are_waited_for_seldom() {
    let (engine, coordinator) = coordinator();
    let begin = Instant::now();
    for _ in 0..100 {
        let (first, second) = (engine.commit(), async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            coordinator.durable(engine.commit()).await
        });
        // The second has a flush of its own, for which the first does not come again.
        let (first, second) = tokio::join!(coordinator.durable(first), second);
        first.and(second).unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let waited = begin.elapsed() - 100 * Duration::from_millis(20 + 20 + 60);
    assert!(waited <= Duration::from_millis(100), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_turn_leaves_nothing_to_wait_for() {
    let (engine, coordinator) = coordinator();
    *coordinator.turn.lock().await = Gathering {
        expected: 3,
        patience: Duration::from_millis(10),
        ..Gathering::default()
    };
    let flushing = coordinator.durable(engine.commit());
    let given_up = tokio::time::timeout(Duration::from_millis(25), flushing).await;
    assert!(
        given_up.is_err(),
        "it waits 10 ms for two others, and 20 ms for its flush"
    );
    let begin = Instant::now();
    coordinator.durable(engine.commit()).await.unwrap();
    assert!(
        begin.elapsed() <= Duration::from_millis(21),
        "{:?}",
        begin.elapsed()
    );
}
