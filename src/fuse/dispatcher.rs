//! From a request to its answer: one task, one deadline, one reply.
//!
//! Life of a request: the dispatch thread owns the arguments and makes a future of them. It polls the future once, and what is ready then is answered
//! by that thread; otherwise a task goes on with it, and the reply goes out from there. One dispatch thread never polls: whatever makes the
//! others wait, a request that arrives is taken. When the deadline passes first, the caller gets EIO while the work goes on, because half an
//! operation is worse than a late one; what the late result granted is undone.

use super::reply::{KernelReference, Reply, errno};
use crate::fs::past::is_past;
use crate::fs::{FileSystem, FsError};
use crate::sync::Arc;
use crate::task::Tasks;
use bytes::Bytes;
use fuser::Errno;
use futures::FutureExt;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::{Instrument, Level};

/// How many deadlines a call on file contents may take: it waits for the bucket or for room in the cache.
const DATA_DEADLINES: u32 = 10;

/// How many bytes the dispatch thread transfers; more of them are hashed and copied by a thread of the runtime.
const TRANSFER_MAX: usize = 64 << 10;

/// Which deadline holds for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeadlineClass {
    /// Names and attributes: one deadline.
    Metadata,
    /// Contents, which may be transferred to or from the bucket: [`DATA_DEADLINES`] deadlines.
    Data,
}

/// Which thread polls a call first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PolledBy {
    /// The thread that read it.
    Dispatch,
    /// One of the runtime: the call takes long even if it waits for nothing.
    Runtime,
}

/// What logs and deadlines need to know of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) ino: u64,
    pub(super) deadline_class: DeadlineClass,
    polled_by: PolledBy,
}

impl Call {
    /// Describes a call on names or attributes of `ino`.
    pub(super) fn metadata(name: &'static str, ino: u64) -> Self {
        Self {
            name,
            ino,
            deadline_class: DeadlineClass::Metadata,
            polled_by: PolledBy::Dispatch,
        }
    }

    /// Describes a mkdir in `parent`. In a `.versions` it makes a label, which waits until the bucket has what it shows.
    pub(super) fn mkdir(parent: u64) -> Self {
        match is_past(parent) {
            true => Self::data("mkdir", parent),
            false => Self::metadata("mkdir", parent),
        }
    }

    /// Describes a call that moves contents of `ino`.
    pub(super) fn data(name: &'static str, ino: u64) -> Self {
        Self {
            name,
            ino,
            deadline_class: DeadlineClass::Data,
            polled_by: PolledBy::Dispatch,
        }
    }

    /// Describes a call that moves `bytes` of the contents of `ino`.
    pub(super) fn transfer(name: &'static str, ino: u64, bytes: usize) -> Self {
        let polled_by = match bytes <= TRANSFER_MAX {
            true => PolledBy::Dispatch,
            false => PolledBy::Runtime,
        };
        Self {
            polled_by,
            ..Self::data(name, ino)
        }
    }

    /// The same call, which the dispatch thread never polls.
    pub(super) fn on_runtime(self) -> Self {
        Self {
            polled_by: PolledBy::Runtime,
            ..self
        }
    }
}

/// Where requests become tasks. Clones are the same dispatcher.
#[derive(Debug, Clone)]
pub(super) struct Dispatcher {
    fs: Arc<FileSystem>,
    tasks: Tasks,
    /// The groups of the rooms below: a panic there makes every later answer EIO.
    below: Tasks,
    deadline: Duration,
    /// One permit per dispatch thread that polls, one fewer than there are threads.
    polling: Arc<Semaphore>,
}

impl Dispatcher {
    /// Whether another process changes what is shown.
    pub(super) fn follows(&self) -> bool {
        self.fs.follows()
    }

    /// Makes a dispatcher to `fs` for `threads` threads, whose requests run as members of `tasks`; a panic in `tasks` or `below` closes it.
    pub(super) fn new(
        fs: Arc<FileSystem>,
        tasks: Tasks,
        below: Tasks,
        deadline: Duration,
        threads: usize,
    ) -> Self {
        Self {
            fs,
            tasks,
            below,
            deadline,
            polling: Arc::new(Semaphore::new(threads.saturating_sub(1))),
        }
    }

    /// Runs `work` and sends its result, or EIO at the deadline, through `reply`.
    pub(super) fn run<T, R, W, F>(&self, call: Call, reply: R, work: W)
    where
        T: KernelReference,
        R: Reply<T>,
        W: FnOnce(Arc<FileSystem>) -> F,
        F: Future<Output = Result<T, FsError>> + Send + 'static,
    {
        tracing::trace!(op = call.name, ino = call.ino, "request");
        if let Some(task) = self.poisoned() {
            tracing::debug!(op = call.name, task, "refused after a panic");
            return reply.fail(Errno::EIO);
        }
        let span = tracing::debug_span!("fuse", op = call.name, ino = call.ino);
        let work = work(Arc::clone(&self.fs));
        let served = self.clone().serve(call, reply, work).instrument(span);
        let polling = match call.polled_by {
            PolledBy::Dispatch => self.polling.try_acquire().ok(),
            PolledBy::Runtime => None,
        };
        match polling {
            Some(_permit) => self.tasks.start(call.name, served),
            None => drop(self.tasks.spawn(call.name, served)),
        }
    }

    /// Sends the error that `refusal` returns, on the dispatch thread; gives `reply` back if there is none. It must not wait.
    pub(super) fn refuse_at_once<R: Reply<Bytes>>(
        &self,
        call: Call,
        reply: R,
        refusal: impl FnOnce(&FileSystem) -> Option<FsError>,
    ) -> Option<R> {
        let mut refused = None;
        self.run_inline(call, |fs| refused = refusal(fs));
        // After a panic the slow way has the answer: every call is EIO.
        let error = match self.poisoned() {
            Some(_) => None,
            None => refused,
        };
        let Some(error) = error else {
            return Some(reply);
        };
        tracing::trace!(op = call.name, ino = call.ino, %error, "refused at once");
        reply.fail(errno(&error));
        None
    }

    /// Runs `work` as a task whose result no request waits for.
    pub(super) fn run_detached<W, F>(&self, call: Call, work: W)
    where
        W: FnOnce(Arc<FileSystem>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let span = tracing::debug_span!("fuse", op = call.name, ino = call.ino);
        let work = work(Arc::clone(&self.fs));
        let dispatcher = self.clone();
        self.tasks.spawn(
            call.name,
            async move {
                if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                    dispatcher.poison(call, &panic);
                    resume_unwind(panic);
                }
            }
            .instrument(span),
        );
    }

    /// Runs `work` at once, on the dispatch thread; it must not wait.
    pub(super) fn run_inline(&self, call: Call, work: impl FnOnce(&FileSystem)) {
        // The dispatch thread belongs to fuser, and a panic must not end it.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&self.fs))) {
            self.poison(call, &panic);
        }
    }

    async fn serve<T, R, F>(self, call: Call, reply: R, work: F)
    where
        T: KernelReference,
        R: Reply<T>,
        F: Future<Output = Result<T, FsError>> + Send + 'static,
    {
        let limit = match call.deadline_class {
            DeadlineClass::Metadata => self.deadline,
            DeadlineClass::Data => self.deadline.saturating_mul(DATA_DEADLINES),
        };
        let fs = Arc::clone(&self.fs);
        let work = async move {
            fs.lease_renewed().await;
            work.await
        };
        let mut work = std::pin::pin!(AssertUnwindSafe(work).catch_unwind());
        let Ok(outcome) = tokio::time::timeout(limit, work.as_mut()).await else {
            reply.fail(Errno::EIO);
            let file = self.fs.named(call.ino).await;
            tracing::error!(%file, ?limit, "no result within the deadline, the caller got EIO");
            return self.late(call, work.await).await;
        };
        match outcome {
            Ok(Ok(value)) => reply.succeed(value),
            Ok(Err(error)) => {
                self.log(call, &error).await;
                reply.fail(errno(&error));
            }
            Err(panic) => {
                self.poison(call, &panic);
                reply.fail(Errno::EIO);
                resume_unwind(panic);
            }
        }
    }

    async fn late<T: KernelReference>(
        &self,
        call: Call,
        outcome: Result<Result<T, FsError>, Box<dyn Any + Send>>,
    ) {
        match outcome {
            Ok(Ok(value)) => {
                tracing::warn!("the result was ready after the deadline and is undone");
                value.undo(&self.fs).await;
            }
            Ok(Err(error)) => self.log(call, &error).await,
            Err(panic) => {
                self.poison(call, &panic);
                resume_unwind(panic);
            }
        }
    }

    /// Logs `error` once, at the level it names; an error that an operator must see has the path and the version.
    async fn log(&self, call: Call, error: &FsError) {
        let error_text = chain(error);
        match error.level() {
            Level::ERROR => {
                let file = self.fs.named(call.ino).await;
                tracing::error!(%file, error = %error_text, "failed");
            }
            Level::WARN => tracing::warn!(error = %error_text, "failed"),
            Level::INFO => tracing::info!(error = %error_text, "failed"),
            Level::DEBUG => tracing::debug!(error = %error_text, "failed"),
            Level::TRACE => tracing::trace!(error = %error_text, "failed"),
        }
    }

    fn poisoned(&self) -> Option<&'static str> {
        self.tasks.poisoned().or_else(|| self.below.poisoned())
    }

    fn poison(&self, call: Call, panic: &Box<dyn Any + Send>) {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        tracing::error!(
            op = call.name,
            ino = call.ino,
            message,
            "a request panicked, from now on every call is EIO"
        );
        self.fs.poison(call.name);
    }
}

/// Writes an error and its causes, outermost first; a cause that its parent already quotes is not repeated.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let line = inner.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
