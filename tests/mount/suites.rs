//! Data tested by other suites: fsx does random operations on one file and checks every byte, fio verifies what its jobs wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::s3s::S3sServer;
use crate::support::{scale, shell, tree};

/// All operations of fsx.
const FSX: &str = "
flen = 1048576
[opsize]
max = 65536
min = 0
align = 1
[weights]
close_open = 5
invalidate = 2
read = 10
write = 10
mapread = 10
mapwrite = 10
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 5
sendfile = 3
posix_fadvise = 2
copy_file_range = 5
";
/// On average one of this many operations closes the file and opens it again: the sum of the weights over that of
/// `close_open`.
const OPERATIONS_PER_CLOSE: usize = 72 / 5;
/// The message of fsx for posix_fallocate with a length of 0.
const NO_PROGRAM: &str = "Test file system does not support posix_fallocate.";
/// The time limit of one seed.
const SEED_LIMIT: Duration = Duration::from_secs(3600);

/// The result of a seed.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// All operations passed.
    Passed,
    /// The seed is unusable on every file system: fsx draws posix_fallocate with a length of 0, gets the EINVAL that POSIX
    /// requires, and ends.
    NoProgram,
}

/// Runs one seed, or twenty in the long mode, from `first` or from `REWINDFS_TEST_SEED` on. For each unusable seed it
/// runs one more.
fn each_seed(first: u64, run: impl Fn(u64) -> Outcome) {
    let asked = std::env::var("REWINDFS_TEST_SEED").ok();
    let asked = asked.and_then(|seed| seed.parse().ok());
    let mut seed = asked.filter(|seed| *seed > first).unwrap_or(first);
    let mut end = (first + scale(1, 20)).max(seed + 1);
    let most = end + 5;
    while seed < end {
        if run(seed) == Outcome::NoProgram {
            println!("seed {seed}: fsx ends itself on a plain directory too");
            end += 1;
            assert!(
                end < most,
                "too many seeds are unusable: check the version of fsx"
            );
        }
        seed += 1;
    }
}

/// The number of operations of a seed.
fn operations() -> usize {
    scale(10_000, 100_000)
}

#[test]
fn fsx_on_a_local_directory() {
    each_seed(1, |seed| on_a_local_directory(seed, None));
}

#[test]
fn fsx_passes_across_remounts() {
    each_seed(201, |seed| {
        on_a_local_directory(seed, Some(scale(2500, 10_000)))
    });
}

#[test]
fn fsx_on_an_s3_server() {
    each_seed(301, |seed| on_an_s3_server(seed, &[]));
}

#[test]
fn fsx_on_an_s3_server_with_a_small_cache() {
    each_seed(101, |seed| {
        on_an_s3_server(seed, &["--cache-size", "8M", "--memory", "64M"])
    });
}

fn on_a_local_directory(seed: u64, remount_every: Option<usize>) -> Outcome {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    exercise(&mut mount, seed, remount_every)
}

/// Uses the server that keeps its objects as files: moto keeps objects in memory, too little for all versions of a long
/// run, and cannot list many objects while others are added and deleted.
fn on_an_s3_server(seed: u64, flags: &[&str]) -> Outcome {
    let Some(server) = S3sServer::start() else {
        return Outcome::Passed;
    };
    let mut mount = TestMount::start(&server.place("fsx"), flags);
    exercise(&mut mount, seed, None)
}

/// Runs one seed on a file, with a remount after about every `remount_every` operations. Then the file and its newest
/// version must equal what the same seed leaves on a plain directory, and the log must give the rows of the index.
fn exercise(mount: &mut TestMount, seed: u64, remount_every: Option<usize>) -> Outcome {
    let outside = tempfile::tempdir().unwrap();
    let name = format!("seed-{seed}");
    let fast = ["/dev/shm", "/tmp"]
        .into_iter()
        .find(|place| Path::new(place).is_dir());
    let plain = tempfile::tempdir_in(fast.unwrap()).unwrap();
    let expected = plain.path().join("expected");
    let start = Instant::now();
    let reference = shell::run(&mut fsx(seed, &expected, outside.path()), SEED_LIMIT);
    if reference.code == Some(1) && reference.stderr.contains(NO_PROGRAM) {
        return Outcome::NoProgram;
    }
    reference.ok();
    let remounts = match remount_every {
        None => {
            let ran = shell::run(
                &mut fsx(seed, &mount.path(&name), outside.path()),
                SEED_LIMIT,
            );
            assert!(
                ran.code == Some(0),
                "seed {seed}: {ran}\n{}",
                mount.log_tail()
            );
            0
        }
        Some(operations) => paused(mount, seed, (outside.path(), &name), operations),
    };
    let expected = fs::read(&expected).unwrap();
    let same = |path: &Path, what: &str| {
        let found = fs::read(path).unwrap();
        let at = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert!(
            found == expected,
            "seed {seed}, {what}: {} bytes, expected {}, first difference {at:?}",
            found.len(),
            expected.len()
        );
    };
    same(&mount.path(&name), "the file");
    let versions = mount.path(format!(".versions/@files/{name}"));
    same(&versions.join("latest"), "the newest version");
    mount.remount(Cache::Wiped);
    same(&mount.path(&name), "the file after a remount");
    same(&versions.join("latest"), "the newest version then");
    println!(
        "seed {seed}: {} operations, {remounts} remounts, {} versions, {:.1} s; {}",
        operations(),
        fs::read_dir(&versions).unwrap().count(),
        start.elapsed().as_secs_f64(),
        mount.check_log("main")
    );
    Outcome::Passed
}

/// The same run, paused after about every `operations` operations for a remount. Returns the number of remounts.
fn paused(
    mount: &mut TestMount,
    seed: u64,
    (outside, name): (&Path, &str),
    operations: usize,
) -> usize {
    let (library, pause) = (outside.join("pause.so"), outside.join("pause"));
    shell::sh(
        Path::new(env!("CARGO_MANIFEST_DIR")),
        &format!(
            "cc -shared -fPIC -O1 -Wall -o {} tests/mount/pause.c -ldl",
            library.display()
        ),
    );
    let mut run = fsx(seed, &mount.path(name), outside)
        .env("LD_PRELOAD", &library)
        .env("PAUSE_BELOW", mount.root())
        .env("PAUSE_AT", &pause)
        .env(
            "PAUSE_EVERY",
            (operations / OPERATIONS_PER_CLOSE).to_string(),
        )
        .stdout(Stdio::null())
        .stderr(fs::File::create(outside.join("stderr")).unwrap())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let mut remounts = 0;
    let status = loop {
        if let Some(status) = run.try_wait().unwrap() {
            break status;
        }
        if pause.exists() {
            mount.remount(if remounts % 2 == 0 {
                Cache::Wiped
            } else {
                Cache::Kept
            });
            remounts += 1;
            fs::remove_file(&pause).unwrap();
        }
        if start.elapsed() > SEED_LIMIT {
            run.kill().ok();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = fs::read_to_string(outside.join("stderr")).unwrap();
    assert!(
        status.success(),
        "seed {seed}: {status}\n{said}\n{}",
        mount.log_tail()
    );
    assert!(remounts > 0, "seed {seed} was never stopped");
    remounts
}

/// The program with its settings, on one file.
fn fsx(seed: u64, file: &Path, outside: &Path) -> Command {
    let settings = outside.join("fsx.toml");
    fs::write(&settings, FSX).unwrap();
    let mut command = Command::new(program());
    command
        .args(["-q", "-S", &seed.to_string()])
        .args(["-N", &operations().to_string(), "-f"])
        .arg(settings)
        .arg("-P")
        .arg(outside)
        .arg(file)
        .stdin(Stdio::null());
    command
}

/// The fsx that `scripts/setup` installs, else the one on the path.
fn program() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fsx/bin/fsx");
    if own.is_file() {
        return own;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("fsx"))
        .find(|program| program.is_file())
        .expect("no fsx: run `scripts/setup tests`")
}

#[test]
fn fio_verifies_what_eight_jobs_wrote() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start(&Place::local(store.path()), &[]);
    let size = scale("8m", "64m");
    let outside = tempfile::tempdir().unwrap();
    let jobs = outside.path().join("verify.fio");
    fs::write(
        &jobs,
        format!(
            "[global]\ndirectory={}\nioengine=psync\nverify=crc32c\nverify_fatal=1\ndo_verify=1\n\
             verify_backlog=256\nsize={size}\nfallocate=none\nnumjobs=4\n\
             [random]\nrw=randwrite\nbsrange=512-64k\nbs_unaligned=1\nfsync=64\n\
             [sequential]\nrw=write\nbs=128k\n",
            mount.root().display()
        ),
    )
    .unwrap();
    let told = shell::sh_within(
        outside.path(),
        &format!("fio --minimal {}", jobs.display()),
        Duration::from_secs(600),
    )
    .ok();
    let finished = told.lines().filter(|line| line.starts_with("3;")).count();
    assert_eq!(finished, 8, "jobs:\n{told}");
    let before = tree::read_tree(&mount.root());
    assert_eq!(before.len(), 8, "a file for each job");
    mount.remount(Cache::Wiped);
    tree::assert_equal("after a remount", &before, &tree::read_tree(&mount.root()));
}
