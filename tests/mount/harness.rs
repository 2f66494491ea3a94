//! Tests of the test support: servers start, counters count, and checkers find planted faults.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::crash::{Writers, read_files};
use crate::crash_log::{Files, History};
use crate::random_walk::{Model, Node, compare};
use crate::support::proxy::{Proxy, summary};
use crate::support::s3::S3Server;
use crate::support::{shell, tree};

#[test]
fn the_proxy_counts_and_delays_what_passes() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::from_millis(200));
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("small"), "x".repeat(1000)).unwrap();
    fs::write(directory.path().join("large"), "y".repeat(3_000_000)).unwrap();
    let url = format!("{}/test", proxy.endpoint());
    let curl = "curl -sSf --aws-sigv4 aws:amz:us-east-1:s3 --user testing:testing";
    shell::sh(
        directory.path(),
        &format!(
            r#"
            # Two requests on one connection, a chunked body, an answer with a body.
            {curl} -T small {url}/ns/data/1/1 -T large {url}/ns/data/1/2
            cat small | curl -s -T - {url}/ns/meta/x
            {curl} {url}/ns/data/1/2 -o back
            cmp large back
            "#
        ),
    );
    let requests = proxy.since(0);
    let table = summary(&requests);
    let puts: Vec<u64> = requests
        .iter()
        .filter(|r| r.is_data_put())
        .map(|r| r.sent)
        .collect();
    assert_eq!(puts, [1000, 3_000_000], "\n{table}");
    assert_eq!(
        requests.iter().filter(|r| r.method == "GET").count(),
        1,
        "\n{table}"
    );
    let chunked = requests
        .iter()
        .find(|r| r.target.ends_with("/ns/meta/x"))
        .expect("the chunked request");
    assert!((1000..1100).contains(&chunked.sent), "{chunked:?}");
    assert!(table.contains("2 PUT data, 3001000 bytes up"), "\n{table}");
    let mark = proxy.mark();
    let start = Instant::now();
    let again = format!("{curl} {url}/ns/data/1/1 -o back && cmp small back");
    shell::sh(directory.path(), &again);
    assert!(
        start.elapsed() >= Duration::from_millis(200),
        "the delay is added: {:?}",
        start.elapsed()
    );
    assert_eq!(proxy.since(mark).len(), 1);
    assert!(proxy.wait_quiet(Duration::from_millis(300), Duration::from_secs(5)));
    assert!(
        !proxy.wait_quiet(Duration::from_secs(60), Duration::from_millis(50)),
        "a minute without a request passed within 50 ms"
    );
}

#[test]
fn a_server_that_checks_signatures_refuses_wrong_credentials() {
    let Some(server) = S3Server::start_refusing() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let code = shell::sh(
        directory.path(),
        &format!(
            "curl -s -o /dev/null -w '%{{http_code}}' --aws-sigv4 aws:amz:us-east-1:s3 --user wrong:wrong http://{}/test/x",
            server.address()
        ),
    );
    assert_eq!(code, "403");
}

#[test]
fn a_failed_or_hanging_command_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let ran = shell::sh_within(
        directory.path(),
        "echo out; echo err >&2; exit 3",
        Duration::from_secs(20),
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(3), "out\n", "err\n")
    );
    assert!(
        ran.to_string().contains("exit 3") && ran.to_string().contains("err"),
        "{ran}"
    );
    let ran = shell::sh_within(directory.path(), "false; true", Duration::from_secs(20));
    assert_eq!(ran.code, Some(1), "a failed line fails the script");
    let ran = shell::sh_within(directory.path(), "sleep 60", Duration::from_millis(300));
    assert_eq!(ran.code, None);
    assert!(ran.took < Duration::from_secs(30), "{:?}", ran.took);
}

#[test]
fn a_tree_listing_differs_after_every_kind_of_change() {
    let directory = tempfile::tempdir().unwrap();
    tree::plant(directory.path(), 20, 100, 7);
    shell::sh(directory.path(), "ln -s x link; mkfifo pipe; mkdir empty");
    let before = tree::read_tree(directory.path());
    tree::assert_equal("untouched", &before, &tree::read_tree(directory.path()));
    let changes = [
        "printf z | dd of='part-00/file 00001.bin' conv=notrunc status=none; touch -r pipe 'part-00/file 00001.bin'",
        "chmod 601 pipe",
        "touch -h -d 2001-01-01 link",
        "ln -sf y link",
        "rmdir empty",
        "touch new",
    ];
    for change in changes {
        let before = tree::read_tree(directory.path());
        shell::sh(directory.path(), change);
        let found = tree::differences(&before, &tree::read_tree(directory.path()));
        assert!(!found.is_empty(), "not seen: {change}");
    }
}

#[test]
fn the_tree_comparison_finds_every_difference() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/f"), "abc").unwrap();
    let right = Model::from([
        ("d".into(), Node::Directory(1)),
        ("d/f".into(), Node::File(b"abc".to_vec())),
    ]);
    assert_eq!(compare(root, &right, Path::new("")), Vec::<String>::new());
    assert_eq!(
        compare(&root.join("d"), &right, Path::new("d")),
        Vec::<String>::new()
    );
    let wrong: [(&str, Option<Node>); 4] = [
        ("d/f", Some(Node::File(b"abd".to_vec()))),
        ("d/f", Some(Node::Directory(2))),
        ("d/f", None),
        ("d/g", Some(Node::File(Vec::new()))),
    ];
    for (path, node) in wrong {
        let mut model = right.clone();
        match node {
            Some(node) => model.insert(path.into(), node),
            None => model.remove(Path::new(path)),
        };
        assert_eq!(compare(root, &model, Path::new("")).len(), 1, "{path}");
    }
    assert_eq!(
        compare(&root.join("nowhere"), &right, Path::new("")).len(),
        1
    );
}

/// Runs the writers on a plain directory until they are killed. Returns their logs and the files they left.
fn written(seed: u64) -> (Vec<History>, Vec<Files>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("files");
    fs::create_dir(&files).unwrap();
    let mut writers = Writers::start(&files, &directory.path().join("logs"), seed);
    std::thread::sleep(Duration::from_millis(700));
    writers.kill();
    let found = (0..8)
        .map(|number| read_files(&writers.place(number)))
        .collect();
    (writers.histories(), found, directory)
}

#[test]
fn the_crash_checker_accepts_a_tree_that_lost_nothing() {
    for seed in 1..=3 {
        let (histories, found, _directory) = written(seed);
        let mut wrong = Vec::new();
        let (mut calls, mut syncs) = (0, 0);
        for (history, files) in histories.iter().zip(&found) {
            wrong.extend(history.check_kept(files));
            wrong.extend(history.check_wiped(files));
            (calls, syncs) = (calls + history.calls, syncs + history.syncs);
        }
        assert_eq!(wrong, Vec::<String>::new());
        assert!(
            calls > 400 && syncs > 10,
            "the writers wrote: {calls} calls, {syncs} fsyncs"
        );
    }
}

#[test]
fn the_crash_checker_finds_planted_faults() {
    let (histories, found, _directory) = written(4);
    for (history, files) in histories.iter().zip(&found) {
        for (what, fault) in faults(files) {
            assert!(
                !history.check_kept(&fault).is_empty(),
                "kept: {what} was not found"
            );
        }
        for name in history.synced_names() {
            let mut gone = files.clone();
            gone.remove(&name);
            assert!(
                !history.check_wiped(&gone).is_empty(),
                "wiped: {name} gone was not found"
            );
            for (what, bytes) in broken(&files[&name]) {
                let mut fault = files.clone();
                fault.insert(name.clone(), bytes);
                assert!(
                    !history.check_wiped(&fault).is_empty(),
                    "wiped: {name} {what} was not found"
                );
            }
        }
    }
}

#[test]
fn the_crash_checker_finds_missing_versions() {
    let (histories, found, _directory) = written(5);
    let (history, files) = (&histories[0], &found[0]);
    let wrong = history.check_versions(|_| Vec::new());
    assert!(!wrong.is_empty(), "no version at all was not found");
    let strange = history.check_versions(|name| {
        vec![
            b"strange".to_vec(),
            files.get(name).cloned().unwrap_or_default(),
        ]
    });
    assert!(
        strange.iter().any(|line| line.contains("no call left")),
        "{strange:?}"
    );
}

/// Trees that differ from `files` as a file system that loses data would leave them.
fn faults(files: &Files) -> Vec<(String, Files)> {
    let mut faults = Vec::new();
    // The name changed last may show a prefix of a pending write, so a fault in it may go unnoticed. Which name that is, is not
    // known here: each fault is planted in two names.
    let names: Vec<&String> = files.keys().take(2).collect();
    let kinds = broken(&files[names[0]])
        .into_iter()
        .map(|(what, _)| what)
        .collect::<Vec<_>>();
    for (index, what) in kinds.into_iter().enumerate() {
        let mut fault = files.clone();
        for name in &names {
            fault.insert((*name).clone(), broken(&files[*name])[index].1.clone());
        }
        faults.push((what.to_owned(), fault));
    }
    let mut gone = files.clone();
    names.iter().for_each(|name| drop(gone.remove(*name)));
    faults.push(("gone".to_owned(), gone));
    let mut extra = files.clone();
    extra.insert("one".to_owned(), Vec::new());
    extra.insert("two".to_owned(), Vec::new());
    faults.push(("names that no call made".to_owned(), extra));
    let mut swapped = files.clone();
    swapped.insert(names[0].clone(), files[names[1]].clone());
    swapped.insert(names[1].clone(), files[names[0]].clone());
    faults.push(("swapped".to_owned(), swapped));
    faults
}

/// Bytes as a crash may leave them: torn, zero-filled, longer, with another file's line.
fn broken(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    if bytes.is_empty() {
        return ["zero-filled", "lengthened", "shifted"]
            .map(|what| (what, vec![0]))
            .to_vec();
    }
    let mut zeroed = bytes.to_vec();
    let middle = zeroed.len() / 2;
    zeroed[middle] = 0;
    let mut longer = bytes.to_vec();
    longer.push(0);
    let mut torn = bytes.to_vec();
    torn.push(b'0');
    torn.rotate_right(1);
    vec![
        ("zero-filled", zeroed),
        ("lengthened", longer),
        ("shifted", torn),
    ]
}

#[test]
fn a_dead_upstream_closes_the_connection() {
    let proxy = Proxy::start(crate::support::server::free_address(), Duration::ZERO);
    let address = proxy
        .endpoint()
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").ok();
    let mut byte = [0];
    assert!(matches!(
        std::io::Read::read(&mut stream, &mut byte),
        Ok(0) | Err(_)
    ));
}
