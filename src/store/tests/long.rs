//! One file with thousands of saves, syncs, truncations and holes; each state is read at once and later as a version.

use std::collections::VecDeque;

use super::rng::{SeededRng, number};
use super::*;

const END: usize = 1 << 20;
const CALLS: usize = 4_000;

/// The file and its expected content.
struct One {
    ns: Namespace,
    file: Arc<File>,
    text: Vec<u8>,
    /// Flushed states whose handles are not released.
    waiting: VecDeque<PendingFlush>,
}

impl One {
    async fn new(ns: Namespace) -> Self {
        let made = ns.tree.create_open(ROOT, b"a", new_file(), &author()).await;
        Self {
            file: made.unwrap().1,
            ns,
            text: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Changes the bytes of `from..to`, or the length. Returns a description of the change.
    async fn change(
        &mut self,
        rng: &mut SeededRng,
        (from, to): (usize, usize),
        fill: u8,
    ) -> String {
        let (file, text, author) = (&self.file, &mut self.text, author());
        let (offset, len) = (from as u64, (to - from) as u64);
        match rng.below(11) {
            0..8 => {
                text.resize(text.len().max(to), 0);
                text[from..to].fill(fill);
                let bytes = vec![fill; to - from].into();
                file.write(offset, bytes, &author).await.unwrap();
                format!("write {from}..{to}")
            }
            8..10 => {
                text.resize(from, 0);
                file.truncate(offset, &author).await.unwrap();
                format!("truncate to {from}")
            }
            _ => {
                let end = text.len();
                text[from.min(end)..to.min(end)].fill(0);
                file.punch(offset, len, &author).await.unwrap();
                format!("punch {from}..{to}")
            }
        }
    }

    /// Advances the pipeline by a random step.
    async fn bring(&mut self, rng: &mut SeededRng) -> String {
        let rare = rng.below(20) == 0;
        match rng.below(8) {
            0..4 => {
                self.waiting
                    .extend(self.file.flush(&author(), None).await.unwrap());
                "close"
            }
            4 => {
                self.file.sync(&author()).await.unwrap();
                "sync"
            }
            5 => {
                let source = self.file.clone_source(&author()).await.unwrap();
                assert!(source.is_some());
                "be copied"
            }
            6 if rare => {
                self.ns.drain().await.unwrap();
                "drain"
            }
            7 if rare => {
                self.ns.gc.turn().await.unwrap();
                "reclaim"
            }
            _ => "wait",
        }
        .to_owned()
    }

    async fn release(&mut self) {
        if let Some(flushed) = self.waiting.pop_front() {
            println!("    release");
            self.file.save(flushed).await.unwrap();
        }
    }
}

async fn case(seed: u64) {
    let mut rng = SeededRng(seed);
    let cluster = TestCluster::new("long");
    let mut one = One::new(cluster.open().await).await;
    for call in 0..CALLS {
        let from = rng.below(END - 1);
        let to = END.min(from + 1 + rng.below(1 << 16));
        let done = match rng.below(5) {
            0..3 => {
                one.change(&mut rng, (from, to), (call % 255) as u8 + 1)
                    .await
            }
            _ => one.bring(&mut rng).await,
        };
        println!("call {call}: {done}; {} bytes", one.text.len());
        if rng.below(2) == 0 {
            one.release().await;
        }
        let found = one.file.read(0, u32::MAX).await.unwrap();
        check::same(&found, &one.text, &format!("seed {seed}, call {call}"));
    }
    while !one.waiting.is_empty() {
        one.release().await;
    }
    close(&one.file).await;
    let versions = one.ns.history.view().versions(ROOT, b"a").await.unwrap();
    let last = check::read_past(&one.ns, versions.last().unwrap()).await;
    check::same(&last, &one.text, "the newest version");
    one.ns.drain().await.unwrap();
    check::log_twin(&one.ns, &cluster).await;
    let _left = cluster.kill(one.ns).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_saved_thousands_of_times_reads_correctly() {
    if let Some(seed) = number("REWINDFS_TEST_SEED") {
        return case(seed).await;
    }
    for seed in 1..=number("REWINDFS_TEST_CASES").unwrap_or(3) {
        case(seed).await;
    }
}
