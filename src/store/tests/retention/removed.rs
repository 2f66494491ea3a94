//! Removed directories and holds, in the model: until when the tree of a directory is kept for an undelete, and what a hold keeps.

use super::past::{Ended, Made, Past, Slot, is_last_left};
use super::words::{HOUR, SECOND, Words};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The longest gap between two removals of one run.
const GAP: u64 = 60 * SECOND;

/// Removals of names of a directory that follow each other, of which the last one is the last change of its names.
#[derive(Clone, Copy, Debug)]
struct RemovalRun {
    first: u64,
    last: u64,
}

/// A directory that does not exist.
#[derive(Clone, Debug)]
pub(super) struct GoneDirectory {
    /// The name that it was removed from.
    pub(super) slot: Slot,
    /// When it was removed.
    at: u64,
    /// When the run of removals began that emptied it.
    pub(super) first: u64,
    /// Whether the version of its name has been dropped.
    is_forgotten: bool,
}

/// Which directories were removed, and which names are being removed.
#[derive(Clone, Debug, Default)]
pub(super) struct Removals {
    runs: BTreeMap<u64, RemovalRun>,
    gone: BTreeMap<u64, GoneDirectory>,
}

impl Removals {
    /// A directory gets a name, or a rename takes one.
    pub(super) fn end_run(&mut self, directory: u64) {
        self.runs.remove(&directory);
    }

    /// A name of a directory is removed; the run of removals below it began at `begins`.
    fn go_on(&mut self, directory: u64, begins: u64, at: u64) {
        let run = self.runs.get(&directory);
        let run = run.filter(|run| begins.saturating_sub(run.last) <= GAP);
        let first = run.map_or(begins, |run| run.first.min(begins));
        self.runs.insert(directory, RemovalRun { first, last: at });
    }

    /// When a directory was removed; `None` if it exists, and the beginning of time if nothing tells any more.
    pub(super) fn removed(&self, directory: u64) -> Option<u64> {
        let gone = self.gone.get(&directory)?;
        Some(if gone.is_forgotten { 0 } else { gone.at })
    }

    /// The version is dropped with which a directory's name ended.
    pub(super) fn forget(&mut self, directory: u64, ended: u64) {
        if let Some(gone) = self.gone.get_mut(&directory)
            && gone.at == ended
        {
            gone.is_forgotten = true;
        }
    }
}

impl Past {
    /// The name of a file, or of an empty directory, is removed.
    pub(super) fn remove(&mut self, slot: &Slot, at: u64) {
        let directory = self.current(slot).and_then(|made| made.directory);
        self.end(slot, Ended::Removed(at));
        let mut begins = at;
        if let Some(directory) = directory {
            self.limits.leave(directory, at);
            let run = self.removals.runs.remove(&directory);
            let gone = GoneDirectory {
                slot: slot.clone(),
                at,
                first: run.map_or(at, |run| run.first),
                is_forgotten: false,
            };
            if run.is_some_and(|run| at - run.last <= GAP) {
                begins = gone.first;
            }
            self.removals.gone.insert(directory, gone);
        }
        self.removals.go_on(slot.0, begins, at);
    }

    /// The removed directories whose names do not exist and have a version that is left.
    pub(super) fn removed_directories(&self) -> Vec<(u64, GoneDirectory)> {
        let gone = self.removals.gone.iter();
        let gone = gone.filter(|(directory, gone)| self.last_version(**directory, gone).is_some());
        gone.map(|(directory, gone)| (*directory, gone.clone()))
            .collect()
    }

    /// The version with which the name of a removed directory ended, if it is left and nothing is left after it.
    fn last_version(&self, directory: u64, gone: &GoneDirectory) -> Option<&Made> {
        let all = &self.names[&gone.slot];
        let is_it = |made: &Made| {
            made.directory == Some(directory) && made.ended == Some(Ended::Removed(gone.at))
        };
        let at = all.iter().position(is_it)?;
        (!all[at].dropped && is_last_left(all, at)).then(|| &all[at])
    }

    /// Until when the tree of a removed directory is offered, from its first removal on.
    fn offered_until(&self, words: &Words, directory: u64, gone: &GoneDirectory) -> u64 {
        let Some(last) = self.last_version(directory, gone) else {
            return 0;
        };
        if gone.at - self.existed_since(last) < HOUR {
            return 0;
        }
        // It had its own words up to its removal.
        let own = self.limits.own(directory, gone.at - 1);
        let words = words.limited_by(&last.limit).limited_by(&own);
        gone.first + words.removed
    }

    /// Whether the last version of a name is kept because the name was removed, or a directory above it.
    pub(super) fn is_kept_as_removed(
        &self,
        words: &Words,
        slot: &Slot,
        made: &Made,
        now: u64,
    ) -> bool {
        let ended = made.ended.as_ref().map_or(now, Ended::at);
        let gone = made
            .directory
            .and_then(|it| Some((it, self.removals.gone.get(&it)?)));
        let own = match gone.filter(|(_, gone)| gone.slot == *slot && gone.at == ended) {
            Some((directory, gone)) => self.offered_until(words, directory, gone),
            None if ended - self.existed_since(made) >= HOUR => {
                ended + words.limited_by(&made.limit).removed
            }
            None => 0,
        };
        if own > now {
            return true;
        }
        let mut directory = slot.0;
        while let Some(gone) = self.removals.gone.get(&directory) {
            let is_in_tree = made.start < gone.first && gone.first <= ended;
            if is_in_tree && self.offered_until(words, directory, gone) > now {
                return true;
            }
            directory = gone.slot.0;
        }
        false
    }

    /// The names that a removed directory had before the run of removals that emptied it, and those below; `None` if a directory of these exists.
    pub(super) fn removed_tree(&self, top: u64) -> Option<Vec<(Slot, Made)>> {
        let then = self.removals.gone.get(&top)?.first - 1;
        let (mut found, mut open, mut seen) = (Vec::new(), vec![top], BTreeSet::new());
        while let Some(directory) = open.pop() {
            if !self.removals.gone.contains_key(&directory) || !seen.insert(directory) {
                return None;
            }
            let names = (directory, String::new())..(directory + 1, String::new());
            for (slot, _) in self.names.range(names) {
                if let Some(made) = self.thinned(slot, then) {
                    open.extend(made.directory);
                    found.push((slot.clone(), made.clone()));
                }
            }
        }
        Some(found)
    }

    /// A removed directory is undeleted with the names of `tree`. Returns all directories that exist again.
    pub(super) fn undelete(
        &mut self,
        top: u64,
        to: &Slot,
        tree: Vec<(Slot, Made)>,
        at: u64,
    ) -> Vec<u64> {
        let first = Made {
            directory: Some(top),
            ..Made::new(at, b"")
        };
        let mut directories = Vec::new();
        for (slot, made) in [(to.clone(), first)].into_iter().chain(tree) {
            if let Some(directory) = made.directory {
                self.removals.gone.remove(&directory);
                self.removals.end_run(directory);
                self.limits.place(directory, slot.0, at);
                directories.push(directory);
            }
            let back = Made {
                directory: made.directory,
                ..Made::new(at, &made.text)
            };
            self.push(&slot, back);
        }
        self.removals.end_run(to.0);
        directories
    }
}

/// Holds.
impl Past {
    /// The version of a name that began at `start` is held until `until`; 0: not any more. A file with several names has one hold for each state.
    pub(super) fn hold(&mut self, slot: &Slot, start: u64, until: u64) {
        let all = self.names[slot].iter();
        let shared = all.clone().find(|made| made.start == start).unwrap().shared;
        let state = shared.map(|shared| (shared.file, shared.state));
        for (name, all) in &mut self.names {
            for made in all {
                let is_it = name == slot && made.start == start;
                let of_state = made.shared.map(|shared| (shared.file, shared.state));
                if is_it || state.is_some() && of_state == state {
                    made.held = if is_it { until } else { 0 };
                }
            }
        }
    }

    /// The states of files with several names that are held at `now`.
    pub(super) fn held_states(&self, now: u64) -> BTreeSet<(u64, u64)> {
        let held = self.names.values().flatten().filter(|made| made.held > now);
        let states = held.filter_map(|made| made.shared);
        states.map(|shared| (shared.file, shared.state)).collect()
    }

    /// Until when a version of a name is held, through whichever name of its file.
    pub(super) fn held_until(&self, slot: &Slot, start: u64) -> u64 {
        let made = self.names[slot]
            .iter()
            .find(|made| made.start == start)
            .unwrap();
        let state = made.shared.map(|shared| (shared.file, shared.state));
        let of_state = |other: &&Made| {
            other.shared.map(|shared| (shared.file, shared.state)) == state && state.is_some()
        };
        let all = self.names.values().flatten().filter(of_state);
        all.map(|other| other.held).max().unwrap_or(made.held)
    }

    /// When directories with held versions, or with labels, were a directory, below it, or removed from there, after the version or the label
    /// was made.
    pub(super) fn leads(&self, now: u64) -> Leads {
        let mut led = BTreeSet::new();
        for (slot, all) in &self.names {
            for held in all.iter().filter(|held| held.held > now) {
                let start = held.shared.map_or(held.start, |shared| shared.state);
                led.insert((slot.0, start));
            }
        }
        led.extend(self.labels.iter().map(|label| (label.directory, label.at)));
        let above = led
            .into_iter()
            .flat_map(|(it, since)| self.limits.above(it, since));
        let mut leads = Leads::new();
        for (directory, time) in above {
            leads.entry(directory).or_default().push(time);
        }
        leads
    }
}

/// By directory, when something was in it or below it that is protected.
pub(super) type Leads = BTreeMap<u64, Vec<Range<u64>>>;

impl Made {
    /// Whether it was a directory's name while something was below that is protected.
    pub(super) fn leads(&self, leads: &Leads) -> bool {
        let (Some(directory), Some(ended)) = (self.directory, &self.ended) else {
            return false;
        };
        let mut times = leads.get(&directory).into_iter().flatten();
        times.any(|time| time.start.max(self.start) < time.end.min(ended.at()))
    }
}
