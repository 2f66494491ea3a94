//! The file system, called without a kernel, against a simple model of POSIX: random programs of calls, with a comparison of the
//! whole tree after each call, and crashes and remounts in between.
//!
//! Each seed gives one program. A program that finds a difference is shrunk and printed with its seed. `REWINDFS_TEST_SEED`
//! repeats one seed, `REWINDFS_TEST_CASES` sets the number of programs per test.

mod compare;
mod data;
mod regressions;
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

/// Number of programs of each test.
const CASES: u64 = 1_500;

/// Most differences that are printed. Several of them make a common cause easier to see.
const SHOWN_MAX: usize = 8;

/// Runs a program. Fails at the first call after which the file system and the model differ.
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
        session.compare_tree(began).await?;
        for (number, step) in program.iter().enumerate() {
            let at_call = |d| format!("call {number}, {step:?}: {d}");
            began = session.now();
            session.apply(step).await.map_err(at_call)?;
            session.compare_tree(began).await.map_err(at_call)?;
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
    // The seed is hashed, so that programs of neighbouring seeds do not begin alike.
    let mixed = SeededEnv::new(seed).new_id();
    let random = TestRng::from_seed(RngAlgorithm::XorShift, mixed.as_bytes());
    TestRunner::new_with_rng(config, random)
}

/// Runs the program of a seed. Fails with the smallest program found that shows a difference.
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
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    for difference in seeds.filter_map(|seed| case(seed).err()) {
        // Differences that vary only in numbers most likely have one cause.
        let words = difference.lines().next().unwrap_or_default();
        let words = words.replace(|c: char| c.is_ascii_digit(), "");
        shown.entry(words).or_insert(difference);
        if shown.len() == SHOWN_MAX {
            break;
        }
    }
    let shown: Vec<String> = shown.into_values().collect();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
}

// Several tests, so that they run in parallel.

#[test]
fn random_programs_agree_with_the_model_1() {
    cases(0);
}

#[test]
fn random_programs_agree_with_the_model_2() {
    cases(1);
}

#[test]
fn random_programs_agree_with_the_model_3() {
    cases(2);
}

#[test]
fn random_programs_agree_with_the_model_4() {
    cases(3);
}
