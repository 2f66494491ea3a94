//! The calls over a namespace in memory: their results, and the tables that they update.

mod attributes;
mod blobs;
mod clock;
mod files;
mod tree;

use crate::fs::testing::{Names, SUPER, World, position};
use crate::fs::{FileSystem, SetAttr, WriteMode};
use bytes::Bytes;

fn assert_send<T: Send>(value: T) -> T {
    value
}

async fn chmod(world: &World, ino: u64, mode: u32) -> u32 {
    let change = SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    };
    let (stat, _) = world.setattr(&SUPER, ino, change).await.unwrap();
    stat.attrs.mode
}

async fn mode_of(world: &World, ino: u64) -> u32 {
    world.getattr(ino, None).await.unwrap().0.attrs.mode
}

/// Compiles only while every call's future can be spawned.
#[allow(dead_code, reason = "it is the compiler that tests")]
fn every_call_can_run_as_a_task(fs: &FileSystem, names: &mut Names) {
    let who = &SUPER;
    let how = WriteMode::default();
    let (name, bytes): (&[u8], _) = (b"a", Bytes::new());
    drop(assert_send(fs.lookup(who, 1, name)));
    drop(assert_send(fs.getattr(1, None)));
    drop(assert_send(fs.setattr(who, 1, SetAttr::default())));
    drop(assert_send(fs.readlink(1)));
    drop(assert_send(fs.access(who, 1, 0)));
    drop(assert_send(fs.mknod(who, 1, name, 0, 0, 0)));
    drop(assert_send(fs.mkdir(who, 1, name, 0, 0)));
    drop(assert_send(fs.symlink(who, 1, name, name)));
    drop(assert_send(fs.link(who, 1, 1, name)));
    drop(assert_send(fs.unlink(who, 1, name)));
    drop(assert_send(fs.rmdir(who, 1, name)));
    drop(assert_send(fs.rename(who, 1, name, 1, name, 0)));
    drop(assert_send(fs.create(who, 1, name, 0, 0, 0)));
    drop(assert_send(fs.open(who, 1, 0)));
    drop(assert_send(fs.read(1, 1, 0, 0)));
    drop(assert_send(fs.write(who, 1, 1, 0, bytes, how)));
    drop(assert_send(fs.flush(1, 1)));
    drop(assert_send(fs.release(1, 1)));
    drop(assert_send(fs.fsync(1, 1, false)));
    drop(assert_send(fs.fsyncdir(1, 1)));
    drop(assert_send(fs.opendir(who, 1)));
    drop(assert_send(fs.readdir(1, 1, 0, true, names)));
    drop(assert_send(fs.releasedir(1, 1)));
    drop(assert_send(fs.statfs(1)));
    drop(assert_send(fs.getxattr(1, name)));
    drop(assert_send(fs.listxattr(1)));
    drop(assert_send(fs.setxattr(who, 1, name, name, 0)));
    drop(assert_send(fs.removexattr(who, 1, name)));
    drop(assert_send(fs.fallocate(who, 1, 1, 0, 0, 0)));
    drop(assert_send(fs.lseek(1, 1, 0, 0)));
    drop(assert_send(fs.copy_file_range(
        who,
        position(1, 1, 0),
        position(1, 1, 0),
        0,
    )));
    drop(assert_send(fs.end_session()));
}
