//! Hard links in the past: copies of a past tree have them too.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;

/// Three times: `a` and `d/b` are one file, `s` and `d/t` one symbolic link, `single` has one name; then the file has a third
/// name and other bytes; then it has lost its first one.
const STORY: &str = r#"
    stamp() { sleep 0.05; date -u +%Y-%m-%dT%H-%M-%S.%NZ; sleep 0.05; }
    mkdir -p t/d; cd t
    echo one > a; ln a d/b; ln -s target s; ln s d/t; echo single > single
    stamp
    ln d/b c; echo two > c
    stamp
    rm a; echo three > d/b
    stamp
"#;

/// Tools that restore a tree with its links, from `$FROM` to `$TO`.
const TOOLS: [&str; 3] = [
    r#"cp -a "$FROM" "$TO""#,
    r#"rsync -aH "$FROM/" "$TO/""#,
    r#"mkdir "$TO"; tar cf - -C "$FROM" . | tar xf - -C "$TO""#,
];

/// Fails unless `names` are one file with as many links and these bytes.
#[track_caller]
fn check(tree: &Path, names: &[&str], links: u64, text: &str) {
    let stat = |name: &&str| fs::symlink_metadata(tree.join(name)).unwrap();
    let first = stat(&names[0]);
    for name in names {
        let found = stat(name);
        let told = format!("{name} in {}", tree.display());
        assert_eq!((found.ino(), found.nlink()), (first.ino(), links), "{told}");
        match found.is_symlink() {
            true => assert_eq!(
                fs::read_link(tree.join(name)).unwrap(),
                Path::new(text),
                "{told}"
            ),
            false => assert_eq!(fs::read_to_string(tree.join(name)).unwrap(), text, "{told}"),
        }
    }
}

/// Fails unless the three times show the states described above; `at` is the directory of `t`.
#[track_caller]
fn check_times(trees: &[impl AsRef<Path>]) {
    for (number, tree) in trees.iter().enumerate() {
        let tree = tree.as_ref();
        let (names, text): (&[&str], _) = match number {
            0 => (&["a", "d/b"], "one\n"),
            1 => (&["a", "c", "d/b"], "two\n"),
            _ => (&["c", "d/b"], "three\n"),
        };
        check(tree, names, names.len() as u64, text);
        check(tree, &["s", "d/t"], 2, "target");
        check(tree, &["single"], 1, "single\n");
    }
}

#[test]
fn hard_links_of_the_past_are_restored_as_hard_links() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    let told = mount.sh(STORY);
    let times: Vec<&str> = told.split_whitespace().collect();
    for cache in [Cache::Kept, Cache::Wiped] {
        let trees = |mount: &TestMount| {
            let tree = |time: &&str| mount.path(".versions").join(time).join("t");
            times.iter().map(tree).collect::<Vec<_>>()
        };
        // The three times in turn, twice: the kernel's cache of one time must not show in another.
        for _ in 0..2 {
            check_times(&trees(&mount));
            let own = |time: &&str| mount.path("t/.versions").join(time);
            check_times(&times.iter().map(own).collect::<Vec<_>>());
        }
        for tool in TOOLS {
            let out = tempfile::tempdir().unwrap();
            let copies: Vec<_> = (0..3)
                .map(|number| out.path().join(number.to_string()))
                .collect();
            for (tree, copy) in trees(&mount).iter().zip(&copies) {
                mount.sh(&format!(
                    "FROM={} TO={}; {tool}",
                    tree.display(),
                    copy.display()
                ));
            }
            check_times(&copies);
        }
        mount.remount(cache);
    }
    // After a restore in place the newest state has the links again.
    mount.sh(&format!(
        "rsync -aH --delete .versions/{}/t/ t/; sleep 0.1",
        times[0]
    ));
    check(&mount.path("t"), &["a", "d/b"], 2, "one\n");
    let year = mount.sh("date -u +%Y");
    check(
        &mount.path(".versions").join(year.trim()).join("t"),
        &["a", "d/b"],
        2,
        "one\n",
    );
    mount.drain();
    let follower = TestMount::start(&Place::local(store.path()), &["--read-only"]);
    let tree = |time: &&str| follower.path(".versions").join(time).join("t");
    check_times(&times.iter().map(tree).collect::<Vec<_>>());
    let differing = mount.check_log("main");
    assert!(differing.contains(" 0 differ"), "{differing}");
}
