//! The program: reads its arguments, serves a mount on a runtime when that is what they say, and exits.

use rewindfs::cli::{Start, start};
use std::process::ExitCode;

#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place that blocks"
)]
fn main() -> ExitCode {
    let start = start(std::env::args_os());
    if let Start::Done(status) = start {
        return status;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("rewindfs: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let status = match start {
        Start::Done(status) => status,
        Start::Serve(job) => runtime.block_on(job.run()),
        Start::Check(check) => runtime.block_on(check.run()),
        Start::Namespace(job) => runtime.block_on(job.run()),
    };
    // A request that hangs must not hold the process: its caller has been answered.
    runtime.shutdown_background();
    status
}
