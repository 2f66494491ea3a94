//! `.versions/@deleted` and `mv` out of it with common tools; the past of names that were removed and created again.

use std::fs;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::tree;

/// A shell function that fails if its command succeeds, and prints the command.
const FAILS: &str = r#"fails() { if "$@" 2>errors; then echo "succeeded: $*"; exit 1; fi; cat errors; rm errors; }
"#;

#[test]
fn mv_from_deleted_restores_files_and_links() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh(&format!(
        "{FAILS}{}",
        r#"
        mkdir d; echo one > d/report.txt; echo two > d/report.txt
        ln -s there d/link; mkfifo d/pipe; touch d/empty; echo left > d/moved; chmod 640 d/report.txt
        touch -d 2001-02-03T04:05:06.789Z d/report.txt
        sleep 11; mv d/moved elsewhere
        rm d/report.txt d/link d/pipe d/empty
        test "$(ls d/.versions/@deleted | tr '\n' ' ')" = 'empty link pipe report.txt '
        test "$(cat d/.versions/@deleted/report.txt)" = two
        test "$(stat -c '%a %y' d/.versions/@deleted/report.txt)" = '640 2001-02-03 04:05:06.789000000 +0000'
        gap=$(date -u +%Y-%m-%dT%H-%M-%S.%NZ)
        fails touch d/.versions/@deleted/new
        fails rm d/.versions/@deleted/report.txt
        fails mv d/.versions/@deleted/report.txt d/.versions/@deleted/x
        fails mv elsewhere d/.versions/@deleted/x
        sleep 0.1
        mv d/.versions/@deleted/report.txt final.txt
        for name in link pipe empty; do mv d/.versions/@deleted/$name d/; done
        test "$(cat final.txt)" = two
        test "$(stat -c '%a %y' final.txt)" = '640 2001-02-03 04:05:06.789000000 +0000'
        test "$(readlink d/link)" = there
        test -p d/pipe; test -f d/empty
        test -z "$(ls d/.versions/@deleted)"
        fails ls d/.versions/@deleted/report.txt
        fails ls .versions/$gap/final.txt
        fails ls d/.versions/$gap/report.txt
        test "$(getfattr --only-values -n user.versions.op final.txt)" = undelete
        test "$(getfattr --only-values -n user.versions.renamed_from final.txt)" = report.txt
        test -z "$(getfattr -d final.txt)"
        fails setfattr -n user.versions.op -v x final.txt
        test "$(for s in .versions/@files/final.txt/2*; do cat $s; done | tr '\n' ' ')" = 'one two two '
        echo three >> final.txt
        test "$(cat final.txt | tr '\n' ' ')" = 'two three '
        mv final.txt last.txt; rm last.txt; mv .versions/@deleted/last.txt d/again.txt
        test "$(for s in d/.versions/@files/again.txt/2*; do head -c 3 $s; echo; done | tr '\n' ' ')" = 'one two two two two two '
        cut -d' ' -f2,3,6- .versions/@log | grep -qx 'undelete 4 final.txt from .../report.txt'
        cut -d' ' -f2- .versions/@log | grep -qx 'delete - - - last.txt'
    "#
    ));
    for cache in [Cache::Kept, Cache::Wiped] {
        mount.remount(cache);
        mount.sh(r#"
            test "$(cat d/again.txt | tr '\n' ' ')" = 'two three '
            test "$(ls d/.versions/@files/again.txt | grep -c ^2)" = 6
            test "$(readlink d/link)" = there
            test "$(ls .versions/@deleted)" = errors
            test -z "$(ls d/.versions/@deleted)"
        "#);
    }
}

/// The link count of a past directory does not include its subdirectories.
fn without_links(tree: &tree::Tree) -> tree::Tree {
    let cut = |text: &String| {
        let mut words: Vec<&str> = text.split(' ').collect();
        if let Some(at) = words.iter().position(|word| *word == "links") {
            words.drain(at..at + 2);
        }
        words.join(" ")
    };
    tree.iter()
        .map(|(path, text)| (path.clone(), cut(text)))
        .collect()
}

#[test]
fn a_removed_tree_is_restored_unchanged() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    let top = mount.path("tree");
    fs::create_dir(&top).unwrap();
    tree::plant(&top, 120, 40_000, 11);
    mount.sh(r"
        ln -s part-00 tree/link; mkfifo tree/pipe; mkdir -p tree/deep/er/est; echo x > tree/deep/er/est/file
        setfattr -n user.note -v kept tree/deep/er/est/file
        chmod 2750 tree/deep; chmod 555 tree/deep/er
        touch -d 2003-04-05T06:07:08.9Z tree/deep/er tree/deep tree
    ");
    let before = tree::read_tree(&top);
    let compare = |mount: &TestMount, name: &str, when: &str| {
        tree::assert_equal(when, &before, &tree::read_tree(&mount.path(name)));
    };
    mount.sh("sleep 0.1; chmod 755 tree/deep/er; chmod 555 tree/deep/er; touch -d 2003-04-05T06:07:08.9Z tree/deep/er");
    mount.sh("rm -rf tree; test -z \"$(ls)\"; test \"$(ls .versions/@deleted)\" = tree");
    mount.sh("cp -a .versions/@deleted/tree copied");
    let shown = tree::read_tree(&mount.path(".versions/@deleted/tree"));
    mount.sh("mv .versions/@deleted/tree back; diff -r -x pipe copied back; test -z \"$(ls .versions/@deleted)\"");
    compare(&mount, "back", "after mv out of @deleted");
    tree::assert_equal(
        "@deleted before",
        &without_links(&before),
        &without_links(&shown),
    );
    mount
        .sh("echo more >> back/deep/er/est/file; echo new > back/part-00/new; rm back/part-00/new; echo y > back/part-00/newer");
    mount.sh("rm -rf copied back; mv .versions/@deleted/back tree; test \"$(tail -1 tree/deep/er/est/file)\" = more");
    mount.sh("test \"$(ls tree/part-00/.versions/@deleted)\" = new");
    mount.sh("rm -rf tree; ls .versions/@deleted");
    for cache in [Cache::Kept, Cache::Wiped] {
        mount.remount(cache);
        mount.sh(
            "mv .versions/@deleted/tree again; test \"$(tail -1 again/deep/er/est/file)\" = more",
        );
        mount.sh("test \"$(ls again/deep/er/est/.versions/@files/file | grep -c ^2)\" -ge 2");
        mount.sh("mv again tree; rm -rf tree");
    }
}

#[test]
fn rename_out_of_deleted_replaces_only_what_rename_may_replace() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh(&format!(
        "{FAILS}{}",
        r#"
        echo old > file; mkdir dir; echo x > dir/x; rm file; rm -r dir
        echo other > other; mkdir full; echo y > full/y; mkdir hollow
        fails mv -T .versions/@deleted/file full
        fails mv -T .versions/@deleted/dir other
        fails mv -T .versions/@deleted/dir full
        mv --no-clobber .versions/@deleted/file other || true
        test "$(cat other)" = other
        mv -T .versions/@deleted/file other
        test "$(cat other)" = old
        test "$(for s in .versions/@files/other/2*; do cat $s; done | tr '\n' ' ')" = 'other old '
        mv -T .versions/@deleted/dir hollow
        test "$(cat hollow/x)" = x
        ln other second; rm other; echo changed > second
        mv .versions/@deleted/other .
        test "$(cat other)" = old; test "$(cat second)" = changed
        test "$(stat -c %h other)" = 1
    "#
    ));
}

#[test]
fn an_open_entry_of_a_removed_directory_is_not_restored() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh(&format!(
        "{FAILS}{}",
        r#"
        mkdir d; echo x > d/x; echo y > d/y
        exec 7< d/y
        cd d; rm x y; rmdir ../d; cd ..
        mkdir held; (
            cd held; rmdir ../held
            mv ../.versions/@deleted/held ../held
            if sh -c ': > new' 2>/dev/null; then exit 1; fi
            test -z "$(ls 2>/dev/null)"
        )
        test -d held; : > held/new; test "$(ls held)" = new
        mv .versions/@deleted/d d
        test "$(cat <&7)" = y
        echo z > d/y; test "$(cat d/x d/y | tr '\n' ' ')" = 'x z '
    "#
    ));
}

#[test]
fn a_directory_removed_and_created_again_keeps_its_past() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    let times = mount.sh(&format!(
        "{FAILS}{}",
        r#"
        now() { sleep 0.05; date -u +%Y-%m-%dT%H-%M-%S.%NZ; sleep 0.05; }
        mkdir -p app/dist/js; echo 1 > app/dist/js/a; echo top > app/dist/t
        first=$(now)
        rm -rf app/dist; gap=$(now)
        mkdir -p app/dist/js; echo 2 > app/dist/js/a; second=$(now)
        test "$(cat app/dist/.versions/$first/js/a)" = 1
        test "$(cat app/dist/js/.versions/$first/a)" = 1
        test "$(cat app/dist/js/.versions/$second/a)" = 2
        fails ls app/dist/.versions/$gap
        fails ls app/dist/js/.versions/$gap
        rm -rf app; mkdir -p app/dist; echo 3 > app/dist/t
        test "$(cat app/dist/.versions/$second/js/a)" = 2
        test "$(cat app/.versions/$first/dist/t)" = top
        # The second directory is restored beside a third one, which keeps the past of the path.
        rm -rf app/dist; mv app/.versions/@deleted/dist app/old; mkdir app/dist
        test "$(cat app/dist/.versions/$first/js/a)" = 1
        test "$(cat app/old/t)" = 3
        echo $first $gap $second
    "#
    ));
    let last = times.lines().last().unwrap_or_default();
    let times: Vec<&str> = last.split_whitespace().collect();
    for cache in [Cache::Kept, Cache::Wiped] {
        mount.remount(cache);
        mount.sh(&format!(
            r#"
            test "$(cat app/dist/.versions/{}/js/a)" = 1
            test "$(cat app/dist/.versions/{}/js/a)" = 2
            if ls app/dist/.versions/{} 2>/dev/null; then exit 1; fi
            "#,
            times[0], times[2], times[1]
        ));
    }
}

#[test]
fn undelete_checks_the_permissions_of_the_live_directory() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &["--allow-other"]);
    mount.sh(&format!(
        "{FAILS}{}",
        r#"
        test "$(id -u)" = 0 || { echo 'not root: nothing to compare'; exit 0; }
        as() { setpriv --reuid 4321 --regid 4321 --clear-groups "$@"; }
        chmod 755 .; mkdir -m 755 closed; mkdir -m 1777 shared; mkdir -m 777 own
        echo x > closed/f; echo x > shared/f; as sh -c 'echo x > shared/g; mkdir -m 555 own/d'
        rm closed/f shared/f shared/g; rmdir own/d
        test "$(as cat closed/.versions/@deleted/f)" = x
        fails as mv closed/.versions/@deleted/f own/f
        fails as mv shared/.versions/@deleted/f own/f
        fails as mv shared/.versions/@deleted/g closed/g
        as mv shared/.versions/@deleted/g own/g
        as mv own/.versions/@deleted/d own/d
        test "$(stat -c '%a %u' own/d)" = '555 4321'
        chmod 700 closed
        fails as ls closed/.versions/@deleted
    "#
    ));
}

#[test]
fn holes_are_kept_in_the_past() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh(r#"
        truncate -s 64M sparse; printf data | dd of=sparse bs=1M seek=32 conv=notrunc status=none
        live=$(stat -c %b sparse)
        test "$live" -lt 2048
        rm sparse
        test "$(stat -c '%b %s' .versions/@deleted/sparse)" = "$live 67108864"
        cp --sparse=auto .versions/@deleted/sparse out
        test "$(stat -c %b out)" -lt 2048
        python3 -c '
import os
f = os.open(".versions/@deleted/sparse", os.O_RDONLY)
print(os.lseek(f, 0, os.SEEK_DATA) >> 20, os.lseek(f, 33 << 20, os.SEEK_HOLE) >> 20)
' > found
        test "$(cat found)" = "32 33"
        mv .versions/@deleted/sparse back
        test "$(stat -c %b back)" = "$live"; cmp out back
    "#);
}
