use super::*;
use crate::task::Tasks;
use futures::FutureExt;
use std::sync::atomic::AtomicBool;

const LANE: Lane = Lane::Segments;

fn refused() -> BackendError {
    BackendError::Unavailable {
        place: "s3://b/k".to_owned(),
        reason: "503".to_owned(),
    }
}

/// A store's store question: it answers or not, and counts how often it was asked.
#[derive(Debug, Default)]
struct FakeStore {
    answers: AtomicBool,
    asked: AtomicU64,
}

impl FakeStore {
    async fn health_check(&self) -> Result<(), BackendError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.answers.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(refused()),
        }
    }
}

async fn acquire(breaker: &Arc<CircuitBreaker>, lane: Lane, store: &FakeStore) -> RequestPermit {
    breaker.acquire(lane, |_| store.health_check()).await
}

/// Seconds since `start`, rounded.
fn seconds(start: Instant) -> u64 {
    (start.elapsed() + Duration::from_millis(100)).as_secs()
}

#[tokio::test(start_paused = true)]
async fn tries_come_one_at_a_time_and_ever_less_often() {
    let (breaker, store) = (Arc::<CircuitBreaker>::default(), FakeStore::default());
    acquire(&breaker, LANE, &store).await.failed(&refused(), 8);
    let (start, mut tries) = (Instant::now(), Vec::new());
    for _ in 0..7 {
        let next = acquire(&breaker, LANE, &store).await;
        assert_eq!(next.mode, RequestMode::Trial);
        tries.push(seconds(start));
        // While one is out to try, no other is.
        assert!(acquire(&breaker, LANE, &store).now_or_never().is_none());
        next.failed(&refused(), 8);
    }
    assert_eq!(tries, [1, 3, 7, 15, 31, 61, 91]);
    let asked = store.asked.load(Ordering::SeqCst);
    assert!((80..=100).contains(&asked), "{asked} health checks in 91 s");
    let failure = &breaker.lane_failures()[0];
    assert_eq!((failure.lane, failure.tries), (LANE, 8));
}

#[tokio::test(start_paused = true)]
async fn an_answer_lets_everything_go_at_once() {
    let (breaker, store) = (
        Arc::<CircuitBreaker>::default(),
        Arc::<FakeStore>::default(),
    );
    acquire(&breaker, LANE, &store).await.failed(&refused(), 8);
    acquire(&breaker, Lane::Log, &store)
        .await
        .failed(&refused(), 8);
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let start = Instant::now();
    let wait = |lane| {
        let (breaker, store) = (Arc::clone(&breaker), Arc::clone(&store));
        async move {
            loop {
                let permit = acquire(&breaker, lane, &store).await;
                match store.answers.load(Ordering::SeqCst) {
                    false => permit.failed(&refused(), 8),
                    true => break permit.succeeded(),
                }
            }
            start.elapsed()
        }
    };
    let waiting: Vec<_> = [LANE, LANE, LANE, Lane::Log, Lane::Log]
        .into_iter()
        .map(|lane| tasks.spawn("waits", wait(lane)))
        .collect();
    tokio::time::sleep(Duration::from_secs(100)).await;
    store.answers.store(true, Ordering::SeqCst);
    for waited in waiting {
        let waited = waited.await.unwrap();
        let late = waited.saturating_sub(Duration::from_secs(100));
        assert!(late <= Duration::from_secs(1), "{waited:?}");
    }
    assert!(breaker.lane_failures().is_empty());
    assert_eq!(
        acquire(&breaker, LANE, &store).await.mode,
        RequestMode::Normal
    );
}

#[tokio::test(start_paused = true)]
async fn small_answers_open_reads_and_not_a_lane_whose_large_requests_fail() {
    let (breaker, store) = (Arc::<CircuitBreaker>::default(), FakeStore::default());
    store.answers.store(true, Ordering::SeqCst);
    acquire(&breaker, LANE, &store).await.failed(&refused(), 8);
    let (start, mut tries) = (Instant::now(), Vec::new());
    for _ in 0..5 {
        let next = acquire(&breaker, LANE, &store).await;
        tries.push(seconds(start));
        next.failed(&refused(), 8);
    }
    assert_eq!(tries, [1, 3, 7, 15, 31]);
    let reads = Lane::IndexReads;
    acquire(&breaker, reads, &store).await.failed(&refused(), 0);
    let start = Instant::now();
    acquire(&breaker, reads, &store).await.succeeded();
    assert!(start.elapsed() <= HEALTH_CHECK_PAUSE_PASSED);
}

#[tokio::test(start_paused = true)]
async fn one_bad_request_among_good_ones_holds_nothing_back() {
    let (breaker, store) = (Arc::<CircuitBreaker>::default(), FakeStore::default());
    let bad = acquire(&breaker, LANE, &store).await;
    tokio::time::advance(Duration::from_millis(1)).await;
    acquire(&breaker, LANE, &store).await.succeeded();
    bad.failed(&refused(), 8);
    assert!(breaker.lane_failures().is_empty());
    assert_eq!(breaker.failed_requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_try_that_is_given_up_is_the_next_ones() {
    let (breaker, store) = (Arc::<CircuitBreaker>::default(), FakeStore::default());
    acquire(&breaker, LANE, &store).await.failed(&refused(), 8);
    drop(acquire(&breaker, LANE, &store).await);
    let start = Instant::now();
    assert_eq!(
        acquire(&breaker, LANE, &store).await.mode,
        RequestMode::Trial
    );
    assert_eq!(seconds(start), 1);
}
