use crate::backend::{Backend, BackendConfig};
use crate::env::{Env, SeededEnv};
use crate::store::lease::Lease;
use crate::store::lease::acquire::Waited;
use crate::store::lease::request::LeaseRequest;
use crate::store::lease::status::LeaseStanding;
use crate::store::model::error::StoreError;
use crate::store::model::takeover::{LeaseTimes, Takeover, WaitProgress, dead_after};
use crate::store::schema::writer_object::{KEY, WriterObject, WriterPhase};
use crate::sync::Arc;
use crate::task::Tasks;
use std::time::Duration;
use tokio::time::Instant;

/// A machine: a cache directory, a clock, and the tasks of one process.
struct TestHost {
    name: &'static str,
    backend: Backend,
    dir: tempfile::TempDir,
    env: Arc<SeededEnv>,
    tasks: Tasks,
}

impl TestHost {
    fn new(name: &'static str, backend: &Backend, seed: u64) -> Self {
        Self {
            name,
            backend: backend.clone(),
            dir: tempfile::tempdir().unwrap(),
            env: Arc::new(SeededEnv::new(seed)),
            tasks: Tasks::new(tokio::runtime::Handle::current()),
        }
    }

    async fn acquire(&self, takeover: &Takeover) -> Result<(Arc<Lease>, Waited), StoreError> {
        let env: Arc<dyn Env> = Arc::clone(&self.env) as Arc<dyn Env>;
        Lease::acquire(LeaseRequest {
            backend: &self.backend,
            dir: self.dir.path(),
            host: self.name,
            env: &env,
            takeover,
            times: LeaseTimes::default(),
        })
        .await
    }

    /// Takes the namespace as its writer of `epoch`, and sends heartbeats.
    async fn write(&self, takeover: &Takeover, epoch: u64) -> Arc<Lease> {
        let (lease, _) = self.acquire(takeover).await.unwrap();
        lease.start(&self.tasks);
        lease.opened(epoch).unwrap();
        // The heartbeat with the epoch.
        tokio::time::sleep(Duration::from_millis(100)).await;
        lease
    }

    /// Ends the process as kill -9 does.
    async fn kill(&mut self) {
        self.tasks.stop();
        self.tasks.join().await;
        self.tasks = Tasks::new(tokio::runtime::Handle::current());
    }
}

fn wait() -> Takeover {
    Takeover::Wait(WaitProgress::default())
}

fn memory(name: &str) -> Backend {
    Backend::open(&format!("memory://lease-{name}"), &BackendConfig::default()).unwrap()
}

async fn object(backend: &Backend) -> WriterObject {
    WriterObject::decode(&backend.get(KEY).await.unwrap()).unwrap()
}

/// The silence after which a writer is dead that no process waits for.
fn dead() -> Duration {
    dead_after(LeaseTimes::default().alone.lease)
}

#[tokio::test(start_paused = true)]
async fn a_free_namespace_is_taken_at_once() {
    let backend = memory("free");
    let (one, two) = (
        TestHost::new("one", &backend, 1),
        TestHost::new("two", &backend, 2),
    );
    let lease = one.write(&Takeover::Never, 3).await;
    assert!(lease.is_held());
    let now = object(&backend).await;
    assert_eq!(
        (now.host.as_str(), now.epoch, now.phase),
        ("one", 3, WriterPhase::Writing)
    );
    lease.end().await;
    assert!(!lease.is_held());
    assert_eq!(object(&backend).await.phase, WriterPhase::Ended);
    let (lease, waited) = two.acquire(&wait()).await.unwrap();
    assert_eq!(waited, Waited::AtOnce);
    assert!(lease.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_was_killed_is_followed_at_once_with_its_own_cache_directory() {
    let backend = memory("own");
    let mut one = TestHost::new("one", &backend, 1);
    for epoch in 1..4 {
        let lease = one.write(&Takeover::Never, epoch).await;
        assert!(lease.is_held());
        one.kill().await;
    }
    // Killed while it opened the namespace: the object has the epoch of the opening before.
    let (_opening, waited) = one.acquire(&Takeover::Never).await.unwrap();
    assert_eq!(waited, Waited::AtOnce);
    one.write(&Takeover::Never, 5).await;
    // A copy of the directory that has missed two openings since is another writer's.
    let old = std::fs::read(one.dir.path().join("writer")).unwrap();
    for epoch in 6..8 {
        one.kill().await;
        one.write(&Takeover::Never, epoch).await;
    }
    one.kill().await;
    std::fs::write(one.dir.path().join("writer"), old).unwrap();
    let refused = one.acquire(&Takeover::Never).await.unwrap_err();
    assert!(matches!(refused, StoreError::Busy(_)), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_of_a_living_writer_is_refused_or_taken_as_asked() {
    let backend = memory("asked");
    let (one, two) = (
        TestHost::new("one", &backend, 1),
        TestHost::new("two", &backend, 2),
    );
    let first = one.write(&wait(), 1).await;
    let refused = two.acquire(&Takeover::Never).await.unwrap_err().to_string();
    assert!(
        refused.contains("writer on one") && refused.contains("--takeover now"),
        "{refused}"
    );
    assert!(first.is_held());
    let (second, waited) = two.acquire(&Takeover::Now).await.unwrap();
    assert_eq!(waited, Waited::AtOnce);
    assert!(second.is_held());
    let mut status = first.status();
    let lost = status.wait_for(|status| status.standing != LeaseStanding::Held);
    let lost = tokio::time::timeout(Duration::from_secs(31), lost)
        .await
        .unwrap()
        .unwrap()
        .clone();
    assert_eq!(lost.standing, LeaseStanding::Lost(Some("two".to_owned())));
    assert!(!first.is_held());
    // The one that has lost writes nothing any more.
    first.end().await;
    assert_eq!(object(&backend).await.host, "two");
}

#[tokio::test(start_paused = true)]
async fn a_dead_writer_is_followed_after_the_time_of_its_lease() {
    let backend = memory("dead");
    let (mut one, two) = (
        TestHost::new("one", &backend, 1),
        TestHost::new("two", &backend, 2),
    );
    one.write(&wait(), 1).await;
    one.kill().await;
    let began = Instant::now();
    let (lease, waited) = two.acquire(&wait()).await.unwrap();
    assert!(lease.is_held());
    assert_eq!(waited, Waited::ForAnother);
    let took = began.elapsed();
    assert!(
        (dead()..dead() + Duration::from_secs(4)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_process_never_takes_a_living_writers_namespace_and_is_seen_by_it() {
    let backend = memory("living");
    let (mut one, two) = (
        TestHost::new("one", &backend, 1),
        TestHost::new("two", &backend, 2),
    );
    let first = one.write(&wait(), 1).await;
    let waiting = wait();
    let mut second = std::pin::pin!(two.acquire(&waiting));
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, second.as_mut()).await.is_err());
    assert!(first.is_held());
    let status = first.status().borrow().clone();
    assert_eq!(
        (status.watched_by.as_deref(), status.lapses),
        (Some("two"), 0)
    );
    let Takeover::Wait(progress) = &waiting else {
        unreachable!()
    };
    let awaited = progress.borrow().clone().unwrap();
    assert_eq!(
        (awaited.host.as_deref(), awaited.dead_after),
        (Some("one"), Duration::from_secs(6))
    );
    assert!(awaited.silence < Duration::from_secs(4), "{awaited:?}");
    // While it is watched, its death is seen within seconds.
    one.kill().await;
    let killed = Instant::now();
    let (lease, _) = second.await.unwrap();
    assert!(lease.is_held());
    assert!(
        killed.elapsed() < Duration::from_secs(9),
        "{:?}",
        killed.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_writer_is_alone_again_when_the_waiting_process_is_gone() {
    let backend = memory("alone");
    let (one, two) = (
        TestHost::new("one", &backend, 1),
        TestHost::new("two", &backend, 2),
    );
    let first = one.write(&wait(), 1).await;
    let waited = tokio::time::timeout(Duration::from_secs(100), two.acquire(&wait())).await;
    assert!(waited.is_err());
    assert!(first.status().borrow().watched_by.is_some());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(first.status().borrow().watched_by, None);
    let before = object(&backend).await;
    assert_eq!(before.waiter, None);
    let minutes = 10;
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    let beats = object(&backend).await.beat - before.beat;
    assert!(
        (2 * minutes - 1..=2 * minutes + 1).contains(&beats),
        "{beats}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unmount_lets_the_waiting_process_in_at_once() {
    let backend = memory("unmount");
    let (one, two) = (
        TestHost::new("one", &backend, 1),
        TestHost::new("two", &backend, 2),
    );
    let first = one.write(&wait(), 1).await;
    let waiting = wait();
    let mut second = std::pin::pin!(two.acquire(&waiting));
    assert!(
        tokio::time::timeout(Duration::from_secs(5), second.as_mut())
            .await
            .is_err()
    );
    first.end().await;
    let ended = Instant::now();
    assert!(second.await.unwrap().0.is_held());
    assert!(
        ended.elapsed() < Duration::from_secs(3),
        "{:?}",
        ended.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_while_the_machine_sleeps_and_is_renewed_when_it_wakes() {
    let backend = memory("sleep");
    let one = TestHost::new("one", &backend, 1);
    let lease = one.write(&wait(), 1).await;
    one.env.sleep(Duration::from_secs(3600));
    assert!(!lease.is_held());
    assert_eq!(lease.remaining(), Duration::ZERO);
    // A call that waits for the renewal asks for it: the clock of pauses stood still meanwhile.
    let began = Instant::now();
    lease.renewed().await;
    assert!(lease.is_held());
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(lease.status().borrow().lapses, 1);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_slept_through_a_takeover_answers_nothing() {
    let backend = memory("slept");
    let (one, two) = (
        TestHost::new("one", &backend, 1),
        TestHost::new("two", &backend, 2),
    );
    let first = one.write(&wait(), 1).await;
    let _second = two.write(&Takeover::Now, 2).await;
    one.env.sleep(Duration::from_secs(60));
    assert!(!first.is_held());
    first.renewed().await;
    assert!(!first.is_held());
    assert_eq!(
        first.status().borrow().standing,
        LeaseStanding::Lost(Some("two".to_owned()))
    );
    assert_eq!(object(&backend).await.host, "two");
}

/// A bucket on the local disk that can be away.
struct LocalBucket {
    root: tempfile::TempDir,
    backend: Backend,
}

impl LocalBucket {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("bucket")).unwrap();
        let url = format!("file://{}/bucket", root.path().display());
        let backend = Backend::open(&url, &BackendConfig::default()).unwrap();
        Self { root, backend }
    }

    fn rename(&self, from: &str, to: &str) {
        let path = |name| self.root.path().join(name);
        std::fs::rename(path(from), path(to)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_without_a_waiting_process_goes_on_in_an_outage() {
    let bucket = LocalBucket::new();
    let one = TestHost::new("one", &bucket.backend, 1);
    let lease = one.write(&wait(), 1).await;
    bucket.rename("bucket", "away");
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(lease.is_held());
    }
    // A pause of the process in the outage ends the lease: another writer may have been faster.
    one.env.sleep(Duration::from_secs(30));
    lease.renewed().await;
    assert!(!lease.is_held());
    bucket.rename("away", "bucket");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(lease.is_held());
    assert_eq!(lease.status().borrow().lapses, 1);
}

#[tokio::test(start_paused = true)]
async fn a_watched_writer_stops_answering_in_an_outage_and_is_not_taken_for_dead() {
    let bucket = LocalBucket::new();
    let (one, two) = (
        TestHost::new("one", &bucket.backend, 1),
        TestHost::new("two", &bucket.backend, 2),
    );
    let first = one.write(&wait(), 1).await;
    let waiting = wait();
    let mut second = std::pin::pin!(two.acquire(&waiting));
    assert!(
        tokio::time::timeout(Duration::from_secs(60), second.as_mut())
            .await
            .is_err()
    );
    assert!(first.is_held());
    bucket.rename("bucket", "away");
    // Neither reaches the bucket: the writer does not answer, and its silence proves nothing.
    assert!(
        tokio::time::timeout(Duration::from_secs(120), second.as_mut())
            .await
            .is_err()
    );
    assert!(!first.is_held());
    let Takeover::Wait(progress) = &waiting else {
        unreachable!()
    };
    assert!(progress.borrow().clone().unwrap().failure.is_some());
    bucket.rename("away", "bucket");
    assert!(
        tokio::time::timeout(Duration::from_secs(60), second.as_mut())
            .await
            .is_err()
    );
    assert!(first.is_held());
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_is_waited_for_and_then_replaced() {
    let backend = memory("unreadable");
    backend.put(KEY, "{}".into()).await.unwrap();
    let one = TestHost::new("one", &backend, 1);
    let refused = one.acquire(&Takeover::Never).await.unwrap_err();
    assert!(matches!(refused, StoreError::Busy(_)), "{refused}");
    let began = Instant::now();
    let lease = one.write(&wait(), 1).await;
    assert!(began.elapsed() >= dead(), "{:?}", began.elapsed());
    assert!(lease.is_held());
    // A writer whose object was damaged or deleted makes it again.
    backend.put(KEY, "garbage".into()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(object(&backend).await.host, "one");
    backend.delete(KEY).await.unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(object(&backend).await.host, "one");
    assert!(lease.is_held());
}

#[tokio::test(start_paused = true)]
async fn of_two_waiting_processes_one_takes_the_namespace() {
    let backend = memory("two-waiting");
    let mut one = TestHost::new("one", &backend, 1);
    let (two, three) = (
        TestHost::new("two", &backend, 2),
        TestHost::new("three", &backend, 3),
    );
    one.write(&wait(), 1).await;
    one.kill().await;
    let takers = async {
        let (second, third) = (wait(), wait());
        let mut second = Box::pin(two.write(&second, 2));
        let mut third = Box::pin(three.write(&third, 3));
        let watch = Duration::from_secs(600);
        tokio::select! {
            lease = second.as_mut() => (lease, tokio::time::timeout(watch, third).await.is_err()),
            lease = third.as_mut() => (lease, tokio::time::timeout(watch, second).await.is_err()),
        }
    };
    let (lease, other_waits) = takers.await;
    assert!(lease.is_held());
    assert!(other_waits);
}
