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

/// A store's small question: it answers or not, and counts how often it was asked.
#[derive(Debug, Default)]
struct Small {
    answers: AtomicBool,
    asked: AtomicU64,
}

impl Small {
    async fn look(&self) -> Result<(), BackendError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.answers.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(refused()),
        }
    }
}

async fn turn(circuit: &Arc<Circuit>, lane: Lane, small: &Small) -> Turn {
    circuit.turn(lane, |_| small.look()).await
}

/// Seconds since `start`, rounded.
fn seconds(start: Instant) -> u64 {
    (start.elapsed() + Duration::from_millis(100)).as_secs()
}

#[tokio::test(start_paused = true)]
async fn tries_come_one_at_a_time_and_ever_less_often() {
    let (circuit, small) = (Arc::<Circuit>::default(), Small::default());
    turn(&circuit, LANE, &small).await.failed(&refused(), 8);
    let (start, mut tries) = (Instant::now(), Vec::new());
    for _ in 0..7 {
        let turn = turn(&circuit, LANE, &small).await;
        assert_eq!(turn.way, Way::Try);
        tries.push(seconds(start));
        // While one is out to try, no other is.
        assert!(self::turn(&circuit, LANE, &small).now_or_never().is_none());
        turn.failed(&refused(), 8);
    }
    assert_eq!(tries, [1, 3, 7, 15, 31, 61, 91]);
    let asked = small.asked.load(Ordering::SeqCst);
    assert!((80..=100).contains(&asked), "{asked} looks in 91 s");
    let trouble = &circuit.troubles()[0];
    assert_eq!((trouble.lane, trouble.tries), (LANE, 8));
}

#[tokio::test(start_paused = true)]
async fn an_answer_lets_everything_go_at_once() {
    let (circuit, small) = (Arc::<Circuit>::default(), Arc::<Small>::default());
    turn(&circuit, LANE, &small).await.failed(&refused(), 8);
    turn(&circuit, Lane::Log, &small)
        .await
        .failed(&refused(), 8);
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let start = Instant::now();
    let wait = |lane| {
        let (circuit, small) = (Arc::clone(&circuit), Arc::clone(&small));
        async move {
            loop {
                let turn = turn(&circuit, lane, &small).await;
                match small.answers.load(Ordering::SeqCst) {
                    false => turn.failed(&refused(), 8),
                    true => break turn.answered(),
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
    small.answers.store(true, Ordering::SeqCst);
    for waited in waiting {
        let waited = waited.await.unwrap();
        let late = waited.saturating_sub(Duration::from_secs(100));
        assert!(late <= Duration::from_secs(1), "{waited:?}");
    }
    assert!(circuit.troubles().is_empty());
    assert_eq!(turn(&circuit, LANE, &small).await.way, Way::Open);
}

#[tokio::test(start_paused = true)]
async fn small_answers_open_reads_and_not_a_lane_whose_large_requests_fail() {
    let (circuit, small) = (Arc::<Circuit>::default(), Small::default());
    small.answers.store(true, Ordering::SeqCst);
    turn(&circuit, LANE, &small).await.failed(&refused(), 8);
    let (start, mut tries) = (Instant::now(), Vec::new());
    for _ in 0..5 {
        let turn = turn(&circuit, LANE, &small).await;
        tries.push(seconds(start));
        turn.failed(&refused(), 8);
    }
    assert_eq!(tries, [1, 3, 7, 15, 31]);
    let reads = Lane::IndexReads;
    turn(&circuit, reads, &small).await.failed(&refused(), 0);
    let start = Instant::now();
    turn(&circuit, reads, &small).await.answered();
    assert!(start.elapsed() <= LOOK_ANSWERED);
}

#[tokio::test(start_paused = true)]
async fn one_bad_request_among_good_ones_holds_nothing_back() {
    let (circuit, small) = (Arc::<Circuit>::default(), Small::default());
    let bad = turn(&circuit, LANE, &small).await;
    tokio::time::advance(Duration::from_millis(1)).await;
    turn(&circuit, LANE, &small).await.answered();
    bad.failed(&refused(), 8);
    assert!(circuit.troubles().is_empty());
    assert_eq!(circuit.setbacks(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_try_that_is_given_up_is_the_next_ones() {
    let (circuit, small) = (Arc::<Circuit>::default(), Small::default());
    turn(&circuit, LANE, &small).await.failed(&refused(), 8);
    drop(turn(&circuit, LANE, &small).await);
    let start = Instant::now();
    assert_eq!(turn(&circuit, LANE, &small).await.way, Way::Try);
    assert_eq!(seconds(start), 1);
}
