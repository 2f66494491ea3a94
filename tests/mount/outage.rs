//! The bucket is unreachable: work on cached files continues without delay, and every save during the outage is listed at the
//! time it was made.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::proxy::Proxy;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::{scale, shell};

/// Number of files.
const FILES: usize = 8;
/// Rounds of commands, at most.
const ROUNDS: usize = 250;
/// The longest time of a command; the deadlines of requests to the bucket are many times as long.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A save: when its command began and ended, in milliseconds since 1970, and the content it left.
#[derive(Debug)]
struct Save {
    began: u64,
    ended: u64,
    text: String,
}

/// The saves of each name, in order.
type Saves = BTreeMap<String, Vec<Save>>;

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// The milliseconds since 1970 of a name like `2026-11-20T21-26-48.123Z.txt`.
fn milliseconds(stamp: &str) -> u64 {
    let (date, rest) = stamp.split_once('T').expect("a stamp");
    let (time, _) = rest.split_once('Z').expect("a stamp in UTC");
    let text = format!("{date}T{}Z", time.replace('-', ":"));
    let stamp: jiff::Timestamp = text.parse().unwrap();
    u64::try_from(stamp.as_millisecond()).unwrap()
}

/// The versions of a name: time and content.
fn versions(mount: &TestMount, name: &str) -> Vec<(u64, String)> {
    let directory = mount.path(format!("work/.versions/@files/{name}"));
    let mut stamps: Vec<String> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    stamps.sort();
    stamps
        .iter()
        .map(|stamp| {
            let text = fs::read_to_string(directory.join(stamp)).unwrap();
            (milliseconds(stamp), text)
        })
        .collect()
}

/// Fails unless every save is a version of its name with its content, at a time between the command's begin and end.
#[track_caller]
fn check(what: &str, mount: &TestMount, saves: &Saves) {
    for (name, saves) in saves {
        let found = versions(mount, name);
        for save in saves {
            let listed = found
                .iter()
                .any(|(at, text)| (save.began..=save.ended).contains(at) && *text == save.text);
            assert!(
                listed,
                "{what}: {name} has no version for {save:?}; it has {found:?}"
            );
        }
    }
}

/// The small files that are saved and moved later.
fn plant(mount: &TestMount) {
    fs::create_dir(mount.path("work")).unwrap();
    for round in 0..ROUNDS {
        let text = format!("moved {round}\n");
        fs::write(mount.path(format!("work/from{round}.txt")), text).unwrap();
    }
    for number in 0..FILES {
        let text = format!("round none of f{number}\n");
        fs::write(mount.path(format!("work/f{number}.txt")), text).unwrap();
        fs::write(mount.path(format!("work/g{number}.txt")), "old\n").unwrap();
    }
}

#[test]
fn every_save_during_an_outage_is_listed_at_its_own_time() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let place = Place::s3(&format!("{BUCKET}/outage"), &proxy.endpoint());
    let mut mount = TestMount::start(&place, &[]);
    plant(&mount);
    mount.remount(Cache::Kept);
    mount.sh("ls -l work; cat work/*");

    proxy.refuse(true);
    let (mut saves, mut slow) = (Saves::new(), Vec::new());
    let start = SystemTime::now();
    let lasts = scale(Duration::from_secs(10), Duration::from_secs(60));
    let mut round = 0;
    while start.elapsed().unwrap() < lasts && round < ROUNDS {
        let number = round % FILES;
        let mut command = |script: String, name: &str, text: String| {
            let began = now();
            let ran = shell::sh_within(&mount.path("work"), &script, Duration::from_secs(60));
            let ended = now();
            if ran.took > AT_ONCE {
                slow.push(ran.to_string());
            }
            ran.ok();
            saves
                .entry(name.to_owned())
                .or_default()
                .push(Save { began, ended, text });
        };
        command(
            format!("sed -i 's/round [a-z0-9]*/round {round}/' f{number}.txt"),
            &format!("f{number}.txt"),
            format!("round {round} of f{number}\n"),
        );
        command(
            format!("echo 'round {round} anew' > .new && mv .new g{number}.txt"),
            &format!("g{number}.txt"),
            format!("round {round} anew\n"),
        );
        command(
            format!("mv from{round}.txt to{round}.txt"),
            &format!("to{round}.txt"),
            format!("moved {round}\n"),
        );
        round += 1;
        std::thread::sleep(Duration::from_millis(300));
    }
    println!(
        "{round} rounds without the bucket, {} slow commands",
        slow.len()
    );
    assert!(round > 8, "{round} rounds only");
    // One command may be slow because the machine is busy.
    assert!(slow.len() <= 1, "slow commands:\n{}", slow.join("\n"));
    let pending = mount.status();
    proxy.refuse(false);

    check("before it is in the bucket", &mount, &saves);
    let after = shell::sh_within(&mount.root(), "cat work/*", Duration::from_secs(60)).ok();
    assert!(after.contains("round"), "{after}\n{pending}");
    drain(&mount);
    check("in the bucket", &mount, &saves);
    mount.remount(Cache::Wiped);
    check("on another machine", &mount, &saves);
}

/// Runs `rewindfs drain` until it succeeds: it fails while an upload that failed in the outage is still being retried.
fn drain(mount: &TestMount) {
    let root = mount.root();
    let drained = crate::support::wait_until(Duration::from_secs(90), || {
        let mut command = std::process::Command::new(crate::support::mount::PROGRAM);
        command.arg("drain").arg(&root);
        shell::run(&mut command, Duration::from_secs(90)).code == Some(0)
    });
    assert!(drained, "does not drain after the outage");
}
