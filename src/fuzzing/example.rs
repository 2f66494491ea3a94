//! Runs the targets of the fuzzer for a number of seconds, and adds what it did to a tally.
//!
//! `cargo run --profile fuzz --features fuzzing --example fuzz -- SECONDS TALLY-FILE`
#![allow(
    clippy::disallowed_methods,
    reason = "it runs for a time of the real clock"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rewindfs::fuzzing::{FuzzTarget, Fuzzer, targets};

const USAGE: &str =
    "usage: fuzz SECONDS TALLY-FILE (executions by target, as JSON; it is made if it is missing)";
/// Executions between two looks at the clock.
const STEP: u64 = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seconds, tally] = &arguments[..] else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let Ok(seconds) = seconds.parse() else {
        eprintln!("fuzz: {seconds} is no number of seconds\n{USAGE}");
        return ExitCode::from(2);
    };
    match run(Duration::from_secs(seconds), Path::new(tally)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {tally}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Gives each target the same time.
fn run(time: Duration, file: &Path) -> Result<(), Box<dyn Error>> {
    let mut tally: BTreeMap<String, u64> = match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(error.into()),
    };
    let targets = targets();
    let each = time / u32::try_from(targets.len())?;
    for target in &targets {
        let done = tally.entry(target.name.to_owned()).or_default();
        let (ran, accepted) = fuzz(target, *done, each);
        *done += ran;
        println!(
            "{:>12} executions, {accepted:>12} accepted: {}",
            ran, target.name
        );
        std::fs::write(file, serde_json::to_vec_pretty(&tally)?)?;
    }
    println!(
        "{:>12} executions in all, without a panic",
        tally.values().sum::<u64>()
    );
    Ok(())
}

/// Continues behind `done` executions, which have used other numbers.
fn fuzz(target: &FuzzTarget, done: u64, time: Duration) -> (u64, u64) {
    println!("{}: seed {done}", target.name);
    let (mut fuzzer, start, mut ran) = (Fuzzer::new(target, done), Instant::now(), 0);
    while start.elapsed() < time {
        fuzzer.run(STEP);
        ran += STEP;
    }
    (ran, fuzzer.accepted())
}
