//! What was acknowledged and what was fsynced: names and the bytes behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::randomness::step;

/// A state of a file: its bytes follow from this number.
pub(crate) type StateId = u64;

/// The lengths of states, in bytes: inline, packed, and longer than what the journal takes.
const LENGTHS: [usize; 6] = [0, 40, 3_000, 70_000, 300_000, 1_200_000];

/// The bytes of a state.
pub(crate) fn bytes(id: StateId) -> Vec<u8> {
    let mut state = id;
    let length = LENGTHS[(step(&mut state) % LENGTHS.len() as u64) as usize];
    let mut bytes = format!("state {id}\n").into_bytes();
    while bytes.len() < length {
        bytes.extend(step(&mut state).to_le_bytes());
    }
    bytes
}

/// The state that these bytes are; `None` if they are none.
pub(crate) fn state_of(found: &[u8]) -> Option<StateId> {
    let line = found.split(|byte| *byte == b'\n').next()?;
    let id = std::str::from_utf8(line)
        .ok()?
        .strip_prefix("state ")?
        .parse()
        .ok()?;
    (bytes(id) == found).then_some(id)
}

/// The content of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileState {
    /// There is no such name.
    Absent,
    Whole(StateId),
    /// Other bytes: a part of what a call was writing when its process ended.
    Part(Vec<u8>),
}

impl FileState {
    pub(crate) fn of(found: Option<&Vec<u8>>) -> Self {
        match found {
            None => Self::Absent,
            Some(found) => state_of(found).map_or_else(|| Self::Part(found.clone()), Self::Whole),
        }
    }

    /// The bytes; `None` if there is no such name.
    pub(crate) fn content(&self) -> Option<Vec<u8>> {
        match self {
            Self::Absent => None,
            Self::Whole(id) => Some(bytes(*id)),
            Self::Part(found) => Some(found.clone()),
        }
    }
}

impl fmt::Display for FileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("nothing"),
            Self::Whole(id) => write!(f, "state {id}"),
            Self::Part(found) => write!(f, "{} bytes that are no state", found.len()),
        }
    }
}

/// What a call that did not end may have done to a name.
#[derive(Debug, Clone)]
pub(crate) enum InFlight {
    /// The name has this state, or the state before.
    State(FileState),
    /// A part of these bytes, from the first on.
    PartOf(StateId),
}

/// The states of a name since the oldest that may still be there after a loss.
#[derive(Debug, Clone)]
struct NameStates {
    /// Acknowledged states, oldest first; the first one is in the bucket.
    states: Vec<FileState>,
    in_flight: Vec<InFlight>,
}

impl Default for NameStates {
    fn default() -> Self {
        Self {
            states: vec![FileState::Absent],
            in_flight: Vec::new(),
        }
    }
}

/// Where what is compared comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From the bucket alone: it is there after any loss.
    Bucket,
    /// From a cache directory as well.
    Cache,
}

/// What a crash may have lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing that was acknowledged.
    Nothing,
    /// What was not fsynced.
    Unsynced,
}

/// A moment of the past, and the state of every name then.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) timestamp: u64,
    pub(crate) names: BTreeMap<String, FileState>,
}

/// The model of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Model {
    names: BTreeMap<String, NameStates>,
    /// Every state that any writer has begun to write.
    begun: BTreeSet<StateId>,
    next: StateId,
    pub(crate) moments: Vec<Moment>,
    /// Labels and what they show. The bucket has it.
    pub(crate) labels: Vec<(String, Moment)>,
    /// Since when a version that has ended may be gone, in nanoseconds; `None`: never.
    pub(crate) keeps: Option<u64>,
}

impl Model {
    /// A state that was never written.
    pub(crate) fn new_state(&mut self) -> StateId {
        self.next += 1;
        self.begun.insert(self.next);
        self.next
    }

    /// The newest state of a name, as the writer was told.
    pub(crate) fn newest(&self, name: &str) -> FileState {
        let states = self.names.get(name);
        states
            .and_then(|states| states.states.last())
            .cloned()
            .unwrap_or(FileState::Absent)
    }

    /// The names that exist, as the writer was told.
    pub(crate) fn existing(&self) -> BTreeMap<String, FileState> {
        let names = self
            .names
            .keys()
            .map(|name| (name.clone(), self.newest(name)));
        names
            .filter(|(_, state)| *state != FileState::Absent)
            .collect()
    }

    /// A call on this name begins.
    pub(crate) fn begin(&mut self, name: &str, effect: InFlight) {
        self.entry(name).in_flight.push(effect);
    }

    /// The call has succeeded.
    pub(crate) fn acknowledge(&mut self, name: &str, state: FileState) {
        let entry = self.entry(name);
        entry.in_flight.clear();
        entry.states.push(state);
    }

    /// The newest state of the name was fsynced.
    pub(crate) fn synced(&mut self, name: &str) {
        let entry = self.entry(name);
        entry.states.drain(..entry.states.len() - 1);
    }

    /// Everything acknowledged is in the bucket.
    pub(crate) fn drained(&mut self) {
        for entry in self.names.values_mut() {
            entry.states.drain(..entry.states.len() - 1);
        }
    }

    /// Compares what the live tree shows. From then on it counts as what was acknowledged.
    pub(crate) fn compare(
        &mut self,
        found: &BTreeMap<String, Vec<u8>>,
        loss: Loss,
        origin: Origin,
    ) -> Vec<String> {
        let mut violations = Vec::new();
        for name in found.keys() {
            self.entry(name);
        }
        for (name, entry) in &mut self.names {
            let shown = FileState::of(found.get(name));
            if let Err(why) = entry.check(&shown, loss) {
                violations.push(format!("{name} {why}"));
            }
            if origin == Origin::Bucket {
                entry.states.clear();
            }
            if entry.states.last() != Some(&shown) {
                entry.states.push(shown);
            }
            entry.in_flight.clear();
        }
        violations
    }

    /// Looks for what no call left: all files have states that were begun once.
    pub(crate) fn compare_known(&self, found: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
        let is_known = |found: &Vec<u8>| match FileState::of(Some(found)) {
            FileState::Whole(id) => self.begun.contains(&id),
            // What a process that ended left may have been moved to another name since.
            FileState::Part(found) => self.begun.iter().any(|id| bytes(*id).starts_with(&found)),
            FileState::Absent => false,
        };
        found
            .iter()
            .filter(|(_, found)| !is_known(found))
            .map(|(name, bytes)| format!("{name} shows {}", FileState::of(Some(bytes))))
            .collect()
    }

    /// Notes the present as a moment of the past.
    pub(crate) fn remember(&mut self, timestamp: u64) {
        let moment = self.present(timestamp);
        self.moments.push(moment);
    }

    /// The present, as a moment.
    pub(crate) fn present(&self, timestamp: u64) -> Moment {
        let names = self.existing();
        Moment { timestamp, names }
    }

    fn entry(&mut self, name: &str) -> &mut NameStates {
        self.names.entry(name.to_owned()).or_default()
    }
}

impl NameStates {
    fn check(&self, found: &FileState, loss: Loss) -> Result<(), String> {
        let allowed = match loss {
            Loss::Nothing => &self.states[self.states.len() - 1..],
            Loss::Unsynced => &self.states[..],
        };
        let may_be = |effect: &InFlight| match effect {
            InFlight::State(state) => state == found,
            InFlight::PartOf(id) => found
                .content()
                .is_some_and(|found| bytes(*id).starts_with(&found)),
        };
        // A save begins with an empty file, and a long one is uploaded while it is written: a loss may leave any moment of it.
        let is_moment = |state: &FileState| match (state, found.content()) {
            (FileState::Whole(id), Some(found)) => bytes(*id).starts_with(&found),
            (FileState::Part(part), Some(found)) => part.starts_with(&found),
            _ => false,
        };
        let is_allowed = match loss {
            Loss::Nothing => allowed.contains(found),
            Loss::Unsynced => allowed.contains(found) || allowed[1..].iter().any(is_moment),
        };
        match is_allowed || self.in_flight.iter().any(may_be) {
            true => Ok(()),
            false => {
                let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
                Err(format!(
                    "shows {found}; allowed are {allowed:?} and what {:?} left",
                    self.in_flight
                ))
            }
        }
    }
}
