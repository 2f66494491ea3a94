use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_saved_overwritten_and_found_again_from_the_bucket_alone() {
    let world = World::new("basics-saved");
    let ns = world.open().await;
    save(&ns, ROOT, b"a", b"one").await;
    save(&ns, ROOT, b"a", b"two").await;
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), b"two");
    assert_eq!(history(&ns, ROOT, b"a").await, [b"one", b"two"]);
    ns.close().await.unwrap();
    drop(ns);
    world.wipe();
    let ns = world.open().await;
    assert_eq!(content(&ns, ROOT, b"a").await.unwrap(), b"two");
    assert_eq!(history(&ns, ROOT, b"a").await, [b"one", b"two"]);
    ns.close().await.unwrap();
}
