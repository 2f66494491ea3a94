//! The pace of a walk over many versions: it works in short stretches and rests between them.

use std::time::Duration;

use crate::store::core::Core;

/// After so long a walk rests: a task of the runtime that becomes ready meanwhile may have to wait for as long.
const STRETCH: Duration = Duration::from_millis(1);
/// How many times as long as it worked a walk rests; the commits of what a run drops take time too.
const REST_FACTOR: u32 = 5;
/// Longest rest: a step that takes longer than a few milliseconds waits for the bucket and takes no core.
const REST_MAX: Duration = Duration::from_millis(10);

/// When a walk rested last.
#[derive(Debug)]
pub(super) struct Pace {
    rested: tokio::time::Instant,
}

impl Pace {
    pub(super) fn begin() -> Self {
        Self {
            rested: tokio::time::Instant::now(),
        }
    }

    /// Lets other work go first from time to time.
    pub(super) async fn rest(&mut self, core: &Core) {
        let worked = self.rested.elapsed();
        if worked >= STRETCH {
            core.sleep((worked * REST_FACTOR).min(REST_MAX)).await;
            self.rested = tokio::time::Instant::now();
        }
    }
}
