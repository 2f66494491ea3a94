//! Names in `.versions` whose meaning changes: the kernel looks each of them up again, on the writer and on a follower.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::support::mount::TestMount;
use crate::support::place::Place;
use crate::support::wait_until;

/// The time within which a follower shows a committed change.
const SOON: Duration = Duration::from_secs(20);

/// A script that prints what each such name shows; its output changes with every change below.
const LOOK: &str = r#"
    h=.versions/@files/f
    echo "latest: $(cat $h/latest) $(readlink $h/latest) $(stat -c %s $h/latest)"
    echo "previous: $(cat $h/previous 2>&1) $(readlink $h/previous)"
    echo "listed: $(ls $h | wc -l) $(ls -l $h | wc -l)"
    echo "names: $(ls .versions/@files | tr '\n' ' ')"
    echo "removed: $(ls .versions/@deleted | tr '\n' ' ') $(cat .versions/@deleted/g 2>&1)"
    echo "log: $(grep -c . .versions/@log)"
    echo "instants: $(ls .versions | grep -c ^2)"
    echo "this year: $(cat .versions/$(date -u +%Y)/f) $(ls .versions/$(date -u +%Y) | tr '\n' ' ')"
    echo "new: $(cat .versions/@files/new/latest 2>&1) $(cat .versions/$(date -u +%Y)/new 2>&1)"
"#;

/// Waits until `mount` shows what `writer` shows.
#[track_caller]
fn same(writer: &TestMount, follower: &TestMount) -> String {
    let expected = writer.sh(LOOK);
    let mut shown = String::new();
    let agreed = wait_until(SOON, || {
        shown = follower.sh(LOOK);
        shown == expected
    });
    assert!(
        agreed,
        "the follower shows\n{shown}not\n{expected}{}",
        follower.log_tail()
    );
    expected
}

#[track_caller]
fn holds(look: &str, lines: &[&str]) {
    for line in lines {
        assert!(look.contains(line), "no {line:?} in\n{look}");
    }
}

#[test]
fn the_kernel_looks_up_a_versions_name_again_when_its_meaning_changed() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::local(directory.path());
    let writer = TestMount::start(&place, &[]);
    writer.sh("echo one > f; echo gone > g");
    writer.drain();
    let follower = TestMount::start(&place, &["--read-only", "--refresh", "200ms"]);
    let first = same(&writer, &follower);
    holds(
        &first,
        &[
            "latest: one",
            "previous: cat: .versions/@files/f/previous: No such file",
            "names: f g \n",
        ],
    );

    writer.sh("echo two > f; rm g");
    writer.drain();
    let second = same(&writer, &follower);
    holds(
        &second,
        &[
            "latest: two",
            "previous: one",
            "removed: g  gone",
            "this year: two f \n",
        ],
    );

    // Of the times within one second only the last one is listed.
    writer.sh("sleep 1; echo three > f; echo born > new; mv .versions/@deleted/g g");
    writer.drain();
    let third = same(&writer, &follower);
    holds(
        &third,
        &[
            "latest: three",
            "previous: two",
            "new: born born",
            "this year: three f g new \n",
        ],
    );
    for name in ["listed", "log", "instants", "names"] {
        let line = |look: &str| {
            look.lines()
                .find(|line| line.starts_with(name))
                .unwrap()
                .to_owned()
        };
        assert_ne!(line(&first), line(&third), "{name} stayed");
    }
}

#[test]
fn each_target_of_the_latest_link_is_a_node_of_its_own() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh("echo one > f");
    let latest = mount.path(".versions/@files/f/latest");
    let before = fs::symlink_metadata(&latest).unwrap();
    let target = fs::read_link(&latest).unwrap();
    for text in ["two", "three", "four"] {
        mount.sh(&format!("echo {text} > f"));
        assert_eq!(fs::read_to_string(&latest).unwrap().trim_end(), text);
        let now = fs::symlink_metadata(&latest).unwrap();
        assert_ne!(now.ino(), before.ino(), "another target, another node");
        assert_ne!(fs::read_link(&latest).unwrap(), target);
    }
    let old = latest.with_file_name(&target);
    assert_eq!(fs::read_to_string(old).unwrap(), "one\n");
}

/// For a time before a directory existed, its `.versions` shows the directory that had the same path then. A rename changes the
/// path.
#[test]
fn the_past_of_a_path_follows_the_path_and_not_the_directory() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    let time = mount.sh(r"
        mkdir dist up; echo old > dist/f; sleep 0.1
        date -u +%Y-%m-%dT%H-%M-%S.%NZ; sleep 0.1
        rm -r dist; mkdir dist; echo new > dist/f
        ");
    mount.drain();
    let past = |at: &str| mount.path(Path::new(at).join(".versions").join(time.trim()));
    // Read twice, because the second answer may come from the kernel's cache.
    for _ in 0..2 {
        assert_eq!(fs::read_to_string(past("dist").join("f")).unwrap(), "old\n");
    }
    mount.sh("mv dist moved");
    assert!(
        !past("moved").exists(),
        "the path did not exist at that time"
    );
    mount.sh("mv moved dist");
    assert_eq!(fs::read_to_string(past("dist").join("f")).unwrap(), "old\n");
    mount.sh("mv dist up/dist");
    assert!(
        !past("up/dist").exists(),
        "the path did not exist at that time"
    );
}
