//! The tables of `policy`, `prune` and `why`.

use super::shown_time::show_until;
use super::table::{Column, left, right};
use crate::cli::value::show_size;
use crate::verbs::{KeptRow, PolicyWord, PruneRow, ReasonRow, StatRow};
use jiff::tz::TimeZone;

pub(super) const POLICY: &[Column] = &[
    left("WORD"),
    left("VALUE"),
    left("LATER"),
    left("IN FORCE FROM"),
    left("LIMITED BY"),
];

pub(super) const PRUNED: &[Column] = &[
    left("WHAT"),
    right("VERSIONS"),
    right("SIZE"),
    left("RULE OR NAME"),
];

pub(super) const REASONS: &[Column] = &[left("RULE"), left("UNTIL"), left("PATH")];

pub(super) const STATS: &[Column] = &[
    left("WHAT"),
    right("SIZE"),
    right("COUNT"),
    left("TIME"),
    left("RULE OR NAME"),
];

pub(super) fn stat_cells(row: &StatRow, zone: &TimeZone) -> Vec<String> {
    let path = row.path.as_ref().map(|path| match &row.label {
        Some(label) if path.0.is_empty() => format!("/@{label}"),
        Some(label) => format!("{path}@{label}"),
        None => path.to_string(),
    });
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        row.what.replace('_', " "),
        or_dash(row.bytes.map(show_size)),
        or_dash(row.count.map(|count| count.to_string())),
        show_until(row.time_ns, zone),
        or_dash(row.rule.clone().or(path)),
    ]
}

pub(super) fn policy_cells(row: &PolicyWord, zone: &TimeZone) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        row.word.clone(),
        or_dash(&row.value),
        or_dash(&row.pending),
        show_until(row.pending_from_ns, zone),
        or_dash(&row.directory.as_ref().map(ToString::to_string)),
    ]
}

pub(super) fn pruned_cells(row: &PruneRow, _zone: &TimeZone) -> Vec<String> {
    let path = row.path.as_ref().map(ToString::to_string);
    vec![
        row.what.clone(),
        row.versions.to_string(),
        show_size(row.bytes),
        row.rule.clone().or(path).unwrap_or_else(|| "-".to_owned()),
    ]
}

/// The rules that keep a version.
pub(super) fn kept_rules(kept: &[KeptRow]) -> String {
    let rules: Vec<&str> = kept.iter().map(|kept| kept.rule.as_str()).collect();
    rules.join(", ")
}

/// Until when at least one of the rules keeps a version; a dash while something lasts that has no date.
pub(super) fn kept_until(kept: &[KeptRow], zone: &TimeZone) -> String {
    let is_open = kept.iter().any(|kept| kept.until_ns.is_none());
    let last = kept.iter().filter_map(|kept| kept.until_ns).max();
    show_until(last.filter(|_| !is_open), zone)
}

pub(super) fn reason_cells(row: &ReasonRow, zone: &TimeZone) -> Vec<String> {
    vec![
        row.rule.clone(),
        show_until(row.until_ns, zone),
        format!("{}@{}", row.path, row.stamp),
    ]
}
