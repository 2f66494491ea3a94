//! `rewindfs policy`, `prune` and `why`, on a mount and on a store's URL.

use std::fmt::Write;
use std::path::Path;

use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::support::shell::sh;

/// The setting of a script: the store as `$URL`, the mount as `$M`, its cache directory as `$C`.
pub(crate) fn script(mount: &TestMount, place: &Place, text: &str) -> String {
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
        E='{endpoint}'
        rw() {{ {PROGRAM} "$@"; }}
        # The number of ended versions of a file.
        ended() {{ echo $(($(rw versions $1 --json | wc -l) - 1)); }}
        refused() {{
            want=$1; word=$2; shift 2
            if said=$("$@" 2>&1 >/dev/null); then code=0; else code=$?; fi
            test $code = $want || {{ echo "$*: status $code: $said"; exit 1; }}
            case "$said" in *"$word"*) ;; *) echo "$*: expected $word: $said"; exit 1;; esac
        }}
        {text}"#
    )
}

fn policy_and_prune(place: &Place) {
    let mut mount = TestMount::start(place, &[]);
    mount.sh(&script(
        &mount,
        place,
        r#"
        rw policy show $M | grep -q '^keep-within  *1d '
        test "$(rw policy show $M --json | wc -l)" = 9
        refused 2 'no word of a policy' rw policy set $M keep-allways=1d
        refused 2 'expected' rw policy set $M keep-within=tomorrow
        refused 2 'WORD=VALUE' rw policy set $M
        refused 2 'not of the form' rw policy set $M keep-within
        for text in 1 2 3 4 5 6; do echo $text > f; sleep 0.05; done
        echo gone > g; sleep 0.05; rm g
        rw why $M/f | grep -q '^current '
        old=$(rw versions $M/f --json | head -1 | sed 's/.*"stamp":"\([^"]*\)".*/\1/')
        rw why $M/f@$old | grep -q '^keep-within '
        rw why $M/f@$old --json | grep -q '"rule":"keep-last","until_ns":null' && exit 1
        rw drain $M
        test "$(rw prune $M --json)" = '{"what":"dropped","rule":null,"path":null,"versions":0,"bytes":0}'

        # A stricter policy waits for a day, and can be taken back.
        sleep 1.2
        strict='keep-within=1s grid=off keep-last=2 keep-removed=off'
        rw policy set $M $strict --dry-run --json | grep -q '"what":"dropped".*"versions":4'
        rw policy set $M $strict --json | grep '"word":"keep-last"' | grep -q '"value":"3","pending":"2","pending_from_ns":1'
        test "$(ended $M/f)" = 5
        rw policy set $M keep-within=1d keep-hourly=14d keep-daily=90d keep-weekly=1y keep-last=3 keep-removed=30d
        test -z "$(rw policy show $M --json | grep '"pending":"')"
        "#,
    ));
    prune_by_a_strict_policy(&mount, place);
    mount.umount();
    sh(
        Path::new("/"),
        &script(
            &mount,
            place,
            r#"
            rw policy show $URL $E | grep -q '^keep-last  *2 '
            rw prune $URL --dry-run $E --json | grep -q '"versions":0'
            refused 1 'no-writer' rw prune $URL $E
            rw policy set $URL keep-last=1 --now --no-writer --cache-dir $C $E > /dev/null
            rw prune $URL --no-writer --confirm --cache-dir $C $E | grep -q '^dropped  *1 '
            rw why $URL f $E | grep -q '^current '
            rw check $URL $E
            "#,
        ),
    );
}

fn prune_by_a_strict_policy(mount: &TestMount, place: &Place) {
    mount.sh(&script(
        mount,
        place,
        r#"
        strict='keep-within=1s grid=off keep-last=2 keep-removed=off'
        mkdir .versions/before
        echo 7 > f; sleep 1.2; rw drain $M
        past=$(ls .versions | grep ^2 | head -1); exec 5< .versions/$past
        ls /proc/self/fd/5/ | grep -q '^f$'
        rw stats $M --json | grep '"what":"label"' && exit 1
        rw policy set $M $strict --now; rw policy show $M | grep -q '^keep-last  *3  *2 '
        rw prune $M --dry-run | grep -q '^dropped  *5 '
        test "$(ended $M/f)" = 6
        ls .versions/@deleted | grep -q '^g$'
        # It drops more than a quarter of the history, so that it waits for a confirmation.
        rw prune $M --json > $C/report
        grep -q '"what":"dropped","rule":null,"path":null,"versions":0' $C/report
        grep -q '"what":"waiting","rule":"stricter policy","path":null,"versions":5' $C/report
        test "$(ended $M/f)" = 6
        refused 2 'cannot be used with' rw prune $M --confirm --dry-run
        rw prune $M --confirm --json > $C/report
        grep -q '"what":"waiting"' $C/report && exit 1
        grep -q '"what":"dropped","rule":null,"path":null,"versions":5' $C/report
        grep -q '"what":"kept","rule":"label","path":null,"versions":1' $C/report
        rw label list $M --json | grep -q '"label":"before",.*"keeps_versions":1,"keeps_bytes":2}'
        rw label rename $M before held | grep -q ' held  *-  *-  *1  *2 bytes '
        rw stats $M --json | grep -q '"what":"label","rule":null,"path":"","bytes":2,"count":1,"time_ns":1.*,"label":"held"}'
        rw stats $M | grep -q '^label  *2 bytes  *1  *2.* /@held$'
        rw label rename $M held before > /dev/null
        grep -q '"what":"kept","rule":"keep-last","path":null,"versions":1' $C/report
        grep -q '"what":"name","rule":null,"path":"f"' $C/report
        test "$(ended $M/f)" = 2
        ls .versions/@deleted | grep -q '^g$' && exit 1
        # What was open at a time that is not kept whole any more is stale; the time is listed no more, and others are.
        refused 2 'Stale file handle' ls /proc/self/fd/5/
        ls .versions | grep -q "^$past$" && exit 1
        ls .versions | grep -q ^2
        refused 1 'kept' rw restore $M/@1999
        test "$(cat .versions/before/f)" = 6
        test "$(cat f)" = 7
        rw why $M/f@before | grep -q '^label  *-'
        test "$(rw prune $M --json | wc -l)" = 1

        # What only the label kept goes with it.
        echo 8 > f; echo 9 > f; echo 10 > f; sleep 1.2; rw drain $M
        rw prune $M > /dev/null
        test "$(ended $M/f)" = 3; test "$(cat .versions/before/f)" = 6
        rmdir .versions/before
        rw prune $M | grep -q '^dropped  *1 '
        rw stats $M --json | grep '"what":"label"' && exit 1
        test "$(ended $M/f)" = 2
        refused 1 '' cat .versions/-1d/f
        "#,
    ));
}

#[test]
fn a_policy_is_set_and_a_prune_drops_what_it_does_not_keep() {
    let store = tempfile::tempdir().unwrap();
    policy_and_prune(&Place::local(store.path()));
}

#[test]
fn a_policy_is_set_and_a_prune_drops_what_it_does_not_keep_on_s3() {
    if let Some(server) = S3Server::start() {
        policy_and_prune(&server.place("retention"));
    }
}

#[test]
fn a_dry_run_answers_beside_a_prune_and_a_change_of_the_policy_is_told_to_wait() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let mount = TestMount::start(&place, &[]);
    mount.sh(&script(
        &mount,
        &place,
        r#"
        for text in 1 2 3 4 5 6; do echo $text > f; sleep 0.05; done
        sleep 1.2; rw drain $M
        rw policy set $M keep-within=1s grid=off keep-last=0 keep-removed=off --now > /dev/null
        # It shows followers for ten seconds which times are not exact any more before the first version goes.
        rw prune $M --confirm > $C/pruned & sleep 3
        rw prune $M --dry-run | grep -q '^dropped  *5 '
        rw stats $M --json | grep -q '"what":"next_prune",.*"count":5,'
        refused 1 'a prune of this namespace is running: set the policy when it has ended' rw policy set $M keep-last=1
        refused 1 'another prune' rw prune $M
        test "$(ended $M/f)" = 5
        wait $!
        grep -q '^dropped  *5 ' $C/pruned
        test "$(ended $M/f)" = 0
        rw policy set $M keep-last=1 --json | grep -q '"word":"keep-last","value":"1"'
        "#,
    ));
}

#[test]
fn words_that_are_set_at_the_same_time_are_all_set() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let mount = TestMount::start(&place, &[]);
    mount.sh(&script(
        &mount,
        &place,
        r#"
        mkdir d
        for n in 4 5 6 7; do
            rw policy set $M keep-last=$n > /dev/null & one=$!
            rw policy set $M keep-within=${n}d > /dev/null & two=$!
            rw policy set $M --path d keep-last=$((n - 4)) > /dev/null & three=$!
            rw policy set $M --path d keep-within=${n}h > /dev/null & four=$!
            for each in $one $two $three $four; do wait $each; done
            rw policy show $M > $C/words
            grep -q "^keep-last  *$n " $C/words; grep -q "^keep-within  *${n}d " $C/words
            rw policy show $M --path d > $C/words
            grep -q "^keep-last  *$((n - 4)) " $C/words; grep -q "^keep-within  *${n}h " $C/words
        done
        "#,
    ));
}

fn stats_and_status(place: &Place) {
    let mut mount = TestMount::start(place, &[]);
    mount.sh(&script(
        &mount,
        place,
        r#"
        mkdir d
        for n in 1 2 3 4 5 6 7 8; do head -c 100000 /dev/urandom > d/big; sleep 0.05; done
        cp d/big d/copy; ln d/big d/name; echo 1 > other; sleep 0.05; echo 2 > other
        rw drain $M
        # Each save has a state of its own, and the copy counts as live.
        rw stats $M --json > $C/stats
        grep -q '"what":"live","rule":null,"path":null,"bytes":200002,' $C/stats
        history=$(sed -n 's/.*"what":"history".*"bytes":\([0-9]*\),.*/\1/p' $C/stats)
        test $history -ge 600000; test $history -le 700002
        grep -q '"what":"index","rule":null,"path":null,"bytes":[1-9]' $C/stats
        grep -q '"what":"limit","rule":null,"path":null,"bytes":10737418240,' $C/stats
        grep -q '"what":"exact","rule":"keep-within","path":null,"bytes":null,"count":null,"time_ns":null' $C/stats
        grep -q '"what":"next_prune","rule":null,"path":null,"bytes":0,"count":0,' $C/stats
        grep '"what":"name"' $C/stats | head -1 | grep -q '"bytes":700000,"count":7,'
        test "$(grep -c '"what":"name"' $C/stats)" = 2
        rw stats $M/d --json | grep -c '"what":"name"' | grep -q '^1$'
        rw stats $M/other --json | grep '"what":"name"' | grep -q '"path":"other","bytes":2,"count":1'
        rw stats $M | grep -q '^live  *195.3 KiB '
        refused 1 'nothing' rw stats $M/none

        # Nothing of the last hour goes because of history-max.
        rw policy set $M history-max=100000 --now > /dev/null
        rw prune $M | grep -q '^dropped  *0 '
        rw stats $M --json | grep -q '"what":"limit","rule":null,"path":null,"bytes":100000,'
        rw status $M | grep -q '^history .* of at most 97.6 KiB'
        rw status $M | grep -q '^waiting ' && exit 1

        # A stricter policy waits, and says so everywhere. All states are older than a second by then.
        sleep 1.2
        rw policy set $M keep-within=1s grid=off keep-last=1 history-max=off --now > /dev/null
        rw status $M | grep -q '^waiting  *[67] versions, .* until `rewindfs prune --confirm`'
        rw stats $M --json | grep -q '"what":"waiting","rule":"stricter policy","path":null,"bytes":[67]'
        rw prune $M | grep -q '^waiting '
        sleep 1.2
        rw prune $M --confirm | grep -q '^dropped  *[67] '
        rw status $M | grep -q '^waiting ' && exit 1
        rw stats $M --json | grep -q '"what":"exact","rule":"keep-within","path":null,"bytes":null,"count":null,"time_ns":1'
        # Garbage collection subtracts it.
        for try in $(seq 60); do
            now=$(rw stats $M --json | sed -n 's/.*"what":"history".*"bytes":\([0-9]*\),.*/\1/p')
            test $now -le 100002 && break
            sleep 1
        done
        test $now -le 100002
        "#,
    ));
    mount.umount();
    sh(
        Path::new("/"),
        &script(
            &mount,
            place,
            r#"
            rw stats $URL $E --json | grep -q '"what":"live","rule":null,"path":null,"bytes":200002,'
            rw stats $URL d $E --json | grep -c '"what":"name"' | grep -q '^1$'
            rw stats $URL $E --json | grep -q requests_per_day && exit 1
            rw check $URL $E
            "#,
        ),
    );
}

#[test]
fn stats_and_status_tell_the_size_of_the_history_and_what_waits() {
    let store = tempfile::tempdir().unwrap();
    stats_and_status(&Place::local(store.path()));
}

#[test]
fn stats_and_status_tell_the_size_of_the_history_and_what_waits_on_s3() {
    if let Some(server) = S3Server::start() {
        stats_and_status(&server.place("stats"));
    }
}
