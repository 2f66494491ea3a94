//! Simulated worlds: everything below the kernel's interface in virtual time, from one seed.
//!
//! A world has a bucket that is slow and fails, two machines with cache directories, a writer that crashes at any await and on any machine,
//! followers, and a model of names and bytes that knows what was acknowledged and what was fsynced. One seed is one schedule: the world runs on one
//! thread of its own with a paused clock, and what is random follows from the seed. `REWINDFS_TEST_SEED` repeats one seed,
//! `REWINDFS_TEST_WORLDS` sets the number of worlds of each kind of crash and `REWINDFS_TEST_FIRST` the first seed, `REWINDFS_TEST_LOG=debug` prints what happens.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test program: the real clock bounds its length, and what cannot be unwrapped is a failed test"
)]

mod bucket;
mod clock;
mod host;
mod model;
mod past;
mod randomness;
mod report;
mod world;

use std::time::{Duration, Instant};

use host::CrashMode;
use report::WorldReport;
use world::{Plant, WorldConfig, run_world};

/// Worlds of each kind of crash in a short run, and the time after which no further world begins.
const WORLDS: u64 = 40;
const TIME: Duration = Duration::from_secs(60);

/// The seed of the first world.
const FIRST: u64 = 1;

/// After how many worlds a long run tells how far it is.
const TOLD: u64 = 100;

/// How long worlds of seeds run that no run before had.
const FRESH: Duration = Duration::from_secs(180);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Prints the log of a world that is looked at: `REWINDFS_TEST_LOG` is its level.
fn start_log() {
    if let Some(level) = std::env::var("REWINDFS_TEST_LOG")
        .ok()
        .and_then(|level| level.parse::<tracing::Level>().ok())
    {
        let log = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(std::io::stderr);
        // Another test may have started it.
        log.try_init().ok();
    }
}

fn run_worlds(crash: CrashMode) {
    start_log();
    let long = std::env::var_os("REWINDFS_TEST_LONG").is_some();
    let worlds = number("REWINDFS_TEST_WORLDS").unwrap_or(if long { 3_000 } else { WORLDS });
    let first = number("REWINDFS_TEST_FIRST").unwrap_or(FIRST);
    let seeds = match number("REWINDFS_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + worlds,
    };
    let began = Instant::now();
    let (mut run, mut total) = (0_u64, WorldReport::default());
    for seed in seeds {
        if !long && run > 0 && began.elapsed() > TIME {
            break;
        }
        total.add(&run_whole(seed, crash));
        run += 1;
        if run.is_multiple_of(TOLD) {
            println!("up to seed {seed}: {run} worlds, {crash:?}: {total}");
        }
    }
    println!("{run} worlds, {crash:?}: {total}");
    assert!(total.operations > 0 && total.crashes > 0, "{total}");
}

/// Runs a world in which nothing may be lost.
fn run_whole(seed: u64, crash: CrashMode) -> WorldReport {
    let plant = None;
    let report = run_world(WorldConfig { seed, crash, plant });
    assert!(
        report.violations.is_empty(),
        "seed {seed}, {crash:?}: repeat it with REWINDFS_TEST_SEED={seed}\n{}",
        report.violations.join("\n")
    );
    report
}

#[test]
fn worlds_of_fresh_seeds_lose_nothing() {
    start_log();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Milliseconds fit into a seed that is multiplied by 1,000.
    let first = now.unwrap().as_millis() as u64;
    let began = Instant::now();
    let (mut run, mut total) = (0, WorldReport::default());
    while run == 0 || began.elapsed() < FRESH {
        for crash in [CrashMode::Kept, CrashMode::Cut, CrashMode::Wiped] {
            total.add(&run_whole(first + run, crash));
        }
        run += 1;
    }
    println!("{run} seeds from {first} on, each kind of crash: {total}");
}

#[test]
fn worlds_whose_writers_crash_and_keep_their_caches_lose_nothing() {
    run_worlds(CrashMode::Kept);
}

#[test]
fn worlds_whose_machines_lose_power_lose_nothing_that_was_fsynced() {
    run_worlds(CrashMode::Cut);
}

#[test]
fn worlds_whose_caches_are_lost_lose_nothing_that_was_fsynced() {
    run_worlds(CrashMode::Wiped);
}

#[test]
fn one_seed_is_one_schedule() {
    for seed in [3, 4] {
        let config = WorldConfig {
            seed,
            crash: CrashMode::Kept,
            plant: None,
        };
        let (one, two) = (run_world(config), run_world(config));
        assert_eq!(one.digest, two.digest, "seed {seed}: {one} and {two}");
    }
    let other = |seed| {
        run_world(WorldConfig {
            seed,
            crash: CrashMode::Kept,
            plant: None,
        })
    };
    assert_ne!(other(3).digest, other(4).digest);
}

/// Fails unless some world finds the planted fault, and says so with these words.
fn caught(plant: Plant, crash: CrashMode, words: &str) {
    let found = (1..60).find_map(|seed| {
        let report = run_world(WorldConfig {
            seed,
            crash,
            plant: Some(plant),
        });
        let found = report
            .violations
            .iter()
            .find(|violation| violation.contains(words));
        found.map(|found| (seed, found.clone()))
    });
    let (seed, violation) = found.unwrap_or_else(|| panic!("no world finds {plant:?}"));
    println!("{plant:?} is found by seed {seed}: {violation}");
}

#[test]
fn a_segment_that_was_never_written_is_found() {
    caught(Plant::LostSegment, CrashMode::Wiped, "");
}

#[test]
fn a_missing_fsync_is_found() {
    caught(Plant::MissingFsync, CrashMode::Wiped, "allowed are");
}

#[test]
fn a_lost_journal_record_is_found() {
    caught(Plant::LostJournalRecord, CrashMode::Kept, "allowed are");
}

#[test]
fn an_old_state_that_is_shown_after_a_takeover_is_found() {
    caught(Plant::EndlessLease, CrashMode::Kept, "without its lease");
}
