//! Transfers of whole objects, many at a time, by the library that rewindfs uses: the speed of the store itself.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::error::Error;

/// How many transfers run at the same time.
const AT_ONCE: usize = 32;

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

/// Writes `count` objects of `bytes` each.
///
/// # Errors
/// That of the first transfer that fails.
pub(crate) async fn put(
    store: &impl ObjectStore,
    count: usize,
    bytes: usize,
) -> Result<(), Box<dyn Error>> {
    // The store compresses nothing: the same bytes again do not make it faster.
    let content = Bytes::from(vec![7; bytes]);
    let puts = (0..count).map(|at| {
        let (key, content) = (key(at, bytes), content.clone());
        async move { store.put(&key, content.into()).await.map(|_| ()) }
    });
    let mut puts = stream::iter(puts).buffer_unordered(AT_ONCE);
    while puts.try_next().await?.is_some() {}
    Ok(())
}

/// Reads what [`put`] has written.
///
/// # Errors
/// That of the first transfer that fails, or an object that is not as long as it was.
pub(crate) async fn get(
    store: &impl ObjectStore,
    count: usize,
    bytes: usize,
) -> Result<(), Box<dyn Error>> {
    let gets = (0..count).map(|at| {
        let key = key(at, bytes);
        async move { store.get(&key).await?.bytes().await }
    });
    let mut gets = stream::iter(gets).buffer_unordered(AT_ONCE);
    while let Some(content) = gets.try_next().await? {
        if content.len() != bytes {
            return Err(format!("read {} bytes of {bytes}", content.len()).into());
        }
    }
    Ok(())
}

fn key(at: usize, bytes: usize) -> Path {
    Path::from(format!("raw/{bytes}/{at:08}"))
}
