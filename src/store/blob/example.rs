//! An example of the blob store: run `cargo run --example blobs`, or pass a URL and a cache directory as arguments.
//!
//! A mount of the same namespace shows the blobs of the example, and their past versions below `.versions/`.

use std::error::Error;

use rewindfs::store::blob::{BlobOptions, BlobStore, ListOptions, PutOptions};

#[allow(
    clippy::disallowed_methods,
    reason = "a program blocks once, in its main"
)]
fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Runtime::new()?.block_on(run(std::env::args().skip(1).collect()))
}

async fn run(arguments: Vec<String>) -> Result<(), Box<dyn Error>> {
    let mut arguments = arguments.into_iter();
    let url = arguments.next().unwrap_or("memory://example".to_owned());
    let cache = arguments.next().map_or_else(
        || std::env::temp_dir().join(format!("rewindfs-example-{}", std::process::id())),
        Into::into,
    );
    let store = BlobStore::open(&url, "example", BlobOptions::new(&cache)).await?;

    versions(&store).await?;
    streams_and_parts(&store).await?;
    listings(&store).await?;

    // A child is a namespace of its own.
    let child = store.child("team/eu").await?;
    child.put("note", "for us", &PutOptions::default()).await?;
    child.close().await?;
    println!("below:  {:?}", store.children().await?);
    store.close().await?;
    if url == "memory://example" {
        std::fs::remove_dir_all(&cache)?;
    }
    Ok(())
}

async fn versions(store: &BlobStore) -> Result<(), Box<dyn Error>> {
    // Every put creates a version, which has its own metadata.
    let mut options = PutOptions {
        content_type: Some("text/plain".to_owned()),
        ..PutOptions::default()
    };
    options.metadata.insert("step".to_owned(), "draft".into());
    let txn = store
        .put_versioned("letters/anna", "Dear Ana,", &options)
        .await?;
    options.metadata.insert("step".to_owned(), "final".into());
    store.put("letters/anna", "Dear Anna,", &options).await?;
    println!("now:    {:?}", store.get("letters/anna").await?);
    println!(
        "before: {:?}",
        store.get_version("letters/anna", txn).await?
    );
    Ok(())
}

async fn streams_and_parts(store: &BlobStore) -> Result<(), Box<dyn Error>> {
    // A put reads its bytes from a stream; a reader returns a range of them.
    let long = tokio::io::AsyncReadExt::take(tokio::io::repeat(b'x'), 3_000_000);
    store
        .put_from("letters/long", long, &PutOptions::default())
        .await?;
    let mut reader = store.get_reader("letters/long", 2_999_995..).await?;
    while let Some(bytes) = reader.next().await? {
        println!("tail:   {bytes:?} of {} bytes", reader.size());
    }

    // A composite shares the bytes of its parts, so a part can be deleted afterwards.
    store
        .put_composite(
            "letters/all",
            ["letters/anna", "letters/long"],
            &PutOptions::default(),
        )
        .await?;
    store.delete("letters/long").await?;
    println!("all:    {} bytes", store.stat("letters/all").await?.size);
    Ok(())
}

async fn listings(store: &BlobStore) -> Result<(), Box<dyn Error>> {
    // A listing of the current blobs, and the versions of a deleted one.
    let page = ListOptions {
        delimited: true,
        ..ListOptions::prefix("letters/")
    };
    for entry in store.list_page(&page).await?.entries {
        println!("listed: {:?}", entry.key());
    }
    for version in store.list_versions("letters/long").await? {
        let what = if version.is_delete_marker {
            "deleted"
        } else {
            "put"
        };
        println!("{}  {what}, {} bytes", version.id, version.size);
    }
    Ok(())
}
