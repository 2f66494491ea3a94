//! `rewindfs grep` on a path in a mount and on a store's URL.

use crate::support::place::Place;
use crate::verbs::{AskedMount, check_refusal, column};

#[test]
fn grep_finds_the_states_of_a_line() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(
        Place::local(store.path()),
        "for n in 1 2 3 4 5; do
             { echo head; case $n in 2|3|4) echo \"Key = $n\"; echo \"key = $n\";; esac; echo a.c; } > f
         done
         printf 'key = 5\\0' > f; seq 200000 > long; echo 'last line' >> long",
    );
    let states = asked.column("versions", "f", "stamp");
    assert_eq!(states.len(), 6);
    let url = asked.place.url.clone();
    let found = |arguments: &[&str]| {
        let (pattern, flags) = arguments.split_first().unwrap();
        let here = asked.in_mount_with("grep", &[*pattern], "f", flags).ok();
        let there = asked.on_url_with("grep", &[*pattern], "f", flags).ok();
        assert_eq!(here, there, "in the mount, and on {url}");
        let rows = here.lines().map(|line| serde_json::from_str(line).unwrap());
        rows.collect::<Vec<serde_json::Value>>()
    };
    let rows = found(&["^key = [0-9]$", "--json"]);
    assert_eq!(column(&rows, "stamp"), [&states[1][..], &states[3]]);
    assert_eq!(column(&rows, "line"), ["3", "3"]);
    assert_eq!(column(&rows, "text"), ["key = 2", "key = 4"]);
    let rows = found(&["key", "--json", "--all", "-i"]);
    assert_eq!(column(&rows, "matches"), ["2", "2", "2"]);
    assert_eq!(column(&rows, "stamp"), states[1..4]);
    assert_eq!(
        found(&["a.c", "--json", "-F", "--all"]).len(),
        5,
        "the binary state is skipped"
    );
    let none = asked.in_mount_with("grep", &["nowhere"], "f", &[]);
    check_refusal(&none, 1, &["f: no state has a line with nowhere"]);
    let long = asked
        .in_mount_with("grep", &["last line"], "long", &["--json"])
        .ok();
    assert!(long.contains("\"line\":200001"), "{long}");
    let wrong = asked.in_mount_with("grep", &["("], "f", &[]);
    check_refusal(&wrong, 2, &["(: is no pattern"]);
    let directory = asked.in_mount_with("grep", &["x"], "", &[]);
    check_refusal(&directory, 1, &["is a directory"]);
}
