//! Retention: what a run drops and keeps, compared with a model that reads the policy's words anew.

mod amounts;
mod cap;
mod cases;
mod crash_points;
mod directories;
mod economy;
mod hostile;
mod labeled;
mod leading;
mod limits;
mod linked;
mod many_versions;
mod past;
mod planted;
mod reach;
mod removed;
mod reviews;
mod steps;
mod times;
mod trees;
mod turns;
mod walk;
mod words;
mod work;

use super::*;
use crate::store::schema::tables::{
    BindingTable, LinkCountTable, LinkedVersionTable, RowTable, VersionTable,
};
use bytes::Bytes;
use past::Slot;
use std::collections::BTreeSet;
use std::time::Duration;

const DROP: RunOptions = RunOptions {
    grace: Duration::ZERO,
    brake: Brake::Held,
};

/// As `DROP`, for drops that wait for a confirmation too.
const CONFIRMED: RunOptions = RunOptions {
    grace: Duration::ZERO,
    brake: Brake::Released,
};

/// Drains, so that all history is final, and prunes.
async fn prune(ns: &Namespace) -> RetentionReport {
    ns.drain().await.unwrap();
    ns.retention.run(DROP).await.unwrap()
}

/// A cluster and its namespace, with a policy in force.
async fn opened_with(name: &str, words: &[&str]) -> (TestCluster, Namespace) {
    let cluster = TestCluster::new(name);
    let ns = cluster.open().await;
    let mut policy = Policy::default();
    for word in words {
        policy.set(word).unwrap();
    }
    let set = ns.retention.set_policy(&policy, InForce::Now).await;
    set.unwrap();
    (cluster, ns)
}

fn slot(directory: Ino, name: &str) -> Slot {
    (directory.0, name.to_owned())
}

/// A version of a name: its start and its end.
type Span = (Slot, u64, u64);

/// All versions that have ended and have a row.
async fn recorded(ns: &Namespace) -> BTreeSet<Span> {
    let (from, end) = (VersionTable::all(), keys::after(&VersionTable::all()));
    let mut found = BTreeSet::new();
    for (key, value) in ns.core.index.scan(from, end, usize::MAX).await.unwrap() {
        let record = VersionTable::decode(&value).unwrap();
        let name = keys::record_slot(&key).unwrap();
        if record.node.is_some() {
            let text = String::from_utf8(name.name.to_vec()).unwrap();
            let start = record.stamp.id.timestamp.0;
            found.insert(((name.parent.0, text), start, record.end.0));
        }
    }
    found
}
