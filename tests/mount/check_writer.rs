//! `rewindfs check --repair` beside other writers, what it offers, its JSON, and a store over HTTP.

use std::process::Command;

use serde_json::Value;

use crate::check_repair::{Copied, Harm, LIMIT, Origin, READ, newest, save, unreadable};
use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::s3s::S3sServer;
use crate::support::shell::{self, CommandResult};

/// The objects that a check names in JSON, by kind.
fn rows(ran: &CommandResult) -> Vec<Value> {
    let row = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    ran.stdout.lines().map(row).collect()
}

#[test]
fn an_older_version_is_offered_and_restored_and_the_mark_is_an_attribute() {
    let origin = Origin::new();
    let bucket = origin.copy("offered");
    let segment = newest(bucket.objects("data"));
    Harm::Lost.apply(&bucket.namespace.join(&segment));

    let told = bucket.check(&["--json"]);
    assert_eq!(told.code, Some(1), "{told}");
    let rows_told = rows(&told);
    let (summary, findings) = rows_told.split_last().unwrap();
    assert_eq!(summary["kind"], "summary");
    assert_eq!(summary["sound"], false);
    assert_eq!(findings.len(), 1, "{told}");
    assert_eq!(findings[0]["kind"], "unreadable");
    let path = findings[0]["path"].as_str().unwrap();
    let version = findings[0]["version"].as_str().unwrap();

    // Not without the consent of the user.
    let refused = bucket.check(&["--repair"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("--no-writer"), "{refused}");

    let repaired = bucket.repair(&["--json"]);
    assert_eq!(repaired.code, Some(0), "{repaired}");
    let rows_told = rows(&repaired);
    let (summary, marked) = rows_told.split_last().unwrap();
    assert_eq!(summary["newly_marked"], 1);
    assert_eq!(marked[0]["kind"], "marked", "{repaired}");
    let second = bucket.check(&[]);
    assert_eq!(second.code, Some(0), "{second}");
    assert!(
        second.stdout.contains("1 files and versions are marked"),
        "{second}"
    );

    let attribute = |path: &str| {
        format!("python3 -c 'import os; print(os.getxattr(\"{path}\", \"user.versions.damaged\"))'")
    };
    let of_version = format!(".versions/@files/{path}/{version}");
    let script = format!(
        "ls {of_version} > /dev/null; {}; {}; cat {path} 2>&1 || true",
        attribute(path),
        attribute(&of_version)
    );
    let shown = bucket.mounted(&script).unwrap();
    assert_eq!(
        shown.matches("100000 bytes cannot be read").count(),
        2,
        "{shown}"
    );
    assert!(shown.contains("Input/output error"), "{shown}");

    restore_as_offered(&bucket, &origin, &findings[0]);
}

/// Runs the command that a finding offers, and fails unless the file then has its older bytes.
#[track_caller]
fn restore_as_offered(bucket: &Copied, origin: &Origin, finding: &Value) {
    let path = finding["path"].as_str().unwrap();
    let command = finding["restore"].as_str().unwrap();
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(
        words[..3],
        ["rewindfs", "restore", "--no-writer"],
        "{command}"
    );
    let cache = tempfile::tempdir().unwrap();
    let mut restore = Command::new(PROGRAM);
    restore
        .args(&words[1..])
        .arg("--cache-dir")
        .arg(cache.path());
    let restored = shell::run(&mut restore, LIMIT);
    assert_eq!(restored.code, Some(0), "{restored}");
    let now = bucket.mounted(&format!("sha256sum {path}")).unwrap();
    let sum = now.split(' ').next().unwrap();
    let older = origin
        .read
        .lines()
        .filter(|line| line.contains(&format!("@files/{path}/")));
    let older: Vec<&str> = older.collect();
    assert!(
        older[1].starts_with(sum),
        "the version before the damaged one: {now}, {older:?}"
    );
    let third = bucket.check(&[]);
    assert_eq!(third.code, Some(0), "{third}");
}

#[test]
fn a_repair_is_refused_while_a_mount_has_the_namespace() {
    let store = tempfile::tempdir().unwrap();
    let bucket = Copied {
        place: Place::local(store.path()),
        namespace: store.path().join("main"),
    };
    let mut mount = TestMount::start(&bucket.place, &[]);
    mount.sh("echo text > file");
    mount.drain();
    for refused in [bucket.check(&["--repair"]), bucket.repair(&[])] {
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.contains("is mounted at"), "{refused}");
    }
    mount.sh("echo more >> file");
    assert_eq!(mount.status()["fenced"], false);
    mount.umount();
    let usage = bucket.check(&["--no-writer"]);
    assert_eq!(usage.code, Some(2), "{usage}");
    assert!(usage.stderr.contains("only with --repair"), "{usage}");
    let repaired = bucket.repair(&[]);
    assert_eq!(repaired.code, Some(0), "{repaired}");
}

#[test]
fn damage_on_s3_is_found_marked_and_repaired() {
    let Some(server) = S3sServer::start() else {
        return;
    };
    let bucket = Copied {
        place: server.place("repaired"),
        namespace: server.bucket().join("repaired/main"),
    };
    let mut mount = TestMount::start(&bucket.place, &[]);
    for _ in 0..3 {
        save(&mount);
    }
    let read = mount.sh(READ);
    mount.umount();
    let segments = bucket.objects("data");
    Harm::Flipped.apply(&bucket.namespace.join(&segments[segments.len() - 1]));
    Harm::Lost.apply(&bucket.namespace.join(&segments[0]));
    let log = bucket.objects("log");
    Harm::Flipped.apply(&bucket.namespace.join(&log[1]));
    let told = bucket.check(&["--read-data"]);
    assert_eq!(told.code, Some(1), "{told}");
    for word in ["do not match", "is missing or too short", "is damaged"] {
        assert!(told.stdout.contains(word), "no {word:?}: {told}");
    }
    let repaired = bucket.repair(&["--read-data"]);
    assert_eq!(repaired.code, Some(0), "{repaired}");
    let second = bucket.check(&["--read-data"]);
    assert_eq!(second.code, Some(0), "{second}");
    assert!(second.stdout.contains("marked as damaged"), "{second}");
    let bad = unreadable(&bucket.mounted(READ).unwrap(), &read);
    assert!(!bad.is_empty(), "{bad:?}");
}
