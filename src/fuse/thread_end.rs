//! The end of one of fuser's threads, which ends the session.

use std::cell::RefCell;
use tokio::sync::watch;

thread_local! {
    /// Set on each of fuser's threads by its first request.
    static THREAD: RefCell<Option<ThreadEnd>> = const { RefCell::new(None) };
}

/// Ends the session when one of its threads ends. A panic inside fuser, before it calls this crate, ends a thread and loses the
/// request it had read; the other threads would continue, and that caller would wait for ever.
pub(super) struct ThreadEnd(watch::Sender<bool>);

impl ThreadEnd {
    /// Makes the end of the calling thread set `end`.
    pub(super) fn watch(end: &watch::Sender<bool>) {
        THREAD.with_borrow_mut(|thread| {
            thread.get_or_insert_with(|| Self(end.clone()));
        });
    }
}

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}
