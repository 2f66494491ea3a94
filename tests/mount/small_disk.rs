//! A cache directory on a disk smaller than the written data: writers wait for uploads, and get ENOSPC only while uploads fail.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::disk::Disk;
use crate::support::mount::TestMount;
use crate::support::place::Place;
use crate::support::proxy::{Failure, Proxy};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::s3s::S3sServer;
use crate::support::{scale, shell, wait_until};

/// The size of the disk.
const DISK: &str = "64m";
/// The size of one write.
const PIECE: usize = 1 << 20;
/// The errno for a full disk.
const ENOSPC: i32 = 28;

/// A mount whose cache lies on a small disk, and that disk.
struct SmallDiskMount {
    mount: TestMount,
    _disk: Disk,
    cache: tempfile::TempDir,
}

fn small(place: &Place, flags: &[&str]) -> Option<SmallDiskMount> {
    let cache = tempfile::tempdir().unwrap();
    let disk = Disk::at(cache.path(), DISK)?;
    let path = cache.path().display().to_string();
    let mut all = vec!["--cache-dir", &path];
    all.extend(flags);
    Some(SmallDiskMount {
        mount: TestMount::start(place, &all),
        _disk: disk,
        cache,
    })
}

/// Deletes everything on the disk, as the loss of the machine does.
fn wipe(cache: &Path) {
    shell::sh(cache, "rm -rf -- * .[!.]*");
}

/// Bytes that identify their file and offset.
fn piece(file: u64, number: u64) -> Vec<u8> {
    let word = |at: usize| (file << 40) + (number << 20) + at as u64;
    (0..PIECE / 8)
        .flat_map(|at| word(at * 8).to_le_bytes())
        .collect()
}

/// Copies one file several times as large as the disk with dd(1), then many files that are together larger with cp(1).
fn copies_that_do_not_fit(place: &Place) {
    let Some(mut small) = small(place, &[]) else {
        return;
    };
    let source = tempfile::tempdir().unwrap();
    let (large, count) = (scale(160, 500), scale(120, 500));
    let script = format!(
        "mkdir many
        openssl enc -aes-128-ctr -nosalt -pass pass:x < /dev/zero 2>/dev/null | head -c {large}M > large || true
        for n in $(seq {count}); do dd if=large of=many/$n bs=1M count=1 skip=$((n % {large})) status=none; done
        ls many | wc -l"
    );
    let made = shell::sh(source.path(), &script);
    assert_eq!(made.trim(), count.to_string());
    let from = source.path().display();
    let dd = format!("dd if={from}/large of=large bs=1M status=none && cmp large {from}/large");
    small.mount.sh_within(&dd, Duration::from_secs(240));
    let cp = format!("cp -r {from}/many . && diff -r many {from}/many");
    small.mount.sh_within(&cp, Duration::from_secs(240));
    // Small writes are kept in the journal, which is on the same disk.
    small.mount.sh_within(
        "mkdir small; for n in $(seq 40); do head -c 60000 /dev/urandom > small/$n; done; cat small/* | md5sum > sum",
        Duration::from_secs(240),
    );
    small.mount.umount();
    wipe(small.cache.path());
    small.mount.mount();
    let compare = format!(
        "cmp large {from}/large && diff -r many {from}/many && cat small/* | md5sum | cmp - sum"
    );
    small.mount.sh(&compare);
    small.mount.umount();
}

#[test]
fn copies_larger_than_the_disk_go_to_a_local_store() {
    let store = tempfile::tempdir().unwrap();
    copies_that_do_not_fit(&Place::local(store.path()));
}

#[test]
fn copies_larger_than_the_disk_go_to_an_s3_server() {
    let Some(server) = S3sServer::start() else {
        return;
    };
    copies_that_do_not_fit(&server.place("small"));
}

#[test]
fn writes_larger_than_the_cache_disk_survive_a_kill() {
    let store = tempfile::tempdir().unwrap();
    let Some(mut small) = small(&Place::local(store.path()), &[]) else {
        return;
    };
    let path = small.mount.path("f");
    let mut written = 0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let file = File::create(&path).unwrap();
            (0..).find(|n| file.write_all_at(&piece(1, *n), n * PIECE as u64).is_err())
        });
        let far = || fs::metadata(&path).is_ok_and(|found| found.len() > 100 << 20);
        assert!(
            wait_until(Duration::from_secs(120), far),
            "{}",
            small.mount.log_tail()
        );
        small.mount.kill9();
        written = writer.join().unwrap().unwrap();
    });
    assert!(written >= 100, "{written} pieces");
    small.mount.mount();
    let file = File::open(small.mount.path("f")).unwrap();
    let mut found = vec![0; PIECE];
    for number in 0..written {
        file.read_exact_at(&mut found, number * PIECE as u64)
            .unwrap();
        assert!(found == piece(1, number), "piece {number} of {written}");
    }
    drop(file);
    small.mount.umount();
}

#[test]
fn a_program_that_forked_and_keeps_its_file_open_does_not_hold_the_disk() {
    let store = tempfile::tempdir().unwrap();
    let Some(mut small) = small(&Place::local(store.path()), &[]) else {
        return;
    };
    // Small files are kept in the journal, together more than the disk has.
    let script = r#"
import os
held = os.open("held", os.O_RDWR | os.O_CREAT)
os.write(held, b"first\n")
if os.fork() == 0:
    os.close(held)          # a FLUSH, and no RELEASE
    os._exit(0)
os.wait()
os.fsync(held)
os.mkdir("many")
bytes = os.urandom(60000)
for number in range(2000):
    with open(f"many/{number}", "wb") as file:
        file.write(bytes)
os.write(held, b"second\n")
"#;
    fs::write(small.cache.path().join("script.py"), script).unwrap();
    let run = format!("python3 {}/script.py", small.cache.path().display());
    small.mount.sh_within(&run, Duration::from_secs(240));
    assert_eq!(
        small.mount.sh("cat held; ls many | wc -l"),
        "first\nsecond\n2000\n"
    );
    // The state at the close of the child is a version of its own.
    let versions = small.mount.sh("cat .versions/@files/held/2*");
    assert_eq!(versions, "first\nfirst\nsecond\n");
    small.mount.umount();
    wipe(small.cache.path());
    small.mount.mount();
    assert_eq!(small.mount.sh("cat held"), "first\nsecond\n");
    small.mount.umount();
}

/// Appends until ENOSPC. Returns the number of successful writes and the time of the refused one.
fn fill(file: &mut File, limit: u64) -> (u64, Duration) {
    for number in 0.. {
        assert!(number < limit, "the disk is never full");
        let start = Instant::now();
        match file.write(&piece(1, number)) {
            Ok(count) => assert_eq!(count, PIECE),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(ENOSPC), "{error}");
                return (number, start.elapsed());
            }
        }
    }
    unreachable!("the range has no end")
}

#[test]
fn a_full_cache_disk_is_enospc_only_while_the_store_fails() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let place = Place::s3(&format!("{BUCKET}/full"), &proxy.endpoint());
    let Some(mut small) = small(&place, &["--retries", "none"]) else {
        return;
    };
    proxy.fail(Some(Failure {
        methods: &[],
        status: "503 Slow Down",
        code: "SlowDown",
    }));
    let mut file = File::create(small.mount.path("f")).unwrap();
    let (taken, waited) = fill(&mut file, 64);
    assert!(taken >= 40, "{taken} pieces on a disk of 64");
    assert!(waited < Duration::from_secs(30), "{waited:?}");
    // Operations on names use a reserve of the disk.
    small.mount.sh("mkdir d; echo x > d/x; mv d/x d/y; rm d/y");
    proxy.fail(None);
    for number in taken..taken + 60 {
        let wrote = wait_until(Duration::from_secs(60), || {
            file.write(&piece(1, number)).is_ok()
        });
        assert!(wrote, "piece {number}: {}", small.mount.log_tail());
    }
    drop(file);
    small.mount.umount();
    wipe(small.cache.path());
    small.mount.mount();
    let file = File::open(small.mount.path("f")).unwrap();
    let mut found = vec![0; PIECE];
    for number in 0..taken + 60 {
        file.read_exact_at(&mut found, number * PIECE as u64)
            .unwrap();
        assert!(found == piece(1, number), "piece {number}");
    }
    drop(file);
    small.mount.umount();
}

#[test]
fn a_disk_filled_by_other_programs_is_enospc_at_once() {
    let store = tempfile::tempdir().unwrap();
    let Some(mut small) = small(&Place::local(store.path()), &[]) else {
        return;
    };
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(small.mount.path("f"))
        .unwrap();
    shell::sh(
        small.cache.path(),
        "head -c 100000000 /dev/zero > others || true",
    );
    let (taken, waited) = fill(&mut file, 8);
    assert_eq!(taken, 0);
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    shell::sh(small.cache.path(), "rm others");
    assert_eq!(file.write(&piece(1, 0)).unwrap(), PIECE);
    drop(file);
    small.mount.umount();
}
