//! `rewindfs status`: prints the status that the daemon of a mountpoint reports.

use super::error::CliError;
use super::place;
use super::price::{RequestPrices, RequestRates, prices};
use super::value::{show_duration, show_size};
use crate::control::{
    self, BacklogReport, CompletedReport, ConflictReport, DaemonAnswer, HistoryReport,
    ReclaimReport, Request, RequestReport, Response, ShownTime, StatusReport,
};
use crate::env::{Env, SystemEnv};
use crate::fuse::resolve;
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most names with conflict versions that are printed.
const PLACES_SHOWN: usize = 10;

/// The arguments of `rewindfs status`.
#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// The directory it is mounted on
    #[arg(value_name = "MNT")]
    mountpoint: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The prices of 1,000 requests that write or list, and of 1,000 that read [default: 0.005,0.0004, those of S3 standard in US dollars]
    #[arg(long, value_name = "WRITE,READ", value_parser = prices)]
    price: Option<RequestPrices>,
}

/// The status as `--json` prints it.
#[derive(Serialize)]
struct StatusJson<'a> {
    #[serde(flatten)]
    status: &'a StatusReport,
    #[serde(flatten)]
    rates: Option<RequestRates>,
}

/// How long a mount has been there at `now`, in nanoseconds.
fn age(status: &StatusReport, now: u64) -> Duration {
    Duration::from_nanos(now.saturating_sub(status.mounted_ns))
}

/// Prints the status of a mount.
///
/// # Errors
/// A failure when no daemon answers.
pub(super) fn status(arguments: &StatusArguments) -> Result<(), CliError> {
    let mountpoint = resolved(&arguments.mountpoint)?;
    let prices = arguments.price.unwrap_or_default();
    let Response::Status(status) = ask(&mountpoint, Request::Status)?.response else {
        return Err(unexpected(&mountpoint));
    };
    let now = SystemEnv.now();
    let text = match arguments.json {
        true => {
            let rates = prices.rates(&status.requests, age(&status, now));
            let status = StatusJson {
                status: &status,
                rates,
            };
            serde_json::to_string_pretty(&status).map_err(CliError::failure)?
        }
        false => describe(&status, now, prices),
    };
    // A closed pipe is no error: its reader has read enough.
    writeln!(std::io::stdout(), "{text}").ok();
    Ok(())
}

pub(super) fn resolved(mountpoint: &Path) -> Result<PathBuf, CliError> {
    resolve(mountpoint).map_err(CliError::failure)
}

fn ask(mountpoint: &Path, request: Request) -> Result<DaemonAnswer, CliError> {
    control::ask(&place::runtime_directories(), mountpoint, request).map_err(CliError::failure)
}

pub(super) fn unexpected(mountpoint: &Path) -> CliError {
    CliError::failure(format!(
        "the rewindfs at {} sent an answer of another kind",
        mountpoint.display()
    ))
}

/// What a read-only mount shows: a time, or how old the writer's state is; `None` for other mounts.
fn shown(status: &StatusReport, now: u64) -> Option<String> {
    if let Some(time) = &status.at {
        let ShownTime { asked, stamp, .. } = time;
        let later = match time.pruned {
            true => "; later times up to then are not kept whole",
            false => "",
        };
        return Some(format!("the tree as of {stamp}, --at {asked}{later}"));
    }
    let age = Duration::from_nanos(now.saturating_sub(status.shown_ns?));
    let age = show_duration(age);
    Some(format!("the writer's state {age} ago"))
}

/// Tells that a mount shows an older state than the time it was asked for; `None` where it shows that time.
pub(super) fn older_state(time: &ShownTime) -> Option<String> {
    let ShownTime { asked, stamp, .. } = time;
    (time.ns < time.asked_ns).then(|| {
        let why = match time.pruned {
            true => "the newest time up to then at which the tree is kept whole",
            false => "the newest state that the bucket has whole",
        };
        format!("--at {asked}: shows the tree as of {stamp}, {why}")
    })
}

/// Says that another writer has the namespace; `None` if none has.
fn fenced(status: &StatusReport) -> Option<(&'static str, String)> {
    status.fenced.then(|| {
        (
            "fenced",
            "another writer has taken the namespace; changes are refused, umount ends the mount"
                .to_owned(),
        )
    })
}

/// A restore that the mount has completed for an earlier one.
fn completed(done: &CompletedReport) -> String {
    let CompletedReport {
        path,
        changes,
        left,
        ..
    } = done;
    let left = match left.is_empty() {
        true => String::new(),
        false => format!(
            "; left as they are, because what they showed was forgotten, or their policy does not keep it: {}",
            left.join(", ")
        ),
    };
    format!("{path}, which an earlier mount began: {changes} changes{left}")
}

/// Objects deleted from the bucket and those to be deleted; `None` if there are none.
fn reclaimed(gone: &ReclaimReport) -> Option<String> {
    (gone.objects + gone.waiting_objects > 0).then(|| {
        format!(
            "{} in {} objects; {} in {} are deleted after the grace period",
            show_size(gone.bytes),
            gone.objects,
            show_size(gone.waiting_bytes),
            gone.waiting_objects
        )
    })
}

/// Uncited segments of ended writers; `None` if there are none.
fn uncited(gone: &ReclaimReport) -> Option<String> {
    (gone.uncited_objects > 0).then(|| {
        format!(
            "{} in {} objects of ended writers wait an hour, or 30 days where their log does not reach them",
            show_size(gone.uncited_bytes),
            gone.uncited_objects
        )
    })
}

/// How large the history is, and what shortens it.
fn history(state: &HistoryReport, now: u64) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(bytes) = state.bytes {
        let max = state.max_bytes;
        let max = max.map_or(String::new(), |max| {
            format!(" of at most {}", show_size(max))
        });
        lines.push(("history", format!("{}{max}", show_size(bytes))));
    }
    lines.extend(state.shortened_ns.map(|since| {
        let age = show_duration(Duration::from_nanos(now.saturating_sub(since)));
        (
            "shortened",
            format!(
                "by history-max for {age}; `rewindfs stats` shows how far back the history reaches"
            ),
        )
    }));
    if state.waiting_versions > 0 {
        lines.push((
            "waiting",
            format!(
                "{} versions, {}, until `rewindfs prune --confirm`: they are more than a quarter of the history",
                state.waiting_versions,
                show_size(state.waiting_bytes)
            ),
        ));
    }
    lines.extend(state.stopped.iter().map(|why| ("not pruned", why.clone())));
    lines
}

/// Describes a mount for a person at `now`, in nanoseconds.
fn describe(status: &StatusReport, now: u64, prices: RequestPrices) -> String {
    let age = age(status, now);
    let mut lines = vec![
        ("mountpoint", status.mountpoint.clone()),
        (
            "store",
            format!("{}, namespace {}", status.url, status.namespace),
        ),
        (
            "mode",
            format!("{}, sync on {}", status.mode, status.sync_on),
        ),
        (
            "daemon",
            format!(
                "process {}, version {}, mounted {}",
                status.pid,
                status.version,
                show_duration(age)
            ),
        ),
    ];
    lines.extend(shown(status, now).map(|text| ("shown", text)));
    lines.extend(fenced(status));
    lines.extend(lease(status).map(|told| ("lease", told)));
    lines.extend(conflicts(&status.conflicts).map(|told| ("conflicts", told)));
    lines.extend(waiting(&status.pending));
    lines.push((
        "holds",
        format!(
            "{} files, {}",
            status.usage.files,
            show_size(status.usage.bytes)
        ),
    ));
    lines.extend(status.history.iter().flat_map(|state| history(state, now)));
    lines.extend(
        status
            .completed_restore
            .iter()
            .map(|done| ("restored", completed(done))),
    );
    lines.extend(reclaimed(&status.reclaimed).map(|told| ("reclaimed", told)));
    lines.extend(uncited(&status.reclaimed).map(|told| ("uncited", told)));
    lines.extend(requests(&status.requests, age, prices));
    if let Some(task) = &status.poisoned {
        lines.push((
            "broken",
            format!("{task} panicked, every call is EIO; see the log"),
        ));
    }
    let lines: Vec<String> = lines
        .into_iter()
        .map(|(name, value)| format!("{name:<18} {value}"))
        .collect();
    lines.join("\n")
}

/// Says what is unusual about the writer's lease; `None` if nothing is.
fn lease(status: &StatusReport) -> Option<String> {
    let lease = status.lease.as_ref().filter(|_| !status.fenced)?;
    let mut parts = Vec::new();
    if lease.remaining_ms == 0 {
        parts.push("over, every call is EIO until the bucket answers".to_owned());
    }
    if let Some(host) = &lease.watched_by {
        parts.push(format!("{host} waits for the namespace"));
    }
    if lease.lapses > 0 {
        parts.push(format!(
            "it was over {} times since the mount",
            lease.lapses
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The lines on the requests of a mount of this age.
fn requests(
    requests: &RequestReport,
    age: Duration,
    prices: RequestPrices,
) -> Vec<(&'static str, String)> {
    let sent = format!(
        "{} put, {} get, {} list, {} delete, {} head, {} failed; {} up, {} down",
        requests.put,
        requests.get,
        requests.list,
        requests.delete,
        requests.head,
        requests.failures,
        show_size(requests.bytes_up),
        show_size(requests.bytes_down)
    );
    let mut lines = vec![("requests", sent)];
    let rates = prices.rates(requests, age);
    lines.extend(rates.map(|rates| ("cost", prices.describe(rates))));
    lines
}

/// Describes the conflicts that a mount found, if there are any.
pub(super) fn conflicts(found: &ConflictReport) -> Option<String> {
    if *found == ConflictReport::default() {
        return None;
    }
    let mut text = format!(
        "another writer had been here: {} versions marked conflict, {} operations dropped",
        found.versions, found.dropped
    );
    for (at, place) in found.places.iter().take(PLACES_SHOWN).enumerate() {
        text.push_str(if at == 0 {
            "; under .versions/@files: "
        } else {
            ", "
        });
        text.push_str(place);
    }
    if found.places.len() > PLACES_SHOWN {
        text.push_str(", ...; the log and --json name more");
    }
    Some(text)
}

/// Counts what is not yet in the bucket; `None` if nothing is missing.
pub(super) fn amounts(pending: &BacklogReport) -> Option<String> {
    if pending.operations == 0 && pending.files == 0 {
        return None;
    }
    let oldest = pending.oldest_age_ms.map_or(String::new(), |age| {
        format!(", oldest {}", show_duration(Duration::from_millis(age)))
    });
    let (files, bytes) = (pending.files, show_size(pending.bytes));
    let operations = pending.operations;
    Some(format!(
        "{files} files, {bytes}, {operations} operations{oldest}"
    ))
}

/// The lines on what is not yet in the bucket and on failures.
fn waiting(pending: &BacklogReport) -> Vec<(&'static str, String)> {
    let missing = amounts(pending).unwrap_or_else(|| "nothing".to_owned());
    let mut lines = vec![("not yet in bucket", missing)];
    lines.extend(
        pending
            .failures
            .iter()
            .map(|failure| ("failure", failure.clone())),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::LeaseReport;

    #[test]
    fn pending_changes_are_shown_with_their_age() {
        let mut status = StatusReport::default();
        assert!(
            describe(&status, 0, RequestPrices::default()).contains("not yet in bucket  nothing")
        );
        status.pending.files = 3;
        status.pending.bytes = 1 << 20;
        status.pending.operations = 4;
        status.pending.oldest_age_ms = Some(2_000);
        status.pending.failures = vec!["data/1: refused".to_owned()];
        status.poisoned = Some("uploader".to_owned());
        status.reclaimed.uncited_objects = 2;
        status.fenced = true;
        status.conflicts = ConflictReport {
            versions: 2,
            places: vec!["d/a".to_owned(), "b".to_owned()],
            dropped: 5,
        };
        status.shown_ns = Some(0);
        status.at = Some(ShownTime {
            asked: "-1h".to_owned(),
            asked_ns: 5,
            stamp: "2026-11-20T21-26-48.999Z".to_owned(),
            ns: 5,
            pruned: false,
        });
        let text = describe(&status, 0, RequestPrices::default());
        assert!(
            text.contains("3 files, 1.0 MiB, 4 operations, oldest 2 s"),
            "{text}"
        );
        assert!(
            text.contains("failure            data/1: refused"),
            "{text}"
        );
        assert!(text.ends_with("see the log"), "{text}");
        for part in [
            "shown              the tree as of 2026-11-20T21-26-48.999Z, --at -1h",
            "fenced             another writer has taken the namespace",
            "uncited            0 bytes in 2 objects of ended writers wait",
            "2 versions marked conflict, 5 operations dropped; under .versions/@files: d/a, b",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let mut time = status.at.unwrap_or_default();
        assert_eq!(older_state(&time), None);
        time.ns -= 1;
        let told = older_state(&time).unwrap_or_default();
        assert!(
            told.starts_with("--at -1h: shows the tree as of 2026-"),
            "{told}"
        );
        assert!(
            told.ends_with("the newest state that the bucket has whole"),
            "{told}"
        );
        time.pruned = true;
        let told = older_state(&time).unwrap_or_default();
        assert!(
            told.ends_with("up to then at which the tree is kept whole"),
            "{told}"
        );
    }

    #[test]
    fn what_is_unusual_about_the_lease_is_shown_unless_it_is_lost() {
        let lease = LeaseReport {
            remaining_ms: 0,
            lapses: 2,
            watched_by: Some("bob".to_owned()),
        };
        let mut status = StatusReport {
            lease: Some(lease),
            ..StatusReport::default()
        };
        let text = describe(&status, 0, RequestPrices::default());
        let line = "lease              over, every call is EIO until the bucket answers; bob waits for the namespace; it was over 2 times";
        assert!(text.contains(line), "{text}");
        status.fenced = true;
        let text = describe(&status, 0, RequestPrices::default());
        assert!(!text.contains("lease"), "{text}");
    }

    #[test]
    fn what_requests_cost_is_told_from_a_minute_on() {
        let mut status = StatusReport::default();
        status.requests.put = 100;
        let hour = 3_600_000_000_000;
        let described = |now| describe(&status, now, RequestPrices::default());
        assert!(!described(hour / 100).contains("cost"));
        let text = described(hour);
        let line =
            "cost               100 requests an hour since the mount, 0.37 a month at 0.005 for";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_completed_restore_and_a_time_that_is_not_whole_any_more_are_told() {
        let mut status = StatusReport::default();
        assert!(!describe(&status, 0, RequestPrices::default()).contains("restored"));
        status.at = Some(ShownTime {
            asked: "-1h".to_owned(),
            stamp: "2026-11-20T21-26-48.999Z".to_owned(),
            pruned: true,
            ..ShownTime::default()
        });
        let mut done = CompletedReport {
            path: "/d".to_owned(),
            changes: 7,
            ..CompletedReport::default()
        };
        status.completed_restore = Some(done.clone());
        let text = describe(&status, 0, RequestPrices::default());
        let lines = [
            "the tree as of 2026-11-20T21-26-48.999Z, --at -1h; later times up to then are not kept whole\n",
            "restored           /d, which an earlier mount began: 7 changes\n",
        ];
        for line in lines {
            assert!(text.contains(line), "{text}");
        }
        done.left = vec!["/d/a".to_owned(), "/d/b".to_owned()];
        status.completed_restore = Some(done);
        let text = describe(&status, 0, RequestPrices::default());
        let left = "7 changes; left as they are, because what they showed was forgotten, or their policy does not keep it: /d/a, /d/b\n";
        assert!(text.contains(left), "{text}");
    }
}
