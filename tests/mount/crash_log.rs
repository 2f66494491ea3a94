//! The log of a writer process: every state its calls left, and which of them may be there after a crash.
//!
//! Invariant: a writer makes one call at a time, so every call of a log except the last one has returned.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The files of one writer's directory by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A hash of a file's bytes.
type Hash = [u8; 32];

/// One logged call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    /// Made the writer's directory.
    Mkdir,
    /// Made and opened a new file.
    Create(String),
    /// Opened a file; `true`: emptied it.
    Open(String, bool),
    /// Wrote bytes at an offset; none: at the end.
    Write(Option<usize>, Vec<u8>),
    /// fsync of the open file.
    Sync,
    /// Closed the open file.
    Close,
    /// Renamed one name to another.
    Rename(String, String),
    /// Removed a name.
    Unlink(String),
}

/// A call and how it ended.
struct Line {
    /// The call.
    call: Call,
    /// The value it returned; `None` if it failed or did not return.
    returned: Option<usize>,
    /// The errno it failed with.
    errno: Option<i32>,
}

/// One inode, with any name.
#[derive(Debug, Clone, Default)]
struct Inode {
    /// Its bytes now.
    bytes: Vec<u8>,
    /// The hashes of all its states, oldest first.
    states: Vec<Hash>,
    /// The index of the newest state for which an fsync returned.
    synced: Option<usize>,
    /// Whether its bytes changed since it was opened.
    changed: bool,
    /// Every name it had.
    names: BTreeSet<String>,
    /// Whether a call removed or replaced it, acknowledged or not.
    removed: bool,
}

/// The states that one name has had.
#[derive(Debug, Clone, Default)]
struct NameRecord {
    /// All states, oldest first; `None` is a state without the name.
    states: Vec<Option<Hash>>,
    /// The first state that is allowed after the loss of the machine.
    synced_from: usize,
    /// The states since the name was bound that became versions: by a close of the file, or by a rename to the name.
    closed: Vec<Hash>,
}

/// The tree of one writer after its acknowledged calls.
#[derive(Debug, Clone, Default)]
struct WriterTree {
    /// Files by number.
    inodes: Vec<Inode>,
    /// The file that a name leads to.
    names: BTreeMap<String, usize>,
    /// The states of names.
    records: BTreeMap<String, NameRecord>,
    /// The file that is open.
    open: Option<usize>,
}

/// The result of replaying a log.
pub(crate) struct History {
    /// The log's name, for messages.
    name: String,
    /// The tree after the acknowledged calls.
    answered: WriterTree,
    /// The call that did not return, and the tree if it took full effect.
    pending: Option<(Call, WriterTree)>,
    /// The number of acknowledged calls.
    pub(crate) calls: usize,
    /// The number of fsyncs among them.
    pub(crate) syncs: usize,
    /// The errno of the call that failed.
    pub(crate) errno: Option<i32>,
}

/// The bytes that a writer writes: `length` bytes of numbered lines, made by the same rule as in `writer.py`.
fn pattern(writer: usize, count: usize, length: usize) -> Vec<u8> {
    let lines = (0..=length / 19).map(|line| format!("{writer:02} {count:08} {line:06}\n"));
    let mut bytes = lines.collect::<String>().into_bytes();
    bytes.truncate(length);
    bytes
}

/// The hash of some bytes.
pub(crate) fn hash(bytes: &[u8]) -> Hash {
    *blake3::hash(bytes).as_bytes()
}

impl Call {
    /// Parses a call.
    fn parse(writer: usize, words: &[&str]) -> Self {
        let number = |word: &str| word.parse::<usize>().expect("a number");
        match words {
            ["mkdir"] => Self::Mkdir,
            ["create", name] => Self::Create((*name).to_owned()),
            ["open", how, name] => Self::Open((*name).to_owned(), *how == "trunc"),
            ["write", at, count, from, length] => {
                let bytes = pattern(writer, number(count), number(length)).split_off(number(from));
                Self::Write(at.parse().ok(), bytes)
            }
            ["fsync"] => Self::Sync,
            ["close"] => Self::Close,
            ["rename", from, to] => Self::Rename((*from).to_owned(), (*to).to_owned()),
            ["unlink", name] => Self::Unlink((*name).to_owned()),
            other => panic!("no call of the writers: {other:?}"),
        }
    }
}

/// The lines of a log.
fn parse(writer: usize, text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "B" => lines.push(Line {
                call: Call::parse(writer, &words[1..]),
                returned: None,
                errno: None,
            }),
            "A" => {
                let returned = words[1].parse().expect("a number");
                lines.last_mut().expect("a call").returned = Some(returned);
            }
            "E" => {
                let errno = words[1].parse().expect("a number");
                lines.last_mut().expect("a call").errno = Some(errno);
            }
            other => panic!("no line of a log: {other}"),
        }
    }
    lines
}

impl WriterTree {
    /// Applies a call to the model; of a write only `returned` bytes.
    fn apply(&mut self, call: &Call, returned: usize) {
        match call {
            Call::Mkdir => {}
            Call::Create(name) => {
                self.inodes.push(Inode {
                    changed: true,
                    ..Inode::default()
                });
                self.bind(name, self.inodes.len() - 1);
                self.open = Some(self.inodes.len() - 1);
                self.changed();
            }
            Call::Open(name, empty) => {
                let inode = self.names[name];
                self.open = Some(inode);
                self.inodes[inode].changed = false;
                if *empty {
                    self.inodes[inode].bytes.clear();
                    self.changed();
                }
            }
            Call::Write(at, bytes) => {
                let content = &mut self.inodes[self.open.expect("an open file")].bytes;
                put(content, *at, &bytes[..returned]);
                self.changed();
            }
            Call::Sync => self.sync(),
            Call::Close => {
                let inode = self.open.take().expect("an open file");
                let file = &self.inodes[inode];
                if file.changed {
                    let last = hash(&file.bytes);
                    for (_, record) in self
                        .records
                        .iter_mut()
                        .filter(|(name, _)| self.names.get(*name) == Some(&inode))
                    {
                        record.closed.push(last);
                    }
                }
            }
            Call::Rename(from, to) => {
                let inode = self.remove(from);
                if self.names.contains_key(to) {
                    let replaced = self.names[to];
                    self.inodes[replaced].removed = true;
                }
                self.bind(to, inode);
                let state = hash(&self.inodes[inode].bytes);
                let record = self.records.entry(to.clone()).or_default();
                record.states.push(Some(state));
                record.closed.push(state);
            }
            Call::Unlink(name) => {
                let inode = self.remove(name);
                self.inodes[inode].removed = true;
            }
        }
    }

    /// Binds a name to a file.
    fn bind(&mut self, name: &str, inode: usize) {
        self.names.insert(name.to_owned(), inode);
        self.inodes[inode].names.insert(name.to_owned());
        let record = self.records.entry(name.to_owned()).or_default();
        if record.states.is_empty() {
            record.states.push(None);
        }
    }

    /// Removes a name and forgets the states that became versions there.
    fn remove(&mut self, name: &str) -> usize {
        let inode = self.names.remove(name).expect("a bound name");
        let record = self.records.get_mut(name).expect("a record");
        record.states.push(None);
        record.closed.clear();
        inode
    }

    /// Records the open file's new state.
    fn changed(&mut self) {
        let inode = self.open.expect("an open file");
        let file = &mut self.inodes[inode];
        let state = hash(&file.bytes);
        file.changed = true;
        file.states.push(state);
        for name in file.names.clone() {
            if self.names.get(&name) == Some(&inode) {
                self.records
                    .get_mut(&name)
                    .expect("a record")
                    .states
                    .push(Some(state));
            }
        }
    }

    /// Records that an fsync of the open file returned.
    fn sync(&mut self) {
        let inode = self.open.expect("an open file");
        let file = &mut self.inodes[inode];
        file.synced = file.states.len().checked_sub(1);
        for name in file.names.clone() {
            if self.names.get(&name) == Some(&inode) {
                let record = self.records.get_mut(&name).expect("a record");
                record.synced_from = record.states.len() - 1;
            }
        }
    }

    /// The tree as files.
    fn files(&self) -> Files {
        self.names
            .iter()
            .map(|(name, inode)| (name.clone(), self.inodes[*inode].bytes.clone()))
            .collect()
    }
}

/// Puts bytes into a content at an offset, or at its end.
fn put(content: &mut Vec<u8>, at: Option<usize>, bytes: &[u8]) {
    let at = at.unwrap_or(content.len());
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

impl History {
    /// Reads and replays the log of writer `number`.
    pub(crate) fn read(log: &Path, number: usize) -> Self {
        let text = std::fs::read_to_string(log)
            .unwrap_or_else(|error| panic!("no log {}: {error}", log.display()));
        let mut history = Self {
            name: format!("writer {number}"),
            answered: WriterTree::default(),
            pending: None,
            calls: 0,
            syncs: 0,
            errno: None,
        };
        for line in parse(number, &text) {
            assert!(
                history.pending.is_none(),
                "{}: a call after one without an answer",
                history.name
            );
            if let Some(returned) = line.returned {
                history.answered.apply(&line.call, returned);
                history.calls += 1;
                history.syncs += usize::from(line.call == Call::Sync);
                continue;
            }
            history.errno = line.errno;
            let mut done = history.answered.clone();
            let whole = if let Call::Write(_, bytes) = &line.call {
                bytes.len()
            } else {
                0
            };
            done.apply(&line.call, whole);
            history.pending = Some((line.call, done));
        }
        history
    }

    /// Differences after a crash of the daemon with the cache kept: exactly what the acknowledged calls left must
    /// be there; the pending call has no effect or its full effect, a pending write any prefix of it.
    pub(crate) fn check_kept(&self, found: &Files) -> Vec<String> {
        let expected = self.answered.files();
        if *found == expected {
            return Vec::new();
        }
        let Some((call, done)) = &self.pending else {
            return self.differences(&expected, found);
        };
        if *found == done.files() || self.is_partial(call, &expected, found) {
            return Vec::new();
        }
        let mut differences = self.differences(&expected, found);
        differences.push(format!("    (without an answer: {})", brief(call)));
        differences
    }

    /// Differences after the loss of the machine: every name must show a state it had when its
    /// file was last fsynced or later, and every fsynced file that no call removed must be there under one of its names.
    pub(crate) fn check_wiped(&self, found: &Files) -> Vec<String> {
        let tree = self
            .pending
            .as_ref()
            // A pending fsync has not acknowledged its state.
            .filter(|(call, _)| *call != Call::Sync)
            .map_or(&self.answered, |(_, done)| done);
        let shown: BTreeMap<&str, Hash> = found
            .iter()
            .map(|(name, bytes)| (name.as_str(), hash(bytes)))
            .collect();
        let mut wrong = Vec::new();
        for (name, record) in &tree.records {
            let state = shown.get(name.as_str()).copied();
            if !record.states[record.synced_from..].contains(&state)
                && !self.is_pending_part(name, found)
            {
                let earlier = record.states.iter().rposition(|earlier| *earlier == state);
                wrong.push(format!(
                    "{} {name}: shows {}, but fsync returned for state {} of {}",
                    self.name,
                    describe(found.get(name), earlier),
                    record.synced_from,
                    record.states.len()
                ));
            }
        }
        for name in found
            .keys()
            .filter(|name| !tree.records.contains_key(*name))
        {
            wrong.push(format!("{} {name}: a name that no call made", self.name));
        }
        for (number, inode) in tree.inodes.iter().enumerate() {
            let Some(synced) = inode.synced else { continue };
            let there = inode.names.iter().any(|name| {
                shown
                    .get(name.as_str())
                    .is_some_and(|state| inode.states[synced..].contains(state))
                    || self.is_pending_part(name, found)
            });
            if !inode.removed && !there {
                wrong.push(format!(
                    "{}: the fsynced file {number} (names {:?}) is under none of its names",
                    self.name, inode.names
                ));
            }
        }
        wrong
    }

    /// Differences in the versions of the existing names: every state since the name was bound that became a version
    /// must be among them, in order, and no state that no call left. `versions` returns the contents of a name's versions.
    pub(crate) fn check_versions(
        &self,
        mut versions: impl FnMut(&str) -> Vec<Vec<u8>>,
    ) -> Vec<String> {
        let mut known: BTreeSet<Hash> = BTreeSet::new();
        for tree in [
            Some(&self.answered),
            self.pending.as_ref().map(|(_, done)| done),
        ]
        .into_iter()
        .flatten()
        {
            known.extend(
                tree.inodes
                    .iter()
                    .flat_map(|inode| inode.states.iter().copied()),
            );
        }
        let mut wrong = Vec::new();
        for name in self.answered.names.keys() {
            let disputed = match &self.pending {
                Some((Call::Rename(from, to), _)) => name == from || name == to,
                Some((Call::Unlink(gone), _)) => name == gone,
                _ => false,
            };
            if disputed {
                continue;
            }
            let listed: Vec<Hash> = versions(name).iter().map(|bytes| hash(bytes)).collect();
            let mut rest = listed.iter();
            let mut closed = self.answered.records[name].closed.clone();
            // A state with the bytes of the version before it is no version.
            closed.dedup();
            if let Some(lost) = closed
                .iter()
                .position(|state| !rest.any(|listed| listed == state))
            {
                wrong.push(format!(
                    "{} {name}: saved state {lost} of {} is not among the {} listed versions, or out of order",
                    self.name, closed.len(), listed.len()
                ));
            }
            // The last version may hold a prefix of a pending write.
            let unknown = listed
                .iter()
                .rev()
                .skip(1)
                .filter(|state| !known.contains(*state))
                .count();
            if unknown > 0 {
                wrong.push(format!(
                    "{} {name}: {unknown} listed states that no call left",
                    self.name
                ));
            }
        }
        wrong
    }

    /// Names of files that were fsynced and that no call has removed since, acknowledged or not; tests plant faults in them.
    pub(crate) fn synced_names(&self) -> Vec<String> {
        let done = self
            .pending
            .as_ref()
            .filter(|(call, _)| *call != Call::Sync)
            .map_or(&self.answered, |(_, done)| done);
        let certain = |name: &str, inode: usize| {
            let file = &done.inodes[inode];
            file.synced.is_some() && !file.removed && done.names.get(name) == Some(&inode)
        };
        let names = self.answered.names.iter();
        names
            .filter(|(name, inode)| certain(name, **inode))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether `found` is `expected` with a prefix of a pending write.
    fn is_partial(&self, call: &Call, expected: &Files, found: &Files) -> bool {
        let (Call::Write(at, bytes), Some(open)) = (call, self.answered.open) else {
            return false;
        };
        let mut allowed = expected.clone();
        for (name, inode) in &self.answered.names {
            let (Some(there), true) = (found.get(name), *inode == open) else {
                continue;
            };
            let before = &self.answered.inodes[open].bytes;
            let from = at.unwrap_or(before.len()).min(there.len());
            let begun = there[from..]
                .iter()
                .zip(bytes)
                .take_while(|(a, b)| a == b)
                .count();
            let mut partial = before.clone();
            if begun > 0 {
                put(&mut partial, *at, &bytes[..begun]);
            }
            allowed.insert(name.clone(), partial);
        }
        allowed == *found
    }

    /// Whether `name` shows a prefix of the pending write to its file.
    fn is_pending_part(&self, name: &str, found: &Files) -> bool {
        let Some((call, _)) = &self.pending else {
            return false;
        };
        if !found.contains_key(name) || self.answered.names.get(name).copied() != self.answered.open
        {
            return false;
        }
        let only = |files: &Files| {
            files
                .iter()
                .filter(|(key, _)| *key == name)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        };
        let (expected, found): (Files, Files) = (only(&self.answered.files()), only(found));
        self.is_partial(call, &expected, &found)
    }

    /// Differences from the files that must be there.
    fn differences(&self, expected: &Files, found: &Files) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, bytes) in expected {
            let there = found.get(name);
            if there != Some(bytes) {
                let record = &self.answered.records[name];
                let state = there.map(|there| hash(there));
                let earlier = record.states.iter().rposition(|earlier| *earlier == state);
                wrong.push(format!(
                    "{} {name}: shows {}, should be {} bytes, its state {}",
                    self.name,
                    describe(there, earlier),
                    bytes.len(),
                    record.states.len() - 1
                ));
            }
        }
        let extra = found.keys().filter(|name| !expected.contains_key(*name));
        wrong.extend(extra.map(|name| format!("{} {name}: should not be there", self.name)));
        wrong
    }
}

/// The content of a name, for messages.
fn describe(bytes: Option<&Vec<u8>>, earlier: Option<usize>) -> String {
    let what = match bytes {
        None => "nothing".to_owned(),
        Some(bytes) => {
            let zeros = bytes.iter().filter(|byte| **byte == 0).count();
            format!("{} bytes ({zeros} zeros)", bytes.len())
        }
    };
    match earlier {
        Some(state) => format!("{what}, its state {state}"),
        None => format!("{what}, in no state that any call left"),
    }
}

/// A call without the bytes it wrote.
fn brief(call: &Call) -> String {
    match call {
        Call::Write(at, bytes) => format!("write of {} bytes at {at:?}", bytes.len()),
        other => format!("{other:?}"),
    }
}
