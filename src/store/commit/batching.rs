//! Batching policy of uploads: which queued contents are packed now, and which of them share a segment.

use std::time::Duration;

use crate::store::commit::Committer;
use crate::store::commit::operation::Operation;
use crate::store::data::chunks::OWN_SEGMENT;
use crate::store::data::inline_backlog::INLINE;
use crate::store::data::segment::SEGMENT_MAX;
use crate::store::model::config::Linger;
use crate::sync::{Arc, lock};

/// How long the upload of small files is delayed, when no caller waits, so that more of them share a segment.
const LINGER: Duration = Duration::from_secs(1);

/// Maximum number of bytes, of all contents that callers wait for at one moment, which go inline into rows.
const INLINE_TOGETHER: u64 = 1 << 20;

/// Operations whose contents are packed together; `true`: inline in their range rows, with no segment.
pub(crate) type PackGroup = (Vec<Arc<Operation>>, bool);

impl Committer {
    /// Returns the groups to pack and upload now, and after what time to call again.
    pub(crate) fn pack_groups(&self, waiting: Vec<Arc<Operation>>) -> (Vec<PackGroup>, Duration) {
        let linger = match self.core.config.linger {
            Linger::AtOnce => LINGER,
            Linger::For(time) => time,
        };
        let expedited = lock(&self.core.health.expedited).clone();
        let draining = self.core.health.is_draining();
        let (mut pack_groups, mut small, mut urgent) = (Vec::new(), Vec::new(), Vec::new());
        for operation in waiting {
            let bytes = operation.content.as_ref().map_or(0, |c| c.flushed.bytes());
            if bytes > OWN_SEGMENT {
                pack_groups.push((vec![operation], false));
            } else if bytes == 0 {
                pack_groups.push((vec![operation], true));
            } else if expedited.contains(&operation.order) && !draining {
                urgent.push(operation);
            } else {
                small.push(operation);
            }
        }
        let bytes_of = |o: &Arc<Operation>| o.content.as_ref().map_or(0, |c| c.flushed.bytes());
        pack_groups.extend(urgent_groups(urgent, bytes_of));
        let oldest = small
            .iter()
            .map(|o| o.since.elapsed())
            .max()
            .unwrap_or_default();
        let total: u64 = small.iter().map(bytes_of).sum();
        if !small.is_empty() && (oldest >= linger || draining || total >= SEGMENT_MAX) {
            let all = oldest >= linger || draining;
            pack_groups.extend(
                full_pack_groups(small, all, bytes_of)
                    .into_iter()
                    .map(|g| (g, false)),
            );
            return (pack_groups, Duration::from_millis(20));
        }
        (
            pack_groups,
            linger.saturating_sub(oldest).max(Duration::from_millis(5)),
        )
    }
}

/// Groups contents that callers wait for: small ones go inline into their rows, one round trip to the bucket, unless they are many;
/// the others share a segment.
fn urgent_groups(
    urgent: Vec<Arc<Operation>>,
    bytes_of: impl Fn(&Arc<Operation>) -> u64,
) -> impl Iterator<Item = PackGroup> {
    let (mut inline, mut packed): (Vec<_>, Vec<_>) =
        urgent.into_iter().partition(|o| bytes_of(o) <= INLINE);
    if inline.iter().map(&bytes_of).sum::<u64>() > INLINE_TOGETHER {
        packed.append(&mut inline);
    }
    let groups = [(inline, true), (packed, false)];
    groups.into_iter().filter(|(group, _)| !group.is_empty())
}

/// Divides small contents into groups of up to one segment. The last group, which may not be full, is left out unless
/// `all`.
fn full_pack_groups(
    small: Vec<Arc<Operation>>,
    all: bool,
    bytes_of: impl Fn(&Arc<Operation>) -> u64,
) -> Vec<Vec<Arc<Operation>>> {
    let (mut pack_groups, mut group, mut filled) = (Vec::new(), Vec::new(), 0);
    for operation in small {
        let bytes = bytes_of(&operation);
        if filled + bytes > SEGMENT_MAX {
            pack_groups.push(std::mem::take(&mut group));
            filled = 0;
        }
        filled += bytes;
        group.push(operation);
    }
    if all && !group.is_empty() {
        pack_groups.push(group);
    }
    pack_groups
}
