//! The steps between an acknowledged operation and the bucket, and where a test halts them.
//!
//! Outside tests nothing is ever halted, and the checks compile to nothing.

use crate::store::model::error::StoreError;

/// A step on the way to the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failpoint {
    /// Cutting contents into extents.
    Pack = 1,
    /// Uploading segments.
    Upload,
    /// Committing batches to the index.
    Commit,
    /// Flushing the index.
    Flush,
    /// Uploading the log.
    Log,
}

/// Added to a step's number it halts what comes to that one alone.
#[cfg(test)]
const ONLY: u8 = 0x80;

/// Where the pipeline is halted.
#[derive(Debug, Default)]
pub(crate) struct Failpoints {
    #[cfg(test)]
    at: std::sync::atomic::AtomicU8,
}

impl Failpoints {
    /// Whether a test has halted the pipeline before `step`.
    pub(crate) fn before(&self, step: Failpoint) -> bool {
        #[cfg(test)]
        {
            let at = self.at.load(std::sync::atomic::Ordering::SeqCst);
            match at & ONLY {
                0 => at != 0 && at <= step as u8,
                _ => at & !ONLY == step as u8,
            }
        }
        #[cfg(not(test))]
        {
            let _ = step;
            false
        }
    }

    /// Waits for as long as a test halts the pipeline before `step`, and `check` is well.
    pub(crate) async fn pass(
        &self,
        step: Failpoint,
        check: impl Fn() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        while self.before(step) {
            check()?;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Halts before `step` and all after it; `None` lets everything go on.
    #[cfg(test)]
    pub(crate) fn set(&self, step: Option<Failpoint>) {
        let at = step.map_or(0, |step| step as u8);
        self.at.store(at, std::sync::atomic::Ordering::SeqCst);
    }

    /// Halts what comes to `step`; what need not goes on.
    #[cfg(test)]
    pub(crate) fn set_only(&self, step: Failpoint) {
        self.at
            .store(step as u8 | ONLY, std::sync::atomic::Ordering::SeqCst);
    }
}

/// A place where a test can let the recovery fail.
pub(crate) fn step() -> Result<(), StoreError> {
    #[cfg(test)]
    if STEPS.try_with(|left| left.replace(left.get().wrapping_sub(1)) == 0) == Ok(true) {
        return Err(StoreError::Closed);
    }
    Ok(())
}

#[cfg(test)]
tokio::task_local! {
    /// Steps of the recovery that go well before one fails.
    pub(crate) static STEPS: std::cell::Cell<u32>;
}
