//! What directories say about their own history, in the model: which words hold where a version ends, and which times stay exact.

use super::removed::Removals;
use super::words::{GRID, UNLIMITED, Words};
use std::collections::BTreeMap;
use std::ops::Range;

/// The words of a directory, and when they were in force.
#[derive(Clone, Copy, Debug)]
struct Said {
    from: u64,
    /// When they ended; the largest number: they have not.
    until: u64,
    words: Words,
    /// Whether they ended before every time that is exact in the namespace.
    is_forgotten: bool,
}

/// Where a directory was for a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) since: u64,
    /// The largest number: it is there now.
    pub(super) end: u64,
    pub(super) parent: u64,
    /// Whether the version of the directory's name that ended with it has been dropped.
    pub(super) is_forgotten: bool,
}

/// The oldest exact time of all, and of each grid.
#[derive(Clone, Copy, Debug, Default)]
struct Oldest {
    any: u64,
    grid: [u64; 3],
}

/// Where directories were, what they said, and which times the runs so far have left exact.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    places: BTreeMap<u64, Vec<Place>>,
    said: BTreeMap<u64, Vec<Said>>,
    namespace: Oldest,
    directories: BTreeMap<u64, Oldest>,
}

impl Limits {
    /// A directory is in another one from a time on.
    pub(super) fn place(&mut self, directory: u64, parent: u64, since: u64) {
        self.leave(directory, since);
        self.places.entry(directory).or_default().push(Place {
            since,
            end: u64::MAX,
            parent,
            is_forgotten: false,
        });
    }

    /// The version is dropped with which a directory left a place.
    pub(super) fn forget(&mut self, directory: u64, end: u64) {
        let places = self.places.get_mut(&directory).into_iter().flatten();
        for place in places.filter(|place| place.end == end) {
            place.is_forgotten = true;
        }
    }

    /// A directory leaves its place.
    pub(super) fn leave(&mut self, directory: u64, end: u64) {
        let places = self.places.get_mut(&directory);
        if let Some(last) = places.and_then(|places| places.last_mut()) {
            last.end = last.end.min(end);
        }
    }

    /// When a directory was made; `None` for the root directory.
    pub(super) fn made(&self, directory: u64) -> Option<u64> {
        Some(self.places.get(&directory)?.first()?.since)
    }

    /// The directory that a directory was in at a time, if that is still known; now, at the largest one.
    pub(super) fn parent(&self, directory: u64, at: u64) -> Option<u64> {
        let place = self.place_at(directory, at);
        place
            .filter(|place| !place.is_forgotten)
            .map(|place| place.parent)
    }

    fn place_at(&self, directory: u64, at: u64) -> Option<&Place> {
        let mut places = self.places.get(&directory).into_iter().flatten();
        places.find(|place| {
            let is_later = at < place.end || place.end == u64::MAX;
            place.since <= at && is_later
        })
    }

    /// A directory, and each one that it was below or removed from after a time, with when it was.
    pub(super) fn above(&self, directory: u64, since: u64) -> Vec<(u64, Range<u64>)> {
        let mut found = vec![(directory, since..u64::MAX)];
        let mut next = 0;
        while let Some((directory, time)) = found.get(next).cloned() {
            next += 1;
            let all = self.places.get(&directory).map_or(&[][..], Vec::as_slice);
            for (at, place) in all.iter().enumerate().filter(|(_, it)| !it.is_forgotten) {
                let later = &all[at + 1..];
                let is_moved = later.first().is_some_and(|next| next.since == place.end);
                // A removed directory counts where it was, until it is known to be somewhere else.
                let mut known = later.iter().filter(|place| !place.is_forgotten);
                let end = match is_moved {
                    true => place.end,
                    false => known.next().map_or(u64::MAX, |next| next.since),
                };
                let time = place.since.max(time.start)..end.min(time.end);
                let above = (place.parent, time);
                if !above.1.is_empty() && !found.contains(&above) {
                    found.push(above);
                }
            }
        }
        found
    }

    /// A directory says something from a time on; `None`: nothing any more.
    pub(super) fn say(&mut self, directory: u64, words: Option<Words>, from: u64) {
        let said = self.said.entry(directory).or_default();
        if let Some(last) = said.last_mut() {
            last.until = last.until.min(from);
        }
        said.extend(words.map(|words| Said {
            from,
            until: u64::MAX,
            words,
            is_forgotten: false,
        }));
    }

    /// Whether a directory ever said anything.
    pub(super) fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    /// What holds for a version that ended in a directory, by the places that are not forgotten.
    pub(super) fn at(&self, directory: u64, ended: u64) -> Words {
        let (mut words, mut next) = (UNLIMITED, Some(directory));
        while let Some(directory) = next {
            words = words.limited_by(&self.own(directory, ended));
            let place = self.place_at(directory, ended);
            let place = place.filter(|place| !place.is_forgotten);
            next = place.map(|place| place.parent);
        }
        words
    }

    /// What a directory itself said at a time.
    pub(super) fn own(&self, directory: u64, at: u64) -> Words {
        let mut said = self.said.get(&directory).into_iter().flatten();
        let said = said.find(|said| (said.from..said.until).contains(&at) && !said.is_forgotten);
        said.map_or(UNLIMITED, |said| said.words)
    }

    /// A run at `now` by the words of the namespace. Tells whether words of directories are forgotten that were not before.
    pub(super) fn run(&mut self, words: &Words, now: u64, removals: &Removals) -> bool {
        self.namespace.raise(&Oldest::of(words, now));
        let (first, mut forgets) = (self.namespace.first(), false);
        for (directory, said) in &mut self.said {
            let oldest = self.directories.entry(*directory).or_default();
            let removed = removals.removed(*directory).unwrap_or(u64::MAX);
            for said in said.iter_mut().filter(|said| !said.is_forgotten) {
                let ended = said.until.min(removed);
                said.is_forgotten = ended <= first && ended.saturating_add(words.removed) <= now;
                forgets |= said.is_forgotten;
                let mut raised = Oldest::of(&words.limited_by(&said.words), now);
                // Versions that ended under these words are all there until the first of them is old enough.
                if raised.any < said.from {
                    raised.any = 0;
                }
                // What ended later ended under other words.
                raised.any = raised.any.min(said.until);
                raised.grid = raised.grid.map(|oldest| oldest.min(said.until));
                oldest.raise(&raised);
            }
        }
        forgets
    }

    /// Whether everything that a directory showed at a time must be there, labels apart.
    pub(super) fn is_exact(&self, directory: u64, at: u64) -> bool {
        let mut all = self.namespace;
        for limiting in self.limiting(directory, at) {
            let own = self.directories.get(&limiting).copied();
            all.raise(&own.unwrap_or_default());
        }
        all.has(at)
    }

    /// The directories whose words hold for versions that ended in a directory after a time.
    pub(super) fn limiting(&self, directory: u64, at: u64) -> Vec<u64> {
        let mut found = Vec::new();
        let mut next = vec![(directory, at..u64::MAX)];
        while let Some((directory, time)) = next.pop() {
            let overlaps = |from: u64, until: u64| from.max(time.start) < until.min(time.end);
            let mut said = self.said.get(&directory).into_iter().flatten();
            if said.any(|said| overlaps(said.from, said.until)) {
                found.push(directory);
            }
            for place in self.places.get(&directory).into_iter().flatten() {
                let common: Range<u64> = place.since.max(time.start)..place.end.min(time.end);
                next.extend((!common.is_empty()).then_some((place.parent, common)));
            }
        }
        found
    }
}

impl Oldest {
    /// The oldest times that are kept at `now`.
    fn of(words: &Words, now: u64) -> Self {
        let terms = [words.hourly, words.daily, words.weekly];
        Self {
            any: now.saturating_sub(words.within),
            grid: terms.map(|term| now.saturating_sub(term) + 1),
        }
    }

    fn raise(&mut self, other: &Self) {
        self.any = self.any.max(other.any);
        for (oldest, other) in self.grid.iter_mut().zip(other.grid) {
            *oldest = other.max(*oldest);
        }
    }

    /// Before it nothing is exact.
    fn first(&self) -> u64 {
        self.grid.into_iter().fold(self.any, u64::min)
    }

    fn has(&self, at: u64) -> bool {
        let is_grid = |(period, first): (u64, u64)| (at + 1 - first).is_multiple_of(period);
        let mut grid = GRID.into_iter().zip(self.grid);
        at >= self.any || grid.any(|(grid, oldest)| at >= oldest && is_grid(grid))
    }
}
