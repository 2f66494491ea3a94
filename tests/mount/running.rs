//! Programs that run from the mount: no call empties their files, and no restore rewrites them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;

use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;

/// What a program of this machine says to a file that is a program which runs.
const TEXT_BUSY: Option<i32> = Some(26);
/// `O_TRUNC`.
const TRUNCATE: i32 = 0o1000;

/// Opens a file for reading, and empties it.
fn empty(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(TRUNCATE).open(path)
}

/// Ends a program, and waits for its end.
fn end(mut program: Child) {
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn a_running_program_is_not_emptied_by_two_hundred_opens() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    let bytes = fs::read("/bin/sleep").unwrap();
    let (program, other) = (mount.path("program"), mount.path("other"));
    fs::copy("/bin/sleep", &program).unwrap();
    fs::hard_link(&program, &other).unwrap();
    let mut running = Command::new(&program).arg("600").spawn().unwrap();
    thread::scope(|scope| {
        for path in [&program, &other, &program, &other] {
            scope.spawn(move || {
                for round in 0..50 {
                    let refused = empty(path).unwrap_err();
                    assert_eq!(refused.raw_os_error(), TEXT_BUSY, "{round}: {refused}");
                }
            });
        }
    });
    let written = OpenOptions::new().write(true).truncate(true).open(&program);
    assert_eq!(written.unwrap_err().raw_os_error(), TEXT_BUSY);
    assert!(running.try_wait().unwrap().is_none(), "it still runs");
    assert!(fs::read(&program).unwrap() == bytes);
    // A second process keeps it after the first one.
    let second = Command::new(&other).arg("600").spawn().unwrap();
    end(running);
    assert_eq!(empty(&program).unwrap_err().raw_os_error(), TEXT_BUSY);
    end(second);

    // It is emptied as soon as it has ended, and that is a version.
    for round in 0..50 {
        let path = mount.path(format!("program{round}"));
        fs::copy("/bin/sleep", &path).unwrap();
        assert!(Command::new(&path).arg("0").status().unwrap().success());
        empty(&path).unwrap_or_else(|error| panic!("{round}: {error}"));
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }
    drop(empty(&program).unwrap());
    assert_eq!(fs::metadata(&other).unwrap().len(), 0);
    mount.sh("test $(ls .versions/@files/program0 | grep -c Z) = 2
         test $(stat -Lc %s .versions/@files/program0/latest) = 0
         cmp .versions/@files/program0/previous /bin/sleep");
}

#[test]
fn a_restore_leaves_a_running_program_and_works_once_it_has_ended() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    // The two states are programs of other bytes, which both run.
    mount.sh(
        "mkdir d; cp /bin/sleep d/program; echo then > d/other; sleep 0.1
         date -u +%Y-%m-%dT%H-%M-%S.%NZ > then; sleep 0.1
         echo more >> d/program; echo now > d/other",
    );
    let path = mount.path("d/program");
    let mut running = Command::new(&path).arg("600").spawn().unwrap();
    let head = format!(
        "T=$(cat then); M={}; rw() {{ {PROGRAM} \"$@\"; }}",
        mount.root().display()
    );
    mount.sh(&format!(
        r#"{head}
        for path in d d/program; do
            if said=$(rw restore $M/$path@$T 2>&1); then code=0; else code=$?; fi
            test $code = 1 || {{ echo "$path: $code: $said"; exit 1; }}
            case "$said" in
            *"text file busy: "*"program is a program that runs; stop it, or restore to another name with --to"*) ;;
            *) echo "$path: $said"; exit 1;;
            esac
        done
        test "$(cat d/other)" = now; tail -c 5 d/program | grep -qx more
        test -z "$(rw label list $M/d | grep before-restore)"
        # What is restored elsewhere rewrites nothing.
        rw restore $M/d/program@$T --to $M/d/copy > /dev/null; cmp d/copy /bin/sleep
        "#
    ));
    assert!(running.try_wait().unwrap().is_none(), "it still runs");
    end(running);
    mount.sh(&format!(
        r#"{head}
        rw restore $M/d@$T > said; cmp d/program /bin/sleep; test "$(cat d/other)" = then
        d/program 0
        "#
    ));
    // It has the state of then: a restore to then changes something else.
    running = Command::new(&path).arg("600").spawn().unwrap();
    mount.sh(&format!(
        r#"{head}
        echo now > d/other; rw restore $M/d@$T > /dev/null; test "$(cat d/other)" = then
        "#
    ));
    assert!(running.try_wait().unwrap().is_none(), "it still runs");
    end(running);
}
