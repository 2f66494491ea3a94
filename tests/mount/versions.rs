//! The past as files: every save is listed, in order, with the right bytes, also in a mount with an empty cache.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::random_walk::{Node, RandomWalk, compare};
use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::random::{Random, seed};

/// The names in a directory of versions, as listed, without the links.
fn listed(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", directory.display()));
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "latest" && name != "previous")
        .collect()
}

/// The content of a file as text.
#[track_caller]
fn text(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Fails unless `directory` shows `expected` as the versions of `name`: in order, each once, the current one last, and each of
/// them under `TIME/` for its printed time.
#[track_caller]
pub(crate) fn check_states(directory: &Path, name: &str, expected: &[String]) {
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
        "the current version is the last one"
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
fn forty_one_saves_make_forty_one_versions() {
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

/// The shortest of three runs of a command.
fn shortest(mount: &TestMount, command: &str) -> Duration {
    let runs = (0..3).map(|_| {
        let start = Instant::now();
        mount.sh(command);
        start.elapsed()
    });
    runs.min().unwrap()
}

#[test]
fn listing_many_versions_takes_as_long_as_listing_many_files() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh(r#"
        mkdir many one later
        for n in $(seq 1000); do echo $n > many/f$n; echo $n > one/v.txt; echo $n > later/v.txt; done
        # A name that exists for less than ten seconds is a transient name.
        sleep 11
        mv one/v.txt one/moved.txt
    "#);
    mount.drain();
    let files = shortest(&mount, "ls -l many");
    // Until the new name is for good, the kernel asks for it again in each call. A read of the whole list for each of the thousand versions takes
    // longer than this.
    let fresh = shortest(&mount, "ls -l one/.versions/@files/moved.txt");
    assert!(
        fresh < files * 40 + Duration::from_secs(5),
        "a new name: {fresh:?}, files {files:?}"
    );
    mount.sh("sleep 11");
    for versions in [
        "later/.versions/@files/v.txt",
        "one/.versions/@files/moved.txt",
    ] {
        let listed = shortest(&mount, &format!("ls -l {versions}"));
        // Each version is looked up by name in a process that has not listed the directory.
        let by_name = shortest(&mount, &format!("find {versions} -name '2*' | xargs stat"));
        eprintln!("{versions}: {listed:?}, by name {by_name:?}; files {files:?}");
        for took in [listed, by_name] {
            assert!(
                took < files * 8 + Duration::from_millis(500),
                "{took:?}, files {files:?}"
            );
        }
        let all = mount.sh(&format!("cat {versions}/2* | uniq"));
        let expected: String = (1..=1000).map(|n| format!("{n}\n")).collect();
        assert!(
            all == expected,
            "{versions}: {} states",
            all.lines().count()
        );
    }
    for directory in ["many", "one", "later"] {
        let shown = mount.sh(&format!("ls {directory}/.versions"));
        let times: Vec<&str> = shown.lines().filter(|name| name.starts_with('2')).collect();
        assert!((2..=96).contains(&times.len()), "{directory}: {shown}");
        let rises = times.is_sorted_by(|one, next| one[..19] < next[..19]);
        assert!(rises, "a second is listed twice: {shown}");
        let names = |listed: &str| mount.sh(&format!("ls {listed}"));
        let newest = format!("{directory}/.versions/{}", times[times.len() - 1]);
        assert_eq!(names(&newest), names(directory));
        assert_ne!(names(&format!("{directory}/.versions/{}", times[0])), "");
    }
    mount.umount();
}

/// A drained change is final one second later.
const NOW: &str = "sleep 1.1; t=$(date -u +%Y-%m-%dT%H-%M-%S); sleep 1.1; echo $t";

#[test]
fn a_tree_of_the_past_is_traversed_as_fast_as_the_live_one() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh("for d in $(seq 40); do mkdir -p t/d$d; for n in $(seq 50); do echo $n > t/d$d/f$n; done; done");
    mount.drain();
    let time = mount.sh(NOW);
    let past = format!("t/.versions/{}", time.trim_end());
    for changed in ["nothing", "half"] {
        for command in ["find DIR -ls", "ls -lR DIR"] {
            let [live, then] = ["t", past.as_str()].map(|directory| {
                let cold = format!(
                    "echo 2 > /proc/sys/vm/drop_caches || true; {} > /tmp/said.$$; tail -n +2 /tmp/said.$$ | wc -l; rm /tmp/said.$$",
                    command.replace("DIR", directory)
                );
                shortest(&mount, &cold)
            });
            eprintln!("{changed} changed, {command}: live {live:?}, past {then:?}");
            assert!(
                then < live * 4 + Duration::from_millis(300),
                "{command}: {live:?}, past {then:?}"
            );
        }
        if changed == "nothing" {
            mount.sh("for d in $(seq 40); do for n in $(seq 1 2 50); do echo new > t/d$d/f$n; done; rm t/d$d/f2; done");
            mount.drain();
        }
    }
    mount.umount();
}

/// The kernel caches attributes of the past as long as those of the live tree, and the mount invalidates both together.
#[test]
fn attributes_in_the_past_follow_the_live_ones_until_the_version_ends() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh("mkdir -p d/sub; echo text > d/f; echo text > d/sub/g; ln d/f d/h");
    mount.drain();
    let time = mount.sh(NOW);
    mount.sh(&format!(
        r#"
        t=d/.versions/{}
        same() {{ [ "$(stat -c "$1" "$2")" = "$(stat -c "$1" "$3")" ] || {{ stat "$2" "$3"; echo "$4"; exit 1; }}; }}
        check() {{
            for pair in f:$t/f f:d/.versions/@files/f/latest sub:$t/sub sub/g:$t/sub/g h:$t/h; do
                same '%a %u %g %Y' d/${{pair%%:*}} $(readlink -f ${{pair#*:}}) "$1"
            done
            for place in .versions .versions/@files .versions/@files/f .versions/@deleted; do
                same '%a %u %g' d d/$place "$1"
            done
            same '%a %u %g' d $t "$1"
        }}
        check before
        for n in $(seq 30); do
            chmod 6$((n % 8))0 d/f d/h d/sub/g; check "chmod of files, $n"
            chmod 7$((n % 8))0 d d/sub; check "chmod of directories, $n"
            touch -d @$n d/f d/sub/g; check "times, $n"
            chown $n:$n d/f; check "owner, $n"
        done
        setfacl -m u:1:rwx d/f d/sub; check 'access list'
        [ "$(getfacl -cpn d/f)" = "$(getfacl -cpn $t/f)" ]
        setfacl -b d/f d/sub; check 'no access list'
        [ "$(getfacl -cpn d/f)" = "$(getfacl -cpn $t/f)" ]
        "#,
        time.trim_end()
    ));
    // An ended version keeps its last attributes.
    let kept = mount.sh("chmod 640 d/f; stat -c %a d/f; echo other > d/f; chmod 600 d/f; stat -Lc %a d/.versions/@files/f/previous");
    assert!(
        kept.starts_with("640\n") && kept.ends_with("640\n"),
        "{kept}"
    );
    mount.umount();
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
fn reads_attribute_changes_and_equal_bytes_make_no_version() {
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

/// Fails unless the chosen snapshots of the random walk read back exactly, from the root and from every existing directory.
fn check_snapshots(mount: &TestMount, walk: &RandomWalk, chosen: &[usize], when: &str) {
    let mut failures = Vec::new();
    for &index in chosen {
        let snapshot = &walk.snapshots[index];
        let mut places = vec![(
            mount.path(".versions").join(&snapshot.stamp),
            Path::new("").to_path_buf(),
        )];
        // An existing directory shows its own past, with whichever names it and its parents had then.
        let now = &walk.snapshots[walk.snapshots.len() - 1].model;
        for (path, node) in now {
            let then = snapshot
                .model
                .iter()
                .find(|(_, then)| matches!(node, Node::Directory(_)) && *then == node);
            if let Some((then, _)) = then {
                places.push((
                    mount.path(path).join(".versions").join(&snapshot.stamp),
                    then.clone(),
                ));
            }
        }
        for (found_at, under) in places {
            let differences = compare(&found_at, &snapshot.model, &under);
            if !differences.is_empty() {
                failures.push(format!(
                    "{} ({}):\n    {}\n  the story around it:\n{}",
                    found_at.display(),
                    snapshot.step,
                    differences.join("\n    "),
                    walk.trace(index)
                ));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{when}: {} paths in the past are wrong, the first:\n  {}\n{}",
        failures.len(),
        failures[0],
        mount.log_tail()
    );
}

#[test]
fn every_state_of_a_random_walk_is_in_the_past() {
    let seed = seed();
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    let mut walk = RandomWalk::new(&mount.root(), seed);
    for _ in 0..300 {
        walk.step();
    }
    let last = walk.snapshots.len() - 1;
    let live = compare(&mount.root(), &walk.snapshots[last].model, Path::new(""));
    assert!(
        live.is_empty(),
        "the live tree differs:\n  {}",
        live.join("\n  ")
    );
    let mut random = Random::new(seed ^ 1);
    let mut chosen: Vec<usize> = (0..50).map(|_| random.below(last + 1)).collect();
    chosen.push(last);
    check_snapshots(&mount, &walk, &chosen, "before the remount");
    mount.remount(Cache::Wiped);
    let live = compare(&mount.root(), &walk.snapshots[last].model, Path::new(""));
    assert!(
        live.is_empty(),
        "the live tree differs after a remount:\n  {}",
        live.join("\n  ")
    );
    check_snapshots(
        &mount,
        &walk,
        &chosen,
        "after a remount with an empty cache",
    );
}
