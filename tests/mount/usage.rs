//! Bad input: within ten seconds a message that names it and the right exit status, and nothing stays mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::mount::{
    Cache, PROGRAM, TestMount, force_unmount, is_mounted, mount_arguments,
};
use crate::support::place::Place;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::server::free_address;
use crate::support::shell::{self, CommandResult};

/// The time within which bad input is refused.
const BOUND: Duration = Duration::from_secs(10);

/// Directories for one command.
struct Scratch {
    /// Holds them.
    directory: tempfile::TempDir,
}

impl Scratch {
    /// A store, a mount point and a cache.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["store", "files", "cache"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    /// The path of one of the directories.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path as an argument.
    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The URL of the store.
    fn url(&self) -> String {
        format!("file://{}", self.text("store"))
    }

    /// Fails unless the command ends within the bound with `code` and a message with each of `words`, and nothing stays mounted.
    #[track_caller]
    fn refused(&self, arguments: &[&str], place: Option<&Place>, code: i32, words: &[&str]) {
        let ran = rewindfs(arguments, place);
        assert!(
            !is_mounted(&self.path("files")),
            "mounted all the same: {ran}"
        );
        check_refusal(&ran, code, words);
    }

    /// The same for a mount of `place` on this scratch, with further flags.
    #[track_caller]
    fn mount_refused(&self, place: &Place, flags: &[&str], code: i32, words: &[&str]) {
        let mut arguments = mount_arguments(place, &self.path("files"), &self.path("cache"));
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.refused(&arguments, Some(place), code, words);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        force_unmount(&self.path("files"));
    }
}

/// Runs the program, a little beyond the bound at most.
fn rewindfs(arguments: &[&str], place: Option<&Place>) -> CommandResult {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    if let Some(place) = place {
        command.envs(place.variables.iter().cloned());
    }
    shell::run(&mut command, BOUND + Duration::from_secs(20))
}

/// Fails unless the command has exited with `code` and a message with each of `words`.
#[track_caller]
fn check_refusal(ran: &CommandResult, code: i32, words: &[&str]) {
    assert!(ran.took < BOUND, "it took longer than {BOUND:?}: {ran}");
    assert_eq!(ran.code, Some(code), "exit status: {ran}");
    for word in words {
        let said = ran.stderr.to_lowercase().contains(&word.to_lowercase());
        assert!(said, "the message does not name `{word}`: {ran}");
    }
    assert!(!ran.stderr.contains("panicked"), "{ran}");
    let lines = ran.stderr.lines().count();
    assert!(
        (1..=15).contains(&lines),
        "a message of {lines} lines: {ran}"
    );
}

#[test]
fn a_wrong_flag_or_value_exits_with_status_2() {
    let scratch = Scratch::new();
    // What follows a mount that would succeed, and the words of the message.
    let table: [(&[&str], &[&str]); 5] = [
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["-o", "no_such_word"], &["no_such_word"]),
        (&["--sync-on", "sometimes"], &["--sync-on", "sometimes"]),
        (&["--namespace", "../up"], &["namespace", "../up"]),
        (&["-o", "namespace=a//b"], &["namespace", "a//b"]),
    ];
    for (flags, words) in table {
        scratch.mount_refused(&Place::local(&scratch.path("store")), flags, 2, words);
    }
    scratch.refused(&["mount", &scratch.url()], None, 2, &["usage"]);
    scratch.refused(&["no-such-command"], None, 2, &["no-such-command"]);
}

#[test]
fn a_wrong_url_or_mountpoint_exits_with_status_2() {
    let scratch = Scratch::new();
    let (url, files, cache) = (scratch.url(), scratch.text("files"), scratch.text("cache"));
    fs::write(scratch.path("plain"), "a file").unwrap();
    let (plain, missing) = (scratch.text("plain"), scratch.text("missing"));
    let table = [
        ("ftp://host/x", &files, "ftp"),
        ("not a url", &files, "not a url"),
        ("s3://", &files, "s3://"),
        (&url, &missing, &missing),
        (&url, &plain, &plain),
    ];
    for (url, point, word) in table {
        scratch.refused(
            &["mount", url, point, "--cache-dir", &cache],
            None,
            2,
            &[word],
        );
    }
}

#[test]
fn help_and_version_exit_with_status_0() {
    for arguments in [&["--help"][..], &["mount", "--help"], &["--version"]] {
        let ran = rewindfs(arguments, None);
        assert!(ran.took < BOUND, "{ran}");
        assert!(ran.ok().to_lowercase().contains("rewindfs"));
    }
}

#[test]
fn a_dead_endpoint_is_named_in_time() {
    let scratch = Scratch::new();
    let address = free_address();
    let place = Place::s3(&format!("{BUCKET}/x"), &format!("http://{address}"));
    scratch.mount_refused(&place, &[], 1, &[&address.to_string()]);
    scratch.mount_refused(&place, &["--foreground"], 1, &[&address.to_string()]);
}

#[test]
fn a_missing_bucket_is_named_in_time() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let scratch = Scratch::new();
    let place = Place::s3("no-such-bucket/x", &format!("http://{}", server.address()));
    scratch.mount_refused(&place, &[], 1, &["no-such-bucket"]);
}

#[test]
fn refused_credentials_are_reported_in_time() {
    let Some(server) = S3Server::start_refusing() else {
        return;
    };
    let scratch = Scratch::new();
    let place = server
        .place("x")
        .credentials("AKIAWRONGKEYID000000", "wrong-secret-not-to-be-shown");
    let mut arguments = mount_arguments(&place, &scratch.path("files"), &scratch.path("cache"));
    arguments.push("--namespace=a".to_owned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ran = rewindfs(&arguments, Some(&place));
    assert!(
        !is_mounted(&scratch.path("files")),
        "mounted all the same: {ran}"
    );
    check_refusal(&ran, 1, &["credentials", &format!("s3://{BUCKET}/x")]);
    assert!(
        !ran.stderr.contains("wrong-secret"),
        "the message shows a secret: {ran}"
    );
}

#[test]
fn a_busy_mountpoint_and_a_busy_cache_are_named() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    fs::write(mount.path("f"), "kept").unwrap();
    let scratch = Scratch::new();
    let root = mount.root();
    let other = Place::local(&scratch.path("store"));
    let arguments = mount_arguments(&other, &root, &scratch.path("cache"));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    check_refusal(
        &rewindfs(&arguments, None),
        1,
        &[&root.display().to_string()],
    );
    assert_eq!(
        fs::read_to_string(mount.path("f")).unwrap(),
        "kept",
        "the first mount still serves"
    );

    let arguments = mount_arguments(
        &Place::local(store.path()),
        &scratch.path("files"),
        &mount.cache(),
    );
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    scratch.refused(&arguments, None, 1, &[&mount.cache().display().to_string()]);
    assert_eq!(
        fs::read_to_string(mount.path("f")).unwrap(),
        "kept",
        "the first writer still writes"
    );
}

#[test]
fn commands_on_a_path_without_a_mount_name_the_path() {
    let scratch = Scratch::new();
    let files = scratch.text("files");
    for command in ["status", "drain", "umount"] {
        scratch.refused(&[command, &files], None, 1, &[&files]);
    }
}

#[test]
fn a_mount_in_the_background_answers_when_the_command_returns() {
    let scratch = Scratch::new();
    let (url, files, cache) = (scratch.url(), scratch.text("files"), scratch.text("cache"));
    // The options are given as mount(8) does; the second round finds the files of the first.
    for round in 0..2 {
        rewindfs(
            &[
                "mount",
                &url,
                &files,
                "--cache-dir",
                &cache,
                "-o",
                "namespace=team/eu",
            ],
            None,
        )
        .ok();
        assert!(
            is_mounted(Path::new(&files)),
            "the command returned and nothing is mounted"
        );
        let kept = fs::read_to_string(scratch.path("files/kept")).unwrap_or_default();
        assert_eq!(kept, "x".repeat(round), "the bytes of earlier rounds");
        fs::write(scratch.path("files/kept"), "x".repeat(round + 1)).unwrap();
        rewindfs(&["drain", &files], None).ok();
        rewindfs(&["umount", &files], None).ok();
        assert!(!is_mounted(Path::new(&files)), "still mounted");
    }
    // Another namespace of the same bucket does not have the file.
    rewindfs(
        &[
            "mount",
            &url,
            &files,
            "--cache-dir",
            &cache,
            "--namespace",
            "team/us",
        ],
        None,
    )
    .ok();
    assert_eq!(fs::read_dir(&files).unwrap().count(), 0);
    rewindfs(&["umount", &files], None).ok();
}

#[test]
fn a_read_only_mount_refuses_changes() {
    let store = tempfile::tempdir().unwrap();
    let place = Place::local(store.path());
    let mut writer = TestMount::start(&place, &[]);
    fs::write(writer.path("f"), "content").unwrap();
    writer.umount();
    let reader = TestMount::start(&place, &["-o", "ro"]);
    assert_eq!(fs::read_to_string(reader.path("f")).unwrap(), "content");
    let refused = fs::write(reader.path("g"), "").unwrap_err();
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::ReadOnlyFilesystem,
        "{refused}"
    );
}

#[test]
fn sigterm_drains_and_unmounts() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    for number in 0..500 {
        fs::write(
            mount.path(format!("f{number}")),
            format!("content {number}"),
        )
        .unwrap();
    }
    let daemon = mount.daemon_id().to_string();
    shell::run(Command::new("kill").args(["-TERM", &daemon]), BOUND).ok();
    let status = mount.ended(Duration::from_secs(60));
    assert!(
        status.is_some_and(|status| status.success()),
        "after SIGTERM: {status:?}\n{}",
        mount.log_tail()
    );
    assert!(!is_mounted(&mount.root()), "still mounted after SIGTERM");
    mount.recover(Cache::Wiped);
    for number in 0..500 {
        let content = fs::read_to_string(mount.path(format!("f{number}"))).unwrap();
        assert_eq!(content, format!("content {number}"));
    }
}

#[test]
fn status_reports_pending_uploads_and_drain_completes_them() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    fs::write(mount.path("f"), vec![7; 3_000_000]).unwrap();
    let status = mount.status();
    for key in ["files", "bytes", "oldest"] {
        assert!(
            status.to_string().contains(key),
            "no `{key}` in the status: {status}"
        );
    }
    mount.drain();
    let text = rewindfs(&["status", &mount.root().display().to_string()], None).ok();
    assert!(!text.trim().is_empty(), "status without --json prints text");
    let path = mount.root().display().to_string();
    let wrong = rewindfs(&["status", &path, "--price", "1"], None);
    assert_eq!(wrong.code, Some(2), "{wrong}");
    assert!(wrong.stderr.contains("expected two prices"), "{wrong}");
}

#[test]
fn a_stale_mountpoint_is_cleaned_by_the_next_mount() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    fs::write(mount.path("f"), "content").unwrap();
    mount.kill9();
    let stale = fs::metadata(mount.root()).unwrap_err();
    assert_eq!(
        stale.raw_os_error(),
        Some(rustix::io::Errno::NOTCONN.raw_os_error()),
        "{stale}"
    );
    mount.recover(Cache::Kept);
    assert_eq!(fs::read_to_string(mount.path("f")).unwrap(), "content");
    mount.umount();
}
