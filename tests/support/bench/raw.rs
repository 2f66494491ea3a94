//! Transfers of whole objects, many at a time, by the library that rewindfs uses: the speed of the store itself.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::error::Error;
use std::time::{Duration, Instant};

/// How many transfers run at the same time, where the throughput is measured.
pub(crate) const AT_ONCE: usize = 32;

/// The client of a bucket; it asks for nothing yet.
///
/// # Errors
/// Those of a bad endpoint.
pub(crate) fn connect(endpoint: &str, bucket: &str) -> object_store::Result<AmazonS3> {
    AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_bucket_name(bucket)
        .with_region("us-east-1")
        .with_access_key_id("bench")
        .with_secret_access_key("bench")
        .build()
}

/// The objects of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfers {
    pub(crate) count: usize,
    /// The size of each.
    pub(crate) bytes: usize,
    /// How many are transferred at the same time.
    pub(crate) at_once: usize,
}

impl Transfers {
    fn keys(self) -> impl Iterator<Item = Path> {
        (0..self.count).map(move |at| Path::from(format!("raw/{}/{at:08}", self.bytes)))
    }
}

/// Writes objects. Returns how long each took.
///
/// # Errors
/// That of the first transfer that fails.
pub(crate) async fn put(
    store: &impl ObjectStore,
    transfers: Transfers,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    // The store compresses nothing: the same bytes again do not make it faster.
    let content = Bytes::from(vec![7; transfers.bytes]);
    let puts = transfers.keys().map(|key| {
        let content = content.clone();
        async move {
            let begin = Instant::now();
            store.put(&key, content.into()).await?;
            Ok(begin.elapsed())
        }
    });
    let puts = stream::iter(puts).buffer_unordered(transfers.at_once);
    puts.try_collect().await
}

/// Reads what [`put`] has written. Returns how long each took.
///
/// # Errors
/// That of the first transfer that fails, or an object that is not as long as it was.
pub(crate) async fn get(
    store: &impl ObjectStore,
    transfers: Transfers,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let gets = transfers.keys().map(|key| async move {
        let begin = Instant::now();
        let content = store.get(&key).await?.bytes().await?;
        match content.len() == transfers.bytes {
            true => Ok(begin.elapsed()),
            false => Err(format!("read {} bytes of {}", content.len(), transfers.bytes).into()),
        }
    });
    let gets = stream::iter(gets).buffer_unordered(transfers.at_once);
    gets.try_collect().await
}
