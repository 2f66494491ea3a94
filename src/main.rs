//! The program: parses its arguments, runs the command, on a runtime if it needs one, and exits.

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
            eprintln!("rewindfs: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let status = match start {
        Start::Done(status) => status,
        Start::Serve(job) => runtime.block_on(job.run()),
        Start::Check(check) => runtime.block_on(check.run()),
        Start::Namespace(job) => runtime.block_on(job.run()),
        Start::Read(job) => runtime.block_on(job.run()),
        Start::Change(job) => runtime.block_on(job.run()),
    };
    // A request without an answer must not keep the process running: its caller has its result.
    runtime.shutdown_background();
    status
}
