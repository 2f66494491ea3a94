//! The file system without a kernel against a plain model of POSIX: random programs, the whole tree compared after each call, and
//! the daemon killed or unmounted in between.
//!
//! A seed is a program. A program that finds a difference is shrunk, and printed with its seed: `REWINDFS_TEST_SEED` repeats it,
//! `REWINDFS_TEST_CASES` runs as many in each test.

mod data;
mod found;
mod look;
mod session;
mod steps;
mod tree;

use std::collections::BTreeMap;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::session::{Difference, Session};
use self::steps::Step;
use crate::env::{Env, SeededEnv};
use crate::fs::{FsConfig, SyncOn};

/// Programs of each test.
const CASES: u64 = 2_500;

/// Differences that are shown, at most: whether they have one cause is easier to see in several.
const TOLD: usize = 8;

/// Runs a program; says at which call the two parted.
fn run(program: &[Step]) -> Result<(), Difference> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = FsConfig {
            sync_on: SyncOn::Release,
            ..FsConfig::default()
        };
        let mut began = crate::store::Time::default();
        let mut session = Session::new(config).await;
        session.look(began).await?;
        for (number, step) in program.iter().enumerate() {
            let told = |d| format!("call {number}, {step:?}: {d}");
            began = session.now();
            session.take(step).await.map_err(told)?;
            session.look(began).await.map_err(told)?;
        }
        session.kill().await;
        Ok(())
    })
}

fn runner(seed: u64) -> TestRunner {
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..Config::default()
    };
    // Neighbouring seeds must not begin alike.
    let mixed = SeededEnv::new(seed).new_id();
    let random = TestRng::from_seed(RngAlgorithm::XorShift, mixed.as_bytes());
    TestRunner::new_with_rng(config, random)
}

/// Runs the program of a seed; tells a difference with the smallest program found that shows one.
fn case(seed: u64) -> Result<(), String> {
    let mut runner = runner(seed);
    let program = steps::program(1..32).new_tree(&mut runner).unwrap();
    let outcome = runner.run_one(program, |program| {
        run(&program).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(_) => Ok(()),
        Err(TestError::Abort(why)) => Err(format!("REWINDFS_TEST_SEED={seed}: {why}")),
        Err(TestError::Fail(why, program)) => {
            let calls: Vec<String> = program.iter().map(|step| format!("    {step:?}")).collect();
            Err(format!(
                "REWINDFS_TEST_SEED={seed}: {why}\n{}",
                calls.join("\n")
            ))
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The `part`th set of programs.
fn cases(part: u64) {
    if let Some(seed) = number("REWINDFS_TEST_SEED") {
        return case(seed).unwrap();
    }
    let cases = number("REWINDFS_TEST_CASES").unwrap_or(CASES);
    let seeds = part * cases..(part + 1) * cases;
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    for difference in seeds.filter_map(|seed| case(seed).err()) {
        // Those that differ in numbers only have one cause, most likely.
        let words = difference.lines().next().unwrap_or_default();
        let words = words.replace(|c: char| c.is_ascii_digit(), "");
        told.entry(words).or_insert(difference);
        if told.len() == TOLD {
            break;
        }
    }
    let told: Vec<String> = told.into_values().collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

// In parts, so that every core has some.

#[test]
fn random_programs_get_what_the_model_says_1() {
    cases(0);
}

#[test]
fn random_programs_get_what_the_model_says_2() {
    cases(1);
}

#[test]
fn random_programs_get_what_the_model_says_3() {
    cases(2);
}

#[test]
fn random_programs_get_what_the_model_says_4() {
    cases(3);
}
