//! Calls that wait for a disk or for the kernel leave other calls alone.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::wait_until;

/// The time within which what must not wait answers.
const SOON: Duration = Duration::from_secs(20);

/// A process that is stopped until this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(process: u32) -> Self {
        signal("STOP", process);
        Self(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("CONT", self.0);
    }
}

fn signal(name: &str, process: u32) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(sent.unwrap().success(), "kill -{name} {process}");
}

fn begin(mount: &TestMount, script: &str) -> Child {
    Command::new("sh")
        .args(["-euc", script])
        .current_dir(mount.root())
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn others_are_answered_while_the_disk_of_the_cache_directory_hangs() {
    let (disk, bucket) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // A mount of its own is a disk that can be stopped.
    let disk = TestMount::start(&Place::local(disk.path()), &[]);
    disk.sh("mkdir cache");
    let cache = disk.path("cache").display().to_string();
    let mount = TestMount::start(&Place::local(bucket.path()), &["--cache-dir", &cache]);
    mount.sh("mkdir d; for n in $(seq 50); do echo $n > d/$n; done; ls -l d > /dev/null");
    mount.drain();

    let stopped = Stopped::new(disk.daemon_id());
    let mut writers: Vec<Child> = (0..8)
        .map(|n| begin(&mount, &format!("echo late > late{n}")))
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    for round in 0..20 {
        let script = format!(
            "ls -la d | wc -l; test ! -e d/missing{round}; stat -c %s d/7; ls d/.versions/@files | wc -l"
        );
        let told = mount.sh_within(&script, SOON);
        assert_eq!(
            told.split_whitespace().collect::<Vec<_>>(),
            ["53", "2", "50"]
        );
    }
    let waiting = writers
        .iter_mut()
        .filter_map(|writer| writer.try_wait().unwrap());
    assert_eq!(waiting.count(), 0, "the writers wait for the disk");
    drop(stopped);
    let ended = wait_until(Duration::from_secs(60), || {
        let is_done = |writer: &mut Child| {
            writer
                .try_wait()
                .unwrap()
                .is_some_and(|status| status.success())
        };
        writers.iter_mut().all(is_done)
    });
    assert!(ended);
    assert_eq!(
        mount.sh("cat late? | sort | uniq -c | tr -s ' '").trim(),
        "8 late"
    );
}

#[test]
fn others_are_answered_while_the_kernel_is_told_of_thousands_of_changes() {
    let bucket = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(bucket.path()), &[]);
    mount.sh_within(
        "mkdir d e; for n in $(seq 2000); do echo one > d/$n; done; mkdir d/.versions/one
        for n in $(seq 2000); do echo two > d/$n; done; mkdir d/.versions/two; echo here > e/f",
        Duration::from_secs(200),
    );
    let script =
        format!("for time in one two one two; do {PROGRAM} restore d@$time > /dev/null; done");
    let mut restores = begin(&mount, &script);
    let mut rounds = 0;
    while restores.try_wait().unwrap().is_none() {
        let script = format!(
            "ls -l d | wc -l; cat d/{rounds} 2> /dev/null || true; echo {rounds} > e/g; cat e/g; test ! -e e/missing{rounds}"
        );
        let told = mount.sh_within(&script, SOON);
        assert!(
            told.starts_with("2001\n") && told.ends_with(&format!("\n{rounds}\n")),
            "{told}"
        );
        rounds += 1;
    }
    assert!(restores.wait().unwrap().success() && rounds > 0);
    assert_eq!(
        mount.sh("cat d/* | sort | uniq -c | tr -s ' '").trim(),
        "2000 two"
    );
}
