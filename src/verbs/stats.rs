//! `stats`: how much is live, how much is history, how far back it reaches, and what goes next.

use super::error::VerbError;
use super::path::{PathText, TimedPath};
use super::reader::{NodeState, PathReader};
use super::retention::cause_text;
use super::retention_rows::StatRow;
use super::rows::{RowSender, VerbRow, path_text};
use crate::store::{NamesBelow, StoreError, Tier, Timestamp};

/// How many labels are told, those that keep the most.
const LABELS_MAX: usize = 20;

fn row(what: &str) -> StatRow {
    StatRow {
        what: what.to_owned(),
        ..StatRow::default()
    }
}

/// Sends what is known about the namespace, and the names with the most history at and below a path.
pub(super) async fn stats(
    reader: &PathReader,
    path: &TimedPath,
    rows: &RowSender,
) -> Result<(), VerbError> {
    let at = VerbError::at(path);
    let below = match reader.state(path).await?.node {
        NodeState::Directory(directory) => NamesBelow::Directory(directory),
        NodeState::Other(_) => {
            let name = reader.timed_name(path).await?.ok_or(VerbError::IsRoot)?;
            NamesBelow::Name {
                directory: name.directory,
                name: name.name,
            }
        }
    };
    for stat in amounts(reader).await.map_err(&at)? {
        rows.put_row(VerbRow::Stat(stat)).await?;
    }
    for stat in limited_directories(reader, path).await? {
        rows.put_row(VerbRow::Stat(stat)).await?;
    }
    for stat in largest_labels(reader, path).await? {
        rows.put_row(VerbRow::Stat(stat)).await?;
    }
    let largest = reader.namespace.retention().largest_names(&below).await;
    for name in largest.map_err(&at)? {
        let above = reader.directory_path(name.directory).await?;
        let mut names = TimedPath::of(above).names();
        names.push(name.name);
        let stat = StatRow {
            path: Some(PathText::of_names(&names)),
            bytes: Some(name.amount.bytes),
            count: Some(name.amount.versions),
            ..row("name")
        };
        rows.put_row(VerbRow::Stat(stat)).await?;
    }
    Ok(())
}

/// Returns how far back the directories at and below a path reach that have a policy of their own.
async fn limited_directories(
    reader: &PathReader,
    path: &TimedPath,
) -> Result<Vec<StatRow>, VerbError> {
    let top = path.names();
    let mut stats = Vec::new();
    let reaches = reader.view().limited_directories().await;
    for reach in reaches.map_err(VerbError::at(path))? {
        let place = reader.directory_path(reach.directory).await?;
        if !TimedPath::of(place.clone()).names().starts_with(&top) {
            continue;
        }
        let of = |what: &str, at: Timestamp| StatRow {
            path: Some(place.clone()),
            time_ns: (at.0 > 0).then_some(at.0),
            ..row(what)
        };
        stats.push(of("whole_in", reach.whole));
        stats.extend(reach.thinned.map(|since| of("thinned_in", since)));
        if reach.cut_off.0 > 0 {
            stats.push(of("cut_off_in", reach.cut_off));
        }
    }
    Ok(stats)
}

/// Returns the labels of directories at and below a path that keep the most bytes, without those that keep none.
async fn largest_labels(reader: &PathReader, path: &TimedPath) -> Result<Vec<StatRow>, VerbError> {
    let (at, top) = (VerbError::at(path), path.names());
    let view = reader.view();
    let mut labels = Vec::new();
    for label in view.all_labels().await.map_err(&at)? {
        let keeps = view.label_keeps(&label).await.map_err(&at)?;
        let place = reader.directory_path(label.directory).await?;
        if keeps.versions > 0 && TimedPath::of(place.clone()).names().starts_with(&top) {
            labels.push(StatRow {
                path: Some(place),
                bytes: Some(keeps.bytes),
                count: Some(keeps.versions),
                time_ns: Some(label.timestamp.0),
                label: Some(path_text(&label.name)),
                ..row("label")
            });
        }
    }
    labels.sort_by_key(|label| std::cmp::Reverse((label.bytes, label.count)));
    labels.truncate(LABELS_MAX);
    Ok(labels)
}

async fn amounts(reader: &PathReader) -> Result<Vec<StatRow>, StoreError> {
    let retention = reader.namespace.retention();
    let sizes = retention.sizes().await?;
    let of = |what: &str, bytes: Option<u64>| StatRow { bytes, ..row(what) };
    let mut stats = vec![
        of("live", Some(sizes.amounts.live)),
        of("history", sizes.amounts.history()),
        of("index", Some(sizes.index)),
    ];
    let size = retention.history_size().await?;
    stats.extend(size.map(|size| of("limit", Some(size.max))));
    stats.extend(retention.cap().await?.map(|cap| StatRow {
        rule: Some("history-max".to_owned()),
        time_ns: Some(cap.since.0),
        ..row("shortened")
    }));
    stats.extend(retention.waiting_drops().await?.map(|waiting| StatRow {
        rule: Some(cause_text(waiting.cause).to_owned()),
        bytes: Some(waiting.drops.bytes),
        count: Some(waiting.drops.versions),
        time_ns: Some(waiting.since.0),
        ..row("waiting")
    }));
    let horizons = retention.horizons().await?;
    let tiers = Tier::ALL.into_iter().map(Some);
    stats.extend([None].into_iter().chain(tiers).map(|tier| {
        let oldest = horizons.oldest(tier).0;
        let word = tier.map_or("within".to_owned(), |tier| tier.to_string());
        StatRow {
            rule: Some(format!("keep-{word}")),
            time_ns: (oldest > 0).then_some(oldest),
            ..row("exact")
        }
    }));
    let dropped = retention.dry_run().await?.dropped;
    stats.push(StatRow {
        bytes: Some(dropped.bytes),
        count: Some(dropped.versions),
        ..row("next_prune")
    });
    stats.extend(sizes.requests.map(|requests| StatRow {
        count: Some(requests),
        ..row("requests_per_day")
    }));
    Ok(stats)
}
