//! A model of the namespace in memory: the live tree, and the state of the past at every step.
//!
//! Times are numbers of steps. The past is one map per step. Facts that become known later (a flushed state is a version from its
//! flush on, a name was transient) are corrected in all maps they concern.

mod names;

use std::collections::BTreeMap;

use super::*;

pub(crate) type Id = usize;
pub(crate) type Slot = (Id, Vec<u8>);
type Text = Arc<Vec<u8>>;

/// A name that is renamed away within this many nanoseconds is transient: its versions are in no list.
const TRANSIENT_MAX: u64 = 10_000_000_000;
const NEVER: usize = usize::MAX;

/// The state of a name in the past; `version` differs for different versions of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) id: Id,
    pub(crate) text: Text,
    pub(crate) version: (u64, u64),
    /// The name was transient, so that no list has the version.
    pub(crate) passed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Unborn,
    Version,
    Provisional,
}

#[derive(Clone, Debug)]
pub(crate) struct Fix {
    pub(crate) number: u64,
    step: usize,
    seq: u64,
    text: Text,
    lapsed: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) text: Vec<u8>,
    pub(crate) names: usize,
    pub(crate) linked: bool,
    pub(crate) state: State,
    version: Option<(u64, Text)>,
    /// The first step at which the version is current.
    last: usize,
    seq: u64,
    settled: u64,
    flushes: Vec<Fix>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    bound: u64,
    alive: usize,
    behind: Option<Shown>,
}

/// The state of a file when its name was removed.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    /// The file and its version.
    state: (Id, u64),
    mode: u32,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    text: Text,
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) slots: BTreeMap<Slot, Entry>,
    /// The last removed file of each name, kept while the name exists again. Removed directories are not included.
    pub(crate) gone: BTreeMap<Slot, Gone>,
    /// When each name last ended, and whether it was transient.
    ends: BTreeMap<Slot, (Timestamp, bool)>,
    /// The past at each step.
    pub(crate) past: Vec<BTreeMap<Slot, Shown>>,
    /// The live tree at each step.
    pub(crate) live: Vec<BTreeMap<Slot, (Id, Text)>>,
    pub(crate) timestamps: Vec<Timestamp>,
    /// The first step whose state of a name is in the bucket.
    pub(crate) synced: BTreeMap<Slot, usize>,
    /// The program, its failpoint and the crash, for messages.
    pub(crate) program: String,
    /// The call of each step, for messages.
    calls: BTreeMap<usize, String>,
    counter: u64,
}

impl Tree {
    pub(crate) fn new(now: Timestamp) -> Self {
        let mut tree = Self {
            nodes: Vec::new(),
            slots: BTreeMap::new(),
            gone: BTreeMap::new(),
            ends: BTreeMap::new(),
            past: Vec::new(),
            live: Vec::new(),
            timestamps: Vec::new(),
            synced: BTreeMap::new(),
            program: String::new(),
            calls: BTreeMap::new(),
            counter: 0,
        };
        tree.node(ROOT, Kind::Directory);
        tree.nodes[0].mode = 0o755;
        tree.step(now);
        tree
    }

    /// Names the call of the current step for messages.
    pub(crate) fn name_call(&mut self, call: String) {
        self.calls.insert(self.now(), call);
    }

    /// A step and its call, for messages.
    pub(crate) fn describe(&self, step: usize) -> String {
        let call = self.calls.get(&step).map_or("the start", String::as_str);
        format!("step {step}, {call}")
    }

    /// The program and its last finished step, for messages.
    pub(crate) fn context(&self) -> String {
        let last = self.describe(self.now().saturating_sub(1));
        format!("{}, after {last}", self.program)
    }

    /// The number of the current step.
    pub(crate) fn now(&self) -> usize {
        self.past.len()
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn node(&mut self, ino: Ino, kind: Kind) -> Id {
        let state = if kind == Kind::File {
            State::Unborn
        } else {
            State::Version
        };
        self.nodes.push(Node {
            ino,
            kind,
            mode: 0o644,
            xattrs: BTreeMap::new(),
            text: Vec::new(),
            names: 1,
            linked: false,
            state,
            version: None,
            last: 0,
            seq: 0,
            settled: 0,
            flushes: Vec::new(),
        });
        self.nodes.len() - 1
    }

    /// Ends a step at the timestamp `now`.
    pub(crate) fn step(&mut self, now: Timestamp) {
        let shown = self
            .slots
            .iter()
            .filter_map(|(slot, e)| Some((slot.clone(), self.shown(e)?)));
        let shown = shown.collect();
        self.past.push(shown);
        let live = self.slots.iter().map(|(slot, e)| {
            (
                slot.clone(),
                (e.id, Arc::new(self.nodes[e.id].text.clone())),
            )
        });
        let live = live.collect();
        self.live.push(live);
        self.timestamps.push(now);
    }

    fn shown(&self, entry: &Entry) -> Option<Shown> {
        let node = &self.nodes[entry.id];
        if node.kind == Kind::Directory {
            return Some(Shown {
                id: entry.id,
                text: Text::default(),
                version: (entry.bound, 0),
                passed: false,
            });
        }
        match &node.version {
            Some((version, text)) => Some(Shown {
                id: entry.id,
                text: Arc::clone(text),
                version: (entry.bound, *version),
                passed: false,
            }),
            None => entry.behind.clone(),
        }
    }

    pub(crate) fn is_directory(&self, id: Id) -> bool {
        self.nodes[id].kind == Kind::Directory
    }

    pub(crate) fn is_empty(&self, id: Id) -> bool {
        !self.slots.keys().any(|(directory, _)| *directory == id)
    }

    pub(crate) fn slots_of(&self, id: Id) -> Vec<Slot> {
        self.slots
            .iter()
            .filter(|(_, e)| e.id == id)
            .map(|(s, _)| s.clone())
            .collect()
    }

    /// Whether `directory` is `above` or lies below it.
    pub(crate) fn is_below(&self, directory: Id, above: Id) -> bool {
        directory == above
            || self
                .slots_of(directory)
                .iter()
                .any(|(parent, _)| self.is_below(*parent, above))
    }

    pub(crate) fn is_dirty(&self, id: Id) -> bool {
        self.nodes[id].seq > self.nodes[id].settled
    }

    // ---- contents

    pub(crate) fn write(&mut self, id: Id, offset: usize, bytes: &[u8]) {
        let node = &mut self.nodes[id];
        let end = offset + bytes.len();
        if node.text.len() < end {
            node.text.resize(end, 0);
        }
        node.text[offset..end].copy_from_slice(bytes);
        node.seq += 1;
    }

    pub(crate) fn truncate(&mut self, id: Id, len: usize) {
        let node = &mut self.nodes[id];
        if node.text.len() != len {
            node.text.resize(len, 0);
            node.seq += 1;
        }
    }

    pub(crate) fn punch(&mut self, id: Id, offset: usize, len: usize) {
        let node = &mut self.nodes[id];
        let end = (offset + len).min(node.text.len());
        if offset < end {
            node.text[offset..end].fill(0);
            node.seq += 1;
        }
    }

    // ---- states

    pub(crate) fn flush(&mut self, id: Id, replaces: Option<Fix>) -> Option<Fix> {
        let (step, number) = (self.now(), self.next());
        let node = &mut self.nodes[id];
        if node.names == 0 {
            return None;
        }
        let last = node.flushes.last().map(|f| f.seq);
        let unfixed = node.seq > last.unwrap_or(0).max(node.settled);
        let waits = last.is_some_and(|seq| seq >= node.settled);
        if !unfixed && (node.state == State::Version || waits) {
            return replaces.or_else(|| node.flushes.last().cloned());
        }
        if let Some(old) = replaces {
            node.flushes.retain(|f| f.number != old.number);
        }
        let text = Arc::new(node.text.clone());
        let flush = Fix {
            number,
            step,
            seq: node.seq,
            text,
            lapsed: false,
        };
        node.flushes.push(flush.clone());
        Some(flush)
    }

    pub(crate) fn save(&mut self, id: Id, upto: &Fix) {
        while let Some(flush) = self.nodes[id]
            .flushes
            .first()
            .filter(|f| f.number <= upto.number)
            .cloned()
        {
            if self.nodes[id].names > 0 {
                self.save_flush(id, &flush);
            }
            self.nodes[id].flushes.retain(|f| f.number != flush.number);
        }
    }

    fn save_all(&mut self, id: Id) {
        if let Some(last) = self.nodes[id].flushes.last().cloned() {
            self.save(id, &last);
        }
    }

    fn save_flush(&mut self, id: Id, flush: &Fix) {
        let from = if flush.lapsed || self.nodes[id].last > flush.step {
            self.now()
        } else {
            flush.step
        };
        let behind = flush.seq < self.nodes[id].settled;
        if !behind {
            let node = &mut self.nodes[id];
            node.settled = flush.seq;
            let equal = node
                .version
                .as_ref()
                .is_some_and(|(_, text)| *text == flush.text);
            if node.state == State::Version && equal {
                return;
            }
            node.state = State::Version;
        } else {
            self.nodes[id].state = State::Provisional;
        }
        self.become_version(id, Arc::clone(&flush.text), from);
    }

    fn become_version(&mut self, id: Id, text: Text, from: usize) {
        let number = self.next();
        self.nodes[id].version = Some((number, text));
        self.nodes[id].last = from;
        for slot in self.slots_of(id) {
            if let Some(entry) = self.slots.get_mut(&slot) {
                entry.behind = None;
                entry.alive = entry.alive.min(from);
            }
            let shown = self.shown(&self.slots[&slot]);
            for step in from..self.past.len() {
                if let Some(shown) = &shown {
                    self.past[step].insert(slot.clone(), shown.clone());
                }
            }
        }
    }

    /// fsync: the state becomes provisional and is in the bucket.
    pub(crate) fn write_back(&mut self, id: Id) {
        let node = &mut self.nodes[id];
        if node.names == 0 || node.seq <= node.settled {
            return;
        }
        node.settled = node.seq;
        if node.state == State::Version {
            node.state = State::Provisional;
        }
    }

    pub(crate) fn synced(&mut self, id: Id) {
        let step = self.now();
        for slot in self.slots_of(id) {
            self.synced.insert(slot, step);
        }
    }

    pub(crate) fn drained(&mut self) {
        for id in 0..self.nodes.len() {
            let waits = self.is_dirty(id) || !self.nodes[id].flushes.is_empty();
            if waits && !self.is_directory(id) {
                self.write_back(id);
                for flush in &mut self.nodes[id].flushes {
                    flush.lapsed = true;
                }
            }
        }
    }

    /// Applies the loss of the journal: the bucket does not have which states were flushed.
    pub(crate) fn lose_flushes(&mut self) {
        for node in &mut self.nodes {
            node.flushes.clear();
        }
    }

    /// Applies the recovery of a mount after kill -9.
    pub(crate) fn recover(&mut self) {
        for id in 0..self.nodes.len() {
            if self.is_directory(id) || self.nodes[id].names == 0 {
                continue;
            }
            let flushes = std::mem::take(&mut self.nodes[id].flushes);
            for flush in &flushes {
                let flush = Fix {
                    lapsed: false,
                    ..flush.clone()
                };
                self.save_flush(id, &flush);
            }
            let step = self.now();
            let node = &mut self.nodes[id];
            let equal = node
                .version
                .as_ref()
                .is_some_and(|(_, text)| **text == node.text);
            let (dirty, is_version) = (node.seq > node.settled, node.state == State::Version);
            node.settled = node.seq;
            node.state = State::Version;
            if !is_version || (dirty && !equal) {
                let text = Arc::new(node.text.clone());
                self.become_version(id, text, step);
            }
        }
    }

    fn is_unborn(&self, id: Id) -> bool {
        self.nodes[id].state == State::Unborn && !self.nodes[id].linked
    }

    /// Whether a name is less than ten seconds old, and did not exist in the ten seconds before.
    fn is_new(&self, slot: &Slot, since: usize) -> bool {
        let last = self.timestamps.len() - 1;
        let (last, since) = (self.timestamps[last], self.timestamps[since.min(last)]);
        let is_rewritten = self.ends.get(slot).is_some_and(|(ended, transient)| {
            !transient && since.0.saturating_sub(ended.0) < TRANSIENT_MAX
        });
        last.0 - since.0 < TRANSIENT_MAX && !is_rewritten
    }

    /// The expected versions of a name, oldest first, each with a step at which it was current.
    pub(crate) fn versions(&self, slot: &Slot) -> Vec<(usize, Shown)> {
        let mut all: Vec<(usize, Shown)> = Vec::new();
        for (step, past) in self.past.iter().enumerate() {
            if let Some(shown) = past.get(slot)
                && !shown.passed
                && all
                    .last()
                    .is_none_or(|(_, last)| last.version != shown.version)
            {
                all.push((step, shown.clone()));
            }
        }
        all
    }
}
