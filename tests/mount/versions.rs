//! The past as files: every save is there, in order, with the right bytes, also on another machine.

use std::fs;
use std::path::Path;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::random::{Random, seed};
use crate::walk::{Node, Walk, compare};

/// The names in a directory of versions, as listed, without the links.
fn listed(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", directory.display()));
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "latest" && name != "previous")
        .collect()
}

/// The text of a file.
#[track_caller]
fn text(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Fails unless `directory` shows `expected` as the states of `name`: in order, each once, the current one last, and the
/// same ones under `TIME/` for each printed stamp.
#[track_caller]
fn check_states(directory: &Path, name: &str, expected: &[String]) {
    let states = directory.join(".versions/@files").join(name);
    let stamps = listed(&states);
    let found: Vec<String> = stamps
        .iter()
        .map(|stamp| text(&states.join(stamp)))
        .collect();
    let shown = || {
        let lines = stamps
            .iter()
            .zip(&found)
            .map(|(stamp, state)| format!("  {stamp} {}", state.trim_end()));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert!(
        found == expected,
        "{} states of {name}, expected {}:\n{}",
        found.len(),
        expected.len(),
        shown()
    );
    assert!(
        stamps.is_sorted_by(|a, b| a < b),
        "times do not ascend:\n{}",
        shown()
    );
    assert_eq!(
        text(&directory.join(name)),
        expected[expected.len() - 1],
        "the current one is the last"
    );
    assert_eq!(text(&states.join("latest")), expected[expected.len() - 1]);
    if expected.len() > 1 {
        assert_eq!(text(&states.join("previous")), expected[expected.len() - 2]);
    }
    let extension = Path::new(name)
        .extension()
        .map_or(String::new(), |e| format!(".{}", e.to_string_lossy()));
    for (stamp, state) in stamps.iter().zip(expected) {
        let time = stamp
            .strip_suffix(&extension)
            .unwrap_or_else(|| panic!("{stamp} does not end in {extension}"));
        let then = directory.join(".versions").join(time).join(name);
        assert_eq!(
            text(&then),
            *state,
            "{} shows another state than @files\n{}",
            then.display(),
            shown()
        );
    }
}

#[test]
fn forty_one_saves_are_forty_one_states() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    let state = |number: usize| format!("state {number:02}\n");
    let expected: Vec<String> = (0..=40).map(state).collect();
    mount.sh(r#"
        mkdir d
        i=0; echo 'state 00' > d/f.txt
        while [ $i -lt 20 ]; do i=$((i+1)); n=$(printf %02d $i); sed -i "s/.*/state $n/" d/f.txt; done
        while [ $i -lt 40 ]; do i=$((i+1)); printf 'state %02d\n' $i > d/f.txt; done
    "#);
    check_states(&mount.path("d"), "f.txt", &expected);
    fs::rename(mount.path("d"), mount.path("moved")).unwrap();
    check_states(&mount.path("moved"), "f.txt", &expected);
    mount.remount(Cache::Wiped);
    check_states(&mount.path("moved"), "f.txt", &expected);
    mount.remount(Cache::Kept);
    check_states(&mount.path("moved"), "f.txt", &expected);
}

#[test]
fn mixed_saves_of_many_files_keep_their_order() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh(r#"
        for f in a b c; do (
            echo 'state 00' > $f
            i=0
            while [ $i -lt 20 ]; do
                i=$((i+1)); sed -i "s/.*/state $(printf %02d $i)/" $f
                i=$((i+1)); printf 'state %02d\n' $i | dd of=$f conv=notrunc status=none
                i=$((i+1)); printf 'state %02d\n' $i > $f.new; mv $f.new $f
            done
        ) & done
        wait
    "#);
    let expected: Vec<String> = (0..=21)
        .map(|number| format!("state {number:02}\n"))
        .collect();
    for cache in [Cache::Kept, Cache::Wiped] {
        for name in ["a", "b", "c"] {
            check_states(&mount.root(), name, &expected);
        }
        mount.remount(cache);
    }
}

#[test]
fn what_is_no_save_is_no_version() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh(r"
        echo one > f
        cat f > /dev/null                      # read
        chmod 600 f; touch f                   # attributes
        echo one > f                           # the same bytes
        : >> f                                 # opened for writing, nothing written
        echo two > f
    ");
    check_states(
        &mount.root(),
        "f",
        &["one\n".to_owned(), "two\n".to_owned()],
    );
    mount.sh("touch empty");
    check_states(&mount.root(), "empty", &[String::new()]);
}

#[test]
fn the_past_is_hidden_and_read_only() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh(r#"
        mkdir -p d/e; echo old > d/f; echo deep > d/e/g; sleep 0.1
        t=$(date -u +%Y-%m-%dT%H-%M-%S.%NZ); sleep 0.1
        echo new > d/f; rm -r d/e; sleep 0.1
        test "$(cat d/.versions/$t/f)" = old
        test "$(cat .versions/$t/d/f)" = old
        test "$(cat .versions/$t/d/e/g)" = deep
        test "$(cd d/.versions/$t && find . | sort | tr '\n' ' ')" = '. ./e ./e/g ./f '
        diff -r .versions/$t/d d/.versions/$t
        cp -a .versions/$t/d restored; test "$(cat restored/e/g)" = deep
        cp d/.versions/$t/f d/f; test "$(cat d/f)" = old
        cat .versions/@help | grep -q '@files'
        for listing in "$(ls -a)" "$(ls -a d)" "$(find .)"; do
            case $listing in *.versions*) echo 'listed: .versions'; exit 1;; esac
        done
        fails() { if "$@" 2>errors; then echo "succeeded: $*"; exit 1; fi; cat errors; }
        fails rm .versions/$t/d/f
        fails mv .versions/$t/d/f x
        fails touch .versions/$t/d/new
        fails chmod 777 .versions/$t/d/f
        fails sh -c ": > .versions/$t/d/f"
        fails sh -c ": > .versions/@files/x"
        fails mkdir d/.versions
        fails ls d/.versions/$t/.versions
        fails ls .versions/2999-01-01
        fails ls .versions/2001-01-01
        fails ls .versions/nonsense
        rm errors
        echo "$t"
    "#);
}

/// Fails unless the chosen moments of the walk read back exactly, from the root and from every directory that still lives.
fn check_moments(mount: &TestMount, walk: &Walk, chosen: &[usize], when: &str) {
    let mut failures = Vec::new();
    for &index in chosen {
        let moment = &walk.moments[index];
        let mut places = vec![(
            mount.path(".versions").join(&moment.stamp),
            Path::new("").to_path_buf(),
        )];
        // A directory that still lives shows its own past, whatever it and its parents were called then.
        let now = &walk.moments[walk.moments.len() - 1].model;
        for (path, node) in now {
            let then = moment
                .model
                .iter()
                .find(|(_, then)| matches!(node, Node::Directory(_)) && *then == node);
            if let Some((then, _)) = then {
                places.push((
                    mount.path(path).join(".versions").join(&moment.stamp),
                    then.clone(),
                ));
            }
        }
        for (found_at, under) in places {
            let differences = compare(&found_at, &moment.model, &under);
            if !differences.is_empty() {
                failures.push(format!(
                    "{} ({}):\n    {}\n  the story around it:\n{}",
                    found_at.display(),
                    moment.step,
                    differences.join("\n    "),
                    walk.story(index)
                ));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{when}: {} places in the past are wrong, the first:\n  {}\n{}",
        failures.len(),
        failures[0],
        mount.log_tail()
    );
}

#[test]
fn a_random_walk_leaves_its_whole_past() {
    let seed = seed();
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    let mut walk = Walk::new(&mount.root(), seed);
    for _ in 0..300 {
        walk.step();
    }
    let last = walk.moments.len() - 1;
    let live = compare(&mount.root(), &walk.moments[last].model, Path::new(""));
    assert!(
        live.is_empty(),
        "the live tree differs:\n  {}",
        live.join("\n  ")
    );
    let mut random = Random::new(seed ^ 1);
    let mut chosen: Vec<usize> = (0..50).map(|_| random.below(last + 1)).collect();
    chosen.push(last);
    check_moments(&mount, &walk, &chosen, "before the remount");
    mount.remount(Cache::Wiped);
    let live = compare(&mount.root(), &walk.moments[last].model, Path::new(""));
    assert!(
        live.is_empty(),
        "the live tree differs after a remount:\n  {}",
        live.join("\n  ")
    );
    check_moments(
        &mount,
        &walk,
        &chosen,
        "after a remount with an empty cache",
    );
}
