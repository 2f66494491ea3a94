//! Further stores over HTTP: an S3 server that is killed, one that ignores conditions of a PUT, Azure.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::crash::{self, Round};
use crate::support::azure::AzureServer;
use crate::support::mount::{Cache, PROGRAM, TestMount, is_mounted, mount_arguments};
use crate::support::place::Place;
use crate::support::random::{Random, seed};
use crate::support::rclone::Rclone;
use crate::support::s3s::S3sServer;
use crate::support::server::free_address;
use crate::support::shell::{self, CommandResult};
use crate::support::{scale, tree, wait_until};

/// The time within which a mount is refused.
const BOUND: Duration = Duration::from_secs(10);

/// Tries to mount `place`, with further flags; fails if something is mounted afterwards or it took too long.
#[track_caller]
fn try_mount(place: &Place, flags: &[&str]) -> CommandResult {
    let sandbox = tempfile::tempdir().unwrap();
    let (files, cache) = (sandbox.path().join("files"), sandbox.path().join("cache"));
    fs::create_dir(&files).unwrap();
    fs::create_dir(&cache).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .args(mount_arguments(place, &files, &cache))
        .args(flags)
        .envs(place.variables.iter().cloned());
    let ran = shell::run(&mut command, BOUND * 3);
    let mounted = is_mounted(&files);
    crate::support::mount::force_unmount(&files);
    assert!(!mounted, "mounted all the same: {ran}");
    assert!(ran.took < BOUND, "it took longer than {BOUND:?}: {ran}");
    ran
}

/// Fails unless the mount is refused with status 1 and each of `words`.
#[track_caller]
fn refused(place: &Place, words: &[&str]) {
    let ran = try_mount(place, &[]);
    assert_eq!(ran.code, Some(1), "exit status: {ran}");
    for word in words {
        assert!(ran.stderr.contains(word), "no `{word}` in: {ran}");
    }
    assert!(
        !ran.stderr.contains("secret"),
        "the message shows a secret: {ran}"
    );
}

#[test]
fn a_store_that_ignores_conditions_is_refused() {
    let Some(server) = Rclone::start() else {
        return;
    };
    refused(
        &server.place("x"),
        &[
            "s3://test/x",
            "the store cannot be used",
            "conditional create (If-None-Match)",
        ],
    );
}

#[test]
fn wrong_credentials_are_refused() {
    let Some(server) = S3sServer::start() else {
        return;
    };
    let words = ["s3://test/x", "check the credentials"];
    let wrong_secret = server
        .place("x")
        .credentials("rewindfs-test-key", "not-the-secret");
    refused(&wrong_secret, &[&words[..], &["403"]].concat());
    let wrong_key = server
        .place("x")
        .credentials("unknown-key", "not-the-secret");
    refused(&wrong_key, &words);

    let Some(server) = AzureServer::start() else {
        return;
    };
    let mut wrong_key = server.place("x");
    wrong_key.variables.push((
        "AZURE_STORAGE_ACCOUNT_KEY".to_owned(),
        "bm90IHRoZSBzZWNyZXQ=".to_owned(),
    ));
    refused(&wrong_key, &["az://test/x", "check the credentials", "403"]);
}

#[test]
fn temporary_files_of_a_crash_in_a_local_bucket_are_removed() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    fs::write(mount.path("f"), vec![1; 100_000]).unwrap();
    mount.umount();
    let ended = shell::sh(
        store.path(),
        r#"
        segment=$(find main/data -type f | sort | tail -n 1)
        touch "$segment#2" main/namespace.json#1
        touch -d '2 hours ago' "$segment#1" main/meta/manifest/left#3
        find . -name '*#*' | wc -l
        "#,
    );
    assert_eq!(ended.trim(), "4");
    mount.mount();
    let left = || shell::sh(store.path(), "find . -name '*#[0-9]' | sort");
    let swept = wait_until(Duration::from_secs(30), || left().lines().count() == 2);
    assert!(swept, "left:\n{}{}", left(), mount.log_tail());
    let kept = left();
    assert!(kept.contains("#2\n") && kept.contains("json#1\n"), "{kept}");
    assert_eq!(fs::read(mount.path("f")).unwrap(), vec![1; 100_000]);
}

#[test]
fn a_killed_server_loses_no_data() {
    let Some(mut server) = S3sServer::start() else {
        return;
    };
    let mut random = Random::new(seed());
    let logs = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&server.place("x"), &[]);
    let rounds = [Cache::Kept, Cache::Wiped].repeat(scale(1, 10));
    for (number, cache) in rounds.into_iter().enumerate() {
        let particular = Round {
            number,
            seed: random.next(),
            cache,
            // This server names an object before it stores the object's metadata. Killed in between, it shows the
            // index an object that looks like another writer's: changes fail from then on, but no data is lost.
            may_fail: &[rustix::io::Errno::IO],
        };
        let calls = crash::round(&mut mount, logs.path(), &particular, || {
            for _ in 0..4 {
                std::thread::sleep(Duration::from_millis(200 + random.below(600) as u64));
                server.kill9();
                std::thread::sleep(Duration::from_millis(random.below(500) as u64));
                server.restart();
            }
            std::thread::sleep(Duration::from_millis(300));
        });
        assert!(calls > 50, "the writers wrote: {calls} calls");
    }
    // A mount with an empty cache shows the same tree.
    let before = tree::read_tree(&mount.root());
    mount.remount(Cache::Wiped);
    let after = tree::read_tree(&mount.root());
    tree::assert_equal("after a remount with an empty cache", &before, &after);
    mount.umount();
    let told = mount.check_log("main");
    assert!(
        told.contains(", 0 differ from the index, 0 counts are wrong"),
        "{told}"
    );
    assert!(
        fs::read_dir(server.bucket()).unwrap().count() > 0,
        "the namespace lies in this server's bucket"
    );
}

#[test]
fn without_retries_a_failure_is_reported_at_once() {
    let store = tempfile::tempdir().unwrap();
    for (flag, value) in [
        ("--retries", "sometimes"),
        ("--retry-base", "0s"),
        ("--retry-cap", "1h"),
    ] {
        let ran = try_mount(&Place::local(store.path()), &[flag, value]);
        assert_eq!(ran.code, Some(2), "{ran}");
        assert!(ran.stderr.contains(flag), "{ran}");
    }
    let Some(mut server) = S3sServer::start() else {
        return;
    };
    let mut mount = TestMount::start(&server.place("x"), &["-o", "retries=none"]);
    let save = |name: &str| {
        let mut file = fs::File::create(mount.path(name)).unwrap();
        // More bytes than an index row holds, so that segments are uploaded: the index has retries of its own.
        file.write_all(&[7; 100_000]).unwrap();
        file.sync_all()
    };
    save("before").unwrap();
    server.kill9();
    let start = Instant::now();
    let error = save("during").unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::IO.raw_os_error())
    );
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    let status = mount.status().to_string();
    assert!(status.contains("unavailable"), "{status}");
    server.restart();
    // Acknowledged changes are uploaded nevertheless.
    mount.drain();
    mount.remount(Cache::Wiped);
    for name in ["before", "during"] {
        assert_eq!(fs::read(mount.path(name)).unwrap(), [7; 100_000], "{name}");
    }
}

#[test]
fn a_missing_azure_container_and_a_wrong_endpoint_are_named() {
    let Some(server) = AzureServer::start() else {
        return;
    };
    let nowhere = Place::azurite("no-such-container/x", &server.endpoint());
    refused(&nowhere, &["az://no-such-container/x", "ContainerNotFound"]);
    let address = free_address().to_string();
    let dead = Place::azurite("test/x", &format!("http://{address}"));
    refused(&dead, &["az://test/x", &address]);
    // The emulator's address is set by a variable; a flag without effect would mislead the user.
    let ran = try_mount(&server.place("x"), &["--endpoint", &server.endpoint()]);
    assert_eq!(ran.code, Some(2), "{ran}");
    assert!(ran.stderr.contains("AZURITE_BLOB_STORAGE_URL"), "{ran}");
}
