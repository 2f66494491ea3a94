//! The program: parses its arguments, runs the command, on a runtime if it needs one, and exits.

use rewindfs::cli::{Start, start};
use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

/// Gives memory back to the system after a peak, which the C library's allocator does not where many threads allocate.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// The settings of the allocator, as text that ends with a zero byte: few arenas, and unused pages go back at once.
#[allow(
    unsafe_code,
    reason = "the allocator reads its settings from this symbol"
)]
// SAFETY: no other symbol of the program has this name. The allocator reads it as a pointer to a C string, which a reference to
// an array that ends with a zero byte is.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 68] =
    b"narenas:2,dirty_decay_ms:50,muzzy_decay_ms:0,background_thread:true\0";

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
        Start::Rebuild(job) => runtime.block_on(job.run()),
        Start::Namespace(job) => runtime.block_on(job.run()),
        Start::Read(job) => runtime.block_on(job.run()),
        Start::Change(job) => runtime.block_on(job.run()),
    };
    // A request without an answer must not keep the process running: its caller has its result.
    runtime.shutdown_background();
    status
}
