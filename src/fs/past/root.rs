//! `.versions` itself: which name leads where, and a screenful of instants.
//!
//! The first character decides: a digit or `-` is a time, `@` one of our own names, a letter or `_` a label.

use super::node::What;
use super::{Found, Lasting, Past, stamp};
use crate::fs::Caller;
use crate::fs::error::{FsError, FsResult};
use crate::store::{Ino, Instant};
use bytes::Bytes;

/// The name of the histories by name.
const FILES: &[u8] = b"@files";
/// The name of the removed names.
const DELETED: &[u8] = b"@deleted";
/// The name of the list of changes.
const LOG: &[u8] = b"@log";
/// The name of the usage text.
const HELP: &[u8] = b"@help";
/// How many of the newest changes a listing is drawn from; older instants resolve all the same.
const CHANGES_MAX: usize = 4096;

const HOUR: u64 = 3_600_000_000_000;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

impl Past {
    /// What `name` is to `caller` in `.versions` of the live directory `dir`.
    pub(super) async fn find_in_versions(
        &self,
        caller: &Caller,
        dir: Ino,
        name: &[u8],
    ) -> FsResult<Found> {
        let always = |what| Found {
            what,
            lasting: Lasting::Final,
        };
        match name {
            FILES => Ok(always(What::Files(dir))),
            // What can be renamed out takes its entry's lifetime along: the kernel keeps nothing on the way.
            DELETED => Ok(Found {
                what: What::Deleted(dir),
                lasting: Lasting::Passing,
            }),
            LOG => Ok(always(What::Log(dir))),
            HELP => Ok(always(What::Help)),
            [b'0'..=b'9' | b'-', ..] => self.find_time(caller, dir, name).await,
            // Labels are not there yet.
            _ => Err(FsError::NotFound),
        }
    }

    /// Our own names, and the instants at which `dir`'s entries changed, newest first, thinned with age.
    pub(super) async fn list_versions(&self, dir: Ino) -> FsResult<Vec<(Bytes, What)>> {
        let now = self.namespace.now();
        self.namespace.settle(now).await;
        let changes = self.namespace.changes(dir, CHANGES_MAX).await;
        let changes = changes.map_err(|error| FsError::from(error).by_number())?;
        let shown = thin(&changes, now);
        let ours = [
            (Bytes::from_static(DELETED), What::Deleted(dir)),
            (Bytes::from_static(FILES), What::Files(dir)),
            (Bytes::from_static(HELP), What::Help),
            (Bytes::from_static(LOG), What::Log(dir)),
        ];
        let names = stamp::print_all(&shown).into_iter();
        let times = names.filter_map(|name| {
            // What was just printed reads back, and none of it is in the future.
            let at = stamp::parse_printed(name.as_bytes())?.last.min(now);
            let what = What::Time {
                dir,
                at,
                asked: dir,
            };
            Some((Bytes::from(name), what))
        });
        Ok(ours.into_iter().chain(times).collect())
    }
}

/// Thins instants, newest first: all of the last hour, the newest of each hour of the last day, of each day of the last
/// four weeks, and of each week before.
fn thin(instants: &[Instant], now: Instant) -> Vec<Instant> {
    let mut last = None;
    let mut keep = |instant: &Instant| {
        let age = now.0.saturating_sub(instant.0);
        let step = match age {
            0..=HOUR => return true,
            _ if age <= DAY => HOUR,
            _ if age <= 4 * WEEK => DAY,
            _ => WEEK,
        };
        let bucket = (step, instant.0 / step);
        last.replace(bucket) != Some(bucket)
    };
    instants
        .iter()
        .copied()
        .filter(|instant| keep(instant))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T01:00:00Z.
    const NOW: u64 = 1_795_222_800_000_000_000;

    fn thinned(ages: &[u64]) -> Vec<u64> {
        let instants: Vec<Instant> = ages.iter().map(|age| Instant(NOW - age)).collect();
        let kept = thin(&instants, Instant(NOW));
        kept.iter().map(|instant| NOW - instant.0).collect()
    }

    #[test]
    fn the_last_hour_is_whole() {
        let ages: Vec<u64> = (0..3600).map(|second| second * 1_000_000_000).collect();
        assert_eq!(thinned(&ages), ages);
    }

    #[test]
    fn older_changes_show_the_newest_of_each_step() {
        // One change a minute for ninety days.
        let minute = HOUR / 60;
        let ages: Vec<u64> = (0..90 * 24 * 60).map(|n| n * minute).collect();
        let kept = thinned(&ages);
        let between = |from: u64, to: u64| kept.iter().filter(|a| from < **a && **a <= to).count();
        assert_eq!(between(0, HOUR), 60);
        assert_eq!(between(HOUR, DAY), 23);
        assert_eq!(between(DAY, 4 * WEEK), 28);
        assert!((9..=10).contains(&between(4 * WEEK, 90 * DAY)), "{kept:?}");
        assert!(kept.is_sorted());
    }

    #[test]
    fn a_single_old_change_stays() {
        assert_eq!(thinned(&[400 * DAY]), [400 * DAY]);
        assert!(thinned(&[]).is_empty());
    }
}
