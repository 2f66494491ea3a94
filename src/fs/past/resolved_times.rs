//! The timestamps of names that mean another one at each call: an age, or a stamp whose period still runs.
//!
//! A command walks many paths, and each walk looks such a name up again. So the first answer is remembered for the process
//! group that asked: one command sees one timestamp. What it then has open, or has as its working directory, keeps its timestamp
//! without this table, because a node's timestamp never changes.
//! Invariant: a resolved name that was unused for [`UNUSED_MAX`], or was first used [`AGE_MAX`] ago, is not used again unless a
//! handle into what it shows is open; there are never more than [`REMEMBERED_MAX`]. While one is remembered for any group, the
//! kernel keeps the name for none.

use super::stamp::{TimeName, TimeStability};
use crate::env::Env;
use crate::fs::Caller;
use crate::store::Timestamp;
use crate::sync::{Arc, Mutex, lock};
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

const SECOND: u64 = 1_000_000_000;
/// How long a name is remembered that is not used, nanoseconds.
pub(super) const UNUSED_MAX: u64 = 60 * SECOND;
/// How long after its first use a name is remembered at most, nanoseconds.
pub(super) const AGE_MAX: u64 = 600 * SECOND;
/// How many are remembered.
pub(super) const REMEMBERED_MAX: usize = 1024;

/// The callers that get the same answer again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum CallerGroup {
    /// The processes of one command.
    Group(u32),
    /// All processes of a user whose process group `/proc` does not tell.
    User(u32),
}

impl CallerGroup {
    fn of(caller: &Caller) -> Self {
        match caller.process_group() {
            Some(group) => Self::Group(group),
            None => Self::User(caller.uid),
        }
    }
}

/// A name, and the callers that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TimeQuery {
    name: TimeName,
    asker: CallerGroup,
}

/// The resolution of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResolvedTime {
    /// The timestamp.
    pub(super) at: Timestamp,
    /// Whether the name means this timestamp to every caller at every time.
    pub(super) stability: TimeStability,
    /// The question to report the outcome of, where the answer is remembered.
    pub(super) question: Option<TimeQuery>,
}

/// Whether a directory existed at a remembered timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existence {
    /// It is not known yet.
    Asked,
    /// A directory existed.
    Found,
}

#[derive(Debug)]
struct RememberedTime {
    at: Timestamp,
    first_used: u64,
    last_used: u64,
    existence: Existence,
}

/// What refers to a remembered timestamp.
#[derive(Debug, Default)]
struct TimeReferences {
    names: usize,
    handles: usize,
}

#[derive(Debug, Default)]
struct RememberedTimes {
    known: HashMap<TimeQuery, RememberedTime>,
    timestamps: BTreeMap<Timestamp, TimeReferences>,
}

/// The names that are remembered; clones share the table.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedTimes {
    // A leaf lock, over the namespace's clock only.
    table: Arc<Mutex<RememberedTimes>>,
    env: Arc<dyn Env>,
}

/// An open handle into what was shown at remembered timestamps: they are not forgotten while it lives.
#[derive(Debug)]
pub(crate) struct PinnedTimes {
    resolved: ResolvedTimes,
    timestamps: Vec<Timestamp>,
}

impl ResolvedTimes {
    pub(super) fn new(env: Arc<dyn Env>) -> Self {
        Self {
            table: Arc::default(),
            env,
        }
    }

    /// The timestamp that `name` means to `caller`; `None`: it is in the future, or before 1970. `present` reads the
    /// namespace's clock.
    pub(super) fn resolve(
        &self,
        name: TimeName,
        caller: &Caller,
        present: impl Fn() -> Timestamp,
    ) -> Option<ResolvedTime> {
        let (at, stability) = name.resolve(present())?;
        // The clock was read before: what is remembered from here on was asked for after the period's end, so not at all.
        if stability == TimeStability::Constant && !self.is_remembered(name) {
            return Some(ResolvedTime {
                at,
                stability,
                question: None,
            });
        }
        let question = TimeQuery {
            name,
            asker: CallerGroup::of(caller),
        };
        let now = self.env.now();
        let mut table = lock(&self.table);
        if let Some(at) = table.recall(question, now) {
            return Some(ResolvedTime {
                at,
                stability: TimeStability::Moving,
                question: Some(question),
            });
        }
        let (at, stability) = name.resolve(present())?;
        let question = (stability == TimeStability::Moving).then_some(question);
        if let Some(question) = question {
            table.remember(question, at, now);
        }
        Some(ResolvedTime {
            at,
            // Another group knows the name by another timestamp.
            stability: TimeStability::Moving,
            question,
        })
    }

    /// Notes that a directory existed at an answer's timestamp.
    pub(super) fn found(&self, answer: &ResolvedTime) {
        let mut table = lock(&self.table);
        if let Some(known) = table.known_as(answer) {
            known.existence = Existence::Found;
        }
    }

    /// Notes that no directory existed at an answer's timestamp. The name is resolved again next time, because the directory may be
    /// created, unless the timestamp has shown another directory.
    pub(super) fn missed(&self, answer: &ResolvedTime) {
        let mut table = lock(&self.table);
        if let Some(question) = answer.question
            && let Some(known) = table.known_as(answer)
            && known.existence == Existence::Asked
        {
            table.forget(question);
        }
    }

    /// Keeps the remembered ones of `timestamps` for as long as the result lives; `None` if there are none.
    pub(super) fn hold(&self, timestamps: RangeInclusive<Timestamp>) -> Option<PinnedTimes> {
        if timestamps.is_empty() {
            return None;
        }
        let mut table = lock(&self.table);
        let held = table.timestamps.range_mut(timestamps).map(|(at, uses)| {
            uses.handles += 1;
            *at
        });
        let timestamps: Vec<Timestamp> = held.collect();
        (!timestamps.is_empty()).then(|| PinnedTimes {
            resolved: self.clone(),
            timestamps,
        })
    }

    fn is_remembered(&self, name: TimeName) -> bool {
        let table = lock(&self.table);
        table.known.keys().any(|question| question.name == name)
    }
}

impl Drop for PinnedTimes {
    fn drop(&mut self) {
        let now = self.resolved.env.now();
        let mut table = lock(&self.resolved.table);
        for at in &self.timestamps {
            table.release(*at, now);
        }
    }
}

impl RememberedTimes {
    /// What a question was answered, if that still holds; counts as a use.
    fn recall(&mut self, question: TimeQuery, now: u64) -> Option<Timestamp> {
        let known = self.known.get(&question)?;
        if self.is_over(known, now) {
            self.forget(question);
            return None;
        }
        let known = self.known.get_mut(&question)?;
        known.last_used = now;
        Some(known.at)
    }

    fn remember(&mut self, question: TimeQuery, at: Timestamp, now: u64) {
        if self.known.len() >= REMEMBERED_MAX {
            self.make_room(now);
        }
        let known = RememberedTime {
            at,
            first_used: now,
            last_used: now,
            existence: Existence::Asked,
        };
        self.known.insert(question, known);
        self.timestamps.entry(at).or_default().names += 1;
    }

    /// Forgets what is over; if nothing is, what was used least recently, of what no handle keeps if there is any.
    fn make_room(&mut self, now: u64) {
        let over: Vec<TimeQuery> = self
            .known
            .iter()
            .filter(|(_, known)| self.is_over(known, now))
            .map(|(question, _)| *question)
            .collect();
        let oldest = match over.is_empty() {
            false => None,
            true => self
                .known
                .iter()
                .min_by_key(|(_, known)| (self.handles(known.at), known.last_used))
                .map(|(question, _)| *question),
        };
        for question in over.into_iter().chain(oldest) {
            self.forget(question);
        }
    }

    fn forget(&mut self, question: TimeQuery) {
        let Some(known) = self.known.remove(&question) else {
            return;
        };
        if let Some(uses) = self.timestamps.get_mut(&known.at) {
            uses.names -= 1;
        }
        self.tidy(known.at);
    }

    /// A handle into what was shown at `at` was closed, which is a use.
    fn release(&mut self, at: Timestamp, now: u64) {
        let Some(uses) = self.timestamps.get_mut(&at) else {
            return;
        };
        uses.handles -= 1;
        if uses.handles == 0 {
            for known in self.known.values_mut().filter(|known| known.at == at) {
                known.last_used = now;
            }
        }
        self.tidy(at);
    }

    fn tidy(&mut self, at: Timestamp) {
        let unused = |uses: &TimeReferences| uses.names == 0 && uses.handles == 0;
        if self.timestamps.get(&at).is_some_and(unused) {
            self.timestamps.remove(&at);
        }
    }

    fn handles(&self, at: Timestamp) -> usize {
        self.timestamps.get(&at).map_or(0, |uses| uses.handles)
    }

    fn is_over(&self, known: &RememberedTime, now: u64) -> bool {
        // A machine's clock may be set back: a use far in the future counts as one long ago.
        let passed =
            now.abs_diff(known.last_used) > UNUSED_MAX || now.abs_diff(known.first_used) > AGE_MAX;
        passed && self.handles(known.at) == 0
    }

    /// The memory of an answer, if it is still that one.
    fn known_as(&mut self, answer: &ResolvedTime) -> Option<&mut RememberedTime> {
        let known = self.known.get_mut(&answer.question?)?;
        (known.at == answer.at).then_some(known)
    }
}

#[cfg(test)]
#[path = "resolved_times_tests.rs"]
mod tests;
