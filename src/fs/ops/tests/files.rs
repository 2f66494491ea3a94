//! Files: reading, writing, and how changes become versions.

use crate::fs::ops::create::FOR_EXECUTION;
use crate::fs::testing::{ALICE, ROOT, SUPER, position, world};
use crate::fs::*;
use bytes::Bytes;

#[tokio::test]
async fn written_bytes_are_read_and_saved_once() {
    let world = world().await;
    let file = world.make("a").await;
    world.put(file, 0, "hello").await;
    world.put(file, 5, " world").await;
    let bytes = world.read(file.0, file.1, 6, 100).await.unwrap();
    assert_eq!(bytes, "world");
    world.close(file).await;
    assert_eq!(world.cat("a").await.unwrap(), "hello world");
    assert_eq!(world.states("a").await, 1);
    assert_eq!(
        world.read(file.0, file.1, 0, 1).await,
        Err(FsError::BadHandle)
    );
}

#[tokio::test]
async fn a_flush_before_the_write_does_not_lose_it() {
    // sh -c 'echo hi > f': FLUSH of the duplicated descriptor, WRITE, FLUSH, RELEASE.
    let world = world().await;
    let file = world.make("f").await;
    world.flush(file.0, file.1).await.unwrap();
    world.put(file, 0, "hi").await;
    world.flush(file.0, file.1).await.unwrap();
    world.flush(file.0, file.1).await.unwrap();
    world.release(file.0, file.1).await.unwrap();
    assert_eq!(
        world.ls(".versions/@files/f").await.unwrap().len(),
        2,
        "one state and `latest`"
    );
    assert_eq!(
        world.cat(".versions/@files/f/latest").await,
        Err(FsError::Invalid("it has no content".into()))
    );
}

#[tokio::test]
async fn a_page_cache_write_after_the_flush_is_saved_through_any_handle() {
    let world = world().await;
    let ino = world.save("m", "....").await;
    let mapped = world.open(&ALICE, ino, libc::O_RDWR).await.unwrap().handle;
    let other = world.open(&ALICE, ino, libc::O_RDWR).await.unwrap().handle;
    world.flush(ino, mapped).await.unwrap();
    world.flush(ino, other).await.unwrap();
    let how = WriteMode {
        from_page_cache: true,
        kill_privileges: false,
    };
    let page = Bytes::from_static(b"page");
    world.write(&SUPER, ino, other, 0, page, how).await.unwrap();
    world.release(ino, mapped).await.unwrap();
    let states = world.ls(".versions/@files/m").await.unwrap();
    assert_eq!(states.len(), 4, "two states, latest, previous: {states:?}");
    world.release(ino, other).await.unwrap();
    assert_eq!(
        world.ls(".versions/@files/m").await.unwrap().len(),
        4,
        "equal content makes none"
    );
    assert_eq!(world.cat("m").await.unwrap(), "page");
}

#[tokio::test]
async fn a_page_cache_write_through_a_released_handle_finds_another() {
    let world = world().await;
    let file = world.make("m").await;
    let how = WriteMode {
        from_page_cache: true,
        kill_privileges: false,
    };
    let write = |handle, how| world.write(&SUPER, file.0, handle, 0, Bytes::from_static(b"x"), how);
    assert_eq!(write(999, how).await, Ok(1));
    assert_eq!(
        write(999, WriteMode::default()).await,
        Err(FsError::BadHandle)
    );
    world.close(file).await;
    assert_eq!(write(999, how).await, Err(FsError::BadHandle));
}

#[tokio::test]
async fn appending_goes_to_the_end_the_store_knows() {
    let world = world().await;
    let ino = world.save("log", "one\n").await;
    let opened = world
        .open(&ALICE, ino, libc::O_WRONLY | libc::O_APPEND)
        .await
        .unwrap();
    world.put((ino, opened.handle), 0, "two\n").await;
    world.close((ino, opened.handle)).await;
    assert_eq!(world.cat("log").await.unwrap(), "one\ntwo\n");
}

#[tokio::test]
async fn the_end_of_a_session_releases_every_handle() {
    let world = world().await;
    for n in 0..100 {
        let file = world.make(&format!("f{n}")).await;
        world.put(file, 0, "late").await;
    }
    world.opendir(&ALICE, ROOT).await.unwrap();
    world.end_session().await;
    assert_eq!(world.ls(".versions/@files").await.unwrap().len(), 100);
    assert!(world.handles.numbers().len() <= 1, "directories may stay");
}

#[tokio::test]
async fn a_removed_file_lives_on_for_who_has_it_open() {
    let world = world().await;
    let file = world.make("a").await;
    world.put(file, 0, "still here").await;
    world.unlink(&ALICE, ROOT, b"a").await.unwrap();
    assert_eq!(world.walk("a").await.unwrap_err(), FsError::NotFound);
    assert_eq!(
        world.read(file.0, file.1, 0, 99).await.unwrap(),
        "still here"
    );
    assert_eq!(
        world.getattr(file.0, Some(file.1)).await.unwrap().0.nlink,
        0
    );
    world.close(file).await;
    // An O_PATH descriptor still asks for attributes; after the last FORGET the number is unknown.
    assert_eq!(world.getattr(file.0, None).await.unwrap().0.nlink, 0);
    world.forget(file.0, 1);
    assert_eq!(
        world.getattr(file.0, None).await.unwrap_err(),
        FsError::Stale
    );
    assert_eq!(
        world.open(&ALICE, file.0, 0).await.unwrap_err(),
        FsError::Stale
    );
}

#[tokio::test]
async fn pages_are_kept_while_the_content_stays() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    let open = async |flags| {
        let opened = world.open(&ALICE, ino, flags).await.unwrap();
        world.close((ino, opened.handle)).await;
        opened.keep_cache
    };
    open(libc::O_RDONLY).await;
    assert!(open(libc::O_RDONLY).await);
    assert!(!open(libc::O_WRONLY | libc::O_TRUNC).await);
    assert!(
        open(libc::O_RDONLY).await,
        "the truncation was seen by the open that made it"
    );
    world.save("a", "y").await;
    assert!(!open(libc::O_RDONLY).await);
}

#[tokio::test]
async fn truncation_by_path_reaches_open_writers_and_through_a_handle_makes_no_version() {
    let world = world().await;
    let ino = world.save("a", "12345").await;
    let size = |len, handle| SetAttr {
        size: Some(len),
        handle,
        ..SetAttr::default()
    };
    world.setattr(&ALICE, ino, size(4, None)).await.unwrap();
    assert_eq!(
        world.ls(".versions/@files/a").await.unwrap().len(),
        4,
        "two states"
    );
    let handle = world
        .open(&ALICE, ino, libc::O_WRONLY)
        .await
        .unwrap()
        .handle;
    world
        .setattr(&ALICE, ino, size(3, Some(handle)))
        .await
        .unwrap();
    assert_eq!(world.ls(".versions/@files/a").await.unwrap().len(), 4);
    world.setattr(&ALICE, ino, size(2, None)).await.unwrap();
    world.close((ino, handle)).await;
    assert_eq!(world.ls(".versions/@files/a").await.unwrap().len(), 5);
    assert_eq!(world.cat("a").await.unwrap(), "12");
    let wrong = world.setattr(&ALICE, ROOT, size(0, None)).await;
    assert_eq!(wrong.unwrap_err(), FsError::IsDirectory);
    let reader = world
        .open(&ALICE, ino, libc::O_RDONLY)
        .await
        .unwrap()
        .handle;
    let wrong = world.setattr(&ALICE, ino, size(0, Some(reader))).await;
    assert_eq!(wrong.unwrap_err(), FsError::BadHandle);
}

#[tokio::test]
async fn space_calls_change_the_file_and_its_version() {
    let world = world().await;
    let file = world.make("a").await;
    world.put(file, 0, "abcdef").await;
    let (ino, handle) = file;
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    world
        .fallocate(&ALICE, ino, handle, 1, 2, punch)
        .await
        .unwrap();
    world.fallocate(&ALICE, ino, handle, 0, 8, 0).await.unwrap();
    assert_eq!(
        world.read(ino, handle, 0, 99).await.unwrap(),
        "a\0\0def\0\0"
    );
    let collapse = world.fallocate(&ALICE, ino, handle, 0, 8, libc::FALLOC_FL_COLLAPSE_RANGE);
    assert_eq!(collapse.await, Err(FsError::NotSupported));
    let huge = world.fallocate(&ALICE, ino, handle, u64::MAX, 2, 0).await;
    assert_eq!(huge, Err(FsError::TooLarge));
    assert_eq!(world.lseek(ino, handle, 3, libc::SEEK_DATA).await, Ok(3));
    assert_eq!(world.lseek(ino, handle, 3, libc::SEEK_HOLE).await, Ok(6));
    assert_eq!(
        world.lseek(ino, handle, 8, libc::SEEK_DATA).await,
        Err(FsError::NoSuchOffset)
    );
    let to = world.make("b").await;
    let (from, into) = (position(ino, handle, 3), position(to.0, to.1, 1));
    let copied = world.copy_file_range(&ALICE, from, into, 100).await;
    assert_eq!(copied, Ok(5));
    world.close(to).await;
    assert_eq!(world.cat("b").await.unwrap(), "\0def\0\0");
    let statfs = world.statfs(ROOT).await.unwrap();
    assert_eq!(statfs.blocks - statfs.bfree, 1);
}

#[tokio::test]
async fn a_failed_mount_acknowledges_nothing() {
    let world = world().await;
    let file = world.make("a").await;
    world.poison("first");
    world.poison("second");
    let answers = [
        world.lookup(&ALICE, ROOT, b"a").await.map(drop),
        world.flush(file.0, file.1).await,
        world.read(file.0, file.1, 0, 1).await.map(drop),
        world.unlink(&ALICE, ROOT, b"a").await,
        world.statfs(ROOT).await.map(drop),
        world.release(file.0, file.1).await,
    ];
    for answer in answers {
        assert_eq!(answer, Err(FsError::Poisoned("first".to_owned())));
    }
}

#[tokio::test]
async fn truncation_by_path_is_saved_at_the_latest_with_an_idle_writer() {
    let world = world().await;
    let ino = world.save("a", "12345").await;
    let handle = world
        .open(&ALICE, ino, libc::O_WRONLY)
        .await
        .unwrap()
        .handle;
    let change = SetAttr {
        size: Some(2),
        ..SetAttr::default()
    };
    world.setattr(&ALICE, ino, change).await.unwrap();
    world.close((ino, handle)).await;
    assert_eq!(world.states("a").await, 2);
}

#[tokio::test]
async fn an_open_that_reads_and_truncates_leaves_a_running_program_as_it_is() {
    let world = world().await;
    let ino = world.save("program", "text").await;
    let run = libc::O_RDONLY | FOR_EXECUTION;
    let running = world.open(&ALICE, ino, run).await.unwrap().handle;
    let emptied = libc::O_RDONLY | libc::O_TRUNC;
    let refused = world.open(&ALICE, ino, emptied).await;
    assert_eq!(refused.err(), Some(FsError::ProgramRuns));
    assert_eq!(world.cat("program").await.unwrap(), "text");
    // For writing the kernel has asked itself whether the program runs; a late release refuses nothing.
    let written = libc::O_WRONLY | libc::O_TRUNC;
    let written = world.open(&ALICE, ino, written).await.unwrap().handle;
    world.close((ino, written)).await;
    world.release(ino, running).await.unwrap();
    world.save("program", "new").await;
    let opened = world.open(&ALICE, ino, emptied).await.unwrap().handle;
    assert_eq!(world.cat("program").await.unwrap(), "");
    world.close((ino, opened)).await;
    // Nothing is left of a truncation that is done.
    let again = world.open(&ALICE, ino, run).await.unwrap().handle;
    world.release(ino, again).await.unwrap();
}
