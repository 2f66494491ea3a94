//! Inline bytes: how many a range row may have, and how many wait to be moved into segments.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{Mutex, lock};

/// Maximum number of bytes of a content that are written to its range rows instead of a segment when a caller waits for them, and
/// maximum number of inline bytes of a row and of a joined slice.
pub(crate) const INLINE: u64 = 64 << 10;
/// Maximum number of inline bytes that stay in a range row. More are moved into a segment: the engine would copy them at each
/// compaction of its tables.
pub(crate) const INLINE_KEPT: usize = 8 << 10;

/// So many inline bytes are moved at once, whatever their age.
const BYTES_MAX: u64 = 8 << 20;
/// Fewer bytes are moved when the first of them has waited so long.
const AGE_MAX: Duration = Duration::from_secs(60);

/// How many inline bytes were written since the last move began.
#[derive(Debug)]
pub(crate) struct InlineBacklog {
    waiting: Mutex<UnmovedBytes>,
}

#[derive(Debug)]
struct UnmovedBytes {
    bytes: u64,
    /// When the first of them was written, or left by a move; `None` if there are none.
    since: Option<Instant>,
}

impl InlineBacklog {
    /// Returns a backlog that an earlier process may have left: the first move is due as if bytes were written now.
    pub(crate) fn inherited() -> Self {
        let waiting = UnmovedBytes {
            bytes: 0,
            since: Some(Instant::now()),
        };
        Self {
            waiting: Mutex::new(waiting),
        }
    }

    /// Adds bytes of a row that was written.
    pub(crate) fn add(&self, bytes: i64) {
        let mut waiting = lock(&self.waiting);
        waiting.bytes = waiting.bytes.saturating_add_signed(bytes);
        waiting.since.get_or_insert_with(Instant::now);
    }

    /// Tells whether the bytes are to be moved now.
    pub(crate) fn is_due(&self) -> bool {
        let waiting = lock(&self.waiting);
        let is_old = |since: Instant| since.elapsed() >= AGE_MAX;
        waiting.bytes >= BYTES_MAX || waiting.since.is_some_and(is_old)
    }

    /// Notes that a move begins: bytes that are added from now on wait for the next one.
    pub(crate) fn begin(&self) {
        *lock(&self.waiting) = UnmovedBytes {
            bytes: 0,
            since: None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_move_is_due_after_a_minute_or_when_a_segment_is_full() {
        let backlog = InlineBacklog::inherited();
        assert!(!backlog.is_due());
        tokio::time::advance(AGE_MAX).await;
        assert!(backlog.is_due(), "an earlier process may have left bytes");
        backlog.begin();
        tokio::time::advance(AGE_MAX * 10).await;
        assert!(!backlog.is_due(), "nothing waits");
        backlog.add(BYTES_MAX as i64 - 1);
        assert!(!backlog.is_due());
        backlog.add(1);
        assert!(backlog.is_due());
    }
}
