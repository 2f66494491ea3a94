//! What a check and a repair print: lines for people, of which the first of each kind are printed, or one JSON object per line for all that
//! are named, with a summary at the end.

use crate::config::DEFAULT_NAMESPACE;
use crate::fs::past::stamp::{Precision::Nanos, print as print_stamp};
use crate::store::{
    CheckReport, Finding, Findings, LogRepair, MoreDamage, OrphanCount, Orphans, RepairReport,
    Subject, Timestamp,
};
use indicatif::HumanBytes;
use serde_json::{Value, json};

/// The most findings of one kind that are printed for people.
const SHOWN_MAX: usize = 20;
/// The same for files and versions that cannot be read.
const UNREADABLE_SHOWN_MAX: usize = 100;

/// The namespace that is checked, as commands on it name it.
#[derive(Clone, Debug)]
pub(super) struct CheckedPlace {
    pub(super) url: String,
    pub(super) namespace: String,
}

/// Prints findings.
#[derive(Clone, Debug)]
pub(super) struct CheckOutput {
    pub(super) json: bool,
    pub(super) place: CheckedPlace,
}

/// Findings of one kind.
struct FindingList<'a> {
    /// The kind, in JSON.
    kind: &'static str,
    findings: &'a Findings,
    shown_max: usize,
}

impl<'a> FindingList<'a> {
    fn new(kind: &'static str, findings: &'a Findings) -> Self {
        Self {
            kind,
            findings,
            shown_max: SHOWN_MAX,
        }
    }

    fn unreadable(kind: &'static str, findings: &'a Findings) -> Self {
        Self {
            shown_max: UNREADABLE_SHOWN_MAX,
            ..Self::new(kind, findings)
        }
    }
}

impl CheckOutput {
    /// Prints the result of a check.
    pub(super) fn print_check(&self, report: &CheckReport) {
        let lists = [
            FindingList::new("log_object", &report.damaged),
            FindingList::new("differing", &report.differing),
            FindingList::new("miscounted", &report.miscounted),
            FindingList::new("name", &report.disagreeing),
            FindingList::unreadable("unreadable", &report.lost),
            FindingList::unreadable("marked", &report.marked),
        ];
        if self.json {
            lists.iter().for_each(|list| self.print_json(list));
            println!("{}", check_summary(report));
            return;
        }
        println!(
            "{} log objects tell {} rows, {} differ from the index, {} counts are wrong",
            report.objects, report.rows, report.differing.count, report.miscounted.count
        );
        println!(
            "{} segments, {} files and versions have bytes that cannot be read, {} inodes have names that do not agree",
            report.segments, report.lost.count, report.disagreeing.count
        );
        if report.verified > 0 {
            println!("{} of files were read", HumanBytes(report.verified));
        }
        if !report.marked.is_empty() {
            println!(
                "{} files and versions are marked as damaged by an earlier repair",
                report.marked.count
            );
        }
        lists.iter().for_each(|list| self.print_lines(list));
        for line in orphan_lines(&report.orphans) {
            println!("{line}");
        }
    }

    /// Prints the result of a repair.
    pub(super) fn print_repair(&self, report: &RepairReport) {
        let lists = [
            FindingList::new("log_object", &report.log_objects),
            FindingList::new("put_back", &report.put_back),
            FindingList::new("kept", &report.kept),
            FindingList::new("recounted", &report.recounted),
            FindingList::new("name", &report.names),
            FindingList::unreadable("marked", &report.damaged),
            FindingList::new("left", &report.left),
        ];
        if self.json {
            lists.iter().for_each(|list| self.print_json(list));
            println!("{}", repair_summary(report));
            return;
        }
        lists.iter().for_each(|list| self.print_lines(list));
        if report.verified > 0 {
            println!("{} of files were read", HumanBytes(report.verified));
        }
        if report.log == LogRepair::BegunAnew {
            println!("the log begins again with a list of all rows");
        }
        println!("{}", done(report));
    }

    /// Prints the first findings, one per line, and how many more there are.
    fn print_lines(&self, list: &FindingList<'_>) {
        let findings = list.findings;
        let shown = &findings.named[..findings.named.len().min(list.shown_max)];
        for finding in shown {
            println!("{}: {}", name(&finding.subject), finding.what);
            if let Some(command) = self.restore(finding) {
                println!("    an older version can be read: {command}");
            }
        }
        let more = findings.count - shown.len() as u64;
        if more > 0 {
            println!("and {more} more like these");
        }
    }

    fn print_json(&self, list: &FindingList<'_>) {
        for finding in &list.findings.named {
            let (path, version, object, other) = match &finding.subject {
                Subject::Path { path, version } => (Some(path), *version, None, None),
                Subject::Object(key) => (None, None, Some(key), None),
                Subject::Other(what) => (None, None, None, Some(what)),
            };
            let row = json!({
                "kind": list.kind,
                "path": path,
                "version": version.map(stamp),
                "object": object,
                "other": other,
                "what": finding.what,
                "restore": self.restore(finding),
            });
            println!("{row}");
        }
    }

    /// Returns the command that makes an older version that can be read the current one.
    fn restore(&self, finding: &Finding) -> Option<String> {
        let Subject::Path { path, .. } = &finding.subject else {
            return None;
        };
        let time = stamp(finding.intact?);
        let namespace = match self.place.namespace.as_str() {
            DEFAULT_NAMESPACE => String::new(),
            other => format!(" --namespace {other}"),
        };
        Some(format!(
            "rewindfs restore{namespace} --no-writer {} {}",
            quoted(&self.place.url),
            quoted(&format!("{path}@{time}"))
        ))
    }
}

fn stamp(at: Timestamp) -> String {
    print_stamp(at, Nanos)
}

/// Writes a word so that a shell takes it as one word.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+=,".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A subject, for a person.
fn name(subject: &Subject) -> String {
    match subject {
        Subject::Path { path, version } => {
            let path = match path.as_str() {
                "" => "the root directory",
                path => path,
            };
            match version {
                Some(version) => format!("{path}, version {}", stamp(*version)),
                None => path.to_owned(),
            }
        }
        Subject::Object(key) => format!("object {key}"),
        Subject::Other(what) => what.clone(),
    }
}

/// Says what a repair did, in one line.
fn done(report: &RepairReport) -> String {
    if report.is_unchanged() && report.damaged.is_empty() {
        return format!("{} rows: nothing is to be repaired", report.rows);
    }
    format!(
        "{} rows: {} put back, {} counts set, {} names mended, {} contents newly marked as damaged, {} marks removed, {} left to garbage \
         collection; {} files and versions are marked as damaged, {} faults are left",
        report.rows,
        report.put_back.count,
        report.recounted.count,
        report.names.count,
        report.newly_marked,
        report.unmarked,
        report.queued,
        report.damaged.count,
        report.left.count,
    )
}

/// Says what nothing needs any more, a line for each kind.
fn orphan_lines(orphans: &Orphans) -> Vec<String> {
    let line = |what: &str, orphan: OrphanCount| {
        (orphan.count > 0).then(|| {
            format!(
                "{} {what}, {}: no damage",
                orphan.count,
                HumanBytes(orphan.bytes)
            )
        })
    };
    let lines = [
        line(
            "segments wait for garbage collection",
            orphans.waiting_segments,
        ),
        line(
            "segments are unknown to the index, and garbage collection judges them",
            orphans.unknown_segments,
        ),
        line(
            "segments are needed by nothing and unknown to garbage collection; --repair tells it",
            orphans.leaked_segments,
        ),
        line(
            "log objects are older than the newest checkpoint",
            orphans.log_objects,
        ),
        line(
            "contents that no version shows wait for garbage collection",
            orphans.waiting_lineages,
        ),
        line(
            "contents are shown by nothing and unknown to garbage collection; --repair tells it",
            orphans.leaked_lineages,
        ),
    ];
    lines.into_iter().flatten().collect()
}

fn check_summary(report: &CheckReport) -> Value {
    let orphan = |orphan: OrphanCount| json!({ "count": orphan.count, "bytes": orphan.bytes });
    let orphans = &report.orphans;
    json!({
        "kind": "summary",
        "sound": report.is_sound(),
        "log_objects": report.objects,
        "rows": report.rows,
        "segments": report.segments,
        "verified_bytes": report.verified,
        "damaged_log_objects": report.damaged.count,
        "differing": report.differing.count,
        "miscounted": report.miscounted.count,
        "names": report.disagreeing.count,
        "unreadable": report.lost.count,
        "marked": report.marked.count,
        "more_damage": report.more_lost == MoreDamage::NotNamed,
        "orphans": {
            "waiting_segments": orphan(orphans.waiting_segments),
            "unknown_segments": orphan(orphans.unknown_segments),
            "leaked_segments": orphan(orphans.leaked_segments),
            "log_objects": orphan(orphans.log_objects),
            "waiting_lineages": orphan(orphans.waiting_lineages),
            "leaked_lineages": orphan(orphans.leaked_lineages),
        },
    })
}

fn repair_summary(report: &RepairReport) -> Value {
    json!({
        "kind": "summary",
        "rows": report.rows,
        "verified_bytes": report.verified,
        "damaged_log_objects": report.log_objects.count,
        "put_back": report.put_back.count,
        "kept": report.kept.count,
        "recounted": report.recounted.count,
        "names": report.names.count,
        "marked": report.damaged.count,
        "newly_marked": report.newly_marked,
        "unmarked": report.unmarked,
        "queued": report.queued,
        "left": report.left.count,
        "log_begun_anew": report.log == LogRepair::BegunAnew,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp(1_800_000_000_123_000_000);

    #[test]
    fn findings_are_named_by_path_version_and_object() {
        let path = |path: &str, version| Subject::Path {
            path: path.to_owned(),
            version,
        };
        assert_eq!(
            name(&path("a/b/c.txt", Some(AT))),
            "a/b/c.txt, version 2027-01-15T08-00-00.123000000Z"
        );
        assert_eq!(name(&path("a/b", None)), "a/b");
        assert_eq!(name(&path("", None)), "the root directory");
        let object = Subject::Object("log/00000/001/000/000/001".to_owned());
        assert_eq!(name(&object), "object log/00000/001/000/000/001");
    }

    #[test]
    fn the_offered_command_is_quoted_for_a_shell() {
        let output = |namespace: &str| CheckOutput {
            json: false,
            place: CheckedPlace {
                url: "file:///srv/store".to_owned(),
                namespace: namespace.to_owned(),
            },
        };
        let finding = |path: &str| Finding {
            subject: Subject::Path {
                path: path.to_owned(),
                version: None,
            },
            what: String::new(),
            intact: Some(AT),
        };
        assert_eq!(
            output("main").restore(&finding("a/b.txt")).unwrap(),
            "rewindfs restore --no-writer file:///srv/store a/b.txt@2027-01-15T08-00-00.123000000Z"
        );
        assert_eq!(
            output("team/eu").restore(&finding("it's b")).unwrap(),
            r"rewindfs restore --namespace team/eu --no-writer file:///srv/store 'it'\''s b@2027-01-15T08-00-00.123000000Z'"
        );
    }
}
