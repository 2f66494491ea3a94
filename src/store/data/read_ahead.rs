//! Read-ahead: what an open handle is read of in order is fetched before it is asked for.
//!
//! The path of the data: [`ReadAhead::note`] sees each read of a handle before it is executed, finds the run that it continues, and
//! names the next bytes to fetch. The caller resolves them to extents. `ExtentReader::fetch_ahead` reserves their blocks that the cache does
//! not have, joins neighbours in a segment into requests of up to 8 MiB, and a task for each request fills the blocks as the bytes arrive.
//! The read then finds its blocks in the cache, or waits for the reserved ones. It alone verifies hashes and reports failures:
//! where a request fails, it fetches the block itself.
//!
//! Invariants: a run begins only after 256 KiB were read in order, so that random reads fetch nothing more. What was fetched and not
//! read yet, of all handles of a mount, stays within one budget, a part of the block cache's memory. Dropping a run ends its requests.

use std::collections::VecDeque;

use tokio::sync::watch;

use crate::sync::{Mutex, lock};

/// Bytes read in order that make a run.
const PROOF: u64 = 256 << 10;
/// Bytes of the first step of a run; each further step is twice as long.
const STEP_MIN: u64 = 1 << 20;
/// Bytes of the longest step. The reader is in one step while the next is being fetched: together they are the window.
const STEP_MAX: u64 = 32 << 20;
/// Long steps end at multiples of this many bytes of the file, where the segments of a file end that was written in order.
const STEP_UNIT: u64 = 8 << 20;
/// Runs of a handle that are followed at the same time.
const RUNS: usize = 8;
/// Bytes by which a read may come late: the kernel sends the requests of its own read-ahead at the same time.
const LATE_MAX: u64 = 4 << 20;
/// Bytes that a reader may skip beyond what was fetched.
const SKIP_MAX: u64 = 256 << 10;

/// The runs in which one open handle is read.
#[derive(Debug, Default)]
pub struct ReadAhead {
    runs: Mutex<RunTable>,
}

#[derive(Debug, Default)]
struct RunTable {
    /// The most recently continued first.
    runs: VecDeque<ReadRun>,
    /// Number of the last run.
    last: u64,
}

/// Reads of which each continues where one before it ended.
#[derive(Debug)]
struct ReadRun {
    number: u64,
    /// End of the furthest read.
    next: u64,
    state: RunState,
}

#[derive(Debug)]
enum RunState {
    /// So many bytes were read in order, fewer than [`PROOF`].
    Candidate(u64),
    Proven(Window),
}

/// What is fetched for a run ahead of its reader.
#[derive(Debug)]
struct Window {
    /// Length of the last step, bytes.
    step: u64,
    /// A read that ends behind this begins the next step.
    mark: u64,
    /// The last step.
    start: u64,
    end: u64,
    /// Bytes that were read since the last step began, and that were skipped.
    read: u64,
    skipped: u64,
    stretches: VecDeque<Stretch>,
    /// The last step, until its blocks are reserved.
    resolving: watch::Receiver<()>,
}

/// What a read begins with.
#[derive(Debug)]
pub(crate) enum ReadStart {
    /// Nothing is fetched for it or because of it.
    Plain,
    /// It needs bytes of a step whose blocks may not be reserved yet. If it did not wait for that, it would fetch them itself.
    Await(StepReserved),
    /// A step begins.
    Begin(NextStep),
}

/// Resolves when the blocks of a step are reserved, or are not going to be.
#[derive(Debug)]
pub(crate) struct StepReserved(watch::Receiver<()>);

impl StepReserved {
    /// Waits for it.
    pub(crate) async fn wait(mut self) {
        // Nothing is sent: the sender is dropped with the step.
        drop(self.0.changed().await);
    }
}

/// The bytes that a run needs next. Reads that need them wait until it is dropped.
#[derive(Debug)]
pub(crate) struct NextStep {
    /// Number of the run.
    run: u64,
    /// Offsets in the file.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Whether the reader is about to need them, so that its read should wait until they are requested.
    pub(crate) is_urgent: bool,
    #[allow(dead_code, reason = "held for its drop")]
    resolving: watch::Sender<()>,
}

/// How far a step was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepEnd {
    /// Up to this offset.
    At(u64),
    /// Up to the end of the file.
    OfFile,
}

/// What a reader did with a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StretchUse {
    /// It has not passed it yet.
    Awaited,
    /// It has read all of it.
    Passed,
}

/// Blocks that are fetched for a run. When it is dropped before the reader has passed it, their requests end.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// Offset of its end in the file.
    end: u64,
    reader: watch::Sender<StretchUse>,
}

/// Tells a request what the reader did with its stretch.
#[derive(Clone, Debug)]
pub(crate) struct StretchReader(watch::Receiver<StretchUse>);

impl Stretch {
    /// Returns a stretch that ends at `end` in the file.
    pub(crate) fn new(end: u64) -> Self {
        let (reader, _) = watch::channel(StretchUse::Awaited);
        Self { end, reader }
    }

    /// Notes that its reader has read all of it.
    pub(crate) fn pass(self) {
        self.reader.send_replace(StretchUse::Passed);
    }

    /// Returns what a request for its blocks watches.
    pub(crate) fn watch(&self) -> StretchReader {
        StretchReader(self.reader.subscribe())
    }
}

impl StretchReader {
    /// Waits until the stretch was dropped before its reader had passed it.
    pub(crate) async fn abandoned(mut self) {
        let passed = self.0.wait_for(|reader| *reader == StretchUse::Passed);
        if passed.await.is_ok() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the reader needs the stretch no more.
    pub(crate) async fn over(mut self) {
        // An error means that the stretch was dropped.
        let passed = self.0.wait_for(|reader| *reader == StretchUse::Passed);
        drop(passed.await);
    }
}

impl ReadAhead {
    /// Notes a read of `len` bytes at `offset`, and returns what comes before it. `free` is the number of bytes that the budget has left.
    pub(crate) fn note(&self, offset: u64, len: u64, free: u64) -> ReadStart {
        let mut table = lock(&self.runs);
        let found = table.find(offset).and_then(|at| table.runs.remove(at));
        let Some(mut run) = found else {
            table.begin(offset, len);
            return ReadStart::Plain;
        };
        let start = match run.advance(offset, len, free) {
            Some(step) => ReadStart::Begin(step),
            None => run.start(offset, len),
        };
        table.runs.push_front(run);
        start
    }

    /// Notes how far a step was fetched. If its run is gone, the stretch is dropped.
    pub(crate) fn fetched(&self, step: &NextStep, end: StepEnd, stretch: Option<Stretch>) {
        let mut table = lock(&self.runs);
        let run = table.runs.iter_mut().find(|run| run.number == step.run);
        let Some(RunState::Proven(window)) = run.map(|run| &mut run.state) else {
            return;
        };
        window.stretches.extend(stretch);
        match end {
            StepEnd::OfFile => window.mark = u64::MAX,
            StepEnd::At(end) if window.end == step.to => window.end = end,
            StepEnd::At(_) => {}
        }
    }
}

impl RunTable {
    /// Finds the run that a read at `offset` belongs to: one that ended there, else one that was fetched up to there.
    fn find(&self, offset: u64) -> Option<usize> {
        let proven = |run: &ReadRun| matches!(run.state, RunState::Proven(_));
        let exact = |run: &ReadRun| proven(run) && run.next == offset;
        let position = |is: &dyn Fn(&ReadRun) -> bool| self.runs.iter().position(is);
        position(&exact)
            .or_else(|| position(&|run| run.reaches(offset)))
            .or_else(|| position(&|run| run.next == offset))
    }

    fn begin(&mut self, offset: u64, len: u64) {
        self.last += 1;
        self.runs.push_front(ReadRun {
            number: self.last,
            next: offset.saturating_add(len),
            state: RunState::Candidate(len),
        });
        self.runs.truncate(RUNS);
    }
}

impl ReadRun {
    /// Tells whether a read at `offset` is near enough to the reads of this run to be one of them.
    fn reaches(&self, offset: u64) -> bool {
        let RunState::Proven(window) = &self.state else {
            return false;
        };
        let furthest = window.end.max(self.next.saturating_add(SKIP_MAX));
        (self.next.saturating_sub(LATE_MAX)..=furthest).contains(&offset)
    }

    /// Notes a read that belongs to the run.
    fn advance(&mut self, offset: u64, len: u64, free: u64) -> Option<NextStep> {
        let end = offset.saturating_add(len);
        let before = self.next;
        self.next = before.max(end);
        match &mut self.state {
            RunState::Candidate(read) => {
                *read += len;
                if *read < PROOF {
                    return None;
                }
                let from = self.next;
                let to = step_end(from, STEP_MIN, free)?;
                let (resolving, reserved) = watch::channel(());
                self.state = RunState::Proven(Window {
                    step: STEP_MIN,
                    mark: mark(STEP_MIN, from),
                    start: from,
                    end: to,
                    read: 0,
                    skipped: 0,
                    stretches: VecDeque::new(),
                    resolving: reserved,
                });
                Some(self.step(from, to, resolving))
            }
            RunState::Proven(window) => {
                window.count(before, offset, end);
                if self.next <= window.mark {
                    return None;
                }
                if window.skipped > window.read {
                    self.state = RunState::Candidate(0);
                    return None;
                }
                let from = window.end.max(self.next);
                let step = (window.step * 2).min(STEP_MAX);
                // The budget has more for a step soon: the reader passes what was fetched. A short one now would be one request more, and so
                // would each step behind it that begins within a segment.
                let ahead = window.end.saturating_sub(self.next);
                if step >= STEP_UNIT && free < STEP_UNIT && ahead >= STEP_UNIT / 2 {
                    return None;
                }
                let to = step_end(from, step, free)?;
                let (resolving, reserved) = watch::channel(());
                window.begin(step, from, to);
                window.resolving = reserved;
                Some(self.step(from, to, resolving))
            }
        }
    }

    /// What a read begins with that begins no step.
    fn start(&self, offset: u64, len: u64) -> ReadStart {
        match &self.state {
            RunState::Proven(window) if window.is_inside(offset, len) => {
                ReadStart::Await(StepReserved(window.resolving.clone()))
            }
            RunState::Proven(_) | RunState::Candidate(_) => ReadStart::Plain,
        }
    }

    fn step(&self, from: u64, to: u64, resolving: watch::Sender<()>) -> NextStep {
        NextStep {
            run: self.number,
            from,
            to,
            resolving,
            is_urgent: from.saturating_sub(self.next) < PROOF,
        }
    }
}

impl Window {
    /// Counts a read of `offset..end` of a run whose furthest read ended at `before`.
    fn count(&mut self, before: u64, offset: u64, end: u64) {
        if end <= before {
            let late = (end - offset).min(self.skipped);
            self.skipped -= late;
            self.read += late;
            return;
        }
        self.skipped += offset.saturating_sub(before);
        self.read += end - offset.max(before);
        // What ends before this read was asked for before it. A reader that is late by less than that finds the blocks in the cache.
        while self.stretches.front().is_some_and(|s| s.end <= offset) {
            if let Some(passed) = self.stretches.pop_front() {
                passed.pass();
            }
        }
    }

    /// Tells whether a read needs bytes of the last step.
    fn is_inside(&self, offset: u64, len: u64) -> bool {
        offset < self.end && offset.saturating_add(len) > self.start
    }

    fn begin(&mut self, step: u64, from: u64, to: u64) {
        (self.step, self.mark) = (step, mark(step, from));
        (self.start, self.end) = (from, to);
        (self.read, self.skipped) = (0, 0);
    }
}

/// Returns where in a step at `from` the next one begins to be fetched: at once in a long step. A short one is read within a round trip
/// anyway, so the next one waits until the reader seems to go on behind it.
fn mark(step: u64, from: u64) -> u64 {
    match step < STEP_UNIT {
        true => from.saturating_add(step / 4 * 3),
        false => from,
    }
}

/// Returns the end of a step of about `step` bytes at `from` that leaves half of the free budget to others; `None` if that is
/// too little to be worth a request.
fn step_end(from: u64, step: u64, free: u64) -> Option<u64> {
    let share = step.min(free / 2);
    if share < PROOF {
        return None;
    }
    let end = from.saturating_add(share);
    if share < STEP_UNIT / 2 {
        return Some(end);
    }
    let down = end / STEP_UNIT * STEP_UNIT;
    let up = down.saturating_add(STEP_UNIT);
    Some(match down > from {
        true => down,
        false if up - from <= free => up,
        false => end,
    })
}

#[cfg(test)]
mod tests;
