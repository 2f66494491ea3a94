//! `rewindfs forget`: every object of the bucket and every file of the cache directory is read, and has the bytes before and not
//! afterwards.

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::mount::{Cache, PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::random::Random;
use crate::support::s3::S3Server;
use crate::support::shell::sh;
use crate::support::wait_until;

/// The grace period of garbage collection, much shorter than in use.
const FLAGS: &[&str] = &["--grace", "1s"];

/// The setting of a script: the store as `$URL`, the mount as `$M`, its cache directory as `$C`.
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
        E='{endpoint}'
        rw() {{ {PROGRAM} "$@"; }}
        refused() {{
            want=$1; word=$2; shift 2
            if said=$("$@" 2>&1 >/dev/null); then code=0; else code=$?; fi
            test $code = $want || {{ echo "$*: status $code: $said"; exit 1; }}
            case "$said" in *"$word"*) ;; *) echo "$*: expected $word: $said"; exit 1;; esac
        }}
        {text}"#
    )
}

/// All objects of a store, with their bytes.
fn objects(place: &Place) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    if let Some(directory) = place.url.strip_prefix("file://") {
        files(Path::new(directory), &mut all);
        return all;
    }
    let endpoint = place.endpoint.as_ref().unwrap();
    let (bucket, prefix) = place.url["s3://".len()..].split_once('/').unwrap();
    let copies = tempfile::tempdir().unwrap();
    sh(
        copies.path(),
        &format!(
            r#"
            get() {{ curl -sSf --aws-sigv4 aws:amz:us-east-1:s3 --user testing:testing "$@"; }}
            get '{endpoint}/{bucket}?list-type=2&prefix={prefix}/' > list
            grep -q '<IsTruncated>false' list
            grep -o '<Key>[^<]*' list | sed 's/<Key>//' > keys
            number=0
            while read key; do
                number=$((number + 1))
                # The index may delete an object after the listing.
                get "{endpoint}/{bucket}/$key" -o object-$number || test $? = 22
            done < keys
            "#
        ),
    );
    files(copies.path(), &mut all);
    all.retain(|(name, _)| name.contains("/object-"));
    all
}

fn files(directory: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            files(&path, all);
        } else if let Ok(bytes) = fs::read(&path) {
            all.push((path.display().to_string(), bytes));
        }
    }
}

/// The objects and files that have the first, the middle or the last bytes of a secret.
fn holding(mount: &TestMount, place: &Place, secret: &[u8]) -> Vec<String> {
    let mut all = objects(place);
    assert!(all.len() > 5, "the bucket was listed");
    files(&mount.cache(), &mut all);
    let parts = [0, secret.len() / 2, secret.len() - 24].map(|from| &secret[from..from + 24]);
    let has = |bytes: &[u8]| {
        let mut parts = parts.iter();
        parts.any(|part| bytes.windows(24).any(|window| window == *part))
    };
    let found = all.into_iter().filter(|(_, bytes)| has(bytes));
    found.map(|(name, _)| name).collect()
}

/// A small secret that is stored in rows, one that is packed with other files, and a large one.
fn plant(mount: &TestMount, seed: u64) -> [Vec<u8>; 3] {
    let mut random = Random::new(seed);
    let secrets = [2_500, 40_000, 3_000_000].map(|len| random.bytes(len));
    fs::create_dir(mount.path("d")).unwrap();
    for (name, secret) in ["small", "packed", "large"].iter().zip(&secrets) {
        let path = mount.path("d").join(name);
        fs::write(&path, secret).unwrap();
        if *name == "small" {
            fs::File::open(&path).unwrap().sync_all().unwrap();
        }
    }
    mount.sh(
        "cd d; for i in $(seq 30); do echo other $i > o$i; done; head -c 30000 /dev/urandom > beside; sha256sum beside o* > ../sums
        echo one > kept; sleep 0.1; echo two > kept",
    );
    mount.drain();
    mount.sh("cd d; sleep 0.1; for f in small packed large; do echo new > $f; done");
    mount.drain();
    // A block of the cache on disk.
    mount.sh("cat d/.versions/@files/large/2*[0-9] > /dev/null || cat d/.versions/@files/large/2* > /dev/null");
    secrets
}

fn assert_others_stay(mount: &TestMount) {
    mount.sh("cd d; sha256sum --quiet -c ../sums; test \"$(cat small packed large)\" = \"$(echo new; echo new; echo new)\"");
    assert_eq!(mount.sh("cat d/.versions/@files/kept/2*"), "one\ntwo\n");
}

fn secrets_are_gone(place: &Place) {
    let mut mount = TestMount::start(place, FLAGS);
    let secrets = plant(&mount, 1);
    for secret in &secrets {
        assert!(!holding(&mount, place, secret).is_empty());
    }
    let text = mount.sh(&script(
        &mount,
        place,
        r#"
        refused 2 'expected a time' rw forget $M/d/small --before tomorrow
        refused 2 'forget takes all' rw forget $M/d/small@-1h
        refused 1 'is a directory' rw forget $M/d
        refused 1 'nothing of it is kept' rw forget $M/d/none
        rw forget $M/d/small | grep -q 'repeat the command with --yes'
        rw forget $M/d/small --json | grep -q '"what":"would_go",.*"versions":1,"bytes":2500'
        rw forget $M/d/small | grep -q 'the current content of d/small stays'
        rw forget $M/d/small --before 2001-01-01 | grep -q 'nothing to forget'
        # A label refuses, and everything stays.
        rw versions $M/d/large --json | head -1 | sed 's/.*"stamp":"\([^"]*\)".*/\1/' > $C/../stamp
        rw label hold $M/d/large@$(cat $C/../stamp) 30d > /dev/null
        refused 1 'is held until' rw forget $M/d/large --yes
        test "$(rw versions $M/d/large --json | wc -l)" -ge 2
        rw label release $M/d/large@$(cat $C/../stamp) --yes > /dev/null
        rw forget $M/d/small --yes --json > $C/../said; tail -1 $C/../said | grep -q '"what":"gone"'
        rw forget $M/d/packed --yes
        rw forget $M/d/large --yes
        test "$(rw versions $M/d/large --json | wc -l)" = 1
        "#,
    ));
    assert!(text.contains("the bucket lists none of them"), "{text}");
    for secret in &secrets {
        assert_eq!(holding(&mount, place, secret), [""; 0]);
    }
    assert_others_stay(&mount);
    mount.drain();
    let checked = mount.check_log("main");
    assert!(!checked.contains("missing"), "{checked}");
    mount.remount(Cache::Kept);
    assert_others_stay(&mount);
}

#[test]
fn forgotten_versions_are_in_no_object_of_the_bucket_and_no_file_of_the_cache() {
    let store = tempfile::tempdir().unwrap();
    secrets_are_gone(&Place::local(store.path()));
}

#[test]
fn forgotten_versions_are_in_no_object_of_the_bucket_and_no_file_of_the_cache_on_s3() {
    if let Some(server) = S3Server::start() {
        secrets_are_gone(&server.place("forget"));
    }
}

#[test]
fn bytes_below_a_file_that_was_written_over_go_once_it_is_saved_anew() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let mount = TestMount::start(&place, FLAGS);
    let secret = Random::new(5).bytes(3_000_000);
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/large"), &secret).unwrap();
    mount.drain();
    mount.sh(&script(
        &mount,
        &place,
        r#"
        # The secret comes back, and all of it is written over in place.
        rm d/large; mv d/.versions/@deleted/large d/large
        head -c 3000000 /dev/zero > $C/../zeros
        dd if=$C/../zeros of=d/large conv=notrunc bs=1M status=none
        rw drain $M
        refused 1 'in the stored form of the current state of d/large: save such a file anew' rw forget $M/d/large --yes
        # A plain cp shares the stored form.
        cp --reflink=never d/large d/large.new; mv d/large.new d/large; rw drain $M
        rw forget $M/d/large --yes > $C/../said; grep -q '^forgotten: 1 version' $C/../said
        cmp d/large $C/../zeros
        "#,
    ));
    assert_eq!(holding(&mount, &place, &secret), [""; 0]);
}

#[test]
fn a_secret_that_an_editor_saved_is_forgotten_and_advice_names_what_can_be_done() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let mount = TestMount::start(&place, FLAGS);
    let secret = Random::new(9).bytes(30_000);
    fs::write(mount.path("f.new"), &secret).unwrap();
    mount.sh("mv f.new f; sleep 0.1; echo new > f; printf 'key 7Yq' > g; sync g; printf 'key 7Yq' > h; sync h; echo new > g");
    mount.drain();
    assert!(!holding(&mount, &place, &secret).is_empty());
    mount.sh(&script(
        &mount,
        &place,
        r#"
        rw forget $M/f | grep -q 'f.new'
        rw forget $M/f.new --json | grep -q '"what":"would_go",.*"versions":1'
        rw forget $M/f --yes
        refused 1 'nothing of it is kept' rw forget $M/f.new
        test "$(cat $M/f)" = new
        rw forget $M/g | grep -q 'the same few bytes are in the current content of h: a copy, or the same by chance'
        rw forget $M/g --yes --json | grep -q '"what":"alike"'
        # The name that a held version had is the one that the advice has.
        echo one > $M/old; sleep 0.1; echo two > $M/old; sleep 11
        T=$(ls $M/.versions/@files/old | head -1)
        rw label hold $M/old@$T 1d
        mv $M/old $M/name; sleep 0.1; echo three > $M/name
        said=$(rw forget $M/name --yes 2>&1) && exit 1
        advice=$(printf '%s' "$said" | grep -o 'rewindfs label release [^ ]* --yes')
        case "$advice" in *" old@"*) ;; *) echo "$said"; exit 1;; esac
        cd $M; rw ${advice#rewindfs }
        rw forget $M/name --yes
        "#,
    ));
    assert_eq!(holding(&mount, &place, &secret), [""; 0]);
    assert_eq!(mount.sh("cat g h name"), "new\nkey 7Yqthree\n");
}

#[test]
fn a_forget_that_a_crash_interrupts_is_repeated_and_completes() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let mut mount = TestMount::start(&place, FLAGS);
    let secrets = plant(&mount, 2);
    // Killed at three points: once its versions are deleted, once the log is written anew, and while followers are waited for.
    for (file, word) in [
        ("small", "deleted"),
        ("packed", "log"),
        ("large", "waiting"),
    ] {
        let said = mount.cache().join("../said");
        let out = fs::File::create(&said).unwrap();
        let path = mount.path("d").join(file);
        let mut command = Command::new(PROGRAM);
        let command = command.arg("forget").arg(path).arg("--yes");
        let mut running = command.stdout(out).stderr(Stdio::null()).spawn().unwrap();
        let reached = wait_until(Duration::from_secs(60), || {
            fs::read_to_string(&said).unwrap().contains(word)
        });
        assert!(reached, "{file}: {}", fs::read_to_string(&said).unwrap());
        mount.kill9();
        assert!(!running.wait().unwrap().success());
        mount.recover(Cache::Kept);
    }
    mount.sh(&script(
        &mount,
        &place,
        r#"
        sleep 2
        rw forget $M/d/small | grep -q 'interrupted'
        for f in small packed large; do
            for try in 1 2 3 4 5 6; do rw forget $M/d/$f --yes && break; sleep 3; done
        done
        "#,
    ));
    for secret in &secrets {
        assert_eq!(holding(&mount, &place, secret), [""; 0]);
    }
    assert_others_stay(&mount);
    mount.drain();
    mount.check_log("main");
}

#[test]
fn a_removed_file_is_forgotten_on_a_url_and_read_only_mounts_show_no_wrong_bytes() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let mut mount = TestMount::start(&place, FLAGS);
    let secrets = plant(&mount, 3);
    let follower = TestMount::start(&place, &["--read-only", "--refresh", "200ms"]);
    let past = follower.sh("ls -d $PWD/d/.versions/@files/large/2* | head -1");
    let past = Path::new(past.trim()).to_owned();
    let open = fs::File::open(&past).unwrap();
    mount.sh(&script(
        &mount,
        &place,
        "rm $M/d/small; rw forget $M/d/large --yes",
    ));
    // It reads a version that is gone: an error, and no other bytes.
    let read = (&open).read_to_end(&mut Vec::new());
    assert!(read.is_err(), "the bytes were never read, and are gone");
    assert!(fs::read(&past).is_err());
    drop(open);
    assert_others_follow(&follower);
    mount.umount();
    sh(
        Path::new("/"),
        &script(
            &mount,
            &place,
            r#"
            rw forget $URL d/small $E | grep -q '^2 versions would be forgotten'
            refused 1 'no-writer' rw forget $URL d/small --yes $E
            rw forget $URL d/small --yes --no-writer --cache-dir $C $E | grep -q '^forgotten: 2 versions'
            rw check $URL $E
            "#,
        ),
    );
    assert_eq!(holding(&mount, &place, &secrets[0]), [""; 0]);
    assert!(!holding(&mount, &place, &secrets[1]).is_empty());
}

fn assert_others_follow(follower: &TestMount) {
    follower.sh("cd d; sha256sum --quiet -c ../sums");
    assert_eq!(
        follower.sh("cat d/large d/.versions/@files/kept/2*"),
        "new\none\ntwo\n"
    );
}

#[test]
fn an_unfinished_forget_of_a_removed_file_goes_on_with_the_same_command() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let mount = TestMount::start(&place, FLAGS);
    mount.sh(&script(
        &mount,
        &place,
        r#"
        mkdir d; head -c 50000 /dev/urandom > d/secret; rw drain $M
        # A copy that moves no bytes.
        cp d/secret d/copy; echo new > d/copy; rm d/secret; rw drain $M
        for time in first second; do
            refused 1 'the same bytes are in' rw forget $M/d/secret --yes
        done
        rw forget $M/d/copy --yes
        refused 1 'nothing of it is kept' rw forget $M/d/secret --yes
        # A directory that has taken the name of a file does not keep its versions.
        echo secret > d/x; rm d/x; mkdir d/x
        rw forget $M/d/x --yes | grep -q '^forgotten: 1 version'
        refused 1 'is a directory' rw forget $M/d/x --yes
        "#,
    ));
}

#[test]
fn a_restore_of_the_directory_leaves_a_forgotten_file_as_it_is_and_names_it() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let mount = TestMount::start(&place, FLAGS);
    mount.sh(&script(
        &mount,
        &place,
        r#"
        mkdir d; odd=$(printf 'o\033d')
        for f in .env gone "$odd" other; do echo then > "d/$f"; done
        sleep 0.1; T=$(date -u +%Y-%m-%dT%H-%M-%S.%NZ); sleep 0.1
        for f in .env "$odd" other added; do echo now > "d/$f"; done; rm d/gone
        rw drain $M
        for f in .env gone "$odd"; do rw forget "$M/d/$f" --yes > /dev/null; done

        rw restore $M/d@$T --dry-run > $C/../dry
        for f in .env gone 'o\\x1bd'; do grep -q "^not kept .* $f\$" $C/../dry || { cat $C/../dry; exit 1; }; done
        test $(grep -c '^not kept' $C/../dry) = 3
        grep -q '^changed .* other$' $C/../dry; grep -q '^removed .* added$' $C/../dry
        rw restore $M/d@$T --dry-run --json | grep -q '"change":"notkept","path":".env"'
        test "$(rw diff $M/d@$T | grep -c '^not kept')" = 3

        rw restore $M/d@$T > $C/../said
        for f in .env gone 'o\\x1bd'; do grep -q "^d/$f: left as it is; .* was forgotten" $C/../said || { cat $C/../said; exit 1; }; done
        test "$(ls -A d | wc -l)" = 3; test "$(cat d/.env "d/$odd" d/other | tr '\n' ' ')" = 'now now then '
        rw restore "$(sed -n 's/^undo: rewindfs restore //p' $C/../said)" > /dev/null
        test "$(cat d/other d/added | tr '\n' ' ')" = 'now now '
        rw restore $M/d@$T --to $M/copy --json | grep -q '"left":\["copy/.env","copy/gone","copy/o\\u001bd"\]'
        test "$(ls -A copy)" = other
        refused 1 'd/.env@' rw restore $M/d/.env@$T
        test "$(cat d/.env)" = now
        "#,
    ));
    mount.drain();
    mount.check_log("main");
}
