//! What every store must do for us, one function per promise; each test of `tests.rs` runs all of them on one store.

use super::{Backend, BackendError, ObjectState, Replaced};
use crate::env::SeededEnv;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use std::time::Duration;

/// How a server creates an object on condition that it does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Creation {
    /// It checks and stores at once.
    Atomic,
    /// It checks and then stores, so that two requests at the same moment seldom both succeed: moto.
    TwoSteps,
}

/// Runs every promise on a place of its own below `backend`.
pub(super) async fn all(backend: &Backend, creation: Creation) {
    what_was_put_is_read(&backend.child("put")).await;
    a_missing_object_is_not_found(&backend.child("missing")).await;
    ranges_end_where_the_object_ends(&backend.child("range")).await;
    the_second_create_loses(&backend.child("create")).await;
    let races = match creation {
        Creation::Atomic => 1,
        Creation::TwoSteps => 5,
    };
    of_many_creators_one_wins(&backend.child("race"), races).await;
    a_state_is_replaced_once(&backend.child("replace")).await;
    a_deleted_object_is_gone(&backend.child("delete")).await;
    listings_are_sorted_and_whole(&backend.child("list")).await;
    listings_begin_behind_an_offset(&backend.child("offset")).await;
    children_see_their_own(&backend.child("child")).await;
    impossible_keys_are_refused(&backend.child("keys")).await;
    a_working_place_passes_its_checks(&backend.child("probe")).await;
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn what_was_put_is_read(at: &Backend) {
    at.put("a/b/c", bytes("one")).await.unwrap();
    assert_eq!(at.get("a/b/c").await.unwrap(), bytes("one"));
    at.put("a/b/c", bytes("two, longer")).await.unwrap();
    assert_eq!(at.get("a/b/c").await.unwrap(), bytes("two, longer"));
    at.put("empty", Bytes::new()).await.unwrap();
    assert_eq!(at.get("empty").await.unwrap(), Bytes::new());
    let large: Bytes = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    at.put("large", large.clone()).await.unwrap();
    assert_eq!(at.get("large").await.unwrap(), large);
}

async fn a_missing_object_is_not_found(at: &Backend) {
    let name = format!("{}/none", at.url());
    for error in [
        at.get("none").await.unwrap_err(),
        at.get_range("none", 0..1).await.unwrap_err(),
    ] {
        assert!(matches!(error, BackendError::NotFound { .. }), "{error}");
        assert!(error.to_string().starts_with(&name), "{error}");
    }
}

async fn ranges_end_where_the_object_ends(at: &Backend) {
    at.put("k", bytes("0123456789")).await.unwrap();
    for (range, expected) in [
        (0..10, "0123456789"),
        (2..5, "234"),
        (8..20, "89"),
        (10..12, ""),
        (500..900, ""),
        (4..4, ""),
    ] {
        let read = at.get_range("k", range.clone()).await.unwrap();
        assert_eq!(read, bytes(expected), "{range:?}");
    }
    at.put("empty", Bytes::new()).await.unwrap();
    assert_eq!(at.get_range("empty", 0..4).await.unwrap(), Bytes::new());
}

async fn the_second_create_loses(at: &Backend) {
    at.put_new("k", bytes("one")).await.unwrap();
    for theirs in ["two", "a longer one"] {
        let error = at.put_new("k", bytes(theirs)).await.unwrap_err();
        assert!(
            matches!(error, BackendError::AlreadyExists { .. }),
            "{error}"
        );
    }
    assert_eq!(at.get("k").await.unwrap(), bytes("one"));
    // The same bytes are what this writer wanted to be there.
    at.put_new("k", bytes("one")).await.unwrap();
}

/// Races until one ends with a single winner, at most `races` times: without the condition, all would win each time.
async fn of_many_creators_one_wins(at: &Backend, races: u32) {
    let contents = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for race in 1..=races {
        let key = format!("k{race}");
        let attempts = contents.map(|c| at.put_new(&key, bytes(c)));
        let results = futures::future::join_all(attempts).await;
        let winners: Vec<&str> = results
            .iter()
            .zip(contents)
            .filter_map(|(result, content)| result.is_ok().then_some(content))
            .collect();
        if winners.len() > 1 && race < races {
            continue;
        }
        assert_eq!(winners.len(), 1, "{results:?}");
        assert_eq!(at.get(&key).await.unwrap(), bytes(winners[0]));
        return;
    }
}

async fn a_state_is_replaced_once(at: &Backend) {
    let limit = Duration::from_secs(10);
    let replace = async |old: Option<&ObjectState>, text| {
        at.replace("k", old, bytes(text), limit).await.unwrap()
    };
    assert_eq!(at.state("k", limit).await.unwrap(), None);
    let Replaced::Written(first) = replace(None, "first").await else {
        panic!("there was no object")
    };
    assert_eq!(replace(None, "other").await, Replaced::Changed);
    assert_eq!(at.state("k", limit).await.unwrap().as_ref(), Some(&first));
    let Replaced::Written(second) = replace(Some(&first), "second").await else {
        panic!("the object was not changed")
    };
    assert_eq!(second.bytes(), &bytes("second"));
    let Replaced::Written(third) = replace(Some(&second), "third").await else {
        panic!("the object was not changed")
    };
    for stale in [&first, &second] {
        assert_eq!(replace(Some(stale), "stale").await, Replaced::Changed);
    }
    assert_eq!(at.get("k").await.unwrap(), bytes("third"));
    at.delete("k").await.unwrap();
    assert_eq!(replace(Some(&third), "gone").await, Replaced::Changed);
    assert_eq!(at.state("k", limit).await.unwrap(), None);
}

async fn a_deleted_object_is_gone(at: &Backend) {
    at.put("k", bytes("one")).await.unwrap();
    at.delete("k").await.unwrap();
    assert!(at.get("k").await.is_err());
    at.delete("k").await.unwrap();
    at.delete("never/was").await.unwrap();
    at.put_new("k", bytes("two")).await.unwrap();
    at.put("many/1", bytes("one")).await.unwrap();
    let many = ["k", "never/was", "many/1"].map(str::to_owned);
    at.delete_many(&many).await.unwrap();
    for key in &many {
        assert!(at.get(key).await.is_err(), "{key}");
    }
    at.delete_many(&[]).await.unwrap();
}

async fn listings_are_sorted_and_whole(at: &Backend) {
    let keys = ["b", "a/2", "a/10", "a-b", "c/d/e", "0", "ab"];
    for key in keys {
        at.put(key, bytes(key)).await.unwrap();
    }
    let listed = at.list("").await.unwrap();
    let mut expected = keys.to_vec();
    expected.sort_unstable();
    let found: Vec<&str> = listed.iter().map(|o| o.key.as_str()).collect();
    assert_eq!(found, expected);
    for object in &listed {
        assert_eq!(object.size, object.key.len() as u64);
        assert!(object.modified_ns > 1_700_000_000_000_000_000);
    }
    // A prefix is whole segments: neither `a-b` nor `ab` is below `a`.
    let below: Vec<String> = at
        .list("a")
        .await
        .unwrap()
        .into_iter()
        .map(|o| o.key)
        .collect();
    assert_eq!(below, ["a/10", "a/2"]);
    assert_eq!(at.list("none").await.unwrap(), []);
}

async fn listings_begin_behind_an_offset(at: &Backend) {
    for key in ["d/1", "d/2", "d/3"] {
        at.put(key, bytes(key)).await.unwrap();
    }
    // As the index asks.
    let (store, below) = (at.object_store(), Path::from("d"));
    let listed = store.list_with_offset(Some(&below), &Path::from("d/1"));
    let mut keys: Vec<String> = listed
        .map_ok(|found| found.location.into())
        .try_collect()
        .await
        .unwrap();
    keys.sort_unstable();
    assert_eq!(keys, ["d/2", "d/3"]);
    // As the store asks: across levels, and whether or not the key it begins behind is there.
    let keys = [
        "e/0/1", "e/0/2", "e/0-1/1", "e/1", "e/2/0/9", "e/2/1", "e0/1",
    ];
    for key in keys {
        at.put(key, bytes(key)).await.unwrap();
    }
    for after in [
        "e", "e/0", "e/0/1", "e/0/15", "e/0-1/1", "e/1", "e/2/0", "e/2/1", "f",
    ] {
        let found = at.list_after("e", after).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|object| object.key).collect();
        let mut expected = keys.map(str::to_owned).to_vec();
        expected.retain(|key| key.starts_with("e/") && key.as_str() > after);
        expected.sort_unstable();
        assert_eq!(found, expected, "after {after}");
    }
    assert_eq!(at.list_after("none", "none/1").await.unwrap(), []);
}

async fn children_see_their_own(at: &Backend) {
    let (one, two) = (at.child("one"), at.child("two/three"));
    one.put("k", bytes("1")).await.unwrap();
    two.put("k", bytes("23")).await.unwrap();
    assert_eq!(one.get("k").await.unwrap(), bytes("1"));
    assert_eq!(at.get("two/three/k").await.unwrap(), bytes("23"));
    assert_eq!(
        at.child("two").child("three").get("k").await.unwrap(),
        bytes("23")
    );
    assert_eq!(two.list("").await.unwrap()[0].key, "k");
    assert_eq!(two.url(), format!("{}/two/three", at.url()));
}

async fn impossible_keys_are_refused(at: &Backend) {
    for key in ["a//b", "a/../b", "./a"] {
        let error = at.put(key, bytes("x")).await.unwrap_err();
        assert!(matches!(error, BackendError::Invalid { .. }), "{error}");
    }
}

async fn a_working_place_passes_its_checks(at: &Backend) {
    at.check().await.unwrap();
    let env = SeededEnv::new(1);
    let probe = at.probe(&env).await.unwrap();
    assert!(probe.store_time_ns > 1_700_000_000_000_000_000);
    assert_eq!(at.list("").await.unwrap(), [], "the probe cleans up");
}
