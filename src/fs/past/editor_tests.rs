//! Saves of editors in the lists of the past: a save that renames the old state away, and ignored names.

use crate::fs::testing::{ALICE, ROOT, World, world};

const SECOND: u64 = 1_000_000_000;

/// The contents of the versions of `name`, oldest first. Each is read by the name that the list prints.
async fn versions(world: &World, name: &str) -> Vec<String> {
    let directory = format!(".versions/@files/{name}");
    let mut contents = Vec::new();
    for stamp in world.ls(&directory).await.unwrap() {
        if stamp.starts_with('2') {
            contents.push(world.cat(&format!("{directory}/{stamp}")).await.unwrap());
        }
    }
    contents
}

async fn rename(world: &World, from: &str, to: &str) {
    let renamed = world.rename(&ALICE, ROOT, from.as_bytes(), ROOT, to.as_bytes(), 0);
    renamed.await.unwrap();
}

/// Saves as vim with `backupcopy=no` and Emacs do: the old state is renamed to `backup`, then `name` is created.
async fn save_beside(world: &World, name: &str, backup: &str, text: &str) {
    rename(world, name, backup).await;
    world.save(name, text).await;
    world.advance(SECOND);
}

#[tokio::test]
async fn a_save_that_renames_the_old_state_away_keeps_it_in_the_list() {
    for backup in ["doc.txt~", "doc.txt.bak", "~WRL0002.tmp"] {
        let world = world().await;
        world.save("doc.txt", "0").await;
        for text in ["1", "2", "3"] {
            save_beside(&world, "doc.txt", backup, text).await;
        }
        let expected = ["0", "1", "2", "3"];
        assert_eq!(versions(&world, "doc.txt").await, expected, "{backup}");
        world.unlink(&ALICE, ROOT, backup.as_bytes()).await.unwrap();
        // The list goes on under another name, which begins with the state that was moved.
        rename(&world, "doc.txt", "final.txt").await;
        let expected = ["0", "1", "2", "3", "3"];
        assert_eq!(versions(&world, "final.txt").await, expected, "{backup}");
        world.advance(20 * SECOND);
        world.save("doc.txt", "another").await;
        world.advance(20 * SECOND);
        rename(&world, "doc.txt", "other.txt").await;
        let expected = ["another", "another"];
        assert_eq!(versions(&world, "other.txt").await, expected, "{backup}");
    }
}

#[tokio::test]
async fn a_name_that_is_removed_and_written_again_at_once_is_not_transient() {
    let world = world().await;
    world.save("doc", "0").await;
    world.unlink(&ALICE, ROOT, b"doc").await.unwrap();
    world.save("doc", "1").await;
    rename(&world, "doc", "final").await;
    assert_eq!(versions(&world, "final").await, ["0", "1", "1"]);
    assert_eq!(versions(&world, "doc").await, ["0", "1"]);
    // A temporary name that is used for each save stays in no list.
    for text in ["2", "3"] {
        world.save("new", text).await;
        rename(&world, "new", "final").await;
        world.advance(SECOND);
    }
    assert_eq!(versions(&world, "final").await, ["0", "1", "1", "2", "3"]);
    assert_eq!(
        world.ls(".versions/@files").await.unwrap(),
        ["doc", "final"]
    );
}

#[tokio::test]
async fn an_ignored_name_is_listed_while_it_exists_and_found_afterwards() {
    let world = world().await;
    for name in ["doc", "doc~", ".doc.swp", "4913", "plain"] {
        world.save(name, name).await;
    }
    let lists = async || {
        let mut lists = Vec::new();
        for place in ["@files", "@deleted"] {
            let mut names = world.ls(&format!(".versions/{place}")).await.unwrap();
            names.sort();
            lists.push(names.join(" "));
        }
        let log = world.cat(".versions/@log").await.unwrap();
        let in_log = |name: &&str| log.lines().any(|line| line.ends_with(&format!(" {name}")));
        let mut names = vec![".doc.swp", "4913", "doc", "doc~", "plain"];
        names.retain(in_log);
        lists.push(names.join(" "));
        lists
    };
    let all = ".doc.swp 4913 doc doc~ plain";
    assert_eq!(lists().await, [all, "", all]);
    for name in [".doc.swp", "4913", "plain"] {
        world.unlink(&ALICE, ROOT, name.as_bytes()).await.unwrap();
    }
    let rest = "doc doc~ plain";
    assert_eq!(lists().await, [rest, "plain", rest]);
    for name in [".doc.swp", "4913"] {
        assert_eq!(versions(&world, name).await, [name]);
        let removed = format!(".versions/@deleted/{name}");
        assert_eq!(world.cat(&removed).await.unwrap(), name);
    }
    let deleted = world.walk(".versions/@deleted").await.unwrap().stat.ino.0;
    let back = world.rename(&ALICE, deleted, b"4913", ROOT, b"4913", 0);
    back.await.unwrap();
    assert_eq!(world.cat("4913").await.unwrap(), "4913");
}
