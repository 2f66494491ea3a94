//! The verbs that read the past, on a path in a mount and on a store's URL: both ways give the same rows.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::support::shell::{self, CommandResult};

/// The time within which a command ends.
const LIMIT: Duration = Duration::from_secs(60);

/// A mounted namespace that is asked through its mount and through its store.
pub(crate) struct AskedMount {
    /// The mount.
    pub(crate) mount: TestMount,
    /// Its store.
    pub(crate) place: Place,
}

impl AskedMount {
    /// Mounts `place` and runs a script in the mount; everything is in the bucket afterwards.
    #[track_caller]
    pub(crate) fn start(place: Place, script: &str) -> Self {
        let mount = TestMount::start(&place, &[]);
        let asked = Self { mount, place };
        asked.sh(script);
        asked
    }

    /// Runs a script in the mount; everything is in the bucket afterwards.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) {
        self.mount.sh(script);
        self.mount.drain();
    }

    /// Runs a verb on a path in the mount.
    pub(crate) fn in_mount(&self, verb: &str, path: &str, flags: &[&str]) -> CommandResult {
        self.in_mount_with(verb, &[], path, flags)
    }

    /// The same with arguments before the path.
    pub(crate) fn in_mount_with(
        &self,
        verb: &str,
        before: &[&str],
        path: &str,
        flags: &[&str],
    ) -> CommandResult {
        let mut command = Command::new(PROGRAM);
        command
            .arg(verb)
            .args(before)
            .arg(self.mount.path(path))
            .args(flags)
            .env("TZ", "<+01>-1");
        shell::run(&mut command, LIMIT)
    }

    /// Runs a verb on the store's URL and a path.
    pub(crate) fn on_url(&self, verb: &str, path: &str, flags: &[&str]) -> CommandResult {
        self.on_url_with(verb, &[], path, flags)
    }

    /// The same with arguments before the URL.
    pub(crate) fn on_url_with(
        &self,
        verb: &str,
        before: &[&str],
        path: &str,
        flags: &[&str],
    ) -> CommandResult {
        let mut command = Command::new(PROGRAM);
        command
            .arg(verb)
            .args(before)
            .args([self.place.url.as_str(), path])
            .args(flags);
        if let Some(endpoint) = &self.place.endpoint {
            command.args(["--endpoint", endpoint]);
        }
        command
            .envs(self.place.variables.iter().cloned())
            .env("TZ", "<+01>-1");
        shell::run(&mut command, LIMIT)
    }

    /// The output of a verb; fails unless both ways give the same.
    #[track_caller]
    pub(crate) fn text(&self, verb: &str, path: &str, flags: &[&str]) -> String {
        let here = self.in_mount(verb, path, flags).ok();
        let there = self.on_url(verb, path, flags).ok();
        assert_eq!(here, there, "{verb} {path}: in the mount, and on the URL");
        here
    }

    /// The rows of a verb; fails unless both ways give the same.
    #[track_caller]
    pub(crate) fn rows(&self, verb: &str, path: &str, flags: &[&str]) -> Vec<Value> {
        let text = self.text(verb, path, &[&["--json"], flags].concat());
        let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
        rows.collect()
    }

    /// One field of each row, as text.
    #[track_caller]
    pub(crate) fn column(&self, verb: &str, path: &str, field: &str) -> Vec<String> {
        column(&self.rows(verb, path, &[]), field)
    }

    /// Fails unless both ways exit with `code` and a message that has each of `words`.
    #[track_caller]
    pub(crate) fn refused(&self, verb: &str, path: &str, code: i32, words: &[&str]) {
        for ran in [self.in_mount(verb, path, &[]), self.on_url(verb, path, &[])] {
            check_refusal(&ran, code, words);
        }
    }
}

/// One field of each row, as text.
#[track_caller]
pub(crate) fn column(rows: &[Value], field: &str) -> Vec<String> {
    let values = rows.iter().map(|row| match &row[field] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    values.collect()
}

/// Fails unless a command exited with `code` and a message that has each of `words`.
#[track_caller]
pub(crate) fn check_refusal(ran: &CommandResult, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran}");
    for word in words {
        assert!(ran.stderr.contains(word), "no `{word}` in: {ran}");
    }
    assert!(!ran.stderr.contains("panicked"), "{ran}");
}

fn states_and_directories(place: Place) {
    let asked = AskedMount::start(
        place,
        "mkdir d; echo one > d/f.txt; echo 'two two' > d/f.txt; chmod 640 d/f.txt; ln -s f.txt d/l
         # A name that exists for less than ten seconds is a transient name.
         sleep 11; mkdir d/sub; echo in > d/sub/in; mv d/f.txt d/moved.txt; echo three > d/moved.txt",
    );
    let rows = asked.rows("versions", "d/moved.txt", &[]);
    assert_eq!(column(&rows, "size"), ["4", "8", "8", "6"]);
    assert_eq!(
        column(&rows, "op"),
        ["create", "write", "rename", "write"],
        "{rows:?}"
    );
    assert_eq!(
        column(&rows, "renamed_from"),
        ["null", "null", "d/f.txt", "null"]
    );
    assert_eq!(column(&rows, "program")[3], "sh");
    assert_eq!(rows[0]["ended_ns"], rows[1]["time_ns"]);
    assert_eq!(rows[3]["ended_ns"], Value::Null);
    let stamps = column(&rows, "stamp");
    for (stamp, sizes) in stamps.iter().zip([["4"], ["8"], ["8"], ["6"]]) {
        let name = match *stamp < stamps[2] {
            true => "d/f.txt",
            false => "d/moved.txt",
        };
        let then = asked.rows("ls", &format!("{name}@{stamp}"), &[]);
        assert_eq!(column(&then, "size"), sizes, "{name}@{stamp}");
        let states = asked.column("versions", &format!("{name}@{stamp}"), "stamp");
        assert_eq!(states.last(), Some(stamp), "states up to that time");
    }
    assert_eq!(asked.column("ls", "d", "name"), ["l", "moved.txt", "sub"]);
    assert_eq!(asked.column("ls", "", "path"), ["d"]);
    let first = asked.column("ls", &format!("d@{}", stamps[1]), "path");
    assert_eq!(first, ["d/f.txt"]);
    let rows = asked.rows("ls", "d/", &[]);
    assert_eq!(rows[0]["target"], "f.txt");
    assert_eq!(column(&rows, "kind"), ["symlink", "file", "directory"]);
    assert_eq!(rows[1]["mode"], "0640");
    let table = asked.text("versions", "d/moved.txt", &[]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("TIME "), "{table}");
    let newest: Vec<&str> = lines[4].split_whitespace().collect();
    assert!(newest[1].ends_with("+01:00"), "{table}");
    assert_eq!(newest[2..5], ["write", "6", "bytes"], "{table}");
    // A printed time leads to the state beside it.
    let time = lines[1].split_once("  ").unwrap().0;
    let then = asked.rows("ls", &format!("d/f.txt@{time}"), &[]);
    assert_eq!(column(&then, "size"), ["4"], "{time}");
    let table = asked.text("ls", "d", &["--utc"]);
    let linked = table.lines().nth(1).unwrap();
    assert!(linked.starts_with("lrwxrwxrwx"), "{table}");
    assert!(linked.ends_with("+00:00  l -> f.txt"), "{table}");
}

#[test]
fn versions_and_ls_give_the_same_rows_both_ways() {
    let store = tempfile::tempdir().unwrap();
    states_and_directories(Place::local(store.path()));
}

#[test]
fn versions_and_ls_give_the_same_rows_both_ways_on_s3() {
    if let Some(server) = S3Server::start() {
        states_and_directories(server.place("verbs"));
    }
}

#[test]
fn a_name_with_an_at_sign_is_reachable() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(
        Place::local(store.path()),
        "echo plain > mail@example.org; echo 22 > a@2026; echo trap > a; echo 1 > ends@
         mkdir 'week@2026-01'; echo x > 'week@2026-01/f'; printf x > \"$(printf 'n\\377\\nx')\"",
    );
    let size = |path: &str| asked.column("ls", path, "size");
    assert_eq!(size("mail@example.org"), ["6"]);
    assert_eq!(size("mail@example.org@-0s"), ["6"]);
    assert_eq!(size("a@2026"), ["5"], "the name a in 2026");
    assert_eq!(size("a@2026@"), ["3"], "the name a@2026 now");
    assert_eq!(size("a@2026@2026"), ["3"]);
    assert_eq!(size("ends@@"), ["2"]);
    assert_eq!(size("week@2026-01/f"), ["2"]);
    assert_eq!(asked.column("ls", "week@2026-01@", "name"), ["f"]);
    let rows = asked.rows("ls", "", &[]);
    let odd = rows.iter().find(|row| row["name"].is_array()).unwrap();
    assert_eq!(odd["name"], serde_json::json!([110, 255, 10, 120]));
    assert!(asked.text("ls", "", &[]).contains("n\\xff\\x0ax"));
}

#[test]
fn a_path_or_time_that_leads_nowhere_is_named_with_the_nearest_times() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(
        Place::local(store.path()),
        "mkdir d; echo one > d/f; echo two > d/f; echo x > d/gone; rm d/gone; echo top > top",
    );
    let stamps = asked.column("versions", "d/f", "stamp");
    let gone = asked.column("versions", "d/gone", "stamp");
    asked.refused("versions", "d/none", 1, &["d/none: does not exist"]);
    asked.refused("ls", "none/at/all", 1, &["none/at/all: does not exist"]);
    asked.refused("ls", "d/f/x", 1, &["d/f: is not a directory"]);
    let yesterday = &["d/f@yesterday", "\"yesterday\" is no time and no label"];
    asked.refused("ls", "d/f@yesterday", 1, yesterday);
    let nearest = ["d/f@2001", "the nearest kept time is", &stamps[0]];
    asked.refused("ls", "d/f@2001", 1, &nearest);
    // Also at the root, and by each verb that takes a time.
    let first = &asked.column("versions", "top", "stamp")[0];
    let nearest = [
        "top@2001: did not exist then",
        "the nearest kept time is",
        first,
    ];
    for verb in ["versions", "ls", "log", "cat", "why", "diff"] {
        asked.refused(verb, "top@2001", 1, &nearest);
    }
    let words = [
        "top@2500-01-01",
        "future",
        "the nearest kept time is",
        first,
    ];
    for verb in ["versions", "ls", "log", "cat", "why", "diff"] {
        asked.refused(verb, "top@2500-01-01", 1, &words);
    }
    for ran in [
        asked.in_mount_with("grep", &["one"], "top@2001", &[]),
        asked.on_url_with("grep", &["one"], "top@2001", &[]),
        asked.in_mount("restore", "top@2001", &[]),
        asked.in_mount("restore", "top@2001", &["--dry-run"]),
        asked.on_url("restore", "top@2001", &["--dry-run"]),
    ] {
        check_refusal(&ran, 1, &nearest);
    }
    let nearest = ["future", "the nearest kept time is", &stamps[1]];
    asked.refused("ls", "d/f@2500-01-01", 1, &nearest);
    let was = ["d/gone: does not exist now", &gone[0]];
    asked.refused("ls", "d/gone", 1, &was);
    let before = format!("d/gone@{}", stamps[0]);
    asked.refused("ls", &before, 1, &["did not exist then", &gone[0]]);
    asked.sh("echo again > d/gone");
    let both = asked.column("versions", "d/gone", "stamp");
    let ended = asked.rows("versions", "d/gone", &[])[0]["ended_ns"]
        .as_u64()
        .unwrap();
    assert_eq!((both.len(), &both[0]), (2, &gone[0]));
    let seconds = ended / 1_000_000_000;
    let between = shell::sh(
        store.path(),
        &format!(
            "date -u -d @{seconds} +%Y-%m-%dT%H-%M-%S.{:09}Z",
            ended % 1_000_000_000
        ),
    );
    let between = format!("d/gone@{}", between.trim());
    let words = ["the nearest kept times are", &both[0], &both[1]];
    asked.refused("ls", &between, 1, &words);
}

#[test]
fn wrong_arguments_of_a_verb_are_named() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(Place::local(store.path()), "echo one > f");
    let f = asked.mount.path("f").display().to_string();
    let url = asked.place.url.clone();
    let directory = store.path().display().to_string();
    let other = format!("{directory}/f");
    let cases: [(&[&str], i32, &[&str]); 8] = [
        (&["ls"], 2, &["PATH|URL"]),
        (&["ls", &other], 1, &[&other, "not in a mount"]),
        (&["ls", &f, "f"], 2, &["only a URL"]),
        (&["ls", &f, "--namespace", "x"], 2, &["--namespace x"]),
        (&["ls", &url, "--namespace", "X"], 2, &["namespace name"]),
        (
            &["ls", &url, "f", "--namespace", "none"],
            1,
            &["namespace none does not exist"],
        ),
        (&["ls", "ftp://x", "f"], 2, &["ftp"]),
        (&["ls", "file:///nowhere/at/all", "f"], 2, &["nowhere"]),
    ];
    for (arguments, code, words) in cases {
        let mut command = Command::new(PROGRAM);
        let ran = shell::run(command.args(arguments), LIMIT);
        check_refusal(&ran, code, words);
    }
}

/// The rows of a log as `op path`.
#[track_caller]
fn changes(asked: &AskedMount, path: &str, flags: &[&str]) -> Vec<String> {
    let rows = asked.rows("log", path, flags);
    let lines = rows.iter().map(|row| {
        let path = row["path"].as_str().unwrap();
        format!("{} {path}", row["op"].as_str().unwrap())
    });
    lines.collect()
}

fn changes_and_bytes(place: Place) {
    let asked = AskedMount::start(
        place,
        "mkdir -p d/sub; echo one > d/a; echo 'two two' > d/a; echo x > d/sub/x; echo keep > d/sub/keep
         # A name that exists for less than ten seconds is a transient name.
         sleep 11; mv d/sub/x d/y; rm d/a; cp /bin/true d/sub/program",
    );
    let ops = |path: &str, flags: &[&str]| changes(&asked, path, flags);
    let whole = [
        "create d/sub/program",
        "delete d/a",
        "rename d/y",
        "create d/sub/keep",
        "create d/sub/x",
        "write d/a",
        "create d/a",
        "create d/sub",
    ];
    assert_eq!(ops("d", &["-r"]), whole);
    assert_eq!(ops("d", &["-r", "-n", "2"]), whole[..2]);
    let of_d = [whole[1], whole[2], whole[5], whole[6], whole[7]];
    assert_eq!(ops("d", &[]), of_d);
    assert_eq!(ops("d/sub", &[])[1], "move d/sub/x");
    assert_eq!(ops("d/a", &[]), ["delete d/a", "write d/a", "create d/a"]);
    assert_eq!(ops("d/y", &[]), ["rename d/y", "create d/y"]);
    assert_eq!(ops("d", &["-r", "--op", "delete,rename"]), whole[1..3]);
    assert_eq!(ops("d", &["-r", "--program", "cp"]), whole[..1]);
    assert!(ops("d", &["-r", "--user", "4321"]).is_empty());
    assert_eq!(ops("d", &["-r", "--user", "root"]).len(), 7);
    let rows = asked.rows("log", "d", &["-r"]);
    let stamps = column(&rows, "stamp");
    assert_eq!(ops("d", &["-r", "--since", &stamps[2]]), whole[..3]);
    assert_eq!(ops("d", &["-r", "--until", &stamps[4]]), whole[4..]);
    assert_eq!(ops(&format!("d@{}", stamps[6]), &["-r"]), whole[6..]);
    assert_eq!(ops("d", &["-r", "--since", "-1d"]), whole);
    assert_eq!(rows[2]["renamed_from"], "d/sub/x");
    assert_eq!(
        (&rows[1]["user"], &rows[1]["size"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(rows[0]["user"], 0);
    // The bytes of a program are in a segment, those of a short file in the index.
    let program = std::fs::metadata("/bin/true").unwrap().len();
    assert_eq!(rows[0]["size"], program);
    assert!(
        rows[0]["stored"].as_u64().unwrap() >= program,
        "{}",
        rows[0]
    );
    let table = asked.text("log", "d", &["-r"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[3].ends_with("d/y from d/sub/x"), "{table}");
    let stamps = [stamps[5].as_str(), stamps[6].as_str()];
    removed_and_bytes(&asked, stamps);
}

/// The log of what was removed, and bytes. `stamps` are those of the last and of the first state of `d/a`.
fn removed_and_bytes(asked: &AskedMount, stamps: [&str; 2]) {
    let ops = |path: &str, flags: &[&str]| changes(asked, path, flags);
    asked.sh("rm -r d/sub");
    assert_eq!(ops("d/sub", &["-n", "3"])[2], "create d/sub/program");
    assert_eq!(
        ops("d/sub/keep", &[]),
        ["delete d/sub/keep", "create d/sub/keep"]
    );

    assert_eq!(asked.text("cat", "d/y", &[]), "x\n");
    assert_eq!(
        asked.text("cat", &format!("d/a@{}", stamps[1]), &[]),
        "one\n"
    );
    assert_eq!(
        asked.text("cat", &format!("d/a@{}", stamps[0]), &[]),
        "two two\n"
    );
    asked.refused("cat", "d/a", 1, &["d/a: does not exist now", stamps[0]]);
    asked.refused("cat", "d", 1, &["d: is a directory"]);
    asked.refused("log", "d/none", 1, &["d/none: does not exist"]);
    asked.sh("ln -s y d/link; seq 400000 > d/long; mkfifo d/pipe");
    asked.refused("cat", "d/link", 1, &["d/link: is a symlink"]);
    asked.refused("cat", "d/pipe", 1, &["d/pipe: is a fifo"]);
    let long = asked.text("cat", "d/long", &[]);
    assert_eq!(long, asked.mount.sh("cat d/long"), "several pieces");
}

#[test]
fn log_and_cat_give_the_same_both_ways() {
    let store = tempfile::tempdir().unwrap();
    changes_and_bytes(Place::local(store.path()));
}

#[test]
fn log_and_cat_give_the_same_both_ways_on_s3() {
    if let Some(server) = S3Server::start() {
        changes_and_bytes(server.place("verbs"));
    }
}

#[test]
fn a_reader_that_has_enough_ends_the_verb_without_an_error() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(
        Place::local(store.path()),
        "head -c 30000000 /dev/urandom > big",
    );
    let big = asked.mount.path("big").display().to_string();
    let url = asked.place.url.clone();
    for arguments in [big, format!("{url} big")] {
        let script =
            format!("{{ {PROGRAM} cat {arguments}; echo \"status $?\" >&2; }} | head -c 5 | wc -c");
        let ran = shell::sh_within(store.path(), &script, LIMIT);
        assert_eq!(ran.stderr, "status 0\n", "{ran}");
        assert_eq!(ran.stdout.trim(), "5", "{ran}");
    }
    // The daemon goes on.
    assert_eq!(asked.column("ls", "", "name"), ["big"]);
}

#[test]
fn wrong_filters_of_a_log_are_named() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(Place::local(store.path()), "echo one > f");
    let f = asked.mount.path("f").display().to_string();
    let cases: [(&[&str], &[&str]); 4] = [
        (&["--since", "yesterday"], &["--since", "yesterday"]),
        (&["--op", "read"], &["--op", "read"]),
        (&["--user", "no-such-user"], &["--user", "no-such-user"]),
        (&["-n", "few"], &["--count", "few"]),
    ];
    for (flags, words) in cases {
        let mut command = Command::new(PROGRAM);
        let ran = shell::run(command.arg("log").arg(&f).args(flags), LIMIT);
        check_refusal(&ran, 2, words);
    }
}
