use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_and_overwritten_file_is_read_from_the_bucket_alone() {
    let cluster = TestCluster::new("basics-saved");
    let ns = cluster.open().await;
    save(&ns, ROOT, b"a", b"one").await;
    save(&ns, ROOT, b"a", b"two").await;
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), b"two");
    assert_eq!(history(&ns, ROOT, b"a").await, [b"one", b"two"]);
    ns.close().await.unwrap();
    drop(ns);
    cluster.wipe();
    let ns = cluster.open().await;
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), b"two");
    assert_eq!(history(&ns, ROOT, b"a").await, [b"one", b"two"]);
    ns.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_records_the_end_of_the_log() {
    let cluster = TestCluster::new("basics-logged");
    let place = |ns: &Namespace, sequence| rows::LogPlace {
        epoch: ns.core.epoch,
        sequence,
    };
    let recorded = async |ns: &Namespace| -> Option<rows::LogPlace> {
        ns.core.index.row(&keys::logged()).await.unwrap()
    };
    let mut ns = cluster.open().await;
    assert_eq!(recorded(&ns).await, None);
    for (at, name) in [b"a", b"b", b"c"].into_iter().enumerate() {
        save(&ns, ROOT, name, b"text").await;
        ns.drain().await.unwrap();
        let newest = place(&ns, at as u64);
        assert_eq!(recorded(&ns).await, (at > 0).then_some(newest));
    }
    let earlier = recorded(&ns).await;
    ns.close().await.unwrap();
    // Tasks that are still ending hold the journal's lock.
    ns.core.tasks.join().await;
    drop(ns);
    ns = cluster.open().await;
    assert_eq!(
        recorded(&ns).await,
        earlier,
        "the row changes with the next batch only"
    );
    save(&ns, ROOT, b"d", b"text").await;
    ns.drain().await.unwrap();
    save(&ns, ROOT, b"e", b"text").await;
    ns.drain().await.unwrap();
    assert_eq!(recorded(&ns).await, Some(place(&ns, 1)));
    check::log_twin(&ns, &cluster).await;
    ns.close().await.unwrap();
}
