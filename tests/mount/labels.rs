//! Labels and holds with common tools: `mkdir`, `rmdir` and `mv` in `.versions`, `setfattr` of a hold.

use std::fs;
use std::time::Duration;

use crate::support::mount::{Cache, PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::support::wait_until;

/// A shell function: the command must fail, and its message must end with the first argument.
const REFUSED: &str = r#"
    refused() {
        want=$1; shift
        if "$@" 2>/tmp/refused.$$; then echo "succeeded: $*"; exit 1; fi
        grep -q "$want" /tmp/refused.$$ || { echo "$*: expected $want"; cat /tmp/refused.$$; exit 1; }
        rm -f /tmp/refused.$$
    }
"#;

fn sh(mount: &TestMount, script: &str) -> String {
    mount.sh(&format!("{REFUSED}{script}"))
}

/// Makes, renames and removes labels, and leaves one.
const CHANGES: &str = r#"
        mkdir -p d/sub; echo one > d/f; echo deep > d/sub/g
        mkdir d/.versions/before-upgrade
        echo second > d/f; echo new > d/new; rm d/sub/g
        cd d/.versions
        test "$(cat before-upgrade/f before-upgrade/sub/g | tr '\n' ' ')" = 'one deep '
        test "$(ls before-upgrade | tr '\n' ' ')" = 'f sub '
        test "$(ls | grep -cx before-upgrade)" = 1
        # Beside the times.
        ls | grep -q ^2
        test -z "$(ls ../../.versions | grep ^b)"

        refused 'File exists' mkdir before-upgrade
        refused 'Invalid argument' mkdir -- -release
        refused 'Invalid argument' mkdir 2099-release
        refused 'Invalid argument' mkdir @label
        refused 'Invalid argument' mkdir .label
        refused 'File name too long' mkdir "$(printf 'x%.0s' $(seq 256))"
        long=$(printf 'x%.0s' $(seq 255)); mkdir $long; rmdir $long
        mkdir _x été 'with space'; rmdir _x été 'with space'
        refused 'No such file' rmdir nothing
        refused 'No such file' mv nothing other

        mkdir second
        refused 'File exists' mv -T second before-upgrade
        refused 'itself' mv second 2099-x # That is how mv tells EINVAL.
        refused 'Read-only' mv second ../../.versions/second
        refused 'Read-only' mv second ../second
        refused 'Read-only' mv ../new third
        mv second third
        test "$(cat third/f)" = second
        refused 'No such file' ls second
        rmdir third
        refused 'No such file' ls third

        refused 'Read-only' touch before-upgrade/x
        refused 'Read-only' mkdir before-upgrade/x
        refused 'Read-only' rmdir before-upgrade/sub
        refused 'Read-only' rm before-upgrade/f
        refused 'Read-only' mkdir @files/x
        refused 'Read-only' rmdir @files
        refused 'No such file' ls before-upgrade/.versions
        test "$(getfattr --only-values -n user.versions.user before-upgrade)" = "$(id -u)"
        at=$(getfattr --only-values -n user.versions.time before-upgrade)
        test "$(cat $at/f)" = one
        "#;

fn labels_of(place: &Place) {
    let mut mount = TestMount::start(place, &[]);
    sh(&mount, CHANGES);
    for cache in [Cache::Kept, Cache::Wiped] {
        mount.remount(cache);
        sh(
            &mount,
            r#"
            test "$(ls d/.versions | grep -v '^[@2]')" = before-upgrade
            test "$(cat d/.versions/before-upgrade/f)" = one
            "#,
        );
    }
    // The restore of a tree, as the table of tasks has it.
    sh(
        &mount,
        r#"
        rsync -a --delete d/.versions/before-upgrade/ d/
        test "$(cd d; find . | sort | tr '\n' ' ')" = '. ./f ./sub ./sub/g '
        test "$(cat d/f)" = one
        test "$(ls d/.versions | grep -v '^[@2]')" = before-upgrade
        "#,
    );
}

#[test]
fn labels_are_made_renamed_and_removed_on_a_local_directory() {
    let store = tempfile::tempdir().unwrap();
    labels_of(&Place::local(store.path()));
}

#[test]
fn labels_are_made_renamed_and_removed_on_s3() {
    if let Some(server) = S3Server::start() {
        labels_of(&server.place("labels"));
    }
}

#[test]
fn a_label_survives_a_kill_and_the_loss_of_the_machine_with_all_it_shows() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let slow = ["--sync-on", "interval", "--sync-interval", "1h"];
    let mut mount = TestMount::start(&place, &slow);
    sh(
        &mount,
        r#"
        mkdir d; head -c 3000000 /dev/zero | tr '\0' x > d/big
        for n in $(seq 50); do echo $n > d/$n; done
        # An open file shows its last version, and one that was closed before shows that.
        echo one > d/open; exec 3> d/open2; echo closed >&3
        mkdir d/.versions/v1
        "#,
    );
    mount.kill9();
    mount.recover(Cache::Wiped);
    sh(
        &mount,
        r#"
        cd d/.versions/v1
        test "$(ls | wc -l)" = 53
        test "$(cat open $(seq 50) | sort -n | tail -1)" = 50
        test "$(wc -c < big)" = 3000000
        rmdir ../v1; mkdir ../v2
        "#,
    );
    mount.kill9();
    mount.recover(Cache::Kept);
    assert_eq!(mount.sh("ls d/.versions | grep -v '^[@2]'"), "v2\n");
}

#[test]
fn labels_of_a_moved_directory_follow_it_and_those_of_a_removed_one_are_below_deleted() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    sh(
        &mount,
        r#"
        mkdir -p top/d; echo one > top/d/f
        mkdir top/d/.versions/v1
        mv top/d top/e
        test "$(cat top/e/.versions/v1/f)" = one
        mkdir top/d
        refused 'No such file' ls top/d/.versions/v1
        rmdir top/d
        rm -rf top/e
        test "$(cd top/.versions/@deleted; find . | sort | tr '\n' ' ')" = '. ./d ./e ./e/f '
        test "$(ls top/.versions/@deleted/e/.versions)" = v1
        test "$(cat top/.versions/@deleted/e/.versions/v1/f)" = one
        refused 'No such file' ls top/.versions/@deleted/e/.versions/@files
        refused 'No such file' ls top/.versions/@deleted/e/.versions/2026
        mv top/.versions/@deleted/e/.versions/v1 top/.versions/@deleted/e/.versions/v2
        # A directory above is removed too.
        rm -rf top
        test "$(ls .versions/@deleted)" = top
        "#,
    );
    mount.remount(Cache::Wiped);
    sh(
        &mount,
        r#"
        # The tree is made anew, and shows the labels of what was removed from its path.
        mkdir -p top/e; echo new > top/e/f
        test "$(ls top/e/.versions | grep -v '^[@2]')" = v2
        test "$(cat top/e/.versions/v2/f)" = one
        refused 'File exists' mkdir top/e/.versions/v2
        rmdir top/e/.versions/v2
        mkdir top/e/.versions/v2
        test "$(cat top/e/.versions/v2/f)" = new
        "#,
    );
}

#[test]
fn labels_below_a_removed_tree_are_reached_and_come_back_with_an_undelete() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    sh(
        &mount,
        r#"
        mkdir -p top/mid/d; echo one > top/mid/d/f; mkdir top/mid/d/.versions/v1 top/.versions/above
        rm -rf top
        below=.versions/@deleted/top/mid/d
        test "$(cat $below/f $below/.versions/v1/f | tr '\n' ' ')" = 'one one '
        test "$(ls .versions/@deleted/top/.versions)" = above
        test "$(ls $below)" = f
        refused 'No such file' mkdir $below/.versions/v2
        refused 'Read-only' mkdir $below/.versions/v1/x
        mv .versions/@deleted/top .
        test "$(cat top/mid/d/.versions/v1/f)" = one
        test "$(ls top/.versions | grep -v '^[@2]')" = above
        "#,
    );
}

#[test]
fn a_hold_keeps_a_label_and_is_lengthened_and_not_shortened() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    sh(
        &mount,
        r#"
        mkdir d; echo one > d/f; mkdir d/.versions/v1; cd d/.versions
        hold() { setfattr -n user.versions.hold -v "$2" "$1"; }
        held() { getfattr --only-values -n user.versions.hold "$1"; }
        refused 'No such attribute' held v1
        refused 'Invalid argument' hold v1 tomorrow
        refused 'Invalid argument' hold v1 2020-01-01
        refused 'Invalid argument' hold v1 ''
        hold v1 2100-01-01
        test "$(held v1)" = 2100-01-01T23-59-59.999Z
        refused 'Operation not permitted' rmdir v1
        refused 'Operation not permitted' hold v1 2099-12-31
        refused 'Operation not permitted' setfattr -x user.versions.hold v1
        hold v1 2100-01-01; hold v1 2101-01-01
        refused 'Read-only' setfattr -n user.versions.time -v x v1
        test -z "$(getfattr -d v1)"
        mv v1 v2
        refused 'Operation not permitted' rmdir v2
        "#,
    );
    mount.remount(Cache::Wiped);
    sh(
        &mount,
        r#"
        cd d/.versions
        test "$(getfattr --only-values -n user.versions.hold v2)" = 2101-01-01T23-59-59.999Z
        refused 'Operation not permitted' rmdir v2
        cd ../..; rm -rf d
        refused 'Operation not permitted' rmdir .versions/@deleted/d/.versions/v2
        "#,
    );
    let log = mount.log_tail();
    assert!(log.contains("is held until 2101-01-01"), "{log}");
}

#[test]
fn a_hold_on_a_version_is_read_wherever_the_version_is_shown() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    sh(
        &mount,
        r#"
        mkdir d; echo one > d/f; echo two > d/f; mkdir d/.versions/v1
        # What leaves a new name within ten seconds is in no list.
        sleep 11; mv d/f d/g; echo three > d/g
        hold() { setfattr -n user.versions.hold -v "$2" "$1"; }
        held() { getfattr --only-values -n user.versions.hold "$1"; }
        cd d/.versions/@files/g
        hold "$(ls | head -1)" 2100-01-01
        hold latest 2100-02-01
        test "$(held latest)" = 2100-02-01T23-59-59.999Z
        test "$(held ../../../g)" = 2100-02-01T23-59-59.999Z
        refused 'No such attribute' held previous
        refused 'Operation not permitted' hold latest 2100-01-31
        refused 'Operation not permitted' setfattr -n user.versions.hold -v 2100-01-01 ../../../g
        hold ../../v1/f 2100-03-01
        test "$(held ../f/"$(ls ../f | grep ^2 | tail -1)")" = 2100-03-01T23-59-59.999Z
        ln ../../../g ../../../h; echo four > ../../../h
        test "$(held previous)" = 2100-02-01T23-59-59.999Z
        "#,
    );
    mount.remount(Cache::Wiped);
    sh(
        &mount,
        r#"
        test "$(getfattr --only-values -n user.versions.hold d/.versions/@files/g/previous)" = 2100-02-01T23-59-59.999Z
        "#,
    );
}

#[test]
fn tools_that_walk_a_tree_never_meet_a_label() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("kept"), "kept").unwrap();
    sh(
        &mount,
        &format!(
            r#"
            mkdir -p d/sub; echo one > d/f; mkdir d/.versions/v1 d/sub/.versions/v2 .versions/v3
            test "$(find . | sort | tr '\n' ' ')" = '. ./d ./d/f ./d/sub '
            test "$(tar -cf - d | tar -tf - | wc -l)" = 3
            rsync -a --delete {source}/ d/
            test "$(ls -A d)" = kept
            test "$(cat d/.versions/v1/f)" = one
            git -c init.defaultBranch=main init -q d; git -C d clean -fdxq
            test "$(cat d/.versions/v1/f)" = one
            cp -a d/.versions/v1 copy
            test "$(find copy | sort | tr '\n' ' ')" = 'copy copy/f copy/sub '
            rm -rf d copy
            test "$(ls .versions | grep -v '^[@2]')" = v3
            test "$(cat .versions/@deleted/d/.versions/v1/f .versions/v3/d/f | tr '\n' ' ')" = 'one one '
            "#,
            source = source.path().display()
        ),
    );
}

#[test]
fn a_follower_shows_labels_and_changes_none() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let writer = TestMount::start(&place, &[]);
    writer.sh("mkdir d; echo one > d/f; mkdir d/.versions/v1; echo two > d/f");
    writer.drain();
    let follower = TestMount::start(&place, &["--read-only", "--refresh", "200ms"]);
    sh(
        &follower,
        r#"
        test "$(cat d/.versions/v1/f)" = one
        cd d/.versions
        refused 'Read-only' mkdir v2
        refused 'Read-only' rmdir v1
        refused 'Read-only' mv v1 v2
        refused 'Read-only' setfattr -n user.versions.hold -v 2100-01-01 v1
        "#,
    );
    writer.sh("mkdir d/.versions/v2; rmdir d/.versions/v1");
    writer.drain();
    let soon = Duration::from_secs(20);
    let mut seen = String::new();
    let same = wait_until(soon, || {
        seen = follower.sh("ls d/.versions | grep -v '^[@2]'");
        seen == "v2\n"
    });
    assert!(same, "{seen}");
    assert_eq!(follower.sh("cat d/.versions/v2/f"), "two\n");
}

#[test]
fn only_who_may_change_a_directory_makes_and_removes_its_labels() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    sh(
        &mount,
        r#"
        test "$(id -u)" = 0 || exit 0
        chmod 755 .; mkdir own sticky closed; chown 1000 own; chmod 1777 sticky
        as() { user=$1; shift; setpriv --reuid $user --regid $user --clear-groups "$@"; }
        as 1000 mkdir own/.versions/v1
        refused 'Permission denied' as 1001 mkdir own/.versions/v2
        refused 'Permission denied' as 1001 rmdir own/.versions/v1
        refused 'Permission denied' as 1000 mkdir closed/.versions/v1
        as 1000 mkdir sticky/.versions/v1
        refused 'Operation not permitted' as 1001 rmdir sticky/.versions/v1
        test "$(getfattr --only-values -n user.versions.user sticky/.versions/v1)" = 1000
        as 1000 rmdir own/.versions/v1
        rmdir sticky/.versions/v1
        "#,
    );
}

#[test]
fn a_time_printed_after_a_label_shows_what_the_label_shows() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh(&format!(
        r#"
        for n in 1 2 3 4 5; do
            echo $n > f; mkdir .versions/v$n; stamp=$({PROGRAM} stamp -0s); test "$(cat .versions/v$n/f)" = $n
        done
        for n in 1 2 3 4 5; do
            test "$(cat .versions/v$n/f)" = $n
            at=$(getfattr --only-values -n user.versions.time .versions/v$n)
            test "$(cat .versions/$at/f)" = $n
        done
        "#
    ));
}
