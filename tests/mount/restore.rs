//! The verbs that change the tree, on a path in a mount and on a store's URL: through the daemon that has the namespace, and by a writer
//! of the command.

use std::process::Command;
use std::time::Duration;

use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::s3::S3Server;
use crate::support::shell::{self, CommandResult};
use crate::verbs::{AskedMount, check_refusal, column};

/// The time within which a command ends.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a verb on a store's URL. Cache and journal are those of `mount`.
fn by_writer(mount: &TestMount, place: &Place, verb: &str, arguments: &[&str]) -> CommandResult {
    let mut command = Command::new(PROGRAM);
    command.args([verb, &place.url]).args(arguments);
    if let Some(endpoint) = &place.endpoint {
        command.args(["--endpoint", endpoint]);
    }
    command
        .args(["--no-writer", "--cache-dir"])
        .arg(mount.cache())
        .envs(place.variables.iter().cloned());
    shell::run(&mut command, LIMIT)
}

fn undelete_both_ways(place: Place) {
    let mut asked = AskedMount::start(
        place,
        "mkdir -p d/sub e; echo one > d/f; echo two > d/f; echo in > d/sub/in; echo b > d/b; echo c > d/c
         rm d/f d/b d/c; rm -r d/sub; ls d > /dev/null",
    );
    let told = asked.in_mount("undelete", "d/f", &[]).ok();
    assert_eq!(told, "d/f: restored (file, 4 bytes)\n");
    asked.mount.sh(
        "test \"$(cat d/f)\" = two; test \"$(ls d)\" = f; ls d/.versions/@deleted | grep -qx sub",
    );
    // The daemon of this machine has the namespace: it makes the change.
    let told = asked.on_url("undelete", "d/sub", &["--to", "e/back", "--json"]);
    let row: serde_json::Value = serde_json::from_str(&told.ok()).unwrap();
    assert_eq!(
        (&row["path"], &row["from"], &row["kind"]),
        (&"e/back".into(), &"d/sub".into(), &"directory".into()),
        "{row}"
    );
    assert_eq!((&row["size"], &row["undo"]), (&().into(), &().into()));
    asked
        .mount
        .sh("test \"$(cat e/back/in)\" = in; test \"$(ls d)\" = f");
    assert_eq!(asked.mount.status()["fenced"], false);
    asked.mount.drain();
    let rows = asked.rows("versions", "d/f", &[]);
    assert_eq!(column(&rows, "op"), ["create", "write", "undelete"]);
    assert_eq!(column(&rows, "program")[2], "rewindfs");
    asked.mount.umount();
    let words = ["d/b: not changed", "last written at", "--no-writer"];
    check_refusal(&asked.on_url("undelete", "d/b", &[]), 1, &words);
    let place = asked.place.clone();
    let told = by_writer(&asked.mount, &place, "undelete", &["d/b"]).ok();
    assert_eq!(told, "d/b: restored (file, 2 bytes)\n");
    let none = by_writer(&asked.mount, &place, "undelete", &["d/none"]);
    check_refusal(&none, 1, &["d/none: does not exist"]);
    asked.mount.mount();
    asked
        .mount
        .sh("test \"$(cat d/b)\" = b; test \"$(ls d | tr '\\n' ' ')\" = 'b f '");
    asked.mount.check_log("main");
}

#[test]
fn undelete_works_in_a_mount_and_on_its_url() {
    let store = tempfile::tempdir().unwrap();
    undelete_both_ways(Place::local(store.path()));
}

#[test]
fn undelete_works_in_a_mount_and_on_its_url_on_s3() {
    if let Some(server) = S3Server::start() {
        undelete_both_ways(server.place("undelete"));
    }
}

#[test]
fn what_cannot_be_undeleted_is_named() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(
        Place::local(store.path()),
        "mkdir d gone; echo x > d/f; echo x > d/there; echo x > d/old; sleep 11; mv d/old d/new; rm d/f; echo x > gone/f; rm -r gone",
    );
    let elsewhere = asked.mount.path("none/x").display().to_string();
    let taken = asked.mount.path("d/there").display().to_string();
    let reserved = asked.mount.path("d/.versions").display().to_string();
    let cases: [(&str, &[&str], i32, &[&str]); 10] = [
        ("d/there", &[], 1, &["d/there: exists", "rewindfs restore"]),
        ("d/none", &[], 1, &["d/none: does not exist"]),
        ("d/old", &[], 1, &["d/old: was moved away", "rewindfs log"]),
        ("gone/f", &[], 1, &["gone/f: its directory gone"]),
        (
            "d/f",
            &["--to", &elsewhere],
            1,
            &["none/x: its directory none", "--to"],
        ),
        ("d/f", &["--to", &taken], 1, &["d/there: exists", "--to"]),
        (
            "d/f",
            &["--to", &reserved],
            1,
            &["d/.versions: the name is reserved"],
        ),
        (
            "d/f",
            &["--to", "/nowhere"],
            1,
            &["--to /nowhere", "not in the mount"],
        ),
        ("d/f@-1h", &[], 2, &["d/f@-1h", "rewindfs restore"]),
        ("d/f", &["--no-writer"], 2, &["--no-writer", "URL"]),
    ];
    for (path, flags, code, words) in cases {
        check_refusal(&asked.in_mount("undelete", path, flags), code, words);
    }
    check_refusal(&asked.in_mount("undelete", "", &[]), 1, &["root directory"]);
    let follower = TestMount::start(&asked.place, &["--read-only"]);
    let mut command = Command::new(PROGRAM);
    let ran = shell::run(command.arg("undelete").arg(follower.path("d/f")), LIMIT);
    check_refusal(&ran, 1, &["is mounted read-only"]);
    assert_eq!(asked.in_mount("undelete", "d/f", &[]).code, Some(0));
}

/// The TIME of this moment, after which a name may change.
#[track_caller]
fn moment(asked: &AskedMount) -> String {
    let stamp = asked
        .mount
        .sh("sleep 0.05; date -u +%Y-%m-%dT%H-%M-%S.%NZ; sleep 0.05");
    stamp.trim().to_owned()
}

/// The TIME in the last line of what `restore` printed.
#[track_caller]
fn undo(told: &str) -> String {
    let line = told.lines().last().unwrap();
    assert!(line.starts_with("undo: rewindfs restore "), "{told}");
    line.rsplit_once('@').unwrap().1.to_owned()
}

fn files_and_trees(place: Place) {
    let asked = AskedMount::start(
        place,
        "mkdir -p d/sub d/gone; echo one > d/f; echo in > d/sub/in; echo g > d/gone/g; chmod 640 d/f
         ln -s f d/l; echo linked > d/h1; ln d/h1 d/h2; mkdir d/away; echo w > d/away/w",
    );
    let then = moment(&asked);
    asked.sh(
        "sleep 11; cat d/f d/sub/in > /dev/null; echo 'two two' > d/f
         # Until the second version exists, the first one takes the new mode: two versions and two links.
         until [ $(ls d/.versions/@files/f | wc -l) = 4 ]; do sleep 0.05; done
         chmod 600 d/f; mv d/sub d/moved; rm -r d/gone; ln -sf other d/l
         echo changed > d/h1; rm d/h2; mkdir d/new; echo n > d/new/n; echo n > d/added; mv d/away away; ls -R . > /dev/null",
    );
    // A file, and its undo.
    let told = asked.in_mount("restore", &format!("d/f@{then}"), &[]).ok();
    assert!(
        told.starts_with("d/f: restored as of 20") && told.contains("Z (file, 4 bytes)\n"),
        "{told}"
    );
    asked
        .mount
        .sh("test \"$(cat d/f)\" = one; test $(stat -c %a d/f) = 640");
    let rows: Vec<_> = asked
        .in_mount("versions", "d/f", &["--json"])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    assert!(
        rows.len() == 3 && rows[2].contains("\"restore\""),
        "{rows:?}"
    );
    asked
        .in_mount("restore", &format!("d/f@{}", undo(&told)), &[])
        .ok();
    asked
        .mount
        .sh("test \"$(cat d/f)\" = 'two two'; test $(stat -c %a d/f) = 600");
    // What would change.
    asked.mount.drain();
    let tree = format!("d@{then}");
    let shown = asked.text("restore", &tree, &["--dry-run"]);
    assert!(shown.starts_with("as of 20"), "{shown}");
    for line in ["added    ", "removed  ", "changed  ", "renamed  "] {
        assert!(shown.contains(line.trim_end()), "{line}: {shown}");
    }
    let kept = asked.text("restore", &tree, &["--dry-run", "--keep-new"]);
    assert!(
        !kept.contains("removed") && kept.contains("changed"),
        "{kept}"
    );
    asked.mount.sh("test -e d/added");
    whole_trees(asked, &then);
}

/// Restores the tree, undoes that, and restores it elsewhere.
fn whole_trees(mut asked: AskedMount, then: &str) {
    let tree = format!("d@{then}");
    // A tree, and its undo.
    let told = asked.in_mount("restore", &tree, &["--keep-new"]).ok();
    asked.mount.sh("test -e d/added; test -e d/new/n; test \"$(cat d/sub/in d/gone/g)\" = \"$(printf 'in\\ng')\"");
    asked
        .in_mount("restore", &format!("d@{}", undo(&told)), &[])
        .ok();
    asked.mount.sh("test \"$(ls d | tr '\\n' ' ')\" = 'added f h1 l moved new '; test \"$(cat d/f)\" = 'two two'");
    let told = asked.on_url("restore", &tree, &[]).ok();
    let state = "test \"$(ls d | tr '\\n' ' ')\" = 'away f gone h1 h2 l sub '
         test \"$(cat d/f d/sub/in d/gone/g d/h1 d/h2 d/away/w away/w | tr '\\n' ' ')\" = 'one in g linked linked w w '
         test $(stat -c '%a' d/f) = 640; test \"$(readlink d/l)\" = f; test $(stat -c %h d/h1) = 2; test d/h1 -ef d/h2";
    asked.mount.sh(state);
    asked.mount.drain();
    asked.mount.check_log("main");
    asked.mount.remount(crate::support::mount::Cache::Wiped);
    asked.mount.sh(state);
    asked.mount.sh(&format!(
        "test \"$(ls d/.versions/{} | tr '\\n' ' ')\" = 'added f h1 l moved new '; test \"$(cat d/.versions/{then}/f)\" = one",
        undo(&told)
    ));
    // A copy beside it, and a restore by a writer of the command.
    let copy = asked.mount.path("copy").display().to_string();
    asked
        .in_mount("restore", &format!("d@{}", undo(&told)), &["--to", &copy])
        .ok();
    asked.mount.sh("test \"$(ls copy | tr '\\n' ' ')\" = 'added f h1 l moved new '; test \"$(cat copy/f copy/moved/in)\" = \"$(printf 'two two\\nin')\"");
    asked.mount.umount();
    let place = asked.place.clone();
    let path = format!("d/f@{}", undo(&told));
    let told = by_writer(&asked.mount, &place, "restore", &[&path]).ok();
    assert!(
        told.contains(&format!("undo: rewindfs restore {} d/f@", place.url)),
        "{told}"
    );
    asked.mount.mount();
    asked
        .mount
        .sh("test \"$(cat d/f)\" = 'two two'; test \"$(cat d/sub/in)\" = in");
    asked.mount.check_log("main");
}

#[test]
fn files_and_trees_are_restored_exactly() {
    let store = tempfile::tempdir().unwrap();
    files_and_trees(Place::local(store.path()));
}

#[test]
fn files_and_trees_are_restored_exactly_on_s3() {
    if let Some(server) = S3Server::start() {
        files_and_trees(server.place("restore"));
    }
}

#[test]
fn what_cannot_be_restored_is_named() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(
        Place::local(store.path()),
        "mkdir d; echo one > d/f; echo x > d/gone; rm d/gone",
    );
    let then = moment(&asked);
    asked.sh("echo two > d/f");
    let taken = asked.mount.path("d/f").display().to_string();
    let cases: [(&str, &[&str], i32, &[&str]); 7] = [
        ("d/f", &[], 2, &["d/f: write PATH@TIME"]),
        ("d/f@2500-01-01", &[], 1, &["future", "nearest kept time"]),
        (
            "d/f@2001",
            &[],
            1,
            &["did not exist then", "nearest kept time"],
        ),
        ("d/none@-1s", &[], 1, &["d/none@-1s: did not exist then"]),
        ("d/f@-0s", &["--to", &taken], 1, &["d/f: exists", "--to"]),
        ("d/f@-0s", &["--to", "x", "--keep-new"], 2, &["--keep-new"]),
        ("d/f@-0s", &["--to", "x", "--dry-run"], 2, &["--dry-run"]),
    ];
    for (path, flags, code, words) in cases {
        check_refusal(&asked.in_mount("restore", path, flags), code, words);
    }
    let tree = format!("d@{then}");
    asked
        .mount
        .sh("(exec 3>>d/f; echo open >&3; sleep 15) > /dev/null 2>&1 &");
    std::thread::sleep(Duration::from_millis(500));
    for path in [&tree, &format!("d/f@{then}")] {
        let words = ["f has writes that are no version yet", "close it"];
        check_refusal(&asked.in_mount("restore", path, &[]), 1, &words);
    }
    std::thread::sleep(Duration::from_secs(16));
    asked.in_mount("restore", &tree, &[]).ok();
    asked.mount.sh("test \"$(cat d/f)\" = one");
    let told = asked.in_mount("restore", &tree, &[]).ok();
    assert!(
        told.starts_with("d: is as it was at 20") && told.ends_with("; nothing was changed\n"),
        "{told}"
    );
}

#[test]
fn a_restore_is_undone_after_a_prune_by_a_short_policy() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(
        Place::local(store.path()),
        "mkdir d; echo one > d/f; echo one > g",
    );
    let then = moment(&asked);
    asked.sh("echo two > d/f; echo two > g; echo new > d/new");
    let root = asked.mount.root().display().to_string();
    let prune = format!(
        "sleep 1.2; {PROGRAM} drain {root}; {PROGRAM} policy set {root} keep-within=1s grid=off keep-last=0 keep-removed=off --now
         {PROGRAM} prune {root} --confirm"
    );
    let befores = ["d", "g"].map(|path| {
        let told = asked.in_mount("restore", &format!("{path}@{then}"), &[]);
        format!("{path}@{}", undo(&told.ok()))
    });
    asked.mount.sh(&prune);
    for before in befores {
        let told = asked.in_mount("restore", &before, &[]);
        assert!(told.ok().contains("undo: "), "{before}");
    }
    asked
        .mount
        .sh("test \"$(cat d/f d/new g)\" = \"$(printf 'two\\nnew\\ntwo')\"");
    let labels = format!(
        "test $({PROGRAM} label list {root}/d --json | grep -c before-restore-20) = 2
         rmdir $(ls -d d/.versions/before-restore-*); test -z \"$({PROGRAM} label list {root}/d)\""
    );
    asked.mount.sh(&labels);
    asked.mount.drain();
    asked.mount.check_log("main");
}

/// 10,000 names in a directory, and copies of it in another one: more changes than one operation takes.
#[test]
fn a_large_directory_is_restored_in_steps_that_the_kernel_follows() {
    if !crate::support::long() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(
        Place::local(store.path()),
        "mkdir base top; cd base; seq 10000 | xargs touch; cd ..; echo new > top/f; sleep 11",
    );
    let limit = Duration::from_secs(600);
    let verb = |path: &str, flags: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command
            .arg("restore")
            .arg(asked.mount.path(path))
            .args(flags);
        shell::run(&mut command, limit).ok()
    };
    let empty = moment(&asked);
    for number in 0..11 {
        let to = asked.mount.path(format!("top/d{number}"));
        verb(
            &format!("base@{empty}"),
            &["--to", &to.display().to_string()],
        );
    }
    asked.mount.sh(
        "test $(ls top | wc -l) = 12; test $(ls top/d3 | wc -l) = 10000; ls -lR top > /dev/null",
    );
    let refused = std::thread::scope(|scope| {
        let restoring = scope.spawn(|| verb(&format!("top@{empty}"), &[]));
        let mut refused = 0;
        while !restoring.is_finished() {
            let written = std::fs::write(asked.mount.path("top/f"), "other");
            refused += u32::from(written.is_err_and(|error| error.raw_os_error() == Some(16)));
            std::thread::sleep(Duration::from_millis(300));
        }
        let told = restoring.join().unwrap();
        let before = undo(&told);
        asked
            .mount
            .sh("test \"$(ls top)\" = f; test ! -e top/d3; test ! -e top/d10/7");
        verb(&format!("top@{before}"), &[]);
        refused
    });
    assert!(refused > 0, "EBUSY while it is restored");
    asked
        .mount
        .sh("test $(ls top | wc -l) = 12; test $(ls top/d3 | wc -l) = 10000; test -e top/d10/7");
    asked.mount.drain();
    asked.mount.check_log("main");
}
