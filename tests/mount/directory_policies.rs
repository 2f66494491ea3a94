//! Policies of directories, on a mount and on a store's URL.

use std::path::Path;

use crate::retention::script;
use crate::support::mount::TestMount;
use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::support::shell::sh;

fn a_directory_keeps_less(place: &Place) {
    let mut mount = TestMount::start(place, &[]);
    old_times_are_not_there(&mount, place);
    a_restore_above_leaves_it(&mount, place);
    mount.umount();
    without_a_mount(&mount, place);
}

fn old_times_are_not_there(mount: &TestMount, place: &Place) {
    mount.sh(&script(
        mount,
        place,
        r#"
        mkdir -p p/build
        rw policy set $M --path p/build keep-within=1s grid=off keep-last=1 > $C/shown
        grep -q '^keep-within  *1s .* p/build$' $C/shown
        grep -q '^keep-removed  *30d .* -$' $C/shown
        rw policy show $M --path p --json | grep '"word":"keep-within"' | grep -q '"value":"1d".*"directory":null'
        getfattr --only-values -n user.versions.keep p/build | grep -q '^keep-within=1s keep-hourly=off'
        refused 2 'history-max' rw policy set $M --path p history-max=1G
        refused 2 'WORD=VALUE' rw policy set $M --path p
        refused 2 'cannot be used with' rw policy set $M --path p keep-within=1h --now
        refused 1 'root directory' rw policy set $M --path . keep-within=1h
        refused 1 'nowhere' rw policy set $M --path nowhere keep-within=1h

        echo 1 > p/f; echo 1 > p/build/o; echo 1 > p/build/gone
        refused 1 'p/f' rw policy set $M --path p/f keep-within=1h
        refused 1 'Invalid argument' setfattr -n user.versions.keep -v often p/build
        refused 1 'Not a directory' setfattr -n user.versions.keep -v 1h p/f
        sleep 1.1; T=$(date -u +%Y-%m-%dT%H-%M-%S.%N); echo T=$T > $C/time; sleep 0.1
        for text in 2 3 4; do echo $text > p/f; echo $text > p/build/o; sleep 0.05; done
        rm p/build/gone
        test "$(cat p/.versions/$T/build/o)" = 1
        sleep 1.5; rw drain $M
        rw prune $M --json | grep -q '"what":"name","rule":null,"path":"p/build/o","versions":2'

        # How far back it reaches: nothing is thinned, and what is older than a second is not there.
        rw stats $M --json | grep -c '_in"' | grep -q '^2$'
        rw stats $M --json | grep -q '"what":"whole_in","rule":null,"path":"p/build","bytes":null,"count":null,"time_ns":1[0-9]*,'
        rw stats $M/p/f --json | grep '_in"' && exit 1
        rw stats $M/p | grep -q '^cut off in  *-  *-  2.*  p/build$'

        # Whole around the directory, and not there in it.
        test "$(cat p/.versions/$T/f)" = 1
        ls p/.versions/$T | grep -q '^build$'
        refused 2 'No such file' ls p/.versions/$T/build
        refused 1 'No such file' cat p/.versions/$T/build/o
        refused 1 'No such file' cat p/build/.versions/$T/o
        refused 1 'nearest' rw ls $M/p/build@$T
        test "$(ended $M/p/build/o)" = 1
        test "$(ended $M/p/f)" = 3
        rw why $M/p/build/o@$(rw versions $M/p/build/o --json | head -1 | sed 's/.*"stamp":"\([^"]*\)".*/\1/') | grep -q '^keep-last '
        rw diff $M/p@$T > $C/diff; grep -q '^changed .* f$' $C/diff; grep -q '^not kept .* build/$' $C/diff
        rw restore $M/p@$T --dry-run | grep -q '^not kept .* build/$'
        "#,
    ));
}

fn a_restore_above_leaves_it(mount: &TestMount, place: &Place) {
    mount.sh(&script(
        mount,
        place,
        r#"
        . $C/time
        rw restore $M/p@$T > $C/restored
        grep -q '^p/build: left as it is' $C/restored
        test "$(cat p/f)" = 1; test "$(cat p/build/o)" = 4; test ! -e p/build/gone
        undo=$(sed -n 's/^undo: rewindfs restore //p' $C/restored)
        rw restore "$undo" > /dev/null
        test "$(cat p/f)" = 4; test "$(cat p/build/o)" = 4

        # A directory that is not there any more does not come back half.
        mv p/build aside
        rw restore $M/p@$T --json | grep -q '"left":\["p/build"\]'
        test "$(cat p/f)" = 1; test ! -e p/build; test "$(cat aside/o)" = 4
        mv aside p/build

        rw policy set $M --path p/build --inherit | grep -q '^keep-within  *1d .* -$'
        refused 1 'No such attribute' getfattr -n user.versions.keep p/build
        setfattr -n user.versions.keep -v 1h p/build
        getfattr -d -m - p/build | grep versions && exit 1
        (cd $M/p && rw policy show . --path build/.. | grep -q '^keep-within  *1d .* -$')
        setfattr -x user.versions.keep p/build
        setfattr -n user.versions.keep -v 1h p/build
        rw drain $M
        "#,
    ));
}

fn without_a_mount(mount: &TestMount, place: &Place) {
    sh(
        Path::new("/"),
        &script(
            mount,
            place,
            r#"
            rw policy show $URL --path p/build $E | grep -q '^keep-within  *1h .* p/build$'
            refused 1 'no-writer' rw policy set $URL --path p keep-within=2h $E
            rw policy set $URL --path p keep-within=2h --no-writer --cache-dir $C $E > /dev/null
            rw policy show $URL --path p/build $E | grep -q '^keep-within  *1h .* p/build$'
            rw policy show $URL --path p $E | grep -q '^keep-within  *2h .* p$'
            rw check $URL $E
            "#,
        ),
    );
}

#[test]
fn a_directory_keeps_less_on_a_local_store() {
    let store = tempfile::tempdir().unwrap();
    a_directory_keeps_less(&Place::local(store.path()));
}

#[test]
fn a_directory_keeps_less_on_s3() {
    if let Some(server) = S3Server::start() {
        a_directory_keeps_less(&server.place("directory-policies"));
    }
}
