//! Every version that was ever made, and which of them the words of a policy keep.

use super::limits::Limits;
use super::removed::Removals;
use super::words::{DAY, DEFAULT, UNLIMITED, Words};
use crate::store::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

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
    /// The directory that it is.
    pub(super) directory: Option<u64>,
    /// The hard-linked file whose state it shows.
    pub(super) shared: Option<Shared>,
    /// What the directories above said when it ended.
    pub(super) limit: Words,
    /// Until when it is held through this name; 0: it is not.
    pub(super) held: u64,
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

/// Every version that was made, by name, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) names: BTreeMap<Slot, Vec<Made>>,
    /// How many files got a second name.
    files: u64,
    pub(super) labels: Vec<Label>,
    pub(super) limits: Limits,
    pub(super) removals: Removals,
    pub(super) words: Words,
    /// Stricter words, and from when on they are in force.
    pub(super) pending: Option<(Words, u64)>,
}

impl Default for Past {
    fn default() -> Self {
        Self {
            names: BTreeMap::new(),
            files: 0,
            labels: Vec::new(),
            limits: Limits::default(),
            removals: Removals::default(),
            words: DEFAULT,
            pending: None,
        }
    }
}

/// A label of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) directory: u64,
    pub(super) name: String,
    /// The time that it shows.
    pub(super) at: u64,
    /// The first run from then on removes it; the largest number: none does.
    pub(super) expires: u64,
    /// Until then it cannot be removed.
    pub(super) held: u64,
}

impl Past {
    pub(super) fn current(&self, slot: &Slot) -> Option<&Made> {
        self.names.get(slot)?.last().filter(|v| v.ended.is_none())
    }

    /// The name gets a version, and so do the other names of the file.
    pub(super) fn save(&mut self, slot: &Slot, start: u64, text: &[u8]) {
        let Some(last) = self.current(slot) else {
            self.removals.end_run(slot.0);
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

    /// A directory is made.
    pub(super) fn make_directory(&mut self, slot: &Slot, directory: u64, at: u64) {
        self.limits.place(directory, slot.0, at);
        self.removals.end_run(slot.0);
        let made = Made {
            directory: Some(directory),
            ..Made::new(at, b"")
        };
        self.push(slot, made);
    }

    /// Whether a directory was another one at a time, or below it.
    pub(super) fn is_below(&self, directory: u64, above: u64, at: u64) -> bool {
        let mut directory = directory;
        while directory != above {
            let Some(parent) = self.limits.parent(directory, at) else {
                return false;
            };
            directory = parent;
        }
        true
    }

    /// Whether a label shows a version.
    fn is_labeled(&self, slot: &Slot, made: &Made, ended: u64) -> bool {
        let mut labels = self.labels.iter();
        labels.any(|label| {
            (made.start..ended).contains(&label.at)
                && self.is_below(slot.0, label.directory, label.at)
        })
    }

    /// The name of a directory; `None` for the root directory.
    pub(super) fn name_of(&self, directory: u64) -> Option<Slot> {
        let mut names = self.names.keys();
        let leads = |slot: &&Slot| {
            self.current(slot)
                .is_some_and(|v| v.directory == Some(directory))
        };
        names.find(leads).cloned()
    }

    /// What a directory shows at a time: the contents of files, and the numbers of directories.
    pub(super) fn listed(&self, directory: u64, at: u64, exact: bool) -> Vec<(String, Vec<u8>)> {
        let from = (directory, String::new());
        let names = self.names.range(from..(directory + 1, String::new()));
        let show = |slot: &Slot| {
            let shown = match exact {
                true => self.truth(slot, at),
                false => self.thinned(slot, at),
            };
            let text = |made: &Made| match made.directory {
                Some(directory) => directory.to_string().into_bytes(),
                None => made.text.clone(),
            };
            Some((slot.1.clone(), text(shown?)))
        };
        names.filter_map(|(slot, _)| show(slot)).collect()
    }

    /// Whether a label shows a directory at a time.
    pub(super) fn has_label(&self, directory: u64, at: u64) -> bool {
        let mut labels = self.labels.iter().filter(|label| label.at == at);
        labels.any(|label| self.is_below(directory, label.directory, at))
    }

    /// The policy is set. Tells whether the words are in force at once.
    pub(super) fn set_words(&mut self, words: Words, now: u64) -> bool {
        let is_at_once = !words.are_stricter_than(&self.words);
        self.pending = (!is_at_once).then_some((words, now + DAY));
        if is_at_once {
            self.words = words;
        }
        is_at_once
    }

    /// A run at `now`, before and after which `history-max` had shortened the policy to `caps`.
    pub(super) fn run(&mut self, now: u64, caps: [Option<&Policy>; 2]) {
        if let Some((words, _)) = self.pending.filter(|(_, from)| *from <= now) {
            (self.words, self.pending) = (words, None);
        }
        self.labels
            .retain(|label| label.expires.max(label.held) > now);
        let capped = |cap: &Policy| self.words.capped(cap);
        let [before, after] = caps.map(|cap| cap.map(capped));
        self.prune(&before.unwrap_or(self.words), now);
        if let Some(after) = after {
            self.prune(&after, now);
        }
    }

    /// The file gets another name.
    pub(super) fn link(&mut self, slot: &Slot, to: &Slot, at: u64) {
        self.files += 1;
        self.removals.end_run(to.0);
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
        self.removals.end_run(from.0);
        self.removals.end_run(to.0);
        if let Some(directory) = moved.directory {
            self.limits.place(directory, to.0, at);
        }
        let made = Made {
            life,
            from: origin,
            directory: moved.directory,
            shared: moved.shared.map(|shared| Shared {
                bound: at,
                ..shared
            }),
            ..Made::new(at, &moved.text)
        };
        self.push(to, made);
    }

    pub(super) fn end(&mut self, slot: &Slot, how: Ended) {
        if let Some(last) = self.names.get_mut(slot).and_then(|all| all.last_mut())
            && last.ended.is_none()
        {
            last.limit = self.limits.at(slot.0, how.at());
            last.ended = Some(how);
        }
    }

    pub(super) fn push(&mut self, slot: &Slot, made: Made) {
        self.names.entry(slot.clone()).or_default().push(made);
    }

    /// Marks every version that no word keeps at `now`. What was dropped once stays dropped.
    pub(super) fn prune(&mut self, words: &Words, now: u64) {
        if self.limits.run(words, now, &self.removals) {
            self.limit_anew();
        }
        // A name that begins later, because a state is gone with which it began, may be kept by nothing any more.
        while self.drop_unkept(words, now) {}
    }

    /// Marks the versions that no word keeps. Returns whether others may be kept by none any more.
    fn drop_unkept(&mut self, words: &Words, now: u64) -> bool {
        let lasts = self.lasts(words.last);
        let (ends, spans) = (self.state_ends(), self.binding_spans(now));
        let (held_states, leads) = (self.held_states(now), self.leads(now));
        let mut gone = Vec::new();
        // A state stays while one of its names keeps it, and a name of a file while it keeps one of the file's states.
        let (mut states, mut bindings) = (BTreeSet::new(), BTreeSet::new());
        for (slot, all) in &self.names {
            for (at, made) in all.iter().enumerate().filter(|(_, made)| !made.dropped) {
                let Some(ended) = &made.ended else {
                    states.extend(made.shared.map(|shared| (shared.file, shared.state)));
                    bindings.extend(made.shared.map(|shared| (slot, shared.bound)));
                    continue;
                };
                let words_here = words.limited_by(&made.limit);
                let place = lasts.get(&(slot.clone(), made.start));
                let kept = self.is_labeled(slot, made, ended.at())
                    || place.is_some_and(|place| *place < words_here.last)
                    || self.leads_below(made, ended.at() + words.longest() > now)
                    || is_last_left(all, at) && self.is_kept_as_removed(words, slot, made, now)
                    || made.held > now
                    || made.leads(&leads)
                    || made
                        .shared
                        .is_some_and(|it| held_states.contains(&(it.file, it.state)));
                let Some(shared) = made.shared else {
                    if !kept && !words_here.keep_by_time(made.start, ended.at(), now) {
                        gone.push((slot.clone(), at));
                    }
                    continue;
                };
                let (state, binding) = ((shared.file, shared.state), (slot, shared.bound));
                let end = ends[&state].unwrap_or(now);
                if kept || words_here.keep_by_time(shared.state, end, now) {
                    states.insert(state);
                }
                let (span, limit) = &spans[&binding];
                let words_then = words.limited_by(limit);
                if kept || words_then.keep_by_time(span.start, span.end, now) {
                    bindings.insert(binding);
                }
            }
        }
        for (slot, all) in &self.names {
            for (at, made) in all.iter().enumerate().filter(|(_, made)| !made.dropped) {
                if let Some(shared) = made.shared {
                    let kept = states.contains(&(shared.file, shared.state))
                        && bindings.contains(&(slot, shared.bound));
                    gone.extend((!kept).then(|| (slot.clone(), at)));
                }
            }
        }
        let (mut forgotten, mut is_shared) = (false, false);
        for (slot, at) in gone {
            let made = &mut self.names.get_mut(&slot).unwrap()[at];
            made.dropped = true;
            is_shared |= made.shared.is_some();
            if let (Some(directory), Some(ended)) = (made.directory, &made.ended) {
                self.limits.forget(directory, ended.at());
                self.removals.forget(directory, ended.at());
                forgotten = true;
            }
        }
        if forgotten {
            self.limit_anew();
        }
        is_shared
    }

    /// Where nothing tells any more where a directory was, or what was said, the words of the namespace hold.
    fn limit_anew(&mut self) {
        for (slot, all) in &mut self.names {
            let is_needed = |made: &&mut Made| !made.dropped || made.shared.is_some();
            for made in all.iter_mut().filter(is_needed) {
                if let Some(ended) = &made.ended {
                    made.limit = self.limits.at(slot.0, ended.at());
                }
            }
        }
    }

    /// Whether a version of a directory is needed to know what was said above the versions below it.
    fn leads_below(&self, made: &Made, is_young: bool) -> bool {
        made.directory.is_some() && !self.limits.is_empty() && is_young
    }

    /// When each state of a file with several names ended; `None`: it has not.
    fn state_ends(&self) -> BTreeMap<(u64, u64), Option<u64>> {
        let mut ends = BTreeMap::new();
        for made in self.names.values().flatten() {
            if let Some(shared) = made.shared {
                let end = made.ended.as_ref().map(Ended::at);
                let known = ends.entry((shared.file, shared.state)).or_insert(end);
                *known = (*known).zip(end).map(|(known, end)| known.max(end));
            }
        }
        ends
    }

    /// From when to when each name led to a file with several names, from the first state on that is left, and what was said there at
    /// the end.
    fn binding_spans(&self, now: u64) -> BTreeMap<(&Slot, u64), (Range<u64>, Words)> {
        let mut spans = BTreeMap::new();
        for (slot, all) in &self.names {
            for made in all {
                let Some(shared) = made.shared else { continue };
                let end = made.ended.as_ref().map_or(now, Ended::at);
                let span = spans.entry((slot, shared.bound));
                let (span, limit) = span.or_insert((u64::MAX..end, made.limit));
                if !made.dropped {
                    span.start = span.start.min(made.start);
                }
                (span.end, *limit) = (end, made.limit);
            }
        }
        spans
    }

    /// Since when what a version shows had existed: a directory since it was made, a file as long as its name.
    pub(super) fn existed_since(&self, made: &Made) -> u64 {
        let directory = made.directory.and_then(|it| self.limits.made(it));
        directory.unwrap_or(made.life)
    }

    /// Every version of a directory, or of a file with one name, that has ended and is left, and until when it shows.
    pub(super) fn kept(&self) -> BTreeSet<(Slot, u64, u64)> {
        let mut kept = BTreeSet::new();
        for (slot, all) in &self.names {
            for (at, made) in all.iter().enumerate() {
                if !made.is_kept() || made.shared.is_some() {
                    continue;
                }
                kept.insert((slot.clone(), made.start, shown_until(all, at)));
            }
        }
        kept
    }

    /// The last `count` versions that have ended of each name that exists, along its line, and the place of each from the newest on.
    fn lasts(&self, count: usize) -> BTreeMap<(Slot, u64), usize> {
        let mut lasts = BTreeMap::new();
        for (slot, all) in &self.names {
            let is_file = |v: &&Made| v.ended.is_none() && v.directory.is_none();
            let Some(current) = all.last().filter(is_file) else {
                continue;
            };
            let (mut slot, mut life, mut end) = (slot.clone(), current.life, current.start);
            let mut from = current.from.clone();
            let mut left = count;
            while left > 0 {
                let all = &self.names[&slot];
                let of_life = |v: &&Made| v.life == life && !v.dropped;
                let has_ended = |v: &&Made| v.ended.as_ref().is_some_and(|e| e.at() <= end);
                let line: Vec<_> = all.iter().filter(of_life).filter(has_ended).collect();
                for (place, made) in line.iter().rev().take(left).enumerate() {
                    lasts.insert((slot.clone(), made.start), count - left + place);
                }
                left = left.saturating_sub(line.len());
                // Without the state that a rename left, nothing leads from the former name to this one.
                let begins = all.iter().filter(of_life).any(|v| v.start == life);
                let Some(origin) = from.filter(|_| begins) else {
                    break;
                };
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

/// Whether a version is the last one of a life, and nothing is left of those after it.
pub(super) fn is_last_left(all: &[Made], at: usize) -> bool {
    let ended = all[at].ended.as_ref().map(Ended::at);
    let goes_on = |next: &Made| Some(next.start) == ended;
    let later = &all[at + 1..];
    later.iter().all(|made| made.dropped) && !later.first().is_some_and(goes_on)
}

/// Until when a version that has ended shows: over the time of those after it that are gone.
fn shown_until(all: &[Made], at: usize) -> u64 {
    let end = |made: &Made| made.ended.as_ref().map_or(u64::MAX, Ended::at);
    let mut until = end(&all[at]);
    for next in &all[at + 1..] {
        if !next.dropped || next.start != until {
            break;
        }
        until = end(next);
    }
    until
}

impl Made {
    /// The first version of a life.
    pub(super) fn new(start: u64, text: &[u8]) -> Self {
        Self {
            start,
            ended: None,
            text: text.to_vec(),
            life: start,
            from: None,
            directory: None,
            shared: None,
            limit: UNLIMITED,
            held: 0,
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
