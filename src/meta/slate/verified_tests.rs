use super::*;
use crate::backend::tests::answers::{Liar, Lie, behind};
use crate::backend::tests::support::s3::S3Server;
use crate::meta::contract::join;
use crate::meta::slate::{FlushType, SlateConfig, SlateStore};
use crate::meta::{Batch, MetaError, MetaRead, MetaState, MetaStore};
use futures::future::join_all;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use slatedb::config::FlushOptions;

fn put(key: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(key.to_owned(), "value");
    batch
}

async fn tables(store: &SlateStore) {
    let flush_type = FlushType::MemTable;
    let flushed = store
        .db
        .flush_with_options(FlushOptions { flush_type })
        .await;
    flushed.unwrap();
}

async fn commit(store: &SlateStore, key: &str) {
    let commit = store.commit(put(key)).await.unwrap();
    while let Err(error) = store.durable(commit).await {
        assert!(matches!(error, MetaError::Unavailable(_)), "{key}: {error}");
    }
}

/// One engine through a second of one lie while it is idle, and one while it works.
async fn through(lie: Lie, server: &S3Server) {
    const LIES: Duration = Duration::from_millis(1200);
    let liar = Liar::default();
    let backend = behind(&liar, server).child(&format!("through-{lie:?}").to_lowercase());
    let open = async || {
        let config = SlateConfig::new(join);
        SlateStore::open(backend.object_store(), "meta", config)
            .await
            .unwrap()
    };
    let store = open().await;
    commit(&store, "Cbefore").await;
    tables(&store).await;
    liar.lie(lie, usize::MAX);
    tokio::time::sleep(LIES).await;
    liar.stop();
    commit(&store, "Cidle").await;
    assert_eq!(store.state(), MetaState::Open, "{lie:?}");
    store.close().await.unwrap();

    let store = open().await;
    liar.lie(lie, usize::MAX);
    let working = async {
        for number in 0..8 {
            commit(&store, &format!("Cbusy{number}")).await;
            assert!(store.get(b"Cbefore").await.unwrap().is_some(), "{lie:?}");
        }
        tables(&store).await;
    };
    let ((), ()) = tokio::join!(working, async {
        tokio::time::sleep(LIES).await;
        liar.stop();
    });
    assert_eq!(store.state(), MetaState::Open, "{lie:?}");
    store.close().await.unwrap();
    let store = open().await;
    for key in ["Cbefore", "Cidle", "Cbusy0", "Cbusy7"] {
        assert!(
            store.get(key.as_bytes()).await.unwrap().is_some(),
            "{lie:?}: {key}"
        );
    }
    store.close().await.unwrap();
    assert!(liar.told() > 0 || lie == Lie::Other, "{lie:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_outlives_a_second_of_every_wrong_answer() {
    let Some(server) = S3Server::start() else {
        return;
    };
    join_all(Lie::ALL.map(|lie| through(lie, &server))).await;
}

/// An index with objects of every kind.
async fn planted(store: &Arc<dyn ObjectStore>) {
    for round in 0..2 {
        let config = SlateConfig::new(join);
        let index = SlateStore::open(Arc::clone(store), "meta", config)
            .await
            .unwrap();
        commit(&index, &format!("Ctable{round}")).await;
        tables(&index).await;
        commit(&index, &format!("Clog{round}")).await;
        index.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_at_rest_is_told_within_seconds_by_the_objects_name() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    planted(&store).await;
    let objects: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    let damages = objects
        .iter()
        .flat_map(|object| [(object, Damage::Cut), (object, Damage::Flip)]);
    let told: Vec<Option<String>> = join_all(damages.map(async |(object, damage)| {
        let copy: Arc<dyn ObjectStore> = Arc::new(copied(&store, &objects, object, damage).await);
        let begun = tokio::time::Instant::now();
        let opened = SlateStore::open(copy, "meta", SlateConfig::new(join)).await;
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{damage:?} {}",
            object.location
        );
        match opened {
            // Nothing of it was needed.
            Ok(index) => index.close().await.map(|()| None).unwrap(),
            Err(MetaError::Corrupt(text)) => {
                assert!(text.contains(object.location.as_ref()), "{text}");
                Some(object.location.to_string())
            }
            Err(other) => panic!("{damage:?} {}: {other}", object.location),
        }
    }))
    .await;
    for kind in ["meta/manifest/", "meta/wal/"] {
        let named = told.iter().flatten().filter(|name| name.starts_with(kind));
        assert!(named.count() >= 2, "{kind} among {told:?}");
    }
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Cut,
    Flip,
}

/// A copy of `objects` in which one is damaged.
async fn copied(
    store: &Arc<dyn ObjectStore>,
    objects: &[ObjectMeta],
    damaged: &ObjectMeta,
    damage: Damage,
) -> InMemory {
    let copy = InMemory::new();
    for object in objects {
        let got = store.get(&object.location).await.unwrap();
        let attributes = got.attributes.clone();
        let mut bytes = got.bytes().await.unwrap().to_vec();
        let half = bytes.len() / 2;
        if object.location == damaged.location && !bytes.is_empty() {
            match damage {
                Damage::Cut => bytes.truncate(half),
                Damage::Flip => bytes[half] ^= 0x40,
            }
        }
        let options = PutOptions {
            attributes,
            ..PutOptions::default()
        };
        copy.put_opts(&object.location, bytes.into(), options)
            .await
            .unwrap();
    }
    copy
}
