//! Failpoints: places between an acknowledged operation and the bucket at which a test stops the writer; and faults that a test plants,
//! to see that another test would find them.
//!
//! Outside tests none can be set, and the checks compile to nothing.

use crate::store::model::error::StoreError;

/// A step of the pipeline. The numbers ascend in the order of the steps.
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

/// A fault of retention that a test plants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlantedFault {
    /// Runs decide by a time an hour ahead.
    EarlyExpiry = 1,
    /// One version that a label shows is dropped.
    ShortLabel,
    /// One version is dropped, and the one before it not extended.
    NoExtension,
    /// The content of one dropped version stays counted.
    StuckCounter,
}

/// Flag on a step's number: only that step is halted, not the later ones.
#[cfg(test)]
const ONLY: u8 = 0x80;

/// What a test has set.
#[derive(Debug, Default)]
pub(crate) struct Failpoints {
    #[cfg(test)]
    at: std::sync::atomic::AtomicU8,
    #[cfg(test)]
    fault: std::sync::atomic::AtomicU8,
}

impl Failpoints {
    /// Tells whether a test has halted the pipeline before `step`.
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

    /// Waits while a test halts the pipeline before `step`.
    ///
    /// # Errors
    /// The first error that `check` returns meanwhile.
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

    /// Tells whether a test has planted a fault.
    pub(crate) fn has(&self, fault: PlantedFault) -> bool {
        #[cfg(test)]
        {
            self.fault.load(std::sync::atomic::Ordering::SeqCst) == fault as u8
        }
        #[cfg(not(test))]
        {
            let _ = fault;
            false
        }
    }

    /// As [`Self::has`], once: the fault is gone afterwards.
    pub(crate) fn takes(&self, fault: PlantedFault) -> bool {
        let is_planted = self.has(fault);
        #[cfg(test)]
        if is_planted {
            self.fault.store(0, std::sync::atomic::Ordering::SeqCst);
        }
        is_planted
    }

    /// Plants a fault.
    #[cfg(test)]
    pub(crate) fn plant(&self, fault: PlantedFault) {
        self.fault
            .store(fault as u8, std::sync::atomic::Ordering::SeqCst);
    }

    /// Halts the pipeline before `step` and before every later one; `None` removes the failpoint.
    #[cfg(test)]
    pub(crate) fn set(&self, step: Option<Failpoint>) {
        let at = step.map_or(0, |step| step as u8);
        self.at.store(at, std::sync::atomic::Ordering::SeqCst);
    }

    /// Halts the pipeline before `step` only.
    #[cfg(test)]
    pub(crate) fn set_only(&self, step: Failpoint) {
        self.at
            .store(step as u8 | ONLY, std::sync::atomic::Ordering::SeqCst);
    }
}

/// A place where a test can make the recovery fail.
pub(crate) fn step() -> Result<(), StoreError> {
    #[cfg(test)]
    if STEPS.try_with(|left| left.replace(left.get().wrapping_sub(1)) == 0) == Ok(true) {
        return Err(StoreError::Closed);
    }
    Ok(())
}

#[cfg(test)]
tokio::task_local! {
    /// How many steps of the recovery succeed before one fails.
    pub(crate) static STEPS: std::cell::Cell<u32>;
}
