//! Log objects that a replay could not use.

use crate::store::commit::log_object;
use crate::store::schema::rows::LogPlace;

/// A fault of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LogFault {
    /// No listing has the objects of this epoch from the first sequence to the last one.
    Missing { first: LogPlace, last: LogPlace },
    /// The object cannot be used, or does not follow the one before it.
    Bad { place: LogPlace, what: String },
    /// The key of an object that is no log object.
    Foreign(String),
}

/// The faults of a log, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogDamage {
    faults: Vec<LogFault>,
}

/// A log object with a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FaultyLogObject {
    /// The key.
    pub(crate) key: String,
    /// The fault; it completes a sentence that begins with the key.
    pub(crate) what: String,
}

impl LogDamage {
    /// Tells whether there is no fault.
    pub(crate) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// Adds that the objects of `next`'s epoch from `first` on are missing before it. Returns whether there are any.
    pub(super) fn add_missing(&mut self, first: u64, next: LogPlace) -> bool {
        let is_any = first < next.sequence;
        if is_any {
            let at = |sequence| LogPlace { sequence, ..next };
            let (first, last) = (at(first), at(next.sequence - 1));
            self.faults.push(LogFault::Missing { first, last });
        }
        is_any
    }

    pub(super) fn add_bad(&mut self, place: LogPlace, what: &str) {
        let what = what.to_owned();
        self.faults.push(LogFault::Bad { place, what });
    }

    pub(super) fn add_foreign(&mut self, key: String) {
        self.faults.push(LogFault::Foreign(key));
    }

    /// Returns the faults of log objects from `place` on.
    pub(crate) fn since(&self, place: LogPlace) -> Self {
        let is_later = |fault: &&LogFault| match fault {
            LogFault::Missing { last, .. } => *last >= place,
            LogFault::Bad { place: bad, .. } => *bad >= place,
            LogFault::Foreign(_) => false,
        };
        let faults = self.faults.iter().filter(is_later).cloned().collect();
        Self { faults }
    }

    /// Passes every object with a fault to `each`, once for each of its faults.
    pub(crate) fn each_object(&self, mut each: impl FnMut(FaultyLogObject)) {
        for fault in &self.faults {
            match fault {
                LogFault::Missing { first, last } => {
                    for sequence in first.sequence..=last.sequence {
                        each(FaultyLogObject {
                            key: log_object::key_of(LogPlace { sequence, ..*first }),
                            what: "is missing".to_owned(),
                        });
                    }
                }
                LogFault::Bad { place, what } => each(FaultyLogObject {
                    key: log_object::key_of(*place),
                    what: what.clone(),
                }),
                LogFault::Foreign(key) => each(FaultyLogObject {
                    key: key.clone(),
                    what: "is not a log object".to_owned(),
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(epoch: u64, sequence: u64) -> LogPlace {
        LogPlace { epoch, sequence }
    }

    #[test]
    fn faults_before_a_place_are_left_out_and_each_missing_object_is_named() {
        let mut damage = LogDamage::default();
        assert!(!damage.add_missing(4, place(1, 4)));
        assert!(damage.is_empty());
        assert!(damage.add_missing(1, place(1, 4)));
        damage.add_bad(place(1, 5), "is damaged");
        damage.add_foreign("log/x".to_owned());
        assert!(damage.add_missing(2, place(2, 4)));
        let keys = |damage: &LogDamage| -> Vec<String> {
            let mut keys = Vec::new();
            damage.each_object(|object| keys.push(object.key));
            keys
        };
        assert_eq!(keys(&damage).len(), 3 + 1 + 1 + 2);
        let later = damage.since(place(1, 5));
        assert_eq!(
            keys(&later),
            [
                log_object::key_of(place(1, 5)),
                log_object::key_of(place(2, 2)),
                log_object::key_of(place(2, 3))
            ]
        );
        assert!(damage.since(place(3, 1)).is_empty());
    }
}
