//! Requests of a mount for the index.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::proxy::{Proxy, Request, summary};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::scale;

/// The number of requests for the index's write-ahead log since a mark.
fn log_requests(proxy: &Proxy, mark: usize) -> usize {
    let requests = proxy.since(mark);
    let wal = |target: &str| target.contains("/meta/wal/");
    requests.iter().filter(|r| wal(&r.target)).count()
}

#[test]
fn a_mount_reads_little_of_the_write_ahead_log_after_many_fsyncs() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let place = Place::s3(&format!("{BUCKET}/fsynced"), &proxy.endpoint());
    let mut mount = TestMount::start(&place, &[]);
    let count = scale(600, 3000);
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .open(mount.path("log.txt"))
        .unwrap();
    for number in 0..count {
        writeln!(file, "line {number}").unwrap();
        file.sync_all().unwrap();
    }
    let fsynced = log_requests(&proxy, 0);
    assert!(fsynced >= count, "{count} fsyncs, {fsynced} requests");
    mount.kill9();
    drop(file);

    proxy.delay(Duration::from_millis(20));
    for (what, most) in [("after a kill", 450), ("after an unmount", 80)] {
        let (mark, begin) = (proxy.mark(), Instant::now());
        mount.recover(Cache::Kept);
        let (asked, took) = (log_requests(&proxy, mark), begin.elapsed());
        println!(
            "{what}: {asked} requests for the log, mounted after {took:?}\n{}",
            summary(&proxy.since(mark))
        );
        assert!(
            asked <= most,
            "{what}: {asked} requests, at most {most}:\n{}",
            summary(&proxy.since(mark))
        );
        // The promise is two seconds; the rest allows for a debug build on a busy machine.
        assert!(took < Duration::from_secs(8), "{what}: {took:?}");
        // A mount does not read log objects whose rows are in tables, though they exist until garbage collection.
        let listed: Vec<_> = proxy
            .since(mark)
            .into_iter()
            .filter(|r| r.target.contains("prefix=fsynced%2Fmain%2Fmeta%2F&"))
            .collect();
        let whole = |r: &&Request| !r.target.contains("delimiter=");
        assert_eq!(listed.iter().filter(whole).count(), 0, "{listed:#?}");
        let lines = mount.sh("wc -l <log.txt; tail -n 1 log.txt");
        assert_eq!(lines, format!("{count}\nline {}\n", count - 1));
        mount.umount();
    }
}
