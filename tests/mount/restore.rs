//! The verbs that change the tree, on a path in a mount and on a store's URL: through the daemon that has the namespace, and by a writer
//! of the command.

use std::process::Command;
use std::time::Duration;

use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::support::shell::{self, CommandResult};
use crate::verbs::{AskedMount, check_refusal, column};

/// The time within which a command ends.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a verb on a store's URL. Cache and journal are those of `mount`.
fn by_writer(mount: &TestMount, place: &Place, verb: &str, arguments: &[&str]) -> CommandResult {
    let mut command = Command::new(PROGRAM);
    command.args([verb, &place.url]).args(arguments);
    if let Some(endpoint) = &place.endpoint {
        command.args(["--endpoint", endpoint]);
    }
    command
        .args(["--no-writer", "--cache-dir"])
        .arg(mount.cache())
        .envs(place.variables.iter().cloned());
    shell::run(&mut command, LIMIT)
}

fn undelete_both_ways(place: Place) {
    let mut asked = AskedMount::start(
        place,
        "mkdir -p d/sub e; echo one > d/f; echo two > d/f; echo in > d/sub/in; echo b > d/b; echo c > d/c
         rm d/f d/b d/c; rm -r d/sub; ls d > /dev/null",
    );
    let told = asked.in_mount("undelete", "d/f", &[]).ok();
    assert_eq!(told, "d/f: restored (file, 4 bytes)\n");
    asked.mount.sh(
        "test \"$(cat d/f)\" = two; test \"$(ls d)\" = f; ls d/.versions/@deleted | grep -qx sub",
    );
    // The daemon of this machine has the namespace: it makes the change.
    let told = asked.on_url("undelete", "d/sub", &["--to", "e/back", "--json"]);
    let row: serde_json::Value = serde_json::from_str(&told.ok()).unwrap();
    assert_eq!(
        (&row["path"], &row["from"], &row["kind"]),
        (&"e/back".into(), &"d/sub".into(), &"directory".into()),
        "{row}"
    );
    assert_eq!((&row["size"], &row["undo"]), (&().into(), &().into()));
    asked
        .mount
        .sh("test \"$(cat e/back/in)\" = in; test \"$(ls d)\" = f");
    assert_eq!(asked.mount.status()["fenced"], false);
    asked.mount.drain();
    let rows = asked.rows("versions", "d/f", &[]);
    assert_eq!(column(&rows, "op"), ["create", "write", "undelete"]);
    assert_eq!(column(&rows, "program")[2], "rewindfs");
    asked.mount.umount();
    let words = ["d/b: not changed", "last written at", "--no-writer"];
    check_refusal(&asked.on_url("undelete", "d/b", &[]), 1, &words);
    let place = asked.place.clone();
    let told = by_writer(&asked.mount, &place, "undelete", &["d/b"]).ok();
    assert_eq!(told, "d/b: restored (file, 2 bytes)\n");
    let none = by_writer(&asked.mount, &place, "undelete", &["d/none"]);
    check_refusal(&none, 1, &["d/none: does not exist"]);
    asked.mount.mount();
    asked
        .mount
        .sh("test \"$(cat d/b)\" = b; test \"$(ls d | tr '\\n' ' ')\" = 'b f '");
    asked.mount.check_log("main");
}

#[test]
fn undelete_works_in_a_mount_and_on_its_url() {
    let store = tempfile::tempdir().unwrap();
    undelete_both_ways(Place::local(store.path()));
}

#[test]
fn undelete_works_in_a_mount_and_on_its_url_on_s3() {
    if let Some(server) = S3Server::start() {
        undelete_both_ways(server.place("undelete"));
    }
}

#[test]
fn what_cannot_be_undeleted_is_named() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(
        Place::local(store.path()),
        "mkdir d gone; echo x > d/f; echo x > d/there; echo x > d/old; sleep 11; mv d/old d/new; rm d/f; echo x > gone/f; rm -r gone",
    );
    let elsewhere = asked.mount.path("none/x").display().to_string();
    let taken = asked.mount.path("d/there").display().to_string();
    let reserved = asked.mount.path("d/.versions").display().to_string();
    let cases: [(&str, &[&str], i32, &[&str]); 10] = [
        ("d/there", &[], 1, &["d/there: exists", "rewindfs restore"]),
        ("d/none", &[], 1, &["d/none: does not exist"]),
        ("d/old", &[], 1, &["d/old: was moved away", "rewindfs log"]),
        ("gone/f", &[], 1, &["gone/f: its directory gone"]),
        (
            "d/f",
            &["--to", &elsewhere],
            1,
            &["none/x: its directory none", "--to"],
        ),
        ("d/f", &["--to", &taken], 1, &["d/there: exists", "--to"]),
        (
            "d/f",
            &["--to", &reserved],
            1,
            &["d/.versions: the name is reserved"],
        ),
        (
            "d/f",
            &["--to", "/nowhere"],
            1,
            &["--to /nowhere", "not in the mount"],
        ),
        ("d/f@-1h", &[], 2, &["d/f@-1h", "rewindfs restore"]),
        ("d/f", &["--no-writer"], 2, &["--no-writer", "URL"]),
    ];
    for (path, flags, code, words) in cases {
        check_refusal(&asked.in_mount("undelete", path, flags), code, words);
    }
    check_refusal(&asked.in_mount("undelete", "", &[]), 1, &["root directory"]);
    let follower = TestMount::start(&asked.place, &["--read-only"]);
    let mut command = Command::new(PROGRAM);
    let ran = shell::run(command.arg("undelete").arg(follower.path("d/f")), LIMIT);
    check_refusal(&ran, 1, &["is mounted read-only"]);
    assert_eq!(asked.in_mount("undelete", "d/f", &[]).code, Some(0));
}
