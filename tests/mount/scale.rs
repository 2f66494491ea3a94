//! A namespace with very many files: the time of mount, listing, traversal, rename and label, and the daemon's memory.
//!
//! The files are made through the library, by this program in a second process, because the library reads its
//! credentials from the environment.
//!
//! The limits hold for an optimized build and are checked by
//! `REWINDFS_TEST_LONG=1 cargo test --release --test mount scale:: -- --nocapture`, with 1,000,000 files, or with as many
//! thousands as `REWINDFS_TEST_THOUSANDS` says. A build without optimization may take five times as long; requests and
//! memory are the same for both.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rewindfs::backend::{Backend, BackendConfig};
use rewindfs::env::SystemEnv;
use rewindfs::store::{
    Author, CheckpointLimits, GRACE, GcMode, Ino, Kind, LeaseTimes, Linger, Namespace,
    NamespaceConfig, NewNode, Owner, ROOT, Takeover,
};
use rewindfs::task::Tasks;

use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::proxy::{Proxy, timeline};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::{scale, shell};

/// The delay added to each request.
const DELAY: Duration = Duration::from_millis(20);
/// Entries of each directory.
const ENTRIES: usize = 1000;
/// Entries of the directory that is listed.
const LISTED: usize = 10_000;
/// The environment variable that tells the second process what to make: `URL ENDPOINT COUNT`.
const MARK: &str = "REWINDFS_TEST_PLANT";
/// The limit of the daemon's memory, MiB; and for each thousand inodes that the kernel references, KiB.
const RESIDENT_MAX: u64 = 320;
const REFERENCED_MAX: u64 = 80;

/// What took longer or more than it may. It is reported at the end: making very many files takes hours, and the rest is worth knowing.
#[derive(Default)]
struct Missed(Vec<String>);

impl Missed {
    /// Compares a time with its limit, which is wider in a build without optimization.
    fn time(&mut self, what: &str, took: Duration, promised: Duration) {
        let promised = promised * if cfg!(debug_assertions) { 5 } else { 1 };
        if took >= promised {
            self.0
                .push(format!("{what}: {took:?}, promised {promised:?}"));
        }
    }

    fn number(&mut self, what: &str, found: u64, most: u64) {
        if found > most {
            self.0.push(format!("{what}: {found}, at most {most}"));
        }
    }
}

#[test]
fn very_many_files_are_mounted_listed_and_traversed() {
    if let Ok(order) = std::env::var(MARK) {
        plant(&order);
        return;
    }
    let Some(server) = S3Server::start() else {
        return;
    };
    let directories = match std::env::var("REWINDFS_TEST_THOUSANDS") {
        Ok(thousands) => thousands.parse().unwrap(),
        Err(_) => scale(12, 1000),
    };
    let direct = server.place("scale");
    plant_elsewhere(&direct, directories);

    let proxy = Proxy::start(server.address(), DELAY);
    let place = Place::s3(&format!("{BUCKET}/scale"), &proxy.endpoint());
    let start = Instant::now();
    let mut mount = TestMount::start(&place, &[]);
    let took = start.elapsed();
    println!("mount: {took:?}, {} requests", proxy.mark());
    println!("{}", timeline(&proxy.since(0)));
    let mut missed = Missed::default();
    missed.time("mount", took, Duration::from_secs(2));

    // Compactions that the session before has left read and write tables as well.
    proxy.wait_quiet(Duration::from_secs(3), Duration::from_secs(600));
    list(&mount, &proxy, &mut missed);
    rename_and_label(&mount, &proxy, &mut missed);
    walk(&mount, &proxy, directories, &mut missed);
    // The kernel has cached all inodes, and dropping them takes a while.
    let start = Instant::now();
    mount.umount();
    println!("umount: {:?}", start.elapsed());
    assert!(missed.0.is_empty(), "{}", missed.0.join("\n"));
}

/// Lists one directory twice.
fn list(mount: &TestMount, proxy: &Proxy, missed: &mut Missed) {
    for (what, promised, most) in [("cold", 2500, 25), ("warm", 1200, 0)] {
        let mark = proxy.mark();
        let ran = shell::sh_within(
            &mount.root(),
            "ls -l all/big | wc -l",
            Duration::from_secs(60),
        );
        let took = ran.took;
        // Requests of the engine's background tasks are not counted.
        let requests: Vec<_> = proxy
            .since(mark)
            .into_iter()
            .filter(|request| request.target.contains("/compacted/"))
            .collect();
        assert_eq!(ran.ok().trim(), (LISTED + 1).to_string());
        println!("ls {what}: {took:?}, {} requests", requests.len());
        print!("{}", timeline(&requests));
        missed.number(
            &format!("requests of ls {what}"),
            requests.len() as u64,
            most,
        );
        missed.time(&format!("ls {what}"), took, Duration::from_millis(promised));
    }
}

/// Renames the directory that holds everything and labels it: both cost the same for any number of files.
fn rename_and_label(mount: &TestMount, proxy: &Proxy, missed: &mut Missed) {
    let label = format!("{PROGRAM} label create moved before");
    for (what, script) in [("rename", "mv all moved; sync ."), ("label", &label)] {
        let mark = proxy.mark();
        let ran = shell::sh_within(&mount.root(), script, Duration::from_secs(60));
        let took = ran.took;
        ran.ok();
        let requests = proxy.since(mark).len();
        println!("{what}: {took:?}, {requests} requests");
        missed.time(what, took, Duration::from_millis(500));
    }
}

/// Traverses the whole tree and checks the daemon's memory.
fn walk(mount: &TestMount, proxy: &Proxy, directories: usize, missed: &mut Missed) {
    let before = resident(mount, "VmRSS");
    let mark = proxy.mark();
    let ran = shell::sh_within(
        &mount.root(),
        "find . -type f -size -2 | wc -l",
        Duration::from_secs(1200 + directories as u64),
    );
    let took = ran.took;
    let files = directories * ENTRIES + LISTED;
    assert_eq!(ran.ok().trim(), files.to_string());
    let (after, most) = (resident(mount, "VmRSS"), resident(mount, "VmHWM"));
    println!(
        "find: {took:?}, {} requests; resident before {before} MiB, after {after}, at most {most}: {} bytes for each inode that the kernel references",
        proxy.since(mark).len(),
        (after.saturating_sub(before) << 20) / files as u64
    );
    let bound = RESIDENT_MAX + directories as u64 * REFERENCED_MAX / 1024;
    missed.number("MiB resident", most, bound);
}

/// A field of the daemon's memory in `/proc`, MiB.
fn resident(mount: &TestMount, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mount.daemon_id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse::<u64>().unwrap() / 1024
}

/// Makes the files in a process with the credentials of `place`.
fn plant_elsewhere(place: &Place, directories: usize) {
    let order = format!(
        "{} {} {directories}",
        place.url,
        place.endpoint.as_deref().unwrap()
    );
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "scale::very_many_files_are_mounted_listed_and_traversed",
            "--nocapture",
        ])
        .env(MARK, order)
        .envs(place.variables.iter().cloned());
    let limit = Duration::from_secs(1800 + directories as u64);
    let words = shell::run(&mut command, limit).ok();
    print!(
        "{}",
        words
            .lines()
            .filter(|l| l.contains("planted"))
            .collect::<String>()
    );
    println!();
}

/// Makes the files that `order` describes.
fn plant(order: &str) {
    let words: Vec<&str> = order.split(' ').collect();
    let directories: usize = words[2].parse().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let start = Instant::now();
    runtime.block_on(async {
        let config = BackendConfig {
            endpoint: Some(words[1].to_owned()),
            ..BackendConfig::default()
        };
        let backend = Backend::open(words[0], &config).unwrap();
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let config = namespace_config(cache.path());
        let namespace = Namespace::open(&backend, "main", config, Arc::new(SystemEnv), tasks)
            .await
            .unwrap();
        let all = plant_directory(&namespace, ROOT, "all", 0).await;
        plant_directory(&namespace, all, "big", LISTED).await;
        for number in 0..directories {
            plant_directory(&namespace, all, &format!("d{number:05}"), ENTRIES).await;
            if number % 20 == 19 {
                namespace.drain().await.unwrap();
            }
        }
        namespace.close().await.unwrap();
    });
    println!(
        "planted {} files in {:?}",
        directories * ENTRIES,
        start.elapsed()
    );
}

fn namespace_config(cache: &Path) -> NamespaceConfig {
    NamespaceConfig {
        reclaim: GcMode::OnRequest,
        grace: GRACE,
        checkpoints: CheckpointLimits::default(),
        takeover: Takeover::Now,
        lease: LeaseTimes::default(),
        backend_timeout: None,
        cache_dir: cache.to_owned(),
        cache_bytes: 0,
        memory_bytes: 256 << 20,
        dirty_bytes_max: 1 << 30,
        linger: Linger::AtOnce,
        host: "test".to_owned(),
        owner: Owner::default(),
    }
}

/// A directory with its entries: every tenth holds a few bytes, the others none.
async fn plant_directory(namespace: &Namespace, parent: Ino, name: &str, entries: usize) -> Ino {
    let author = Author::default();
    let directory = namespace
        .tree()
        .create(parent, name.as_bytes(), node(Kind::Directory), &author)
        .await
        .unwrap()
        .ino;
    for entry in 0..entries {
        plant_file(namespace, directory, entry, &author).await;
    }
    directory
}

async fn plant_file(namespace: &Namespace, directory: Ino, entry: usize, author: &Author) {
    let name = format!("entry-{entry:06}.txt");
    let (_, file) = namespace
        .tree()
        .create_open(directory, name.as_bytes(), node(Kind::File), author)
        .await
        .unwrap();
    if entry.is_multiple_of(10) {
        let bytes = Bytes::copy_from_slice(name.as_bytes());
        file.write(0, bytes, author).await.unwrap();
    }
    if let Some(fixed) = file.flush(author, None).await.unwrap() {
        file.save(fixed).await.unwrap();
    }
}

fn node(kind: Kind) -> NewNode {
    NewNode {
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: Bytes::new(),
        xattrs: Vec::new(),
    }
}
