//! Whether the clocks agree by which retention decides what is old.

use crate::store::model::error::StoreError;
use crate::store::model::policy::DAY;
use crate::store::model::version::Timestamp;
use crate::store::retention::Retention;

/// Stores give dates in whole seconds, rounded down.
const ROUNDED: u64 = 1_000_000_000;

impl Retention {
    /// Compares the namespace's clock with the store's date, and returns the time by which a run decides: the earlier one, and
    /// not after what is final.
    ///
    /// # Errors
    /// `Clock` if they differ by more than a day: nothing is dropped until they agree. Errors of the store.
    pub(crate) async fn agreed_now(&self) -> Result<Timestamp, StoreError> {
        let store = self.core.backend.date(self.core.env.as_ref()).await?;
        // A local directory has this machine's clock.
        let store = store.map_or_else(|| self.core.env.now(), |date| date.saturating_add(ROUNDED));
        let store = Timestamp(store);
        let namespace = self.core.now();
        if namespace.0.abs_diff(store.0) > DAY {
            return Err(StoreError::Clock(format!(
                "nothing is pruned: the clock of the namespace ({}) and the date of the store ({}) differ by more than a day; \
                 set this machine's clock, or wait until they agree",
                shown(namespace),
                shown(store)
            )));
        }
        Ok(self.now().min(store))
    }
}

fn shown(at: Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(at.0.into()) {
        Ok(time) => format!("{time:.0}"),
        Err(_) => format!("{} ns", at.0),
    }
}
