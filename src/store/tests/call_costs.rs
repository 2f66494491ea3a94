//! What each call costs: rows read, and requests and bytes once everything is in the bucket. A change that makes one dearer fails here, with
//! both numbers.

use super::labels::mkdir;
use super::*;
use crate::backend::Counters;

/// How often each call is made.
const CALLS: u64 = 100;
const PAGE: usize = 4096;

/// What a number of equal calls cost together.
#[derive(Clone, Copy, Debug)]
struct Cost {
    rows: u64,
    /// Ranges of rows that were searched.
    searches: u64,
    requests: u64,
    bytes_up: u64,
    bytes_down: u64,
    /// How long they took, in begun seconds.
    seconds: u64,
}

/// Requests of the engine in each second, whatever is called: it looks for another writer.
const POLLS: u64 = 4;

/// What `CALLS` calls may cost. Rows and searches are what they cost; a flush by the clock may come between, with a request or two more.
struct Limit {
    call: &'static str,
    rows: u64,
    searches: u64,
    requests: u64,
    kib_up: u64,
    kib_down: u64,
}

/// Rows, searches, requests, KiB up, KiB down.
const fn limit(
    call: &'static str,
    [rows, searches, requests, kib_up, kib_down]: [u64; 5],
) -> Limit {
    Limit {
        call,
        rows,
        searches,
        requests,
        kib_up,
        kib_down,
    }
}

const LIMITS: [Limit; 9] = [
    limit("create", [100, 0, 8, 45, 0]),
    limit("write and close of 4 KiB", [0, 0, 10, 480, 0]),
    limit("append and fsync of 100 bytes", [110, 5, 110, 480, 0]),
    limit("rename", [400, 0, 8, 90, 0]),
    limit("name of a cold listing", [102, 1, 0, 0, 0]),
    limit("stat", [100, 0, 0, 0, 0]),
    limit("cold read of 4 KiB", [503, 101, 5, 0, 415]),
    limit("warm read of 4 KiB", [100, 0, 0, 0, 0]),
    limit("unlink", [200, 0, 8, 65, 0]),
];

fn requests(counters: &Counters) -> u64 {
    counters.put + counters.get + counters.list + counters.delete + counters.head
}

fn spent(ns: &Namespace) -> Cost {
    let counters = ns.counters();
    Cost {
        rows: ns.rows_read(),
        searches: ns.searches(),
        requests: requests(&counters),
        bytes_up: counters.bytes_up,
        bytes_down: counters.bytes_down,
        seconds: 0,
    }
}

/// Does the work, waits until the bucket has it, and returns its cost.
async fn cost(ns: &Namespace, work: impl Future<Output = ()>) -> Cost {
    let (before, began) = (spent(ns), tokio::time::Instant::now());
    work.await;
    ns.drain().await.unwrap();
    let after = spent(ns);
    Cost {
        rows: after.rows - before.rows,
        searches: after.searches - before.searches,
        requests: after.requests - before.requests,
        bytes_up: after.bytes_up - before.bytes_up,
        bytes_down: after.bytes_down - before.bytes_down,
        seconds: began.elapsed().as_secs() + 1,
    }
}

/// Returns a message for each number that is above its limit.
fn above(cost: &Cost, limit: &Limit) -> Vec<String> {
    let polls = POLLS * cost.seconds;
    let pairs = [
        ("rows", cost.rows, limit.rows),
        ("searches", cost.searches, limit.searches),
        ("requests", cost.requests, limit.requests + polls),
        ("KiB up", cost.bytes_up.div_ceil(1024), limit.kib_up),
        (
            "KiB down",
            cost.bytes_down.div_ceil(1024),
            limit.kib_down + polls,
        ),
    ];
    let above = pairs.into_iter().filter(|(_, found, most)| found > most);
    let told = above.map(|(what, found, most)| {
        format!("{CALLS} x {}: {found} {what}, at most {most}", limit.call)
    });
    told.collect()
}

fn name(number: u64) -> Vec<u8> {
    format!("f{number:03}").into_bytes()
}

/// Calls that change the live tree, with what a hundred of each cost.
async fn changes(ns: &Namespace, directory: Ino) -> Vec<(&'static str, Cost)> {
    let (tree, who) = (&ns.tree, author());
    let mut costs = Vec::new();
    let create = async {
        for number in 0..CALLS {
            let name = name(number);
            let made = tree.create_open(directory, &name, new_file(), &who);
            close(&made.await.unwrap().1).await;
        }
    };
    costs.push(("create", cost(ns, create).await));
    let mut files = Vec::new();
    for number in 0..CALLS {
        let stat = tree.lookup(directory, &name(number)).await.unwrap();
        files.push(tree.file(stat.unwrap().ino).await.unwrap());
    }
    let write = async {
        for (seed, file) in files.iter().enumerate() {
            let bytes = Bytes::from(vec![seed as u8; PAGE]);
            file.write(0, bytes, &who).await.unwrap();
            close(file).await;
        }
    };
    costs.push(("write and close of 4 KiB", cost(ns, write).await));
    let sync = async {
        for number in 0..CALLS {
            let bytes = Bytes::from(vec![number as u8; 100]);
            files[0].append(bytes, &who).await.unwrap();
            files[0].sync(&who).await.unwrap();
        }
    };
    costs.push(("append and fsync of 100 bytes", cost(ns, sync).await));
    close(&files[0]).await;
    drop(files);
    let rename = async {
        for number in 0..CALLS {
            let (old, new) = (name(number), [b"g", &name(number)[..]].concat());
            let (from, to) = (
                DentryRef::new(directory, &old),
                DentryRef::new(directory, &new),
            );
            let moved = tree.rename(from, to, RenameMode::Replace, &who);
            moved.await.unwrap();
        }
    };
    costs.push(("rename", cost(ns, rename).await));
    costs
}

/// Calls that read, in a namespace whose cache is empty.
async fn reads(ns: &Namespace, directory: Ino) -> Vec<(&'static str, Cost)> {
    let (tree, mut costs) = (&ns.tree, Vec::new());
    let list = async {
        assert_eq!(check::names(ns, directory).await.len() as u64, CALLS);
    };
    costs.push(("name of a cold listing", cost(ns, list).await));
    let stat = async {
        for number in 0..CALLS {
            let name = [b"g", &name(number)[..]].concat();
            assert!(tree.lookup(directory, &name).await.unwrap().is_some());
        }
    };
    costs.push(("stat", cost(ns, stat).await));
    for what in ["cold read of 4 KiB", "warm read of 4 KiB"] {
        let read = async {
            for number in 0..CALLS {
                let name = [b"g", &name(number)[..]].concat();
                let found = content(ns, directory, &name).await.unwrap();
                assert!(found.len() >= PAGE);
            }
        };
        costs.push((what, cost(ns, read).await));
    }
    costs
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_costs_more_rows_requests_or_bytes_than_its_limit() {
    let cluster = TestCluster::new("costs");
    let ns = cluster.open().await;
    let directory = mkdir(&ns, ROOT, b"d").await;
    ns.drain().await.unwrap();
    let mut costs = changes(&ns, directory).await;
    ns.close().await.unwrap();
    drop(ns);
    cluster.wipe();
    let ns = cluster.open().await;
    ns.drain().await.unwrap();
    costs.extend(reads(&ns, directory).await);
    let unlink = async {
        for number in 0..CALLS {
            let name = [b"g", &name(number)[..]].concat();
            ns.tree.unlink(directory, &name, &author()).await.unwrap();
        }
    };
    costs.push(("unlink", cost(&ns, unlink).await));
    let mut all = Vec::new();
    for ((call, cost), limit) in costs.iter().zip(&LIMITS) {
        println!("{call}: {cost:?}");
        assert_eq!(*call, limit.call);
        all.extend(above(cost, limit));
    }
    assert_eq!(costs.len(), LIMITS.len());
    assert!(all.is_empty(), "{}", all.join("\n"));
    leave(ns).await;
}
