//! Wrong answers in place of the store's: a mount keeps running through each kind of them and loses no acknowledged data.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::mount::{Cache, PROGRAM, TestMount, is_mounted, mount_arguments};
use crate::support::place::Place;
use crate::support::portal::{Portal, WrongAnswer};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::{shell, wait_until};

/// How long each wrong answer is sent.
const LASTS: Duration = Duration::from_millis(1100);

/// Saves files until `stop` is set. Returns each file's content for which every call succeeded.
fn save(root: &Path, name: &str, stop: &AtomicBool) -> BTreeMap<String, String> {
    let mut saved = BTreeMap::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (file, text) = (
            format!("{name}-{}", number % 40),
            format!("{name} {number}\n"),
        );
        let wrote = fs::File::create(root.join(&file)).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            // Every tenth save waits for the bucket, which may not answer before the wrong answers end.
            if number % 10 == 9 {
                file.sync_all()
            } else {
                Ok(())
            }
        });
        // After an error this name's content is undefined.
        match wrote {
            Ok(()) => drop(saved.insert(file, text)),
            Err(_) => drop(saved.remove(&file)),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    saved
}

fn check(mount: &TestMount, saved: &BTreeMap<String, String>, when: &str) {
    for (name, text) in saved {
        let found = fs::read_to_string(mount.path(name));
        assert_eq!(
            found.ok().as_ref(),
            Some(text),
            "{when}: {name}\n{}",
            mount.log_tail()
        );
    }
}

#[test]
fn a_second_of_any_wrong_answer_ends_no_mount_and_loses_no_data() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let portal = Portal::start(server.address());
    let place = Place::s3(&format!("{BUCKET}/portal"), &portal.endpoint());
    let mut mount = TestMount::start(&place, &[]);
    let mut saved = BTreeMap::new();
    for wrong in WrongAnswer::ALL {
        let name = format!("{wrong:?}");
        // The mount is idle during the wrong answers.
        let before = portal.wrong_answers();
        portal.answer_with(Some(wrong));
        std::thread::sleep(LASTS);
        portal.answer_with(None);
        fs::write(mount.path(format!("{name}-idle")), &name).unwrap();
        saved.insert(format!("{name}-idle"), name.clone());
        // The mount is written to during the wrong answers.
        let (root, stop) = (mount.root(), AtomicBool::new(false));
        let wrote = std::thread::scope(|scope| {
            let writer = scope.spawn(|| save(&root, &name, &stop));
            portal.answer_with(Some(wrong));
            std::thread::sleep(LASTS);
            portal.answer_with(None);
            stop.store(true, Ordering::Relaxed);
            writer.join().unwrap()
        });
        assert!(
            wrote.len() > 3,
            "{name}: {} saves\n{}",
            wrote.len(),
            mount.log_tail()
        );
        saved.extend(wrote);
        assert!(
            portal.wrong_answers() > before,
            "{name}: no request got the wrong answer"
        );
        let status = mount.status();
        assert!(status["poisoned"].is_null(), "{name}: {status}");
        drain(&mount);
    }
    check(&mount, &saved, "at the end");
    mount.remount(Cache::Wiped);
    check(&mount, &saved, "on another machine");
}

/// Runs `rewindfs drain` until it succeeds: it fails while an upload that failed before is still being retried.
fn drain(mount: &TestMount) {
    let root = mount.root();
    let drained = wait_until(Duration::from_secs(60), || {
        let mut command = std::process::Command::new(PROGRAM);
        command.arg("drain").arg(&root);
        shell::run(&mut command, Duration::from_secs(60)).code == Some(0)
    });
    assert!(drained, "does not drain\n{}", mount.log_tail());
}

#[test]
fn a_store_that_sends_no_last_modified_header_is_refused() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let portal = Portal::start(server.address());
    let place = Place::s3(&format!("{BUCKET}/undated"), &portal.endpoint());
    let directory = tempfile::tempdir().unwrap();
    portal.answer_with(Some(WrongAnswer::NoModified));
    let mut command = std::process::Command::new(PROGRAM);
    command
        .args(mount_arguments(&place, directory.path(), directory.path()))
        .envs(place.variables.iter().cloned());
    let ran = shell::run(&mut command, Duration::from_secs(60));
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(
        ran.stderr.contains("sends no Last-Modified header"),
        "{ran}"
    );
    assert!(!ran.stderr.contains("1970"), "{ran}");
}

#[test]
fn umount_of_a_mount_with_a_stopped_index_names_what_is_not_uploaded() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = directory.path().join("bucket");
    let place = Place::local(&bucket);
    let mut mount = TestMount::start(&place, &[]);
    fs::write(mount.path("before"), "before\n").unwrap();
    mount.drain();
    // The engine takes this object for its next manifest and cannot parse it.
    let manifests = bucket.join("main/meta/manifest");
    let newest = fs::read_dir(&manifests)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".manifest")?.parse::<u64>().ok())
        .max()
        .unwrap();
    let next = manifests.join(format!("{:020}.manifest", newest + 1));
    fs::write(&next, [&[0, 2][..], &[0xff; 64]].concat()).unwrap();
    let stopped = wait_until(Duration::from_secs(60), || {
        fs::write(mount.path("after"), "after\n").is_err()
    });
    assert!(stopped, "the index did not stop\n{}", mount.log_tail());
    fs::remove_file(&next).unwrap();

    let mut command = std::process::Command::new(PROGRAM);
    command.arg("umount").arg(mount.root());
    let ran = shell::run(&mut command, Duration::from_secs(60));
    assert_eq!(ran.code, Some(1), "{ran}\n{}", mount.log_tail());
    assert!(ran.stderr.contains("the mount had stopped"), "{ran}");
    assert!(ran.stderr.contains("cache directory"), "{ran}");
    assert!(
        !is_mounted(&mount.root()),
        "still mounted\n{}",
        mount.log_tail()
    );
    let ended = mount
        .ended(Duration::from_secs(20))
        .expect("the daemon ends");
    assert_eq!(ended.code(), Some(1));

    mount.mount();
    assert_eq!(
        fs::read_to_string(mount.path("before")).unwrap(),
        "before\n"
    );
    let after = fs::read_to_string(mount.path("after"));
    assert!(after.is_err() || after.is_ok_and(|text| text == "after\n" || text.is_empty()));
    mount.umount();
}
