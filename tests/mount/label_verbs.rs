//! `rewindfs label`, and labels as the time of PATH@TIME and of `--at`, on a mount and on a store's URL.

use std::fmt::Write;

use crate::support::mount::{PROGRAM, TestMount, force_unmount};
use crate::support::place::Place;
use crate::support::s3::S3Server;

/// The setting of a script: the store as `$URL` with its flags, the mount as `$M`, its cache directory as `$C`.
fn script(mount: &TestMount, place: &Place, text: &str) -> String {
    let mut head = format!(
        "M={} C={} URL={}\n",
        mount.root().display(),
        mount.cache().display(),
        place.url
    );
    for (name, value) in &place.variables {
        writeln!(head, "export {name}='{value}'").unwrap();
    }
    let endpoint = place.endpoint.as_ref();
    let endpoint = endpoint.map_or(String::new(), |endpoint| format!("--endpoint {endpoint}"));
    format!(
        r#"{head}
        label() {{ verb=$1; shift; {PROGRAM} label $verb "$@"; }}
        rw() {{ {PROGRAM} "$@"; }}
        url() {{ verb=$1; shift; {PROGRAM} label $verb $URL "$@" {endpoint}; }}
        # The status and a word of the message of a command that must fail.
        refused() {{
            want=$1; word=$2; shift 2
            if "$@" >/dev/null 2>/tmp/refused.$$; then code=0; else code=$?; fi
            test $code = $want || {{ echo "$*: status $code"; cat /tmp/refused.$$; exit 1; }}
            grep -q -e "$word" /tmp/refused.$$ || {{ echo "$*: expected $word"; cat /tmp/refused.$$; exit 1; }}
            rm -f /tmp/refused.$$
        }}
        names() {{ sed 's/.*"label":"\([^"]*\)".*/\1/' | tr '\n' ' '; }}
        {text}"#
    )
}

fn label_verbs(place: &Place) {
    let mut mount = TestMount::start(place, &[]);
    mount.sh(&script(
        &mount,
        place,
        r#"
        mkdir -p d/sub; echo one > d/f
        label create $M/d v1 --expires 30d | grep -q ' v1 '
        echo two > d/f
        label create $M/d/sub v2 --json | grep -q '"path":"d/sub","label":"v2"'
        test "$(cat d/.versions/v1/f)" = one
        getfattr --only-values -n user.versions.expires d/.versions/v1 | grep -q ^2
        test "$(getfattr --only-values -n user.versions.pid_name d/.versions/v1)" = rewindfs
        test "$(label list $M/d --json | names)" = 'v1 '
        test "$(label list -r $M --json | names)" = 'v1 v2 '
        label list $M/d --utc | head -1 | grep -q '^SHOWS  *LABEL  *EXPIRES'
        label list $M/d --utc | tail -1 | grep -q '+00:00  v1 '
        label rename $M/d v1 first
        test "$(ls d/.versions | grep -v '^[@2]')" = first

        label hold $M/d first 2100-01-01 --json | grep -q '"held_until_ns":4102531199999999999'
        refused 1 'first is held until 2100-01-01' label delete $M/d first
        refused 1 'first is held until 2100-01-01' label hold $M/d first 2099-01-01
        refused 2 'add --yes' label release $M/d first
        label release $M/d first --yes | grep -q ' first '
        refused 1 'first is not held' label release $M/d first --yes
        label delete $M/d first
        refused 1 'd: has no label first' label delete $M/d first
        test -z "$(label list $M/d)"

        label create $M/d v1
        refused 1 'd: has a label v1 already' label create $M/d v1
        refused 2 '2026' label create $M/d 2026
        refused 2 'tomorrow' label create $M/d v3 --expires tomorrow
        refused 1 'not in the future' label create $M/d v3 --expires 2020-01-01
        refused 1 'not in the future' label hold $M/d v1 2020-01-01
        refused 2 'DATE' label hold $M/d v1 tomorrow
        refused 2 'expected MNT/DIR NAME NEW' label rename $M/d v1
        refused 2 'expected MNT/DIR NAME' label delete $M/d
        refused 2 'present state' label create $M/d@-1h v3
        refused 1 'nothing: does not exist' label create $M/nothing v3
        refused 1 'is not in a mount' label create /tmp v3

        # On the URL, through the daemon that has it.
        url create d v3 | grep -q ' v3 '
        test "$(ls d/.versions | grep -v '^[@2]' | tr '\n' ' ')" = 'v1 v3 '
        rm -rf d; test "$(label list -r $M --json | names)" = 'v1 v3 v2 '
        test "$(label list $M/d --json | names)" = 'v1 v3 '
        "#,
    ));
    mount.umount();
    mount.mount();
    mount.umount();
    // Without a mount: what reads follows the bucket, and what writes needs the word that no other machine has it.
    crate::support::shell::sh(
        std::path::Path::new("/"),
        &script(
            &mount,
            place,
            r#"
            test "$(url list d --json | names)" = 'v1 v3 '
            refused 1 'no-writer' url create v4
            url create v4 --no-writer --cache-dir $C | grep -q ' v4 '
            url delete d v3 --no-writer --cache-dir $C
            test "$(url list d --json | names)" = 'v1 '
            test "$(url list -r --json | names)" = 'v4 v1 v2 '
            "#,
        ),
    );
}

#[test]
fn labels_are_made_listed_held_and_removed_by_commands_on_a_local_directory() {
    let store = tempfile::tempdir().unwrap();
    label_verbs(&Place::local(store.path()));
}

#[test]
fn labels_are_made_listed_held_and_removed_by_commands_on_s3() {
    if let Some(server) = S3Server::start() {
        label_verbs(&server.place("label-verbs"));
    }
}

#[test]
fn a_label_is_a_time_of_paths_and_mounts() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let mount = TestMount::start(&place, &[]);
    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    mount.sh(&script(
        &mount,
        &place,
        &format!(
            r#"
            mkdir -p d/sub; echo one > d/f; echo deep > d/sub/g; echo gone > d/gone; mkdir d/.versions/v1 .versions/top
            echo two > d/f; echo more > d/sub/g; rm d/gone; mkdir d/.versions/v2; echo three > d/f
            test "$(rw cat d/f@v1; rw cat d/f@v2; rw cat d/f@top)" = "$(printf 'one\ntwo\none')"
            # The label of the nearest directory above the path counts.
            test "$(rw cat d/sub/g@v1)" = deep
            mkdir d/sub/.versions/v1; test "$(rw cat d/sub/g@v1)" = more
            test "$(rw ls d@v1 --json | wc -l)$(rw ls d@v2 --json | wc -l)$(rw ls @top --json | wc -l)" = 321
            test "$(rw versions d/f@v2 --json | wc -l)" = 2
            test "$(rw diff d/f@v1 d/f@v2 | grep '^[-+][a-z]' | tr '\n' ' ')" = '-one +two '
            test "$(rw diff d/f@v1 | grep '^[-+][a-z]' | tr '\n' ' ')" = '-one +three '
            test "$(rw grep one d/f@v1 --json | wc -l)" = 1
            rw log d@v1 --json | grep -q '"path":"d/gone"'
            rw log d@v1 --json | grep '"op":"delete"' && exit 1
            setfattr -n user.versions.hold -v 2100-01-01 d/.versions/v1/f
            test "$(rw versions $M/d/f --json | grep -c '"held_until_ns":4102531199999999999')" = 1
            test "$(rw versions $M/d/f --json | head -1 | grep -c '"held_until_ns":4102531199999999999')" = 1
            {PROGRAM} restore $M/d/f@v1 --dry-run | grep -q f; test "$(cat d/f)" = three
            {PROGRAM} restore $M/d/f@v1; test "$(cat d/f)" = one
            {PROGRAM} restore $M/d@v2; test "$(cat d/f)" = two
            refused 1 'is no time and no label' {PROGRAM} restore $M/d/f@nothing
            refused 1 'is no time and no label' {PROGRAM} restore $M/d/f@nothing --dry-run
            refused 2 'write PATH@TIME' {PROGRAM} restore $M/d/f
            refused 2 'write PATH@TIME' {PROGRAM} restore $M/d@v1/f
            # A name that exists, or existed, is that name.
            echo mail > d/f@v1; test "$(rw cat d/f@v1)" = mail
            refused 1 'write PATH@TIME' {PROGRAM} restore $M/d/f@v1
            rm d/f@v1; refused 1 'does not exist now' rw cat d/f@v1
            refused 1 'is no time and no label' rw cat d/f@nothing
            refused 1 'did not exist then' rw cat d/new@v2
            mv d e; test "$(rw cat e/f@v2)" = two
            mkdir x; echo x > x/f; mkdir x/.versions/v3; rm -rf x; test "$(rw cat x/f@v3)" = x

            {PROGRAM} drain $M
            {PROGRAM} mount $URL {root} --cache-dir {cache} --at top
            test "$(cat {root}/d/f)" = one
            refused 1 'Read-only' mkdir {root}/x
            {PROGRAM} status {root} | grep -q top
            {PROGRAM} umount {root}
            refused 1 'is no label of the root directory' {PROGRAM} mount $URL {root} --cache-dir {cache} --at nothing
            "#,
            root = root.path().display(),
            cache = cache.path().display(),
        ),
    ));
    force_unmount(root.path());
}

/// The stamps of the versions of `d/f`, oldest first, are `$1`, `$2`, `$3` in the scripts below.
const STAMPS: &str = r#"
    stamps() { rw versions $M/d/f --json | sed 's/.*"stamp":"\([^"]*\)".*/\1/'; }
    set -- $(stamps)
"#;

fn version_holds(place: &Place) {
    let mut mount = TestMount::start(place, &[]);
    let text = r#"
        mkdir d; for n in 1 2 3; do echo $n > d/f; sleep 0.05; done; sleep 0.1; mkdir d/.versions/v1
    "#;
    mount.sh(&script(&mount, place, text));
    let text = format!(
        r#"{STAMPS}
        test $# = 3
        held='"held_until_ns":4102531199999999999'
        label hold $M/d/f@$1 2100-01-01 --json | grep -q "\"path\":\"d/f\",\"stamp\":\"$1\".*$held"
        rw versions $M/d/f --json | head -1 | grep -q '"rule":"hold","until_ns":4102531199999999999'
        test "$(rw versions $M/d/f --json | grep -c "$held")" = 1
        getfattr --only-values -n user.versions.hold d/.versions/$1/f | grep -q ^2100
        refused 1 'is held until 2100-01-01' label hold $M/d/f@$1 2099-01-01
        label hold $M/d/f@$1 2101-01-01 | grep -q ' d/f$'
        # The current state too, by its label, and by a name of a time in between.
        label hold $M/d/f@v1 2100-01-01 --json | grep -q "\"stamp\":\"$3\""
        label list --holds $M/d --utc | head -1 | grep -q '^VERSION  *HELD UNTIL'
        test "$(label list --holds $M/d --json | wc -l)" = 2
        test "$(label list --holds -r $M --json | wc -l)$(label list --holds $M --json | wc -l)" = 20

        refused 1 'not in the future' label hold $M/d/f@$2 2020-01-01
        refused 2 'neither a time' label hold $M/d/f@$2 tomorrow
        refused 1 "did not exist then; the nearest kept time is $1" label hold $M/d/f@2001 2100-01-01
        refused 1 "the nearest kept time is $3" label hold $M/d/f@2500-01-01 2550-01-01
        refused 1 'is no time and no label' label hold $M/d/f@nothing 2100-01-01
        refused 1 'd/none@-0s: did not exist then' label hold $M/d/none@-0s 2100-01-01
        refused 1 'is a directory' label hold $M/d@-0s 2100-01-01
        refused 2 'expected MNT/DIR NAME DATE' label hold $M/d/f 2100-01-01
        refused 2 'add --yes' label release $M/d/f@$1
        refused 1 'is not held' label release $M/d/f@$2 --yes
        label release $M/d/f@$1 --yes --json | grep -q '"held_until_ns":null'
        refused 1 'is not held' label release $M/d/f@$1 --yes
        test "$(label list --holds $M/d --json | wc -l)" = 1
        # On the URL, through the daemon that has it.
        url hold d/f@$1 30d --json | grep -q "\"stamp\":\"$1\""
        echo $1 > $C/stamp
        "#
    );
    mount.sh(&script(&mount, place, &text));
    mount.drain();
    mount.umount();
    // Without a mount: the holds are read from the bucket, and a change needs the word that no other machine has it.
    crate::support::shell::sh(
        std::path::Path::new("/"),
        &script(
            &mount,
            place,
            r#"
            stamp=$(cat $C/stamp)
            test "$(url list d --holds --json | wc -l)" = 2
            refused 1 'no-writer' url release d/f@$stamp --yes
            url release d/f@$stamp --yes --no-writer --cache-dir $C
            test "$(url list d --holds --json | wc -l)" = 1
            "#,
        ),
    );
}

#[test]
fn versions_are_held_and_released_by_commands_on_a_local_directory() {
    let store = tempfile::tempdir().unwrap();
    version_holds(&Place::local(store.path()));
}

#[test]
fn versions_are_held_and_released_by_commands_on_s3() {
    if let Some(server) = S3Server::start() {
        version_holds(&server.place("version-holds"));
    }
}
