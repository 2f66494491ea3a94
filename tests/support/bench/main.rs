//! The server of `scripts/bench`: S3 in memory behind a proxy that delays every request, and transfers of whole objects that
//! measure the server itself.
//!
//! `bench store DELAY_MS STATS_FILE` prints the proxy's endpoint and serves until it is killed.
//! `bench put|get ENDPOINT BUCKET COUNT BYTES` transfers COUNT objects of BYTES each, many at a time; with AT_ONCE behind it, so many at
//! a time, and prints the milliseconds of each.
#![allow(
    clippy::disallowed_methods,
    reason = "a bench uses the real clock, and its servers have a thread per connection"
)]

mod http;
mod listing;
mod objects;
mod proxy;
mod raw;
mod server;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str =
    "usage: bench store DELAY_MS STATS_FILE | bench put|get ENDPOINT BUCKET COUNT BYTES [AT_ONCE]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    match *arguments {
        ["store", delay, stats] => {
            let delay = Duration::try_from_secs_f64(delay.parse::<f64>()? / 1000.0)?;
            let proxy = proxy::start(server::start()?, delay)?;
            println!("http://{}", proxy.address);
            proxy.write_stats(Path::new(stats))
        }
        [
            direction @ ("put" | "get"),
            endpoint,
            bucket,
            count,
            bytes,
            ref at_once @ ..,
        ] if at_once.len() <= 1 => {
            let store = raw::connect(endpoint, bucket)?;
            let runtime = tokio::runtime::Runtime::new()?;
            let is_timed = !at_once.is_empty();
            let at_once = at_once.first().map(|at_once| at_once.parse()).transpose()?;
            let transfers = raw::Transfers {
                count: count.parse()?,
                bytes: bytes.parse()?,
                at_once: at_once.unwrap_or(raw::AT_ONCE),
            };
            let times = match direction {
                "put" => runtime.block_on(raw::put(&store, transfers))?,
                _ => runtime.block_on(raw::get(&store, transfers))?,
            };
            for time in times.iter().filter(|_| is_timed) {
                println!("{:.3}", time.as_secs_f64() * 1000.0);
            }
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}
