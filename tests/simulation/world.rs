//! One world: steps drawn from the seed, and what is compared after them.

use std::sync::Arc;
use std::time::Duration;

use rewindfs::env::Env;
use rewindfs::fs::{FsError, FsResult};
use rewindfs::store::{LeaseTimes, StoreError, Takeover, WaitProgress};
use rewindfs::task::run_blocking_inline;
use tokio::time::Instant;

use crate::bucket::{Bucket, Honesty, LinkState, Weather};
use crate::clock::{SimulatedEnv, Uptime};
use crate::host::{CALLER, CrashMode, Host, Instance, ROOT};
use crate::model::{FileState, InFlight, Loss, Model, Origin, bytes};
use crate::randomness::{Dice, seed_thread};
use crate::report::WorldReport;

/// Steps of a world.
const STEPS: u64 = 60;

/// Names in the root directory.
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// The longest time of a step in which nothing is broken.
pub(crate) const STEP_MAX: Duration = Duration::from_secs(1800);

/// A fault that the comparison must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Contents are committed whose segment was never stored.
    LostSegment,
    /// fsync returns without having waited.
    MissingFsync,
    /// A record of the journal is missing after a crash.
    LostJournalRecord,
    /// A writer answers whatever has become of its lease.
    EndlessLease,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct WorldConfig {
    pub(crate) seed: u64,
    pub(crate) crash: CrashMode,
    pub(crate) plant: Option<Plant>,
}

/// Runs a world in a thread of its own, whose randomness follows from the seed.
pub(crate) fn run_world(config: WorldConfig) -> WorldReport {
    let world = move || {
        seed_thread(config.seed);
        run_blocking_inline();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let report = runtime.block_on(async { World::new(config).run().await });
        // Tasks of processes that crashed wait for ever.
        runtime.shutdown_background();
        report
    };
    let thread = std::thread::Builder::new()
        .name(format!("world-{}", config.seed))
        .spawn(world);
    match thread.expect("a thread").join() {
        Ok(report) => report,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            WorldReport {
                violations: vec![format!("a panic: {}", text.unwrap_or("no message"))],
                ..WorldReport::default()
            }
        }
    }
}

pub(crate) struct World {
    config: WorldConfig,
    pub(crate) dice: Dice,
    began: Instant,
    bucket: Arc<Bucket>,
    hosts: [Host; 2],
    /// The machine of the writer.
    at: usize,
    pub(crate) writer: Option<Instance>,
    pub(crate) model: Model,
    pub(crate) report: WorldReport,
}

/// A change of names and bytes.
#[derive(Debug, Clone)]
enum Change {
    Save {
        name: &'static str,
        id: u64,
        is_synced: bool,
    },
    Rename {
        from: &'static str,
        to: &'static str,
    },
    Unlink {
        name: &'static str,
    },
}

impl World {
    fn new(config: WorldConfig) -> Self {
        let began = Instant::now();
        let uptime = match config.plant {
            Some(Plant::EndlessLease) => Uptime::StandsStill,
            _ => Uptime::Runs,
        };
        let env = |number: u64, error: i64, uptime| -> Arc<dyn Env> {
            Arc::new(SimulatedEnv::new(
                began,
                error,
                uptime,
                config.seed * 1000 + number,
            ))
        };
        let honesty = match config.plant {
            Some(Plant::LostSegment) => Honesty::LosesSegments,
            _ => Honesty::Honest,
        };
        Self {
            config,
            dice: Dice::new(config.seed),
            began,
            bucket: Bucket::new(config.seed, honesty),
            // The second machine's clock is ten seconds ahead.
            hosts: [
                Host::new("one", env(1, 0, uptime)),
                Host::new("two", env(2, 10_000_000_000, Uptime::Runs)),
            ],
            at: 0,
            writer: None,
            model: Model::default(),
            report: WorldReport::default(),
        }
    }

    async fn run(mut self) -> WorldReport {
        self.open(Takeover::Now).await;
        if self.config.seed.is_multiple_of(2) {
            self.set_policy().await;
        }
        for _ in 0..STEPS {
            if !self.report.violations.is_empty() {
                break;
            }
            self.step().await;
        }
        if self.report.violations.is_empty() {
            self.end().await;
        }
        (self.report.digest, self.report.requests) = self.bucket.digest();
        self.report.virtual_time = self.began.elapsed();
        self.report
    }

    pub(crate) fn violation(&mut self, text: String) {
        let at = self.began.elapsed().as_secs();
        self.report.violations.push(format!("after {at} s: {text}"));
    }

    async fn step(&mut self) {
        match self.dice.below(100) {
            0..70 => self.change().await,
            70..78 => self.crash().await,
            78..82 => self.take_over().await,
            82..86 => self.drain().await,
            86..90 => self.wait().await,
            90..94 => self.follow().await,
            94..96 => self.compare_past().await,
            96 => self.label().await,
            97 => self.prune().await,
            98 => self.wait_long().await,
            _ => self.change_weather(),
        }
    }

    fn change_weather(&mut self) {
        let weather = match self.dice.below(4) {
            0 => Weather::default(),
            1 => Weather {
                delay: 200,
                ..Weather::default()
            },
            2 => Weather {
                delay: 60,
                fails_before: 30,
                fails_after: 0,
            },
            _ => Weather {
                delay: 60,
                fails_before: 20,
                fails_after: 20,
            },
        };
        self.bucket.set_weather(weather);
    }

    /// Waits until segments that nothing cites are deleted.
    async fn wait_long(&mut self) {
        let seconds = 3600 + self.dice.below(20_000);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    async fn wait(&mut self) {
        let seconds = 1 + self.dice.below(400);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Draws a change of what there is.
    fn draw(&mut self) -> Change {
        let name = |dice: &mut Dice| NAMES[dice.below(NAMES.len() as u64) as usize];
        let existing = self.model.existing();
        let known = |name: &str| existing.contains_key(name);
        let (one, two) = (name(&mut self.dice), name(&mut self.dice));
        match self.dice.below(10) {
            0 if known(one) => Change::Unlink { name: one },
            1 | 2 if known(one) && one != two => Change::Rename { from: one, to: two },
            _ => Change::Save {
                name: one,
                id: self.model.new_state(),
                is_synced: self.dice.in_thousand(300),
            },
        }
    }

    /// Makes a change and notes what the writer was told.
    async fn change(&mut self) {
        let change = self.draw();
        self.begin(&change);
        let Some(writer) = &self.writer else { return };
        let made = tokio::time::timeout(STEP_MAX, make(writer, &change, self.config.plant)).await;
        tracing::info!(?change, ?made, "changed");
        self.report.operations += 1;
        match made {
            Ok(Ok(())) => self.acknowledge(&change),
            // An fsync fails with the upload that it waits for; what was written stays.
            Ok(Err(FsError::Unavailable(_))) => {
                return self.compare(Loss::Nothing, Origin::Cache).await;
            }
            Ok(Err(error)) => return self.violation(format!("{change:?} failed: {error}")),
            Err(_) => return self.violation(format!("{change:?} did not end")),
        }
        let now = self.writer.as_ref().map(|writer| writer.namespace.now().0);
        if let Some(now) = now {
            self.model.remember(now);
        }
    }

    fn begin(&mut self, change: &Change) {
        match *change {
            Change::Save { name, id, .. } => {
                // A save begins with an empty file.
                self.model.begin(name, InFlight::PartOf(id));
            }
            Change::Rename { from, to } => {
                let moved = self.model.newest(from);
                self.model.begin(from, InFlight::State(FileState::Absent));
                self.model.begin(to, InFlight::State(moved));
            }
            Change::Unlink { name } => self.model.begin(name, InFlight::State(FileState::Absent)),
        }
    }

    fn acknowledge(&mut self, change: &Change) {
        match *change {
            Change::Save {
                name,
                id,
                is_synced,
            } => {
                self.model.acknowledge(name, FileState::Whole(id));
                if is_synced {
                    self.model.synced(name);
                }
            }
            Change::Rename { from, to } => {
                let moved = self.model.newest(from);
                self.model.acknowledge(from, FileState::Absent);
                self.model.acknowledge(to, moved);
            }
            Change::Unlink { name } => self.model.acknowledge(name, FileState::Absent),
        }
    }

    /// Ends the writer at a random moment of a change, and opens the namespace again.
    async fn crash(&mut self) {
        let change = self.draw();
        self.begin(&change);
        let moment = Duration::from_micros(self.dice.below(400_000));
        if let Some(writer) = &self.writer {
            let made = tokio::time::timeout(moment, make(writer, &change, self.config.plant)).await;
            tracing::info!(?change, ?made, "changed, and crashed");
            match made {
                Ok(Ok(())) => self.acknowledge(&change),
                Ok(Err(FsError::Unavailable(_))) | Err(_) => {}
                Ok(Err(error)) => return self.violation(format!("{change:?} failed: {error}")),
            }
        }
        self.report.crashes += 1;
        let writer = self.writer.take();
        self.hosts[self.at].crash(writer.as_ref(), self.config.crash, &mut self.dice);
        drop(writer);
        if self.config.plant == Some(Plant::LostJournalRecord) {
            self.hosts[self.at].forget_record();
        }
        let loss = match self.config.crash {
            CrashMode::Kept => Loss::Nothing,
            CrashMode::Cut | CrashMode::Wiped => Loss::Unsynced,
        };
        if loss == Loss::Unsynced {
            self.forget_moments();
        }
        // With its own cache directory a writer does not wait.
        let takeover = match self.config.crash {
            CrashMode::Kept | CrashMode::Cut => Takeover::Never,
            CrashMode::Wiped => Takeover::Wait(WaitProgress::default()),
        };
        let origin = match self.config.crash {
            CrashMode::Kept | CrashMode::Cut => Origin::Cache,
            CrashMode::Wiped => Origin::Bucket,
        };
        self.open(takeover).await;
        self.compare(loss, origin).await;
    }

    /// Lets the other machine take the namespace: after an unmount, or while the first one is cut off from the bucket.
    async fn take_over(&mut self) {
        self.report.takeovers += 1;
        tracing::info!("the other machine takes the namespace");
        let Some(first) = self.writer.take() else {
            return;
        };
        if self.dice.in_thousand(500) {
            match tokio::time::timeout(STEP_MAX, first.close()).await {
                Ok(Ok(())) => self.model.drained(),
                Ok(Err(error)) => return self.violation(format!("an unmount failed: {error}")),
                Err(_) => return self.violation("an unmount did not end".to_owned()),
            }
            self.at = 1 - self.at;
            self.open(Takeover::Wait(WaitProgress::default())).await;
            return self.compare(Loss::Nothing, Origin::Bucket).await;
        }
        self.bucket.set_weather(Weather::default());
        self.forget_moments();
        let (before, bucket) = (self.at, Arc::clone(&self.bucket));
        self.at = 1 - self.at;
        let takeover = Takeover::Wait(WaitProgress::default());
        let mut opening =
            Box::pin(self.hosts[self.at].open(&bucket, takeover, LeaseTimes::default()));
        // While the first one lives it learns that it is waited for.
        let early = tokio::time::timeout(Duration::from_secs(45), &mut opening).await;
        first.link.set(LinkState::Partitioned);
        let opened = if early.is_err() {
            tokio::time::timeout(STEP_MAX, opening).await
        } else {
            drop(opening);
            return self.violation("the namespace of a living writer was taken".to_owned());
        };
        match opened {
            Ok(Ok(instance)) => self.writer = Some(instance),
            Ok(Err(error)) => return self.violation(format!("a takeover failed: {error}")),
            Err(_) => return self.violation("a takeover did not end".to_owned()),
        }
        self.compare(Loss::Unsynced, Origin::Bucket).await;
        self.write_beside(&first).await;
        // The first one goes on as after a crash when it is mounted again; then its changes are conflicts.
        self.hosts[before].crash(Some(&first), CrashMode::Kept, &mut self.dice);
    }

    /// Changes a file while another process thinks that it is the writer; that one must not show the state before.
    async fn write_beside(&mut self, first: &Instance) {
        let id = self.model.new_state();
        let change = Change::Save {
            name: NAMES[0],
            id,
            is_synced: true,
        };
        self.begin(&change);
        let Some(writer) = &self.writer else { return };
        let made = tokio::time::timeout(STEP_MAX, make(writer, &change, None)).await;
        match made {
            Ok(Ok(())) => self.acknowledge(&change),
            other => return self.violation(format!("{change:?} after a takeover: {other:?}")),
        }
        let mut shown = Vec::new();
        for state in [LinkState::Partitioned, LinkState::Connected] {
            first.link.set(state);
            shown.push(tokio::time::timeout(STEP_MAX, first.read(NAMES[0])).await);
            tokio::time::sleep(Duration::from_secs(40)).await;
            shown.push(tokio::time::timeout(STEP_MAX, first.read(NAMES[0])).await);
        }
        for read in shown {
            if let Ok(Ok(found)) = read
                && found != bytes(id)
            {
                return self.violation(
                    "a writer without its lease shows a state from before the takeover".to_owned(),
                );
            }
        }
        let saved = tokio::time::timeout(STEP_MAX, first.save(NAMES[1], bytes(id), false)).await;
        if let Ok(Ok(())) = saved {
            self.violation("a writer without its lease acknowledged a change".to_owned());
        }
    }

    async fn drain(&mut self) {
        let Some(writer) = &self.writer else { return };
        match tokio::time::timeout(STEP_MAX, writer.namespace.drain()).await {
            Ok(Ok(())) => {
                tracing::info!("drained");
                self.model.drained();
            }
            Ok(Err(error)) => self.violation(format!("a drain failed: {error}")),
            Err(_) => self.violation("a drain did not end".to_owned()),
        }
    }

    /// Compares what a read-only mount on the other machine shows.
    async fn follow(&mut self) {
        // A namespace without a first batch cannot be followed.
        self.drain().await;
        self.report.followers += 1;
        let follower = match tokio::time::timeout(
            STEP_MAX,
            self.hosts[1 - self.at].follow(&self.bucket),
        )
        .await
        {
            Ok(Ok(follower)) => follower,
            // The bucket fails now and then, and nothing repeats the requests of an open.
            Ok(Err(StoreError::Unavailable(_) | StoreError::NotFound)) => return,
            Ok(Err(error)) => return self.violation(format!("a follower cannot open: {error}")),
            Err(_) => return self.violation("the open of a follower did not end".to_owned()),
        };
        match tokio::time::timeout(STEP_MAX, follower.files(&[])).await {
            Ok(Ok(found)) => {
                let violations = self.model.compare_known(&found).into_iter();
                violations.for_each(|text| self.violation(format!("a follower: {text}")));
            }
            Ok(Err(FsError::Unavailable(_))) => {}
            Ok(Err(error)) => self.violation(format!("a follower cannot read: {error}")),
            Err(_) => self.violation("a read of a follower did not end".to_owned()),
        }
        tokio::time::timeout(STEP_MAX, follower.close()).await.ok();
    }

    /// Opens the namespace on the writer's machine; repeats an open that the bucket fails.
    async fn open(&mut self, takeover: Takeover) {
        let mut last = String::new();
        for _ in 0..50 {
            let opened =
                self.hosts[self.at].open(&self.bucket, takeover.clone(), LeaseTimes::default());
            match tokio::time::timeout(STEP_MAX, opened).await {
                Ok(Ok(instance)) => {
                    self.writer = Some(instance);
                    return;
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = "it did not end".to_owned(),
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        self.violation(format!("the namespace cannot be opened: {last}"));
    }

    async fn compare(&mut self, loss: Loss, origin: Origin) {
        let Some(writer) = &self.writer else { return };
        let mut last = String::new();
        for _ in 0..20 {
            match tokio::time::timeout(STEP_MAX, writer.files(&[])).await {
                Ok(Ok(found)) => {
                    let shown = found
                        .iter()
                        .map(|(name, bytes)| (name, FileState::of(Some(bytes))));
                    let shown: Vec<String> = shown
                        .map(|(name, state)| format!("{name}: {state}"))
                        .collect();
                    tracing::info!(?shown, "compared");
                    let violations = self.model.compare(&found, loss, origin);
                    violations.into_iter().for_each(|text| self.violation(text));
                    return;
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = "it did not end".to_owned(),
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        self.violation(format!("the tree cannot be read after a crash: {last}"));
    }

    /// The last comparison: everything is in the bucket, and a machine that never saw the namespace reads it.
    async fn end(&mut self) {
        self.bucket.set_weather(Weather::default());
        let Some(writer) = self.writer.take() else {
            return;
        };
        match tokio::time::timeout(STEP_MAX, writer.close()).await {
            Ok(Ok(())) => self.model.drained(),
            Ok(Err(error)) => return self.violation(format!("the last unmount failed: {error}")),
            Err(_) => return self.violation("the last unmount did not end".to_owned()),
        }
        self.hosts[self.at].crash(None, CrashMode::Wiped, &mut self.dice);
        self.open(Takeover::Never).await;
        self.compare(Loss::Nothing, Origin::Bucket).await;
        for _ in 0..3 {
            self.compare_past().await;
        }
        self.compare_labels().await;
        if let Some(writer) = self.writer.take() {
            tokio::time::timeout(STEP_MAX, writer.close()).await.ok();
        }
    }
}

/// Makes a change through a writer.
async fn make(writer: &Instance, change: &Change, plant: Option<Plant>) -> FsResult<()> {
    match *change {
        Change::Save {
            name,
            id,
            is_synced,
        } => {
            let is_synced = is_synced && plant != Some(Plant::MissingFsync);
            writer.save(name, bytes(id), is_synced).await
        }
        Change::Rename { from, to } => {
            let (from, to) = (from.as_bytes(), to.as_bytes());
            writer.fs.rename(&CALLER, ROOT, from, ROOT, to, 0).await
        }
        Change::Unlink { name } => writer.fs.unlink(&CALLER, ROOT, name.as_bytes()).await,
    }
}
