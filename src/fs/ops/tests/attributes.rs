//! Modes, owners, times, access lists and extended attributes.

use super::{chmod, mode_of};
use crate::fs::testing::{ALICE, ROOT, SUPER, world, world_with};
use crate::fs::*;
use crate::store::Time;
use bytes::Bytes;

#[tokio::test]
async fn the_umask_applies_and_the_parents_setgid_bit_is_inherited() {
    let world = world().await;
    let dir = world
        .mkdir(&SUPER, ROOT, b"d", 0o777, 0o022)
        .await
        .unwrap()
        .stat;
    assert_eq!((dir.attrs.mode, dir.attrs.gid), (0o755, 0));
    let dir = dir.ino.0;
    chmod(&world, dir, 0o2775).await;
    let (file, _) = world
        .create(&ALICE, dir, b"f", 0o666, 0o027, 0)
        .await
        .unwrap();
    let attrs = file.stat.attrs;
    assert_eq!((attrs.mode, attrs.uid, attrs.gid), (0o640, 1000, 0));
    let sub = world
        .mkdir(&ALICE, dir, b"s", 0o777, 0o022)
        .await
        .unwrap()
        .stat
        .attrs;
    assert_eq!((sub.mode, sub.uid, sub.gid), (0o2755, 1000, 0));
    let link = world
        .symlink(&ALICE, dir, b"l", b"target")
        .await
        .unwrap()
        .stat;
    assert_eq!((link.attrs.mode, link.attrs.size), (0o777, 6));
    assert_eq!(world.readlink(link.ino.0).await.unwrap(), "target");
}

#[tokio::test]
async fn a_default_list_is_inherited_instead_of_the_umask() {
    let world = world().await;
    let dir = world
        .mkdir(&SUPER, ROOT, b"d", 0o755, 0)
        .await
        .unwrap()
        .stat
        .ino
        .0;
    let list = acl::tests::extended();
    world
        .setxattr(&SUPER, dir, acl::DEFAULT, &list, 0)
        .await
        .unwrap();
    let (file, _) = world
        .create(&ALICE, dir, b"f", 0o666, 0o077, 0)
        .await
        .unwrap();
    assert_eq!(file.stat.attrs.mode, 0o660);
    let ino = file.stat.ino.0;
    assert!(world.getxattr(ino, acl::ACCESS).await.is_ok());
    assert_eq!(
        world.getxattr(ino, acl::DEFAULT).await,
        Err(FsError::NoAttribute)
    );
    let sub = world
        .mkdir(&ALICE, dir, b"s", 0o777, 0o077)
        .await
        .unwrap()
        .stat;
    assert_eq!(sub.attrs.mode, 0o770);
    assert_eq!(world.getxattr(sub.ino.0, acl::DEFAULT).await.unwrap(), list);
    let refused = world.setxattr(&SUPER, ino, acl::DEFAULT, &list, 0).await;
    assert_eq!(refused, Err(FsError::AccessDenied));
}

#[tokio::test]
async fn mode_and_access_list_keep_in_step() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    let list = acl::tests::extended();
    world
        .setxattr(&SUPER, ino, acl::ACCESS, &list, 0)
        .await
        .unwrap();
    assert_eq!(mode_of(&world, ino).await, 0o770);
    assert_eq!(chmod(&world, ino, 0o640).await, 0o640);
    let value = world.getxattr(ino, acl::ACCESS).await.unwrap();
    let kept = acl::Acl::parse(&value).unwrap().unwrap();
    assert!(kept.mode() == 0o640 && !kept.is_minimal());
    // A list that says no more than the mode is not stored.
    let minimal = acl::tests::minimal();
    world
        .setxattr(&SUPER, ino, acl::ACCESS, &minimal, 0)
        .await
        .unwrap();
    assert_eq!(mode_of(&world, ino).await, 0o755);
    assert_eq!(
        world.getxattr(ino, acl::ACCESS).await,
        Err(FsError::NoAttribute)
    );
    assert_eq!(world.removexattr(&SUPER, ino, acl::ACCESS).await, Ok(()));
}

#[tokio::test]
async fn a_stranger_who_sets_a_list_loses_the_setgid_bit() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    let list = acl::tests::extended();
    chmod(&world, ino, 0o2755).await;
    world
        .setxattr(&ALICE, ino, acl::ACCESS, &list, 0)
        .await
        .unwrap();
    assert_eq!(mode_of(&world, ino).await, 0o2770, "the group is hers");
    let stranger = Caller {
        uid: 1001,
        gid: 1001,
        pid: 0,
    };
    world
        .setxattr(&stranger, ino, acl::ACCESS, &list, 0)
        .await
        .unwrap();
    assert_eq!(mode_of(&world, ino).await, 0o770);
}

#[tokio::test]
async fn set_id_bits_fall_at_write_truncate_and_chown() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    let capability: &[u8] = b"security.capability";
    let arm = async || {
        chmod(&world, ino, 0o6755).await;
        world
            .setxattr(&SUPER, ino, capability, b"cap", 0)
            .await
            .unwrap();
    };
    let disarmed = async |why: &str| {
        assert_eq!(mode_of(&world, ino).await, 0o755, "{why}");
        let left = world.getxattr(ino, capability).await;
        assert_eq!(left, Err(FsError::NoAttribute), "{why}");
    };
    arm().await;
    let handle = world.open(&SUPER, ino, libc::O_RDWR).await.unwrap().handle;
    world.put((ino, handle), 0, "y").await;
    assert_eq!(
        mode_of(&world, ino).await,
        0o6755,
        "the writer may keep them"
    );
    let how = WriteMode {
        from_page_cache: false,
        kill_privileges: true,
    };
    world
        .write(&ALICE, ino, handle, 0, Bytes::from_static(b"z"), how)
        .await
        .unwrap();
    disarmed("write").await;
    let size = |handle| SetAttr {
        size: Some(1),
        handle,
        ..SetAttr::default()
    };
    for handle in [None, Some(handle)] {
        arm().await;
        world.setattr(&ALICE, ino, size(handle)).await.unwrap();
        disarmed("truncate").await;
    }
    arm().await;
    world.setattr(&SUPER, ino, size(None)).await.unwrap();
    assert_eq!(mode_of(&world, ino).await, 0o6755, "root truncates");
    let chown = SetAttr {
        uid: Some(5),
        ..SetAttr::default()
    };
    world.setattr(&SUPER, ino, chown).await.unwrap();
    disarmed("chown, also by root").await;
    arm().await;
    world
        .open(&ALICE, ino, libc::O_WRONLY | libc::O_TRUNC)
        .await
        .unwrap();
    disarmed("O_TRUNC").await;
    arm().await;
    world.fallocate(&ALICE, ino, handle, 0, 9, 0).await.unwrap();
    disarmed("fallocate").await;
    arm().await;
    let refused = world.fallocate(&ALICE, ino, handle, 0, 9, libc::FALLOC_FL_COLLAPSE_RANGE);
    assert_eq!(refused.await, Err(FsError::NotSupported));
    assert_eq!(mode_of(&world, ino).await, 0o6755, "nothing was changed");
}

#[tokio::test]
async fn a_change_of_nothing_takes_set_id_bits_from_all_but_root() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    let nothing = SetAttr::default();
    chmod(&world, ino, 0o6755).await;
    let (shown, _) = world.setattr(&SUPER, ino, nothing).await.unwrap();
    assert_eq!(shown.attrs.mode, 0o6755);
    let (shown, _) = world.setattr(&ALICE, ino, nothing).await.unwrap();
    assert_eq!(shown.attrs.mode, 0o755);
    assert_eq!(mode_of(&world, ino).await, 0o755);
}

#[tokio::test]
async fn setgid_without_group_execute_falls_at_the_change_of_a_nonmember() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    let stranger = Caller {
        uid: 1001,
        gid: 1001,
        pid: 0,
    };
    let nothing = SetAttr::default();
    for (caller, left) in [(&ALICE, 0o2746), (&stranger, 0o746)] {
        chmod(&world, ino, 0o6746).await;
        let (shown, _) = world.setattr(caller, ino, nothing).await.unwrap();
        assert_eq!(shown.attrs.mode, left);
    }
    let dir = world.mkdir(&SUPER, ROOT, b"d", 0o2777, 0).await.unwrap();
    let (shown, _) = world
        .setattr(&stranger, dir.stat.ino.0, nothing)
        .await
        .unwrap();
    assert_eq!(shown.attrs.mode, 0o2777, "a directory's bit is no right");
}

#[tokio::test]
async fn a_mode_that_lends_rights_is_not_kept_by_the_kernel() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    let change = |mode| SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    };
    // For a minute, and not beyond the writer's lease.
    let kept = Duration::from_secs(40)..=Duration::from_secs(50);
    for mode in [0o4755, 0o2755, 0o6644] {
        let (_, ttl) = world.setattr(&ALICE, ino, change(mode)).await.unwrap();
        assert_eq!(ttl, Duration::ZERO);
        assert_eq!(world.getattr(ino, None).await.unwrap().1, Duration::ZERO);
        let entry = world.lookup(&ALICE, ROOT, b"a").await.unwrap();
        assert_eq!(entry.attr_ttl, Duration::ZERO);
        assert!(kept.contains(&entry.entry_ttl), "{:?}", entry.entry_ttl);
    }
    let (_, ttl) = world.setattr(&ALICE, ino, change(0o1755)).await.unwrap();
    assert!(kept.contains(&ttl), "{ttl:?}");
}

#[tokio::test]
async fn a_directory_keeps_its_setgid_bit_over_chown() {
    let world = world().await;
    let chown = SetAttr {
        uid: Some(5),
        ..SetAttr::default()
    };
    let dir = world
        .mkdir(&SUPER, ROOT, b"d", 0o755, 0)
        .await
        .unwrap()
        .stat
        .ino
        .0;
    chmod(&world, dir, 0o2775).await;
    world.setattr(&SUPER, dir, chown).await.unwrap();
    assert_eq!(
        mode_of(&world, dir).await,
        0o2775,
        "a directory's bit is no privilege"
    );
}

#[tokio::test]
async fn times_are_set_one_by_one() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    let before = world.getattr(ino, None).await.unwrap().0.attrs;
    let at = Time {
        seconds: -5,
        nanos: 7,
    };
    let change = SetAttr {
        atime: Some(SetTime::At(at)),
        ..SetAttr::default()
    };
    let after = world.setattr(&ALICE, ino, change).await.unwrap().0.attrs;
    assert_eq!((after.atime, after.mtime), (at, before.mtime));
    assert!(after.ctime > before.ctime);
    let change = SetAttr {
        mtime: Some(SetTime::Now),
        ..SetAttr::default()
    };
    let last = world.setattr(&ALICE, ino, change).await.unwrap().0.attrs;
    assert!(last.mtime > after.mtime && last.atime == at);
}

#[tokio::test]
async fn attributes_of_the_callers_own() {
    let world = world().await;
    let ino = world.save("a", "x").await;
    let name: &[u8] = b"user.colour";
    let set = |flags| world.setxattr(&ALICE, ino, name, b"red", flags);
    assert_eq!(set(libc::XATTR_REPLACE).await, Err(FsError::NoAttribute));
    set(libc::XATTR_CREATE).await.unwrap();
    assert_eq!(set(libc::XATTR_CREATE).await, Err(FsError::Exists));
    assert_eq!(world.getxattr(ino, name).await.unwrap(), "red");
    assert_eq!(world.listxattr(ino).await.unwrap(), b"user.colour\0");
    world.removexattr(&ALICE, ino, name).await.unwrap();
    assert_eq!(
        world.removexattr(&ALICE, ino, name).await,
        Err(FsError::NoAttribute)
    );
}

#[tokio::test]
async fn options_change_the_shown_attributes_only() {
    let config = FsConfig {
        uid: Some(7),
        gid: Some(8),
        umask: Some(0o077),
        live_ttl: Duration::from_secs(3),
        ..FsConfig::default()
    };
    let world = world_with(config).await;
    let (entry, _) = world.create(&ALICE, ROOT, b"a", 0o644, 0, 0).await.unwrap();
    let attrs = &entry.stat.attrs;
    assert_eq!((attrs.uid, attrs.gid, attrs.mode), (7, 8, 0o600));
    assert_eq!(
        (entry.entry_ttl.as_secs(), entry.attr_ttl.as_secs()),
        (3, 3)
    );
    let stored = world
        .namespace
        .tree()
        .stat(entry.stat.ino)
        .await
        .unwrap()
        .attrs;
    assert_eq!((stored.uid, stored.gid, stored.mode), (1000, 1000, 0o644));
}

#[tokio::test]
async fn an_inode_without_attributes_is_known_without_a_read_until_one_is_set() {
    let world = world().await;
    let (ino, handle) = world.make("a").await;
    let lacks = |name: &[u8]| world.lacks_attribute(ino, name);
    assert_eq!(lacks(b"security.selinux"), Some(FsError::NoAttribute));
    assert_eq!(
        lacks(b"system.posix_acl_access"),
        Some(FsError::NoAttribute)
    );
    assert_eq!(lacks(b"user.versions.op"), None, "a version has it");
    let set = world.setxattr(&ALICE, ino, b"user.a", b"1", 0);
    set.await.unwrap();
    assert_eq!(lacks(b"user.a"), None);
    assert_eq!(lacks(b"security.selinux"), None);
    assert_eq!(world.getxattr(ino, b"user.a").await.unwrap(), "1");
    world.removexattr(&ALICE, ino, b"user.a").await.unwrap();
    world.lookup(&ALICE, ROOT, b"a").await.unwrap();
    assert_eq!(
        lacks(b"user.a"),
        Some(FsError::NoAttribute),
        "looked up again"
    );
    world.close((ino, handle)).await;
    let follower = world.mounted_as(FsConfig {
        read_only: true,
        ..FsConfig::default()
    });
    follower.lookup(&ALICE, ROOT, b"a").await.unwrap();
    assert_eq!(
        follower.lacks_attribute(ino, b"user.a"),
        None,
        "another process sets it"
    );
    world.poison("a test");
    assert!(matches!(lacks(b"user.a"), Some(FsError::Poisoned(_))));
}
