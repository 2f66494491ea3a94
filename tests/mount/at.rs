//! Mounts with `--at`: the whole tree as it was at a time, read-only, beside a mount that writes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::mount::{PROGRAM, TestMount, force_unmount, mount_arguments};
use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::support::shell::{self, CommandResult};
use crate::support::tree::{self, Tree};
use crate::support::wait_until;

/// The longest time that a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Rewrites, moves, adds and removes files until `stop` exists.
const KEEP_CHANGING: &str = r"
    n=0
    while [ ! -e stop ]; do
        n=$((n+1))
        for f in files/*; do echo $n > $f; done
        mkdir added-$n; echo $n > added-$n/file
        mv dir/sub dir/moved; rm -f doomed; echo $n > doomed; mv dir/moved dir/sub
    done
";

/// Every entry below `root`. Of directories only what the past keeps: the kind, the mode and the owner.
fn entries(root: &Path) -> Tree {
    let kept = |line: String| match line.split_once(" links ") {
        Some((kept, _)) if line.starts_with("directory") => kept.to_owned(),
        _ => line,
    };
    let tree = tree::read_tree(root);
    tree.into_iter()
        .map(|(path, line)| (path, kept(line)))
        .collect()
}

fn rewindfs(arguments: &[&str], place: &Place) -> CommandResult {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .envs(place.variables.iter().cloned());
    shell::run(&mut command, LIMIT)
}

/// Now, as a time whose meaning does not change.
fn stamp(mount: &TestMount) -> String {
    let stamp = mount.sh(&format!("{PROGRAM} stamp -0s"));
    stamp.trim().to_owned()
}

/// Fails unless every change is refused as in a read-only file system.
#[track_caller]
fn refuses_changes(mount: &TestMount) {
    mount.sh(r#"
        for command in 'touch x' 'echo more >> files/100' ': > files/100' 'rm files/100' 'chmod 600 files/100' 'mkdir y' 'rmdir dir/sub' \
            'mv files/100 z' 'ln files/100 z' 'ln -s a z' 'mkfifo z' 'setfattr -n user.a -v b files/100' 'touch files/100' \
            'mv dir/sub .' 'mv doomed dir'; do
            if said=$(sh -c "$command" 2>&1); then echo "went through: $command"; exit 1; fi
            case $said in *'Read-only file system'*) ;; *) echo "$command: $said"; exit 1 ;; esac
        done
        for hidden in .versions dir/.versions dir/sub/.versions/-1s; do
            if said=$(ls "$hidden" 2>&1); then echo "found: $hidden"; exit 1; fi
            case $said in *'No such file'*) ;; *) echo "$hidden: $said"; exit 1 ;; esac
        done
    "#);
}

/// Fails unless the status of the mount says that it shows the time `at`, and that it has written no object.
#[track_caller]
fn status_tells(mount: &TestMount, place: &Place, at: &str) {
    let status = mount.status();
    assert_eq!(status["mode"], "read-only");
    assert_eq!(status["at"]["asked"], at);
    assert_eq!(status["at"]["stamp"], at);
    assert_eq!(status["at"]["ns"], status["at"]["asked_ns"]);
    assert_eq!(status["requests"]["put"], 0, "{status}");
    let told = rewindfs(&["status", &mount.root().to_string_lossy()], place).ok();
    let line = format!("the tree as of {at}, --at {at}");
    assert!(told.contains(&line), "{told}");
}

fn beside(place: &Place) {
    let writer = TestMount::start(place, &[]);
    writer.sh(r"
        mkdir files dir dir/sub
        for i in $(seq 100 139); do echo zero > files/$i; done
        head -c 3000000 /dev/urandom > dir/large
        echo deep > dir/sub/deep; ln -s sub/deep dir/link; ln dir/sub/deep dir/hard; mkfifo dir/pipe
        chmod 750 dir; chown 1:2 dir/sub/deep; setfattr -n user.mark -v early dir/large
        echo first > doomed
        sleep 1.1
    ");
    let expected = entries(&writer.root());
    let at = stamp(&writer);
    let mut changing = Command::new("sh")
        .args(["-euc", KEEP_CHANGING])
        .current_dir(writer.root())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // The state of the time is in the bucket before the mount is made.
    writer.sh("while [ ! -e added-2 ]; do sleep 0.1; done");
    writer.drain();
    let past = TestMount::start(place, &["-o", &format!("rw,at={at}")]);
    tree::assert_equal("at the mount", &expected, &entries(&past.root()));
    refuses_changes(&past);
    assert_eq!(
        past.sh("getfattr --only-values -n user.mark dir/large"),
        "early"
    );

    // A second time, while the writer works: one state of files that are rewritten all the time.
    let later = stamp(&writer);
    writer.sh("now=$(ls -d added-* | wc -l); while [ $(ls -d added-* | wc -l) -lt $((now + 2)) ]; do sleep 0.1; done");
    writer.drain();
    let second = TestMount::start(place, &["--at", &later, "--refresh", "200ms"]);
    let same = "cat files/* | uniq | head -3";
    let states = second.sh(same);
    let numbers: Vec<u32> = states.lines().map(|line| line.parse().unwrap()).collect();
    assert!(
        matches!(numbers[..], [_]) || matches!(numbers[..], [new, old] if new == old + 1),
        "{numbers:?}"
    );
    let shown = entries(&second.root());
    writer.sh("now=$(cat doomed); while [ \"$(cat doomed)\" = \"$now\" ]; do sleep 0.1; done");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(second.sh(same), states);
    tree::assert_equal("later", &shown, &entries(&second.root()));
    tree::assert_equal("later", &expected, &entries(&past.root()));

    status_tells(&past, place, &at);
    assert_eq!(writer.status()["fenced"], false);
    assert_eq!(writer.status()["at"], serde_json::Value::Null);
    writer.sh(": > stop");
    let ended = || {
        changing
            .try_wait()
            .unwrap()
            .is_some_and(|status| status.success())
    };
    assert!(wait_until(LIMIT, ended), "the changes ended with an error");
}

#[test]
fn a_time_of_a_local_directory_is_mounted_while_a_writer_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    beside(&Place::local(directory.path()));
}

#[test]
fn a_time_of_an_s3_bucket_is_mounted_while_a_writer_goes_on() {
    if let Some(server) = S3Server::start() {
        beside(&server.place("at"));
    }
}

/// A mount in the background that is expected to succeed; returns its standard error.
fn mounted(place: &Place, root: &Path, cache: &Path, time: &str) -> String {
    let mut arguments = mount_arguments(place, root, cache);
    arguments.extend(["--at".to_owned(), time.to_owned()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ran = rewindfs(&arguments, place);
    assert_eq!(ran.code, Some(0), "{ran}");
    ran.stderr
}

#[test]
fn a_time_after_the_last_change_shows_the_newest_state_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::local(directory.path());
    let mut writer = TestMount::start(&place, &[]);
    writer.sh("echo one > f; sleep 2");
    let between = writer.sh(&format!("{PROGRAM} stamp -1s"));
    let between = between.trim();
    writer.sh("sleep 1; echo two > f");
    writer.umount();
    std::thread::sleep(Duration::from_secs(2));

    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = root.path().to_string_lossy().into_owned();
    let told = mounted(&place, root.path(), cache.path(), "-1s");
    assert!(
        told.contains("--at -1s: shows the tree as of 20")
            && told.contains("the newest state that the bucket has whole"),
        "{told}"
    );
    assert_eq!(shell::sh(root.path(), "cat f"), "two\n");
    let status = rewindfs(&["status", &path, "--json"], &place).ok();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let number = |name: &str| status["at"][name].as_u64().unwrap();
    assert!(number("ns") < number("asked_ns"), "{status}");
    rewindfs(&["umount", &path], &place).ok();

    let told = mounted(&place, root.path(), cache.path(), between);
    assert_eq!(told, "");
    assert_eq!(shell::sh(root.path(), "cat f"), "one\n");
    rewindfs(&["umount", &path], &place).ok();
    force_unmount(root.path());
}

#[test]
fn a_time_that_is_not_kept_whole_shows_the_newest_one_before_it_that_is_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::local(directory.path());
    let mut writer = TestMount::start(&place, &[]);
    writer.sh("echo one > f; mkdir .versions/whole; sleep 1.2; echo two > f; sleep 1.2");
    let asked = writer.sh(&format!("{PROGRAM} stamp -0s"));
    let asked = asked.trim();
    let root = writer.root().to_string_lossy().into_owned();
    writer.sh(&format!(
        "sleep 1.2; echo three > f; echo four > f; sleep 1.5; {PROGRAM} drain {root}
         {PROGRAM} policy set {root} keep-within=1s grid=off keep-last=1 --now > /dev/null
         {PROGRAM} prune {root} --confirm | grep -q '^dropped  *1 '"
    ));
    writer.umount();

    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = root.path().to_string_lossy().into_owned();
    let told = mounted(&place, root.path(), cache.path(), asked);
    let why = "the newest time up to then at which the tree is kept whole";
    assert!(told.contains(why), "{told}");
    assert_eq!(shell::sh(root.path(), "cat f"), "one\n");
    let status = rewindfs(&["status", &path], &place).ok();
    let later = format!("--at {asked}; later times up to then are not kept whole");
    assert!(status.contains(&later), "{status}");
    rewindfs(&["umount", &path], &place).ok();
    let told = mounted(&place, root.path(), cache.path(), "whole");
    assert_eq!(told, "");
    rewindfs(&["umount", &path], &place).ok();
    force_unmount(root.path());
}

#[test]
fn a_time_that_cannot_be_shown_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::local(directory.path());
    let mut writer = TestMount::start(&place, &[]);
    writer.sh("echo one > f");
    writer.umount();
    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (time, code, why) in [
        ("2099-01-01", 1, "is in the future"),
        ("@GMT-2099.01.01-00.00.00", 1, "is in the future"),
        ("2020-01-01", 1, "namespace main did not exist then"),
        ("-1000w", 1, "namespace main did not exist then"),
        ("yesterday", 1, "is no label of the root directory"),
        (".yesterday", 2, "is no time"),
        ("2026-13", 2, "is no time"),
        ("", 2, "is no time"),
    ] {
        let mut arguments = mount_arguments(&place, root.path(), cache.path());
        arguments.push(format!("--at={time}"));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ran = rewindfs(&arguments, &place);
        force_unmount(root.path());
        assert_eq!(ran.code, Some(code), "{ran}");
        let message = format!("--at {time}: ");
        assert!(
            ran.stderr.contains(&message) && ran.stderr.contains(why),
            "{ran}"
        );
    }
}
