//! `@deleted`, the undelete that a rename out of it is, and `@log`: what is shown, moved and refused.

use super::*;
use crate::fs::SetAttr;
use crate::fs::testing::{ALICE, Names, ROOT, SUPER, World, world};

const SECOND: u64 = 1_000_000_000;

async fn number(world: &World, path: &str) -> u64 {
    world.walk(path).await.unwrap().stat.ino.0
}

async fn mkdir(world: &World, parent: u64, name: &str, mode: u32) -> u64 {
    let made = world.mkdir(&ALICE, parent, name.as_bytes(), mode, 0).await;
    made.unwrap().stat.ino.0
}

async fn move_out(world: &World, name: &str, to: (u64, &str), flags: u32) -> FsResult<()> {
    let deleted = number(world, ".versions/@deleted").await;
    let (name, new_name) = (name.as_bytes(), to.1.as_bytes());
    world
        .rename(&ALICE, deleted, name, to.0, new_name, flags)
        .await
}

async fn tell(world: &World, path: &str, name: &str) -> String {
    let ino = number(world, path).await;
    let name = format!("user.versions.{name}");
    let value = world.getxattr(ino, name.as_bytes()).await.unwrap();
    String::from_utf8(value.to_vec()).unwrap()
}

/// A directory of mode 0500 with a file, a link and a directory, and a file beside it, all removed.
async fn with_removed() -> World {
    let world = world().await;
    let tree = mkdir(&world, ROOT, "tree", 0o755).await;
    world
        .symlink(&ALICE, tree, b"link", b"there")
        .await
        .unwrap();
    mkdir(&world, tree, "inner", 0o555).await;
    world.save("text", "first").await;
    world.save("text", "last").await;
    world.save("moved", "x").await;
    world
        .rename(&ALICE, ROOT, b"moved", tree, b"file", 0)
        .await
        .unwrap();
    let change = SetAttr {
        mode: Some(0o500),
        ..SetAttr::default()
    };
    world.setattr(&ALICE, tree, change).await.unwrap();
    world.advance(100 * SECOND);
    for name in [b"link", b"file"] {
        world.unlink(&ALICE, tree, name).await.unwrap();
    }
    world.rmdir(&ALICE, tree, b"inner").await.unwrap();
    world.rmdir(&ALICE, ROOT, b"tree").await.unwrap();
    world.unlink(&ALICE, ROOT, b"text").await.unwrap();
    world.advance(100 * SECOND);
    world
}

#[tokio::test]
async fn removed_names_show_their_last_state() {
    let world = with_removed().await;
    assert_eq!(
        world.ls(".versions/@deleted").await.unwrap(),
        ["text", "tree"]
    );
    assert_eq!(world.cat(".versions/@deleted/text").await.unwrap(), "last");
    assert_eq!(
        world.ls(".versions/@deleted/tree").await.unwrap(),
        ["file", "inner", "link"]
    );
    assert_eq!(
        world.cat(".versions/@deleted/tree/file").await.unwrap(),
        "x"
    );
    let tree = world.walk(".versions/@deleted/tree").await.unwrap();
    assert_eq!(
        tree.stat.attrs.mode, 0o700,
        "its owner may take it out of here"
    );
    let inner = world.walk(".versions/@deleted/tree/inner").await.unwrap();
    assert_eq!(inner.stat.attrs.mode, 0o555);
    for path in [
        ".versions/@deleted",
        ".versions/@deleted/text",
        ".versions/@deleted/tree",
    ] {
        let found = world.walk(path).await.unwrap();
        assert_eq!(
            found.entry_ttl,
            Duration::ZERO,
            "{path} can leave or change"
        );
    }
    let shown = number(&world, ".versions/@deleted").await;
    let handle = world.opendir(&ALICE, shown).await.unwrap().handle;
    let mut full = Names::default();
    world
        .readdir(shown, handle, 0, true, &mut full)
        .await
        .unwrap();
    for (name, ino) in &full.names[2..] {
        let found = world.lookup(&ALICE, shown, name.as_bytes()).await.unwrap();
        assert_eq!(found.stat.ino.0, *ino);
    }
}

#[tokio::test]
async fn a_rename_out_brings_back() {
    let world = with_removed().await;
    let home = mkdir(&world, ROOT, "home", 0o755).await;
    move_out(&world, "text", (home, "again"), 0).await.unwrap();
    assert_eq!(world.cat("home/again").await.unwrap(), "last");
    assert_eq!(world.ls(".versions/@deleted").await.unwrap(), ["tree"]);
    assert_eq!(tell(&world, "home/again", "op").await, "undelete");
    assert_eq!(tell(&world, "home/again", "renamed_from").await, "text");
    let states = world.ls("home/.versions/@files/again").await.unwrap();
    assert_eq!(states.len(), 5, "first, last, its return, two links");
    let ino = number(&world, "home/again").await;
    let change = SetAttr {
        size: Some(2),
        ..SetAttr::default()
    };
    world.setattr(&ALICE, ino, change).await.unwrap();
    assert_eq!(world.cat("home/again").await.unwrap(), "la");
    assert_eq!(
        world
            .cat("home/.versions/@files/again/previous")
            .await
            .unwrap_err(),
        FsError::Invalid("it has no content".to_owned()),
        "a link"
    );
    move_out(&world, "tree", (ROOT, "tree"), libc::RENAME_NOREPLACE)
        .await
        .unwrap();
    assert_eq!(world.ls("tree").await.unwrap(), ["file", "inner", "link"]);
    assert_eq!(world.cat("tree/file").await.unwrap(), "x");
    let tree = world.walk("tree").await.unwrap().stat;
    assert_eq!(
        (tree.attrs.mode, tree.generation, tree.nlink),
        (0o500, 1, 3)
    );
    assert_eq!(world.ls(".versions/@deleted").await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn handles_of_the_removed_directory_stay_dead() {
    let world = world().await;
    let tree = mkdir(&world, ROOT, "tree", 0o755).await;
    world.symlink(&ALICE, tree, b"l", b"t").await.unwrap();
    let old = world.opendir(&ALICE, tree).await.unwrap().handle;
    world.unlink(&ALICE, tree, b"l").await.unwrap();
    world.rmdir(&ALICE, ROOT, b"tree").await.unwrap();
    move_out(&world, "tree", (ROOT, "tree"), 0).await.unwrap();
    assert_eq!(
        number(&world, "tree").await,
        tree,
        "the same number in another life"
    );
    let mut names = Names::default();
    let dead = world.readdir(tree, old, 0, false, &mut names).await;
    assert_eq!(dead, Err(FsError::NotFound));
    assert_eq!(world.ls("tree").await.unwrap(), ["l"]);
}

#[tokio::test]
async fn every_other_rename_out_of_the_past_is_refused() {
    let world = with_removed().await;
    let deleted = number(&world, ".versions/@deleted").await;
    let tree = number(&world, ".versions/@deleted/tree").await;
    let time = number(&world, ".versions/-2m").await;
    let files = number(&world, ".versions/@files").await;
    world.save("live", "x").await;
    for (parent, name, to, new_name, flags) in [
        (tree, "file", ROOT, "out", 0),
        (time, "text", ROOT, "out", 0),
        (files, "text", ROOT, "out", 0),
        (deleted, "text", deleted, "out", 0),
        (deleted, "text", tree, "out", 0),
        (ROOT, "live", deleted, "text", 0),
        (deleted, "text", ROOT, "live", libc::RENAME_EXCHANGE),
    ] {
        let done = world
            .rename(
                &SUPER,
                parent,
                name.as_bytes(),
                to,
                new_name.as_bytes(),
                flags,
            )
            .await;
        assert_eq!(done, Err(FsError::ReadOnly), "{name} to {new_name}");
    }
    for (name, to, error) in [
        ("text", "home", FsError::IsDirectory),
        ("tree", "live", FsError::NotDirectory),
        ("none", "out", FsError::NotFound),
    ] {
        if name == "text" {
            mkdir(&world, ROOT, "home", 0o755).await;
        }
        assert_eq!(move_out(&world, name, (ROOT, to), 0).await, Err(error));
    }
    assert!(matches!(
        move_out(&world, "text", (ROOT, ".versions"), 0).await,
        Err(FsError::NotPermitted(_))
    ));
    let read_only = world.mounted_as(FsConfig {
        read_only: true,
        ..FsConfig::default()
    });
    let refused = move_out(&read_only, "text", (ROOT, "out"), 0).await;
    assert_eq!(refused, Err(FsError::ReadOnly));
    let unlinked = world.unlink(&SUPER, deleted, b"text").await;
    assert_eq!(unlinked, Err(FsError::ReadOnly));
}

#[tokio::test]
async fn many_removed_names_are_drawn_as_they_are_read() {
    let world = world().await;
    for number in 0..300 {
        let name = format!("n{number:03}");
        world
            .symlink(&ALICE, ROOT, name.as_bytes(), b"t")
            .await
            .unwrap();
        world.unlink(&ALICE, ROOT, name.as_bytes()).await.unwrap();
    }
    let shown = number(&world, ".versions/@deleted").await;
    let handle = world.opendir(&ALICE, shown).await.unwrap().handle;
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let mut page = Names {
            room: Some(7),
            ..Names::default()
        };
        world
            .readdir(shown, handle, offset, false, &mut page)
            .await
            .unwrap();
        if page.names.is_empty() {
            break;
        }
        offset = page.next_offset;
        found.extend(page.names.into_iter().map(|(name, _)| name));
    }
    assert_eq!(found.len(), 302);
    assert!(found[2..].is_sorted());
}

#[tokio::test]
async fn a_time_shows_its_directory_as_it_was() {
    let world = world().await;
    let dir = mkdir(&world, ROOT, "d", 0o750).await;
    world.symlink(&ALICE, dir, b"l", b"t").await.unwrap();
    world.advance(100 * SECOND);
    world
        .rename(&ALICE, ROOT, b"d", ROOT, b"e", 0)
        .await
        .unwrap();
    let change = SetAttr {
        mode: Some(0o700),
        ..SetAttr::default()
    };
    world.setattr(&ALICE, dir, change).await.unwrap();
    let then = world.walk("e/.versions/-1m").await.unwrap().stat.attrs;
    assert_eq!(then.mode, 0o750);
    let path = world.walk("e/.versions").await.unwrap().stat.attrs;
    assert_eq!(path.mode & 0o777, 0o700, "the way there is guarded as now");
    let moved = world.walk(".versions/-1m/d").await.unwrap().stat.attrs;
    assert_eq!(moved.mtime, then.mtime, "when the link was made");
    assert_eq!(
        then.mtime,
        world.getattr(dir, None).await.unwrap().0.attrs.mtime
    );
}

#[tokio::test]
async fn the_log_has_a_line_for_every_change() {
    let world = with_removed().await;
    move_out(&world, "text", (ROOT, "odd\nname"), 0)
        .await
        .unwrap();
    let log = number(&world, ".versions/@log").await;
    let opened = world.open(&ALICE, log, libc::O_RDONLY).await.unwrap();
    assert!(opened.direct, "its length is not known before");
    world.save("later", "x").await;
    let mut text = String::new();
    loop {
        let part = world.read(log, opened.handle, text.len() as u64, 50).await;
        let part = part.unwrap();
        if part.is_empty() {
            break;
        }
        text += std::str::from_utf8(&part).unwrap();
    }
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split(' ').collect()).collect();
    assert!(lines.is_sorted_by_key(|line| line[0]), "{text}");
    let told: Vec<String> = lines.iter().map(|line| line[1..].join(" ")).collect();
    assert_eq!(
        told,
        [
            "create - 1000 testhost tree",
            "create 5 1000 testhost text",
            "write 4 1000 testhost text",
            "delete - - - tree",
            "delete - - - text",
            "undelete 4 1000 testhost odd\\x0aname from text",
        ]
    );
    assert!(world.cat(".versions/@log").await.unwrap().contains("later"));
}

#[tokio::test]
async fn a_live_directory_and_what_is_stored_tell_too() {
    let world = with_removed().await;
    move_out(&world, "tree", (ROOT, "back"), 0).await.unwrap();
    assert_eq!(tell(&world, "back", "op").await, "undelete");
    assert_eq!(tell(&world, "back", "renamed_from").await, "tree");
    assert_eq!(tell(&world, "back/inner", "op").await, "undelete");
    world.save("big", &"x".repeat(20_000)).await;
    world.namespace.drain().await.unwrap();
    assert_eq!(tell(&world, "big", "size_stored").await, "20000");
    assert_eq!(
        tell(&world, ".versions/@deleted/text", "size_stored").await,
        "4"
    );
    let big = number(&world, "big").await;
    for path in ["text", ".versions/@deleted/text"] {
        if path == "text" {
            world.save("text", "last").await;
        } else {
            world.unlink(&ALICE, ROOT, b"text").await.unwrap();
        }
        assert_eq!(
            tell(&world, path, "sha256").await,
            "3547cb112ac4489af2310c0626cdba6f3097a2ad5a3b42ddd3b59c76c7a079a3",
            "as sha256sum has it"
        );
    }
    assert!(world.listxattr(big).await.unwrap().is_empty());
    for name in ["user.versions.op", "user.versions.anything"] {
        let set = world.setxattr(&SUPER, big, name.as_bytes(), b"x", 0).await;
        assert_eq!(set.unwrap_err().errno(), libc::EPERM);
        let removed = world.removexattr(&SUPER, big, name.as_bytes()).await;
        assert_eq!(removed.unwrap_err().errno(), libc::EPERM);
    }
}
