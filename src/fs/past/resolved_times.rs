//! What a name means that means another instant a moment later: an age, or a stamp whose period still runs.
//!
//! A command walks many paths, and each walk looks such a name up again. So the first answer is remembered for the process
//! group that asked: one command sees one instant. What it then has open, or has as its working directory, keeps its instant
//! without this table, because a node's instant never changes.
//! Invariant: a meaning that was unused for [`UNUSED_MAX`], or was first used [`AGE_MAX`] ago, is not given again unless a
//! handle into what it shows is open; there are never more than [`MEANINGS_MAX`]. While one is remembered for any group, the
//! kernel keeps the name for none.

use super::stamp::{TimeName, TimeStability};
use crate::env::Env;
use crate::fs::Caller;
use crate::store::Timestamp;
use crate::sync::{Arc, Mutex, lock};
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

const SECOND: u64 = 1_000_000_000;
/// How long a meaning is remembered that is not used, nanoseconds.
pub(super) const UNUSED_MAX: u64 = 60 * SECOND;
/// How long after its first use a meaning is remembered at most, nanoseconds.
pub(super) const AGE_MAX: u64 = 600 * SECOND;
/// How many are remembered.
pub(super) const MEANINGS_MAX: usize = 1024;

/// Who gets the same answer again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum CallerGroup {
    /// The processes of one command.
    Group(u32),
    /// All processes of a user whose group cannot be learnt.
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

/// A name, and who asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TimeQuery {
    name: TimeName,
    asker: CallerGroup,
}

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResolvedTime {
    /// The instant.
    pub(super) at: Timestamp,
    /// Whether it means that one to everybody, for ever.
    pub(super) meaning: TimeStability,
    /// The question to report the outcome of, where the answer is remembered.
    pub(super) question: Option<TimeQuery>,
}

/// Whether anything was there at a remembered instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existence {
    /// It is not known yet.
    Asked,
    /// A directory stood there.
    Found,
}

#[derive(Debug)]
struct RememberedTime {
    at: Timestamp,
    first_used: u64,
    last_used: u64,
    standing: Existence,
}

/// What refers to a remembered instant.
#[derive(Debug, Default)]
struct TimeReferences {
    meanings: usize,
    handles: usize,
}

#[derive(Debug, Default)]
struct RememberedTimes {
    known: HashMap<TimeQuery, RememberedTime>,
    instants: BTreeMap<Timestamp, TimeReferences>,
}

/// The meanings that are remembered; clones are the same table.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedTimes {
    // A leaf lock, over the namespace's clock only.
    table: Arc<Mutex<RememberedTimes>>,
    env: Arc<dyn Env>,
}

/// An open handle into what was shown at remembered instants: they are not forgotten while it lives.
#[derive(Debug)]
pub(crate) struct PinnedTimes {
    meanings: ResolvedTimes,
    instants: Vec<Timestamp>,
}

impl ResolvedTimes {
    pub(super) fn new(env: Arc<dyn Env>) -> Self {
        Self {
            table: Arc::default(),
            env,
        }
    }

    /// The instant that `name` means to `caller`; `None`: it lies in the future, or before 1970. `present` reads the
    /// namespace's clock.
    pub(super) fn resolve(
        &self,
        name: TimeName,
        caller: &Caller,
        present: impl Fn() -> Timestamp,
    ) -> Option<ResolvedTime> {
        let (at, meaning) = name.resolve(present())?;
        // The clock was read before: what is remembered from here on was asked for after the period's end, so not at all.
        if meaning == TimeStability::Fixed && !self.is_remembered(name) {
            return Some(ResolvedTime {
                at,
                meaning,
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
                meaning: TimeStability::Moving,
                question: Some(question),
            });
        }
        let (at, meaning) = name.resolve(present())?;
        let question = (meaning == TimeStability::Moving).then_some(question);
        if let Some(question) = question {
            table.remember(question, at, now);
        }
        Some(ResolvedTime {
            at,
            // Another group knows the name by another instant.
            meaning: TimeStability::Moving,
            question,
        })
    }

    /// Tells that a directory stood at an answer's instant.
    pub(super) fn found(&self, answer: &ResolvedTime) {
        let mut table = lock(&self.table);
        if let Some(known) = table.known_as(answer) {
            known.standing = Existence::Found;
        }
    }

    /// Tells that nothing stood at an answer's instant: the name can come to exist, so that it is resolved anew next time,
    /// unless the instant has shown something else.
    pub(super) fn missed(&self, answer: &ResolvedTime) {
        let mut table = lock(&self.table);
        if let Some(question) = answer.question
            && let Some(known) = table.known_as(answer)
            && known.standing == Existence::Asked
        {
            table.forget(question);
        }
    }

    /// Keeps the remembered ones of `instants` for as long as the result lives; `None` if there are none.
    pub(super) fn hold(&self, instants: RangeInclusive<Timestamp>) -> Option<PinnedTimes> {
        if instants.is_empty() {
            return None;
        }
        let mut table = lock(&self.table);
        let held = table.instants.range_mut(instants).map(|(at, uses)| {
            uses.handles += 1;
            *at
        });
        let instants: Vec<Timestamp> = held.collect();
        (!instants.is_empty()).then(|| PinnedTimes {
            meanings: self.clone(),
            instants,
        })
    }

    fn is_remembered(&self, name: TimeName) -> bool {
        let table = lock(&self.table);
        table.known.keys().any(|question| question.name == name)
    }
}

impl Drop for PinnedTimes {
    fn drop(&mut self) {
        let now = self.meanings.env.now();
        let mut table = lock(&self.meanings.table);
        for at in &self.instants {
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
        if self.known.len() >= MEANINGS_MAX {
            self.make_room(now);
        }
        let known = RememberedTime {
            at,
            first_used: now,
            last_used: now,
            standing: Existence::Asked,
        };
        self.known.insert(question, known);
        self.instants.entry(at).or_default().meanings += 1;
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
        if let Some(uses) = self.instants.get_mut(&known.at) {
            uses.meanings -= 1;
        }
        self.tidy(known.at);
    }

    /// A handle into what was shown at `at` was closed, which is a use.
    fn release(&mut self, at: Timestamp, now: u64) {
        let Some(uses) = self.instants.get_mut(&at) else {
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
        let unused = |uses: &TimeReferences| uses.meanings == 0 && uses.handles == 0;
        if self.instants.get(&at).is_some_and(unused) {
            self.instants.remove(&at);
        }
    }

    fn handles(&self, at: Timestamp) -> usize {
        self.instants.get(&at).map_or(0, |uses| uses.handles)
    }

    fn is_over(&self, known: &RememberedTime, now: u64) -> bool {
        // A machine's clock may be set back: far in the future is as good as long ago.
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
