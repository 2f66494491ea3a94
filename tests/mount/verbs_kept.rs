//! What `rewindfs versions` says keeps each state: the same as `rewindfs why`, on a mount and on a URL.

use serde_json::{Value, json};

use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::verbs::{AskedMount, column};

/// The rules of a row, in order.
fn rules(row: &Value) -> Vec<&str> {
    let kept = row["kept_by"].as_array().unwrap();
    kept.iter()
        .map(|kept| kept["rule"].as_str().unwrap())
        .collect()
}

/// Fails unless each state of `path` that is stored under `stored` is kept by what `why` says.
#[track_caller]
fn kept_as_why_says(asked: &AskedMount, path: &str, stored: &[&str]) {
    let rows = asked.rows("versions", path, &[]);
    assert_eq!(rows.len(), stored.len(), "{rows:?}");
    for (row, stored) in rows.iter().zip(stored) {
        let stamp = row["stamp"].as_str().unwrap();
        let why = asked.rows("why", &format!("{stored}@{stamp}"), &[]);
        let why: Vec<Value> = why
            .iter()
            .map(|row| json!({"rule": row["rule"], "until_ns": row["until_ns"]}))
            .collect();
        assert_eq!(row["kept_by"], Value::Array(why), "{stored}@{stamp}");
    }
}

fn states_and_their_rules(place: Place) {
    const DAY: u64 = 86_400_000_000_000;
    let asked = AskedMount::start(
        place,
        "mkdir d; for n in 1 2 3 4 5 6; do echo $n > d/f; sleep 0.05; done
         echo 1 > d/linked; sleep 0.05; ln d/linked d/other; echo 2 > d/linked; echo gone > d/gone; rm d/gone
         ln d/linked d/third; sleep 0.05; rm d/third",
    );
    let rows = asked.rows("versions", "d/f", &[]);
    assert_eq!(
        rows[5]["kept_by"],
        json!([{"rule": "current", "until_ns": null}])
    );
    let ended = rows[0]["ended_ns"].as_u64().unwrap();
    let within = json!({"rule": "keep-within", "until_ns": ended + DAY});
    assert_eq!(rows[0]["kept_by"][0], within);
    assert!(!rules(&rows[0]).contains(&"keep-last"), "{}", rows[0]);
    assert!(rules(&rows[4]).contains(&"keep-last"), "{}", rows[4]);
    kept_as_why_says(&asked, "d/f", &["d/f"; 6]);
    let linked = asked.rows("versions", "d/linked", &[]);
    assert!(rules(&linked[0]).contains(&"keep-last"), "{linked:?}");
    let third = asked.rows("versions", "d/third", &[]);
    assert_eq!(rules(&third[0]), ["hard link"], "{third:?}");
    let gone = asked.rows("versions", "d/gone", &[]);
    assert!(rules(&gone[0]).contains(&"keep-within"), "{gone:?}");

    // A rename takes the states along, and a label keeps one.
    asked.sh("sleep 10; mkdir d/.versions/v1; mv d/f d/g; echo 7 > d/g");
    let rows = asked.rows("versions", "d/g", &[]);
    assert_eq!(column(&rows, "op")[6..], ["rename", "write"]);
    assert!(rules(&rows[5]).contains(&"label"), "{}", rows[5]);
    assert!(!rules(&rows[4]).contains(&"label"), "{}", rows[4]);
    let stored = ["d/f", "d/f", "d/f", "d/f", "d/f", "d/f", "d/g", "d/g"];
    kept_as_why_says(&asked, "d/g", &stored);
    let table = asked.text("versions", "d/g", &["--utc"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains("  KEPT BY  "), "{table}");
    assert!(lines[6].contains("label"), "{table}");
    assert!(lines[8].contains("  current  "), "{table}");
}

#[test]
fn versions_says_what_keeps_each_state() {
    let store = tempfile::tempdir().unwrap();
    states_and_their_rules(Place::local(store.path()));
}

#[test]
fn versions_says_what_keeps_each_state_on_s3() {
    if let Some(server) = S3Server::start() {
        states_and_their_rules(server.place("verbs-kept"));
    }
}
