//! What the words of a policy keep, said anew for the tests: by walking over the grid, and over every version that ever was.

use std::collections::{BTreeMap, BTreeSet};

const SECOND: u64 = 1_000_000_000;
pub(super) const HOUR: u64 = 3600 * SECOND;
pub(super) const DAY: u64 = 24 * HOUR;

/// A name: the number of its directory, and the name in it.
pub(super) type Slot = (u64, String);

/// How a version ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The name got a newer version.
    Superseded(u64),
    /// The name was removed, or a rename of another file replaced the file.
    Removed(u64),
    /// The file was renamed to this name.
    Moved(u64, Slot),
}

impl Ended {
    pub(super) fn at(&self) -> u64 {
        match self {
            Self::Superseded(at) | Self::Removed(at) | Self::Moved(at, _) => *at,
        }
    }
}

/// A version that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) start: u64,
    pub(super) ended: Option<Ended>,
    pub(super) text: Vec<u8>,
    /// When the life of the name began in which it was made.
    pub(super) life: u64,
    /// The name that a rename took the file from, where that began the life.
    pub(super) from: Option<Slot>,
    /// The hard-linked file whose state it shows.
    pub(super) shared: Option<Shared>,
    /// Whether a run has found that nothing keeps it.
    pub(super) dropped: bool,
}

/// A state of a file with several names, as one of them shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shared {
    pub(super) file: u64,
    /// When the state began.
    pub(super) state: u64,
    /// When the name began to lead to the file.
    pub(super) bound: u64,
}

/// The words of a policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) within: u64,
    pub(super) hourly: u64,
    pub(super) daily: u64,
    pub(super) weekly: u64,
    pub(super) last: usize,
    pub(super) removed: u64,
}

/// The default policy of history.md.
pub(super) const DEFAULT: Words = Words {
    within: DAY,
    hourly: 14 * DAY,
    daily: 90 * DAY,
    weekly: 365 * DAY,
    last: 3,
    removed: 30 * DAY,
};

/// Every version that was made, by name, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    pub(super) names: BTreeMap<Slot, Vec<Made>>,
    /// How many files got a second name.
    files: u64,
    pub(super) labels: Vec<Label>,
}

/// A label of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) directory: u64,
    pub(super) name: String,
    /// The time that it shows.
    pub(super) at: u64,
}

impl Label {
    /// Whether it shows the names of a directory. All other directories are in the root directory.
    pub(super) fn shows(&self, directory: u64) -> bool {
        self.directory == directory || self.directory == 1
    }
}

impl Past {
    pub(super) fn current(&self, slot: &Slot) -> Option<&Made> {
        self.names.get(slot)?.last().filter(|v| v.ended.is_none())
    }

    /// The name gets a version, and so do the other names of the file.
    pub(super) fn save(&mut self, slot: &Slot, start: u64, text: &[u8]) {
        let Some(last) = self.current(slot) else {
            self.push(slot, Made::new(start, text));
            return;
        };
        let mut names = vec![slot.clone()];
        if let Some(shared) = last.shared {
            let has = |slot: &&Slot| self.current(slot).is_some_and(|v| v.leads_to(shared.file));
            names = self.names.keys().filter(has).cloned().collect();
        }
        for name in names {
            let last = self.current(&name).unwrap().clone();
            let shared = last.shared.map(|shared| Shared {
                state: start,
                ..shared
            });
            self.end(&name, Ended::Superseded(start));
            let made = Made {
                life: last.life,
                from: last.from,
                shared,
                ..Made::new(start, text)
            };
            self.push(&name, made);
        }
    }

    /// The file gets another name.
    pub(super) fn link(&mut self, slot: &Slot, to: &Slot, at: u64) {
        self.files += 1;
        let file = self.files;
        let current = self.names.get_mut(slot).unwrap().last_mut().unwrap();
        let shared = *current.shared.get_or_insert(Shared {
            file,
            state: current.start,
            bound: current.start,
        });
        let made = Made {
            shared: Some(Shared {
                bound: at,
                ..shared
            }),
            ..Made::new(at, &current.text)
        };
        self.push(to, made);
    }

    /// Whether a rename of one to the other does nothing, because both are names of one file.
    pub(super) fn are_one_file(&self, one: &Slot, other: &Slot) -> bool {
        let file = |slot| Some(self.current(slot)?.shared?.file);
        file(one).is_some() && file(one) == file(other)
    }

    /// The name is renamed over another one, or to a new one.
    pub(super) fn rename(&mut self, from: &Slot, to: &Slot, at: u64) {
        let moved = self.current(from).unwrap().clone();
        let (life, origin) = match self.current(to) {
            Some(last) => (last.life, last.from.clone()),
            None => (at, Some(from.clone())),
        };
        self.end(from, Ended::Moved(at, to.clone()));
        self.end(to, Ended::Superseded(at));
        let made = Made {
            life,
            from: origin,
            shared: moved.shared.map(|shared| Shared {
                bound: at,
                ..shared
            }),
            ..Made::new(at, &moved.text)
        };
        self.push(to, made);
    }

    pub(super) fn remove(&mut self, slot: &Slot, at: u64) {
        self.end(slot, Ended::Removed(at));
    }

    fn end(&mut self, slot: &Slot, how: Ended) {
        if let Some(last) = self.names.get_mut(slot).and_then(|all| all.last_mut())
            && last.ended.is_none()
        {
            last.ended = Some(how);
        }
    }

    fn push(&mut self, slot: &Slot, made: Made) {
        self.names.entry(slot.clone()).or_default().push(made);
    }

    /// A run at `now`: marks every version that no word keeps. What was dropped once stays dropped.
    pub(super) fn prune(&mut self, words: &Words, now: u64) {
        let lasts = self.lasts(words.last);
        let mut gone = Vec::new();
        // A state stays while one of its names keeps it, and a name of a file while it keeps one of the file's states.
        let (mut states, mut bindings) = (BTreeSet::new(), BTreeSet::new());
        for (slot, all) in &self.names {
            for (at, made) in all.iter().enumerate() {
                let Some(ended) = &made.ended else {
                    states.extend(made.shared.map(|shared| (shared.file, shared.state)));
                    bindings.extend(made.shared.map(|shared| (slot.clone(), shared.bound)));
                    continue;
                };
                let is_newest = at + 1 == all.len();
                let time = made.start..ended.at();
                let shows = |label: &Label| label.shows(slot.0) && time.contains(&label.at);
                let kept = self.labels.iter().any(shows)
                    || words.keep_by_time(made.start, ended.at(), now)
                    || lasts.contains(&(slot.clone(), made.start))
                    || is_newest
                        && ended.at() - made.life >= HOUR
                        && ended.at() + words.removed > now;
                if !kept {
                    gone.push((slot.clone(), at));
                } else if let Some(shared) = made.shared {
                    states.insert((shared.file, shared.state));
                    bindings.insert((slot.clone(), shared.bound));
                }
            }
        }
        for (slot, all) in &self.names {
            for (at, made) in all.iter().enumerate() {
                if let Some(shared) = made.shared {
                    let kept = states.contains(&(shared.file, shared.state))
                        && bindings.contains(&(slot.clone(), shared.bound));
                    gone.retain(|(of, number)| !(kept && of == slot && *number == at));
                    if !kept {
                        gone.push((slot.clone(), at));
                    }
                }
            }
        }
        for (slot, at) in gone {
            self.names.get_mut(&slot).unwrap()[at].dropped = true;
        }
    }

    /// Every version of a file with one name that has ended and is left, and until when it shows: over the time of those after it that
    /// are gone.
    pub(super) fn kept(&self) -> BTreeSet<(Slot, u64, u64)> {
        let mut kept = BTreeSet::new();
        for (slot, all) in &self.names {
            for (at, made) in all.iter().enumerate() {
                let Some(ended) = &made.ended else { continue };
                if made.dropped || made.shared.is_some() {
                    continue;
                }
                let mut end = ended.at();
                for next in &all[at + 1..] {
                    match &next.ended {
                        Some(ended) if next.dropped && next.start == end => end = ended.at(),
                        _ => break,
                    }
                }
                kept.insert((slot.clone(), made.start, end));
            }
        }
        kept
    }

    /// The last `count` versions that have ended of each name that exists, along its line.
    fn lasts(&self, count: usize) -> BTreeSet<(Slot, u64)> {
        let mut lasts = BTreeSet::new();
        for (slot, all) in &self.names {
            let Some(current) = all.last().filter(|v| v.ended.is_none()) else {
                continue;
            };
            let (mut slot, mut life, mut end) = (slot.clone(), current.life, current.start);
            let mut from = current.from.clone();
            let mut left = count;
            while left > 0 {
                let of_life =
                    |v: &&Made| v.life == life && v.ended.as_ref().is_some_and(|e| e.at() <= end);
                let line: Vec<_> = self.names[&slot].iter().filter(of_life).collect();
                for made in line.iter().rev().take(left) {
                    lasts.insert((slot.clone(), made.start));
                }
                left = left.saturating_sub(line.len());
                let Some(origin) = from else { break };
                // The life of the former name that the rename ended.
                let before = self.names[&origin]
                    .iter()
                    .find(|v| v.ended == Some(Ended::Moved(life, slot.clone())));
                let Some(before) = before else { break };
                (end, from, slot, life) = (life, before.from.clone(), origin, before.life);
            }
        }
        lasts
    }

    /// What a name showed at a time, by every version that was made.
    pub(super) fn truth(&self, slot: &Slot, at: u64) -> Option<&Made> {
        let covers = |v: &&Made| v.start <= at && v.ended.as_ref().is_none_or(|e| at < e.at());
        self.names.get(slot)?.iter().find(covers)
    }

    /// What a name shows at a time: the newest version that is left, of those without a gap before that time.
    pub(super) fn thinned(&self, slot: &Slot, at: u64) -> Option<&Made> {
        let mut shown = self.truth(slot, at)?;
        let all = &self.names[slot];
        while shown.dropped {
            let is_before = |v: &&Made| v.ended.as_ref().is_some_and(|e| e.at() == shown.start);
            shown = all.iter().find(is_before)?;
        }
        Some(shown)
    }
}

impl Made {
    /// The first version of a life.
    fn new(start: u64, text: &[u8]) -> Self {
        Self {
            start,
            ended: None,
            text: text.to_vec(),
            life: start,
            from: None,
            shared: None,
            dropped: false,
        }
    }

    fn leads_to(&self, file: u64) -> bool {
        self.shared.is_some_and(|shared| shared.file == file)
    }

    /// Whether it has ended and is left.
    pub(super) fn is_kept(&self) -> bool {
        self.ended.is_some() && !self.dropped
    }
}

impl Words {
    /// Whether a rule of time keeps a version, by a walk over the grid times that are young enough.
    pub(super) fn keep_by_time(&self, start: u64, end: u64, now: u64) -> bool {
        let tiers = [
            (HOUR, 0, self.hourly),
            (DAY, 0, self.daily),
            (7 * DAY, 4 * DAY, self.weekly),
        ];
        let on_grid = |(period, first, term): (u64, u64, u64)| {
            // The oldest grid time that is not before the version.
            let mut grid = first + (start - first) / period * period + period - 1;
            while grid < end {
                if grid + term > now {
                    return true;
                }
                grid += period;
            }
            false
        };
        end + self.within > now || tiers.into_iter().any(on_grid)
    }
}
