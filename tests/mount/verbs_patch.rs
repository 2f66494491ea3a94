//! `rewindfs log --patch`, and `rewindfs versions` of a directory: both ways give the same.

use serde_json::Value;

use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::verbs::{AskedMount, column};

/// The changed lines of a text with patches.
fn changed_lines(text: &str) -> Vec<&str> {
    let lines = text.lines();
    lines
        .filter(|line| line.starts_with(['+', '-']))
        .filter(|line| !line.starts_with("+++") && !line.starts_with("---"))
        .collect()
}

fn patches(place: Place) {
    // A name that exists for less than ten seconds is a transient name.
    let asked = AskedMount::start(
        place,
        "mkdir d; printf 'a\\nb\\n' > d/f; printf 'a\\nc\\n' > d/f; printf 'x\\0' > d/binary; printf 'y\\0' > d/binary; ln -s f d/l
         echo text > d/kind; head -c 17000000 /dev/zero | tr '\\0' x > d/long; sleep 11
         mv d/f d/g; printf 'a\\nc\\nd' > d/g; rm d/kind; mkdir d/sub",
    );
    let text = asked.text("log", "d/g", &["-p", "--utc"]);
    assert_eq!(
        changed_lines(&text),
        ["+d", "-b", "+c", "+a", "+b"],
        "{text}"
    );
    let entries: Vec<&str> = text.split("\n\n").collect();
    assert_eq!(entries.len(), 4, "{text}");
    let head = entries[0].lines().next().unwrap();
    assert!(
        head.contains("+00:00  write  5 bytes  ") && head.ends_with("  d/g"),
        "{head}"
    );
    assert!(
        entries[0].contains("\\ No newline at end of file"),
        "{text}"
    );
    assert!(entries[1].contains("  d/g from d/f\n"), "{text}");
    assert!(entries[1].contains("renamed"), "{text}");
    assert!(entries[3].contains("\n--- /dev/null\n+++ d/f@"), "{text}");
    let rows = asked.rows("log", "d", &["--patch"]);
    let plain = asked.rows("log", "d", &[]);
    assert_eq!(column(&rows, "stamp"), column(&plain, "stamp"));
    let of = |op: &str, path: &str| {
        let found = rows
            .iter()
            .find(|row| row["op"] == op && row["path"] == path);
        found.unwrap_or_else(|| panic!("no {op} {path} in {rows:?}"))
    };
    let write = of("write", "d/f");
    assert_eq!(write["unified"], "@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
    assert_eq!(
        (&write["lines_added"], &write["lines_removed"]),
        (&1.into(), &1.into())
    );
    assert_eq!(write["binary"], false);
    assert_eq!(of("rename", "d/g")["unified"], "");
    assert_eq!(of("delete", "d/kind")["unified"], "@@ -1 +0,0 @@\n-text\n");
    let binary = of("write", "d/binary");
    assert_eq!(
        (&binary["binary"], &binary["unified"]),
        (&true.into(), &Value::Null)
    );
    for (op, path) in [("create", "d/long"), ("create", "d/sub"), ("create", "d/l")] {
        assert_eq!(of(op, path)["binary"], Value::Null, "{path}");
    }
    let text = asked.text("log", "d", &["-p"]);
    assert!(text.contains("\nbinary files d/binary@"), "{text}");
    assert!(
        text.contains("d/long: added, and longer than 16.0 MiB: lines are not compared"),
        "{text}"
    );
    assert_eq!(asked.rows("log", "d", &["-p", "-r", "-n", "2"]).len(), 2);
    let colored = asked.text("log", "d/g", &["-p", "--color", "always", "-n", "1"]);
    assert!(colored.contains("\u{1b}[32m+d\u{1b}[m\n"), "{colored}");
    assert!(!asked.text("log", "d/g", &["-p"]).contains('\u{1b}'));
}

#[test]
fn a_log_with_patches_shows_how_each_state_differs_from_the_one_before() {
    let store = tempfile::tempdir().unwrap();
    patches(Place::local(store.path()));
}

#[test]
fn a_log_with_patches_shows_how_each_state_differs_from_the_one_before_on_s3() {
    if let Some(server) = S3Server::start() {
        patches(server.place("verbs-patch"));
    }
}

fn moments(place: Place) {
    let asked = AskedMount::start(
        place,
        "mkdir d; echo 1 > d/f; sleep 1.1; echo 2 > d/f; sleep 1.1; mkdir d/.versions/v1; echo 3 > d/f",
    );
    let rows = asked.rows("versions", "d", &[]);
    let labels: Vec<&Value> = rows
        .iter()
        .map(|row| &row["label"])
        .filter(|label| !label.is_null())
        .collect();
    assert_eq!(labels, ["v1"], "{rows:?}");
    assert!(column(&rows, "stamp").is_sorted(), "{rows:?}");
    assert_eq!(
        (&rows[0]["path"], &rows[0]["kind"]),
        (&"d".into(), &"directory".into())
    );
    let listed = asked.mount.sh("ls d/.versions | grep -v '^@'");
    assert_eq!(listed.lines().count(), rows.len(), "{listed} {rows:?}");
    // The time of each row shows the directory as it was.
    let sizes: Vec<Vec<String>> = column(&rows, "stamp")
        .iter()
        .map(|stamp| asked.column("ls", &format!("d@{stamp}"), "size"))
        .collect();
    assert_eq!(sizes.concat().len(), rows.len(), "{sizes:?}");
    let first = format!("d@{}", column(&rows, "stamp")[0]);
    assert_eq!(asked.rows("versions", &first, &[]), rows[..1]);
    assert!(
        asked.text("versions", "d", &["--utc"]).starts_with("TIME "),
        "a table"
    );
    asked.refused(
        "versions",
        "d@2001",
        1,
        &["d@2001: did not exist then", "nearest kept time is"],
    );
    asked.refused("versions", "none", 1, &["none: does not exist"]);
    assert_eq!(asked.rows("versions", "", &[])[0]["path"], "");
    // A removed directory has its moments too; the last one is its removal.
    asked.sh("sleep 10; rm -r d");
    let after = asked.rows("versions", "d", &[]);
    assert_eq!(after[..rows.len()], rows[..], "{after:?}");
}

#[test]
fn versions_of_a_directory_are_what_its_past_lists() {
    let store = tempfile::tempdir().unwrap();
    moments(Place::local(store.path()));
}

#[test]
fn versions_of_a_directory_are_what_its_past_lists_on_s3() {
    if let Some(server) = S3Server::start() {
        moments(server.place("verbs-moments"));
    }
}
