//! Random programs with crashes, compared with the model. `REWINDFS_TEST_SEED` repeats one, `REWINDFS_TEST_CASES` sets their number.

use super::rng::{SeededRng, number};
use super::scenarios::end;
use super::session::{Session, Step};
use super::*;

const PATHS: [&str; 10] = [
    "a", "b", "d", "e", "d/a", "d/b", "d/e", "e/a", "e/d", "d/e/a",
];
const STEPS: usize = 40;

impl SeededRng {
    fn path(&mut self) -> &'static str {
        PATHS[self.below(PATHS.len())]
    }

    fn len(&mut self) -> usize {
        // Lengths near the limits of inline bytes, of memory, and of extents.
        let around = [0, 10, 10, 10, 100, 4 << 10, 64 << 10, 256 << 10][self.below(8)];
        around + self.below(9)
    }

    /// Source offset, target offset and length; often the whole file.
    fn stretch(&mut self) -> (usize, usize, usize) {
        match self.below(2) {
            0 => (0, 0, usize::MAX >> 8),
            _ => (self.len(), self.len(), self.len() + 1),
        }
    }

    fn step(&mut self) -> Step {
        let handle = self.below(3);
        // Calls that are always possible are drawn less often, so that they do not fill the program.
        let kinds = if self.below(4) == 0 { 37 } else { 35 };
        match self.below(kinds) {
            0..3 => Step::Create(handle, self.path()),
            3..6 => Step::Open(handle, self.path()),
            6..8 => Step::Write(handle, self.len(), self.len() + 1),
            8..10 => Step::Append(handle, self.len() + 1),
            10 => Step::Truncate(handle, self.len()),
            11 => Step::Punch(handle, self.len(), self.len()),
            12 => Step::Rewrite(handle),
            13..15 => Step::Flush(handle),
            15..17 => Step::Close(handle),
            17 => Step::Release(handle),
            18 => Step::Sync(handle),
            19 => Step::TruncatePath(self.path(), self.len()),
            20..23 => {
                let modes = [
                    RenameMode::Replace,
                    RenameMode::Replace,
                    RenameMode::NoReplace,
                    RenameMode::Exchange,
                ];
                Step::Rename(self.path(), self.path(), modes[self.below(4)])
            }
            23 => Step::Link(self.path(), self.path()),
            24..26 => Step::Unlink(self.path()),
            26 => Step::Mkdir(self.path()),
            27 => Step::Rmdir(self.path()),
            28 => Step::Chmod(self.path(), [0o600, 0o644, 0o755][self.below(3)]),
            29 => Step::Xattr(
                self.path(),
                ["user.x", "user.y"][self.below(2)],
                [None, Some(1), Some(2)][self.below(3)],
            ),
            30 => Step::Copy(handle, self.path(), self.stretch()),
            31 => Step::CopyPast(handle, self.path(), self.below(5), self.stretch()),
            32..35 => {
                let mode = [RenameMode::Replace, RenameMode::NoReplace][self.below(2)];
                Step::Undelete(self.path(), self.path(), mode)
            }
            35 => Step::Wait(15),
            _ => Step::Drain,
        }
    }
}

async fn case(seed: u64) {
    println!("REWINDFS_TEST_SEED={seed}");
    let mut rng = SeededRng(seed);
    let halts = [
        None,
        None,
        Some(failpoints::Failpoint::Pack),
        Some(failpoints::Failpoint::Commit),
        Some(failpoints::Failpoint::Flush),
        Some(failpoints::Failpoint::Log),
    ];
    let program = format!("REWINDFS_TEST_SEED={seed}");
    let failpoints = halts[rng.below(halts.len())];
    let mut session = Session::new(&program, TestCluster::new("model"), failpoints).await;
    let mut taken = 0;
    while taken < STEPS {
        if rng.below(60) == 0 {
            println!("step {}: crash", session.tree.now());
            let steps = steps(&mut rng, session.tree.now());
            compare(&session, steps).await;
            compare_after_loss(&session).await;
            session.crash().await;
            taken += 1;
            let steps = steps_all(&mut rng, session.tree.now());
            compare(&session, steps).await;
            continue;
        }
        if failpoints.is_none() && rng.below(40) == 0 {
            checkpoint_steps(&session, rng.below(24)).await;
        }
        let step = rng.step();
        let now = session.tree.now();
        if session.apply(&step).await {
            println!("step {now}: {step:?}");
            if number("REWINDFS_TEST_LOOK").is_some() {
                compare(&session, (0..=now).collect()).await;
            }
            taken += 1;
        }
    }
    let last = session.tree.now();
    compare(&session, (0..last).collect()).await;
    compare_after_loss(&session).await;
    session.crash().await;
    compare(&session, (0..=last).collect()).await;
    assert!(session.apply(&Step::Drain).await, "drain");
    compare(&session, (0..last).collect()).await;
    check::log_twin(&session.ns, &session.cluster).await;
    let left = std::mem::replace(&mut session.cluster, TestCluster::new("replaced"));
    let _end = left.kill(session.ns.clone()).await;
}

/// Begins a checkpoint of the log, or continues it; a crash may find it at any step.
async fn checkpoint_steps(session: &Session, steps: usize) {
    println!("step {}: {steps} steps of a checkpoint", session.tree.now());
    session.ns.gc.checkpoint.lock().await.wanted = true;
    for _ in 0..steps {
        session.ns.gc.checkpoint_step().await.unwrap();
    }
}

/// Checks a mount with an empty cache of the bucket as it is now.
async fn compare_after_loss(session: &Session) {
    let cluster = session.cluster.fork().await;
    cluster.wipe();
    let ns = cluster.open().await;
    check::prefix(&ns, &session.tree).await;
    ns.drain().await.unwrap();
    check::log_twin(&ns, &cluster).await;
    end(cluster, ns).await;
}

fn steps(rng: &mut SeededRng, last: usize) -> Vec<usize> {
    (0..4).map(|_| rng.below(last)).collect()
}

fn steps_all(rng: &mut SeededRng, last: usize) -> Vec<usize> {
    let mut some = steps(rng, last);
    some.push(last - 1);
    some
}

async fn compare(session: &Session, steps: Vec<usize>) {
    check::live(&session.ns, &session.tree).await;
    check::past(&session.ns, &session.tree, steps.into_iter()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_programs_with_crashes_agree_with_the_model() {
    if let Some(seed) = number("REWINDFS_TEST_SEED") {
        return case(seed).await;
    }
    for seed in 1..=number("REWINDFS_TEST_CASES").unwrap_or(100) {
        case(seed).await;
    }
}
