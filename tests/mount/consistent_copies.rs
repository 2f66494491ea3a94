//! Relative names like `-0s` mean another timestamp at each moment; within one command they mean one timestamp.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::shell;
use crate::support::wait_until;

/// Files that the writer rewrites one after another, in the order of their names.
const FILES: usize = 200;

/// Rounds of copies within which the copied state must have advanced.
const MAX_ROUNDS: usize = 20;

/// Rewrites all files repeatedly until `stop` exists, each time with the next number.
const REWRITE: &str =
    "n=0; while [ ! -e stop ]; do n=$((n+1)); for f in g/*; do echo $n > $f; done; done";

/// Commands that copy `.versions/$N/g` to `$OUT`, each with one path lookup per file.
const COPIES: [(&str, &str); 4] = [
    ("cp", r#"cp -a .versions/$N/g "$OUT""#),
    (
        "find",
        r#"mkdir "$OUT"; find .versions/$N/g -type f -exec cp {} "$OUT" \;"#,
    ),
    (
        "tar",
        r#"mkdir "$OUT"; tar cf - .versions/$N/g | tar xf - --strip-components=3 -C "$OUT""#,
    ),
    (
        "loop",
        r#"mkdir "$OUT"; for f in $(ls .versions/$N/g); do cat .versions/$N/g/$f > "$OUT/$f"; done"#,
    ),
];

/// The contents of the copied files, in the order of their names.
fn generations(copy: &Path) -> Vec<u64> {
    let entries = fs::read_dir(copy).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let read = |name| fs::read_to_string(name).unwrap().trim().parse().unwrap();
    names.into_iter().map(read).collect()
}

/// Fails unless a copy is the state of one timestamp: a prefix of the files has one number and the rest the number before it.
/// Returns the newer number.
#[track_caller]
fn check_one_instant(how: &str, name: &str, copy: &Path) -> u64 {
    let found = generations(copy);
    let told = || format!("{how} of {name}: {found:?}");
    assert_eq!(found.len(), FILES, "{}", told());
    assert!(found.is_sorted_by(|a, b| a >= b), "{}", told());
    assert!(found[0] - found[FILES - 1] <= 1, "{}", told());
    found[0]
}

#[test]
fn a_copy_from_versions_beside_a_writer_is_consistent() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh("mkdir g; for i in $(seq 100 299); do echo 0 > g/$i; done; sleep 3");
    let mut writer = Command::new("sh")
        .args(["-euc", REWRITE])
        .current_dir(mount.root())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let copies = tempfile::tempdir().unwrap();
    let year = mount.sh("date -u +%Y");
    let names = ["-2s", year.trim(), "-2s"];
    // Three commands run at a time, so that the kernel's cached entry of the name switches between timestamps.
    std::thread::scope(|scope| {
        for (number, name) in names.into_iter().enumerate() {
            let (mount, copies) = (&mount, copies.path());
            scope.spawn(move || {
                let mut copied = Vec::new();
                // The writer and the copies are slow in turn, so the number of rounds until the state advances varies.
                for round in 0..MAX_ROUNDS {
                    for (how, script) in COPIES {
                        let out = copies.join(format!("{number}-{round}-{how}"));
                        mount.sh(&format!("N={name}; OUT={}; {script}", out.display()));
                        copied.push(check_one_instant(how, name, &out));
                    }
                    assert!(copied.is_sorted(), "of {name}: {copied:?}");
                    if copied.last() > copied.first() {
                        return;
                    }
                }
                panic!("the copies of {name} show no progress: {copied:?}");
            });
        }
    });
    mount.sh(": > stop");
    assert!(wait_until(Duration::from_secs(60), || writer
        .try_wait()
        .unwrap()
        .is_some()));
}

#[test]
fn a_printed_time_keeps_its_meaning() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh(&format!(
        r#"
        stamp() {{ {PROGRAM} stamp "$@"; }}
        echo one > f; sleep 1.2
        ago=$(stamp -1s); now=$(stamp "$(date -u +%Y)")
        test ${{#ago}} = 24
        cd .versions/-0s; sleep 0.1
        echo two > ../../f
        for turn in 1 2 3; do
            test "$(cat f)" = one                   # a working directory keeps its timestamp
            test "$(cat ../../.versions/$ago/f)" = one
            test "$(cat ../../.versions/$now/f)" = one
        done
        test "$(cat ../../f)" = two
        now=$(stamp -0s); sleep 0.1; echo three > ../../f
        test "$(cat ../../.versions/$now/f)" = two
        test "$(stamp $ago)" = $ago
        test "$(stamp --json -1s | grep -c '"stamp": "2')" = 1
        test "$(stamp "2026-11-20 22:26+0100")" = 2026-11-20T21-26-59.999Z
        "#
    ));
    for (time, status) in [("-1y", 2), ("yesterday", 2), ("", 2), ("2099-01-01", 1)] {
        let ran = shell::run(
            Command::new(PROGRAM).args(["stamp", time]),
            Duration::from_secs(20),
        );
        assert_eq!(ran.code, Some(status), "{ran}");
        assert!(ran.stdout.is_empty() && ran.stderr.contains(time), "{ran}");
    }
}
