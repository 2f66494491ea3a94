//! `rewindfs diff` on a path in a mount and on a store's URL.

use serde_json::Value;

use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::verbs::{AskedMount, column};

/// The differences as `change path`, in order of paths.
#[track_caller]
fn differences(asked: &AskedMount, old: &str, flags: &[&str]) -> Vec<String> {
    let rows = asked.rows("diff", old, flags);
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
            match &row["renamed_from"] {
                Value::Null => format!("{} {}", text("path"), text("change")),
                former => format!("{} from {}", text("path"), former.as_str().unwrap()),
            }
        })
        .collect();
    lines.sort();
    lines
}

fn files_and_trees(place: Place) {
    let asked = AskedMount::start(
        place,
        "mkdir -p d/old/in d/gone; seq 20 > d/f; echo same > d/same; echo m > d/mode; echo in > d/old/in/x
         echo moved > d/moves; echo 1 > d/gone/g; ln -s a d/link; printf 'a\\0b' > d/binary; echo k > d/kind",
    );
    let before = asked.column("log", "d", "stamp")[0].clone();
    asked.sh(
        "sed -i 's/^7$/seven/' d/f; echo same > d/same; cp d/mode d/tmp; chmod 600 d/tmp; mv d/tmp d/mode; mv d/old d/new; echo more >> d/new/in/x
         mv d/moves d/gone/../moved; rm -r d/gone; ln -sfn b d/link; printf 'a\\0c' > d/binary
         rm d/kind; mkdir -p d/kind d/added/below; echo y > d/added/below/y",
    );
    let old = format!("d@{before}");
    let expected = [
        "added added",
        "added/below added",
        "added/below/y added",
        "binary changed",
        "f changed",
        "gone removed",
        "gone/g removed",
        "kind added",
        "kind removed",
        "link changed",
        "mode mode",
        "moved from moves",
        "new from old",
        "new/in/x changed",
    ];
    assert_eq!(differences(&asked, &old, &[]), expected);
    assert!(differences(&asked, "d@-0s", &[]).is_empty());
    let rows = asked.rows("diff", &old, &[]);
    let mode = rows.iter().find(|row| row["path"] == "mode").unwrap();
    assert_eq!(
        (&mode["old"]["mode"], &mode["new"]["mode"]),
        (&"0644".into(), &"0600".into())
    );
    counted_lines(&asked, &old);
    lines_of_files(&asked, &before);
}

/// What `--stat` and `--patch` print of trees.
fn counted_lines(asked: &AskedMount, old: &str) {
    let stat = asked.text("diff", old, &["--stat"]);
    let line = |path: &str| {
        let found = stat.lines().find(|line| line.ends_with(path));
        found
            .unwrap_or_else(|| panic!("no {path}: {stat}"))
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(line(" f"), ["changed", "1", "1", "f"]);
    assert_eq!(line("binary"), ["changed", "binary", "binary", "binary"]);
    assert_eq!(line("below/y"), ["added", "1", "0", "added/below/y"]);
    let last = stat.lines().last().unwrap();
    assert!(last.starts_with("14 differences, "), "{stat}");
    let patch = asked.text("diff", old, &["--patch"]);
    assert!(
        patch.contains("\n+seven\n") && patch.contains("\n+more\n"),
        "{patch}"
    );
    assert_eq!(
        column(&asked.rows("diff", old, &["--stat"]), "change").len(),
        14
    );
}

/// What is printed of two states of a file.
fn lines_of_files(asked: &AskedMount, before: &str) {
    let unified = asked.text("diff", &format!("d/f@{before}"), &[]);
    let lines: Vec<&str> = unified.lines().collect();
    assert!(
        lines[0].starts_with("--- d/f@2") && lines[1].starts_with("+++ d/f@2"),
        "{unified}"
    );
    assert_eq!(
        lines[2..],
        [
            "@@ -4,7 +4,7 @@",
            " 4",
            " 5",
            " 6",
            "-7",
            "+seven",
            " 8",
            " 9",
            " 10"
        ]
    );
    let colored = asked.text("diff", &format!("d/f@{before}"), &["--color", "always"]);
    assert!(
        colored.contains("\x1b[31m-7\x1b[m\n\x1b[32m+seven\x1b[m\n"),
        "{colored}"
    );
    let binary = asked.text("diff", &format!("d/binary@{before}"), &[]);
    assert!(binary.starts_with("binary files d/binary@"), "{binary}");
    let rows = asked.rows("diff", &format!("d/f@{before}"), &[]);
    assert_eq!(
        (&rows[0]["lines_added"], &rows[0]["binary"]),
        (&1.into(), &false.into())
    );
    assert!(
        rows[0]["unified"]
            .as_str()
            .unwrap()
            .contains("\n-7\n+seven\n")
    );
    assert_eq!(asked.text("diff", &format!("d/same@{before}"), &[]), "");
    let mode = asked.text("diff", &format!("d/mode@{before}"), &[]);
    assert!(mode.contains("mode, mode 0644 is 0600 now"), "{mode}");
    asked.refused(
        "diff",
        &format!("d/kind@{before}"),
        1,
        &["one is a directory"],
    );
    asked.refused("diff", "d/none@-1h", 1, &["d/none@-1h: did not exist then"]);
}

#[test]
fn diff_gives_the_same_both_ways() {
    let store = tempfile::tempdir().unwrap();
    files_and_trees(Place::local(store.path()));
}

#[test]
fn diff_gives_the_same_both_ways_on_s3() {
    if let Some(server) = S3Server::start() {
        files_and_trees(server.place("diff"));
    }
}

#[test]
fn two_paths_of_one_mount_or_store_are_compared() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(
        Place::local(store.path()),
        "mkdir a b; echo one > a/f; echo two > b/f; echo only > b/g",
    );
    let b = asked.mount.path("b").display().to_string();
    let here = asked.in_mount("diff", "a", &[&b]).ok();
    let there = asked.on_url("diff", "a", &["b"]).ok();
    assert_eq!(here, there);
    assert!(
        here.contains("changed") && here.contains("  f\n") && here.contains("  g\n"),
        "{here}"
    );
    let f = asked.mount.path("b/f").display().to_string();
    let files = asked.in_mount("diff", "a/f", &[&f]).ok();
    assert!(files.contains("\n-one\n+two\n"), "{files}");
    let outside = store.path().display().to_string();
    let ran = asked.in_mount("diff", "a", &[&outside]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("is not in a mount"), "{ran}");
    let ran = asked.in_mount("diff", "a", &[&b, &b]);
    assert_eq!(ran.code, Some(2), "{ran}");
}
