//! Read-only mounts of a namespace that another mount writes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::mount::{Cache, PROGRAM, TestMount, mount_arguments};
use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::support::shell;
use crate::support::wait_until;

/// The time within which a follower shows a committed change; it polls five times a second.
const SOON: Duration = Duration::from_secs(20);

fn follow(place: &Place) -> TestMount {
    TestMount::start(place, &["--read-only", "--refresh", "200ms"])
}

#[track_caller]
fn shows(follower: &TestMount, path: &Path, content: &str) {
    let start = Instant::now();
    let mut seen = String::new();
    let same = wait_until(SOON, || {
        seen = fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
        seen == content
    });
    assert!(
        same,
        "{} shows {seen:?}, not {content:?}\n{}",
        path.display(),
        follower.log_tail()
    );
    eprintln!("{content:?} shown after {:?}", start.elapsed());
}

fn beside(place: &Place) {
    let mut writer = TestMount::start(place, &[]);
    writer.sh("echo one > f; mkdir d; echo in > d/in; ln -s d/in l; ln f hard; head -c 3000000 /dev/urandom > big");
    writer.drain();
    let follower = follow(place);
    let second = follow(place);
    assert_eq!(
        follower.sh("cat f l hard; ls; stat -c %h f"),
        "one\nin\none\nbig\nd\nf\nhard\nl\n2\n"
    );
    assert_eq!(follower.sh("sha256sum big"), writer.sh("sha256sum big"));
    // The lengths are equal, so only ctime tells the kernel that its cached pages are out of date.
    let open = File::open(follower.path("f")).unwrap();
    writer.sh("echo two > f; sync f; mv d e; rm l; echo new > e/new; sync e/new");
    writer.drain();
    shows(&follower, &follower.path("f"), "two\n");
    shows(&second, &second.path("e/new"), "new\n");
    shows(&follower, &follower.path("e/in"), "in\n");
    let mut bytes = [0; 4];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"two\n");
    drop(open);
    assert_eq!(follower.sh("ls; ls e"), "big\ne\nf\nhard\nin\nnew\n");

    // The past includes the writer's last change.
    assert_eq!(follower.sh("cat .versions/@files/f/2*"), "one\ntwo\n");
    // A follower lists a change a moment after it shows it: once it has read that the change is final.
    let listing = "ls .versions .versions/@files e/.versions/@files";
    let written = writer.sh(listing);
    let mut listed = String::new();
    let same = wait_until(SOON, || {
        listed = follower.sh(listing);
        listed == written
    });
    assert!(same, "the follower lists {listed}, the writer {written}");
    follower.sh(r#"
        last=$(ls e/.versions | grep ^2 | tail -1)
        test "$(cat .versions/$last/f)" = two
        test "$(cat .versions/$last/e/new)" = new
        test "$(cat e/.versions/$last/new)" = new
        if ls .versions/2099-01-01 2> /dev/null; then exit 1; fi
        for command in 'touch x' 'echo more >> f' 'rm f' 'chmod 600 f' 'mkdir y'; do
            if sh -c "$command" 2> /dev/null; then echo "went through: $command"; exit 1; fi
        done
        "#);
    // Neither the follower nor a check fences the writer.
    let told = writer.check_log("main");
    assert!(told.contains(" 0 differ"), "{told}");
    assert_eq!(writer.status()["fenced"], false);
    let status = follower.status();
    assert_eq!(status["mode"], "read-only");
    assert_eq!(status["requests"]["put"], 0, "{status}");
    assert_eq!(status["requests"]["delete"], 0, "{status}");
    assert_eq!(status["pending"]["failures"].as_array().unwrap().len(), 0);
    let free = |mount: &TestMount| mount.sh("stat -f -c %c-%d-%b-%f .");
    assert_eq!(free(&follower), free(&writer));

    // The writer's machine is lost; the follower shows the next writer's changes too.
    writer.kill9();
    assert_eq!(follower.sh("cat f e/in"), "two\nin\n");
    writer.recover(Cache::Wiped);
    writer.sh("echo three > f; sync f");
    shows(&follower, &follower.path("f"), "three\n");
    let mut follower = follower;
    follower.umount();
    writer.umount();
    shows(&second, &second.path("f"), "three\n");
}

#[test]
fn a_follower_shows_what_the_writer_does() {
    let directory = tempfile::tempdir().unwrap();
    beside(&Place::local(directory.path()));
}

#[test]
fn a_follower_shows_what_the_writer_does_on_s3() {
    if let Some(server) = S3Server::start() {
        beside(&server.place("followers"));
    }
}

/// The writer rewrites and removes names all the time; a follower never shows a torn or an empty file.
#[test]
fn a_follower_reads_only_states_that_were_saved() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::local(directory.path());
    let writer = TestMount::start(&place, &[]);
    let save = r#"
        head -c 300000 /dev/zero | tr '\0' "$letter" > tmp
        mv tmp file
        head -c 300000 /dev/zero | tr '\0' "$letter" | dd of=over bs=100000 conv=notrunc status=none
        "#;
    writer.sh(&format!("letter=a; {save}"));
    writer.drain();
    let follower = follow(&place);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for round in 0..40 {
                let letter = char::from(b'a' + round % 26);
                writer.sh(&format!("letter={letter}; {save}"));
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let mut seen = std::collections::BTreeSet::new();
        while !writing.is_finished() {
            let bytes = fs::read(follower.path("file")).unwrap();
            assert_eq!(bytes.len(), 300_000);
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "torn");
            seen.insert(bytes[0]);
            // A file overwritten in place: each read block is from a saved state, though one read may combine two states.
            let over = fs::read(follower.path("over")).unwrap();
            assert!(over.len() == 300_000 && over.iter().all(u8::is_ascii_lowercase));
        }
        assert!(seen.len() > 3, "{seen:?}");
    });
}

#[test]
fn a_read_only_mount_does_not_create_a_namespace() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::local(directory.path());
    let cache = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(mount_arguments(&place, root.path(), cache.path()));
    command.args(["--read-only", "--namespace", "other"]);
    let ran = shell::run(&mut command, SOON);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("namespace other: not found"), "{ran}");
    assert!(!directory.path().join("other").exists());
}
