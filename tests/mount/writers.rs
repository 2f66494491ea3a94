//! Two writers of one namespace: the second fences the first, and the changes that the first acknowledged are restored.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rewindfs::backend::{Backend, BackendConfig};
use rewindfs::env::{Env, SystemEnv};
use rewindfs::store::{
    Author, CheckConfig, CheckpointLimits, GRACE, GcMode, Kind, LeaseTimes, Linger, Namespace,
    NamespaceConfig, NewNode, Op, Owner, ROOT, StoreError, Takeover, check_log,
};
use rewindfs::task::Tasks;

use crate::support::mount::{PROGRAM, TestMount, force_unmount, is_mounted, mount_arguments};
use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::support::shell::{self, CommandResult};
use crate::support::wait_until;

/// The time within which the first writer reports that it was fenced; it checks every second.
const SECONDS: Duration = Duration::from_secs(10);

/// Runs the program.
fn rewindfs(arguments: &[&str], place: &Place) -> CommandResult {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .envs(place.variables.iter().cloned());
    shell::run(&mut command, Duration::from_secs(60))
}

fn is_fenced(mount: &TestMount) -> bool {
    mount.status()["fenced"] == true
}

/// `umount` of a fenced mount: it exits with an error that names what is not uploaded, and the mount is gone.
#[track_caller]
fn end_fenced(mount: &mut TestMount, place: &Place) -> CommandResult {
    let root = mount.root();
    let ran = rewindfs(&["umount", &root.to_string_lossy()], place);
    assert_eq!(ran.code, Some(1), "{ran}\n{}", mount.log_tail());
    assert!(
        ran.stderr
            .contains("another writer has taken the namespace"),
        "{ran}"
    );
    assert!(!is_mounted(&root), "still mounted: {ran}");
    let status = mount.ended(Duration::from_secs(30));
    assert_eq!(status.and_then(|status| status.code()), Some(1));
    ran
}

/// The versions of a name that are marked `conflict`, oldest first.
fn conflicts(mount: &TestMount, name: &str) -> Vec<String> {
    let listed = mount.sh(&format!(
        r#"
        for version in '.versions/@files/{name}'/2*; do
            op=$(getfattr --only-values -n user.versions.op "$version")
            if [ "$op" = conflict ]; then cat "$version"; fi
        done
        "#
    ));
    listed.lines().map(str::to_owned).collect()
}

/// A second mount of the same namespace. The first daemon is stopped until the second has the namespace, because its flush of
/// each second would upload more of what it acknowledged.
fn mount_beside(first: &TestMount, place: &Place) -> TestMount {
    let id = first.daemon_id();
    let here = first.cache();
    shell::sh(&here, &format!("kill -STOP {id}"));
    let second = TestMount::start(place, &[]);
    shell::sh(&here, &format!("kill -CONT {id}"));
    second
}

/// A restored conflict under a name that the live tree does not have is listed in `@deleted` and can be moved out of it.
#[track_caller]
fn check_removed(first: &TestMount) {
    assert_eq!(
        first.sh("ls .versions/@deleted d/.versions/@deleted; cat .versions/@deleted/*"),
        ".versions/@deleted:\nmoved\nnew%2Fa\nremoved\n\nd/.versions/@deleted:\nfresh\none\nmore\ntext\nfour\n"
    );
    first.sh("mv .versions/@deleted/new%2Fa a; mv d/.versions/@deleted/* d; rm a d/fresh");
    assert_eq!(
        first.sh("ls .versions/@deleted d/.versions/@deleted"),
        ".versions/@deleted:\na\nmoved\nremoved\n\nd/.versions/@deleted:\nfresh\n"
    );
}

/// Every call to a mount that lost its namespace fails with EIO. The shell stays outside: it cannot even enter the directory.
#[track_caller]
fn check_refused(first: &TestMount) {
    let root = first.root().display().to_string();
    let script = format!(
        r#"
        refused() {{ if "$@" 2> said; then echo "went through: $*"; exit 1; fi; }}
        for command in 'touch {root}/x' 'echo more >> {root}/f' 'mkdir {root}/y' 'rm {root}/f' 'mv {root}/f {root}/h' \
            'chmod 600 {root}/f' 'cat {root}/f' 'ls {root}'; do
            refused sh -c "$command"
            grep -qE '(Input/output|I/O) error' said || {{ cat said; exit 1; }}
        done
        rm -f said
        "#
    );
    let outside = tempfile::tempdir().unwrap();
    shell::sh(outside.path(), &script);
}

fn takeover(place: &Place) {
    let mut first = TestMount::start(place, &["--sync-on", "interval", "--sync-interval", "1h"]);
    first.sh("echo one > f; echo one > g; echo one > removed; mkdir d");
    first.drain();
    first.sh(r#"
        echo synced > s; sync s
        echo two > f
        echo three > f
        mkdir new; echo text > new/a
        echo fresh > d/fresh
        echo more >> g; mv g moved
        echo four > removed
        "#);
    let second = mount_beside(&first, place);
    let start = Instant::now();
    assert!(
        wait_until(SECONDS, || is_fenced(&first)),
        "{}",
        first.log_tail()
    );
    eprintln!("seen as fenced after {:?}", start.elapsed());
    check_refused(&first);
    let told = first.log_tail();
    assert_eq!(
        told.matches("stopped writing to the namespace").count(),
        1,
        "{told}"
    );
    // Of the first writer's changes only the synced ones are there.
    assert_eq!(
        second.sh("cat s f g; ls; ls d"),
        "synced\none\none\nd\nf\ng\nremoved\ns\n"
    );
    second.sh("echo other > f; echo other > d/other; rm removed");

    let ran = end_fenced(&mut first, place);
    assert!(ran.stderr.contains("stay in the cache directory"), "{ran}");
    let mut second = second;
    second.umount();
    first.mount();
    let status = first.status();
    assert_eq!(status["conflicts"]["versions"], 6, "{status}");
    assert!(
        status["conflicts"]["dropped"].as_u64() >= Some(2),
        "{status}"
    );
    let shown = rewindfs(&["status", &first.root().to_string_lossy()], place).ok();
    assert!(shown.contains("6 versions marked conflict"), "{shown}");
    assert_eq!(
        first.sh("cat s f g; ls; ls d"),
        "synced\nother\none\nd\nf\ng\ns\nother\n"
    );
    assert_eq!(conflicts(&first, "f"), ["two", "three"]);
    assert_eq!(conflicts(&first, "new%2Fa"), ["text"]);
    first.sh("test $(cat d/.versions/@files/fresh/2*) = fresh");
    check_removed(&first);
    first.sh("cp -p $(ls .versions/@files/f/2* | grep -v $(readlink .versions/@files/f/latest) | tail -1) back");
    assert_eq!(first.sh("cat back"), "three\n");
    first.remount(crate::support::mount::Cache::Kept);
    assert_eq!(first.status()["conflicts"]["versions"], 0);
    first.umount();
    first.check_log("main");
}

#[test]
fn the_second_mount_takes_over_without_lost_or_mixed_files() {
    let directory = tempfile::tempdir().unwrap();
    takeover(&Place::local(directory.path()));
}

#[test]
fn the_second_mount_takes_over_on_s3() {
    if let Some(server) = S3Server::start() {
        takeover(&server.place("takeover"));
    }
}

#[test]
fn a_recovery_that_is_killed_repeatedly_restores_everything_once() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let place = server.place("killed");
    let mut first = TestMount::start(&place, &["--sync-on", "interval", "--sync-interval", "1h"]);
    first.sh("for n in 0 1 2 3 4 5; do echo old > f$n; done");
    first.drain();
    first.sh("for n in 0 1 2 3 4 5; do echo mine $n > f$n; done");
    first.kill9();
    let mut second = TestMount::start(&place, &[]);
    second.sh("for n in 0 1 2 3 4 5; do echo other > f$n; done");
    second.umount();
    for tenths in [2, 4, 5, 6, 7, 8] {
        let mut daemon = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", PROGRAM])
            .args(mount_arguments(&place, &first.root(), &first.cache()))
            .arg("--foreground")
            .envs(place.variables.iter().cloned())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(100 * tenths));
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        force_unmount(&first.root());
    }
    first.mount();
    assert_eq!(first.sh("cat f?"), "other\n".repeat(6));
    for n in 0..6 {
        assert_eq!(conflicts(&first, &format!("f{n}")), [format!("mine {n}")]);
    }
    first.umount();
    first.check_log("main");
}

#[test]
fn a_busy_writer_reports_that_it_was_fenced() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let place = server.place("busy");
    let mut first = TestMount::start(&place, &[]);
    let root = first.root();
    let busy = std::thread::spawn(move || {
        let script =
            "n=0; while echo $n > f$n && sync f$n; do n=$((n + 1)); done 2> /dev/null; echo $n";
        shell::sh_within(&root, script, Duration::from_secs(120)).ok()
    });
    std::thread::sleep(Duration::from_secs(2));
    let mut second = TestMount::start(&place, &[]);
    let start = Instant::now();
    assert!(
        wait_until(SECONDS, || is_fenced(&first)),
        "{}",
        first.log_tail()
    );
    eprintln!("seen as fenced after {:?}", start.elapsed());
    let synced: u64 = busy.join().unwrap().trim().parse().unwrap();
    assert!(synced > 0);
    for n in 0..synced {
        assert_eq!(second.sh(&format!("cat f{n}")), format!("{n}\n"));
    }
    end_fenced(&mut first, &place);
    second.umount();
    first.mount();
    first.umount();
    first.check_log("main");
}

#[test]
fn mounts_that_take_a_namespace_in_turn_keep_synced_files() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::local(directory.path());
    let mut mounts = [TestMount::start(&place, &[]), TestMount::start(&place, &[])];
    let mut synced = Vec::new();
    for round in 0..4 {
        for (at, mount) in mounts.iter_mut().enumerate() {
            // A fenced mount ends and mounts again, which fences the other one.
            if wait_until(Duration::from_secs(3), || is_fenced(mount)) {
                end_fenced(mount, &place);
                mount.mount();
            }
            let name = format!("r{round}w{at}");
            mount.sh(&format!(
                "echo {name} > {name}; sync {name}; echo lost > acked{at}"
            ));
            synced.push(name);
        }
    }
    let [mut one, mut other] = mounts;
    assert!(wait_until(SECONDS, || is_fenced(&one)));
    end_fenced(&mut one, &place);
    for name in &synced {
        assert_eq!(other.sh(&format!("cat {name}")), format!("{name}\n"));
    }
    other.umount();
    one.mount();
    one.umount();
    one.check_log("main");
}

#[test]
fn a_wrong_clock_is_refused_to_a_writer_only() {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !Path::new(library).exists() {
        eprintln!("SKIPPED: no libfaketime, the clock of a real mount was not tested here");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = Place::local(&directory.path().join("store"));
    for name in ["files", "cache"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    let [files, cache] = ["files", "cache"].map(|name| directory.path().join(name));
    let mut mount = TestMount::start(&place, &[]);
    mount.sh("echo one > f");
    mount.umount();
    let off = |flags: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command
            .args(mount_arguments(&place, &files, &cache))
            .args(flags)
            .env("LD_PRELOAD", library)
            .env("FAKETIME", "+1h")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
        shell::run(&mut command, Duration::from_secs(60))
    };
    let ran = off(&[]);
    assert_eq!(ran.code, Some(1), "{ran}");
    let words = "the clocks differ by more than 60 s";
    assert!(ran.stderr.contains(words), "{ran}");
    let times = ran.stderr.matches('Z').count();
    assert!(times >= 2, "both times: {ran}");
    // A follower reserves no timestamps.
    let ran = off(&["--read-only"]);
    let shown = std::fs::read_to_string(files.join("f"));
    let ended = rewindfs(&["umount", &files.to_string_lossy()], &place);
    force_unmount(&files);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(shown.unwrap(), "one\n");
    ended.ok();
}

#[test]
fn namespaces_are_created_listed_changed_and_deleted_by_commands() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::local(directory.path());
    let call = |words: &[&str]| {
        let mut all = vec!["namespace", words[0], &place.url];
        all.extend(&words[1..]);
        rewindfs(&all, &place)
    };
    assert_eq!(call(&["list"]).ok(), "");
    call(&["create", "team/eu", "owner=ops"]).ok();
    let again = call(&["create", "team/eu"]);
    assert_eq!(again.code, Some(1), "{again}");
    let mount = TestMount::start(&place, &["--namespace", "team"]);
    mount.sh("echo one > f; mkdir data; echo two > data/g");
    mount.drain();
    assert_eq!(call(&["list"]).ok(), "team\nteam/eu\n");
    let shown: serde_json::Value =
        serde_json::from_str(&call(&["show", "team", "--json"]).ok()).unwrap();
    assert_eq!(shown["last"]["files"], 3, "{shown}");
    assert_eq!(shown["last"]["bytes"], 8, "{shown}");
    let set = call(&["set", "team/eu", "owner=", "note=a b"]).ok();
    assert!(set.contains("set note") && !set.contains("owner"), "{set}");
    for (words, code) in [
        (&["show", "nothing"][..], 1),
        (&["show", "UPPER"], 2),
        (&["delete", "team"], 2),
        (&["set", "team"], 2),
    ] {
        let ran = call(words);
        assert_eq!(ran.code, Some(code), "{ran}");
        assert!(!ran.stderr.is_empty(), "{ran}");
    }
    let deleted = call(&["delete", "team", "--yes"]).ok();
    assert!(deleted.contains("namespace team: deleted"), "{deleted}");
    assert_eq!(call(&["list"]).ok(), "team/eu\n");
    assert!(wait_until(SECONDS, || {
        !mount.status()["pending"]["failures"]
            .as_array()
            .unwrap()
            .is_empty()
    }));
    let root = mount.root().display().to_string();
    let script = format!("echo more > {root}/h && sync {root}/h");
    let written = shell::sh_within(&mount.cache(), &script, SECONDS);
    assert_ne!(written.code, Some(0), "{written}");
    assert_eq!(call(&["list"]).ok(), "team/eu\n");
}

/// One of two writers that race: its cache directory, and its acknowledged saves.
struct Racer {
    name: &'static str,
    cache: tempfile::TempDir,
    /// By name and text: whether the bucket is known to have it.
    acknowledged: BTreeMap<(String, String), bool>,
}

impl Racer {
    async fn open(&self, backend: &Backend) -> Result<(Namespace, Tasks), StoreError> {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let config = NamespaceConfig {
            reclaim: GcMode::OnRequest,
            grace: GRACE,
            checkpoints: CheckpointLimits::default(),
            takeover: Takeover::Now,
            lease: LeaseTimes::default(),
            backend_timeout: None,
            cache_dir: self.cache.path().to_owned(),
            cache_bytes: 0,
            memory_bytes: 32 << 20,
            dirty_bytes_max: 256 << 20,
            linger: Linger::For(Duration::from_millis(5)),
            host: self.name.to_owned(),
            owner: Owner::default(),
        };
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let opened = Namespace::open(backend, "race", config, env, tasks.clone()).await;
        if opened.is_err() {
            tasks.stop();
            tasks.join().await;
        }
        Ok((opened?, tasks))
    }

    /// Opens the namespace and saves until all saves are done or the writer is fenced.
    async fn round(&mut self, backend: &Backend, round: usize) -> Result<(), StoreError> {
        let (namespace, tasks) = self.open(backend).await?;
        let outcome = self.save_all(&namespace, round).await;
        // The store is dropped without a close, as by a killed daemon.
        tasks.stop();
        tasks.join().await;
        outcome
    }

    async fn save_all(&mut self, namespace: &Namespace, round: usize) -> Result<(), StoreError> {
        for turn in 0..3 {
            let own = format!("{}-{round}-{turn}", self.name);
            for name in ["shared".to_owned(), own.clone()] {
                let text = format!("{own} {}", self.name.repeat(200));
                save(namespace, &name, &text).await?;
                self.acknowledged.insert((name, text), false);
            }
            if turn > 0 {
                namespace.drain().await?;
                self.acknowledged
                    .values_mut()
                    .for_each(|durable| *durable = true);
            }
        }
        Ok(())
    }
}

async fn save(namespace: &Namespace, name: &str, text: &str) -> Result<(), StoreError> {
    let author = Author::default();
    let file = match namespace.tree().lookup(ROOT, name.as_bytes()).await? {
        Some(stat) => namespace.tree().file(stat.ino).await?,
        None => {
            let node = NewNode {
                kind: Kind::File,
                mode: 0o644,
                uid: 0,
                gid: 0,
                rdev: 0,
                target: Bytes::new(),
                xattrs: Vec::new(),
            };
            let made = namespace
                .tree()
                .create_open(ROOT, name.as_bytes(), node, &author);
            made.await?.1
        }
    };
    file.truncate(0, &author).await?;
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    file.write(0, bytes, &author).await?;
    match file.flush(&author, None).await? {
        Some(fixed) => file.save(fixed).await,
        None => Ok(()),
    }
}

#[test]
fn two_writers_race_fifty_times_without_mixed_files() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let place = server.place("race");
    // Credentials are read from the environment, so the test runs in a process with its own environment.
    if std::env::var_os("REWINDFS_TEST_RACE").is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "writers::two_writers_race_fifty_times_without_mixed_files",
            ])
            .arg("--nocapture")
            .env("REWINDFS_TEST_RACE", "1")
            .envs(place.variables);
        let ran = shell::run(&mut command, Duration::from_secs(800));
        eprintln!("{}", ran.stderr);
        ran.ok();
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(race(&place));
}

async fn race(place: &Place) {
    let config = BackendConfig {
        endpoint: place.endpoint.clone(),
        ..BackendConfig::default()
    };
    let backend = Backend::open(&place.url, &config).unwrap();
    let racer = |name| Racer {
        name,
        cache: tempfile::tempdir().unwrap(),
        acknowledged: BTreeMap::new(),
    };
    let (mut one, mut two) = (racer("one"), racer("two"));
    let mut lost = 0;
    for round in 0..50 {
        let (a, b) = tokio::join!(one.round(&backend, round), two.round(&backend, round));
        for outcome in [a, b] {
            match outcome {
                Ok(()) => {}
                Err(StoreError::Fenced | StoreError::Closed) => lost += 1,
                Err(StoreError::Unavailable(why)) => {
                    eprintln!("round {round}: {why}");
                    lost += 1;
                }
                Err(other) => panic!("round {round}: {other}"),
            }
        }
    }
    eprintln!("in {lost} of 100 rounds the writer was fenced");
    for racer in [&one, &two] {
        let (namespace, tasks) = racer.open(&backend).await.unwrap();
        namespace.close().await.unwrap();
        tasks.join().await;
    }
    let (namespace, tasks) = one.open(&backend).await.unwrap();
    let found = found(&namespace, [&one, &two]).await;
    for racer in [&one, &two] {
        for (known, durable) in &racer.acknowledged {
            let times = found.get(known).copied().unwrap_or(0);
            assert_eq!(times, 1, "{known:?}, durable: {durable}");
        }
    }
    namespace.close().await.unwrap();
    tasks.join().await;
    let audit = check_log(&backend, "race", &CheckConfig::default(), |_| {})
        .await
        .unwrap();
    assert!(audit.is_sound(), "{audit:?}");
}

/// The number of versions by name and text; fails on a text that neither writer wrote.
async fn found(namespace: &Namespace, racers: [&Racer; 2]) -> BTreeMap<(String, String), usize> {
    let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
    for name in namespace
        .history()
        .view()
        .names_with_versions(ROOT)
        .await
        .unwrap()
    {
        for version in namespace
            .history()
            .view()
            .versions(ROOT, &name)
            .await
            .unwrap()
        {
            let text = namespace
                .history()
                .read_past(&version, 0, u32::MAX)
                .await
                .unwrap();
            let text = String::from_utf8(text.to_vec()).unwrap();
            let known = (String::from_utf8(name.to_vec()).unwrap(), text);
            let by = racers.map(|racer| racer.acknowledged.contains_key(&known));
            // The save during which the writer was fenced may be there although it was not acknowledged.
            let whole = known.1.is_empty() || known.1.len() > 600;
            assert!(by[0] || by[1] || whole, "neither writer wrote {known:?}");
            let writer = if known.1.starts_with("one") {
                "one"
            } else {
                "two"
            };
            if !known.1.is_empty() {
                assert!(known.1.ends_with(&writer.repeat(200)), "mixed: {known:?}");
            }
            if version.op != Op::Restore {
                *found.entry(known).or_default() += 1;
            }
        }
    }
    found
}
