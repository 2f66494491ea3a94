//! A mount on a machine whose clock is wrong for a while.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::support::mount::TestMount;
use crate::support::place::Place;
use crate::support::wait_until;

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A store, and a file that sets the clock of the mounts of it.
struct FakedClock {
    directory: tempfile::TempDir,
    place: Place,
}

impl FakedClock {
    /// `None` where libfaketime is not installed.
    fn new() -> Option<Self> {
        if !Path::new(LIBRARY).exists() {
            eprintln!("SKIPPED: no libfaketime, the clock of a real mount was not tested here");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut place = Place::local(&directory.path().join("store"));
        let clock = directory.path().join("clock");
        for (name, value) in [
            ("LD_PRELOAD", LIBRARY),
            ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ] {
            place.variables.push((name.to_owned(), value.to_owned()));
        }
        let faked = Self { directory, place };
        faked.set("+0");
        Some(faked)
    }

    fn set(&self, clock: &str) {
        // Mounts read the file at any time, so it is replaced atomically.
        let new = self.directory.path().join("new");
        std::fs::write(&new, clock).unwrap();
        std::fs::rename(&new, self.directory.path().join("clock")).unwrap();
    }
}

#[test]
fn a_clock_that_was_ahead_once_does_not_change_later_times() {
    let Some(faked) = FakedClock::new() else {
        return;
    };
    let mut mount = TestMount::start(&faked.place, &[]);
    mount.sh("mkdir tree; echo one >tree/old");
    faked.set("+2h");
    mount.sh("echo x >tree/ahead");
    faked.set("+0");
    mount.sh(r#"
        near() {
            for name in "$@"; do
                for time in $(stat -c '%X %Y %Z' "$name"); do
                    apart=$((time - $(date +%s)))
                    [ "${apart#-}" -lt 60 ] || { echo "$name is dated $apart s off"; exit 1; }
                done
            done
        }
        [ $(($(stat -c %Y tree/ahead) - $(date +%s))) -gt 7000 ]
        near tree/old
        # An edit of the same length is one that rsync sees by its time.
        rsync -a tree/ ../mirror/
        sleep 1.1
        echo two >tree/old
        near tree/old
        rsync -a tree/ ../mirror/
        [ "$(cat ../mirror/old)" = two ]
        # make(1) sees an edit of the source by its time.
        printf 'made: source\n\tcp source made\n' >Makefile
        echo one >source
        make -s 2>said
        near source made
        sleep 0.1
        echo two >source
        make -s 2>>said
        [ "$(cat made)" = two ]
        [ "$(make)" = "make: 'made' is up to date." ]
        [ ! -s said ] || { cat said; exit 1; }
        # Other calls that set times.
        mkdir d; ln -s x d/link; mkfifo d/fifo; : >d/empty; ln d/empty d/other
        touch d/touched; mv d/touched d/moved; chmod 600 d/moved; truncate -s 10 d/moved
        rm d/other; cp --reflink=auto tree/old d/copy
        near d d/* source tree/old
        mkdir gone; rm -r gone; near .
        # Every save is a version of its own, in order.
        [ "$(ls tree/.versions/@files/old | grep -c ^2)" = 2 ]
        newest=$(ls tree/.versions/@files/old | grep ^2 | tail -1)
        [ "$(cat "tree/.versions/@files/old/$newest")" = two ]
        near "tree/.versions/@files/old/$newest"
    "#);
    mount.umount();
    mount.mount();
    mount.sh("[ $(($(stat -c %Y tree/old) - $(date +%s))) -lt 60 ]; [ \"$(cat tree/old)\" = two ]");
    mount.umount();
}

/// The kernel of a read-only mount drops its pages of an open file when the file's time or length changes.
#[test]
fn a_follower_sees_saves_at_earlier_and_at_equal_times() {
    let Some(faked) = FakedClock::new() else {
        return;
    };
    let mut writer = TestMount::start(&faked.place, &[]);
    faked.set("+2h");
    writer.sh("echo one >f");
    writer.drain();
    let place = Place::local(&faked.directory.path().join("store"));
    let follower = TestMount::start(&place, &["--read-only", "--refresh", "200ms"]);
    let open = File::open(follower.path("f")).unwrap();
    let shows = |content: &[u8; 4]| {
        let mut seen = [0; 4];
        let same = wait_until(Duration::from_secs(20), || {
            open.read_exact_at(&mut seen, 0).unwrap();
            seen == *content
        });
        assert!(same, "{seen:?}, not {content:?}");
    };
    shows(b"one\n");
    faked.set("+0");
    writer.sh("echo two >f");
    writer.drain();
    shows(b"two\n");
    // The clock does not advance.
    faked.set(writer.sh("date -u '+%F %T'").trim());
    for content in [b"six\n", b"ten\n", b"old\n"] {
        writer.sh(&format!("printf '{}' >f", content.escape_ascii()));
        writer.drain();
        shows(content);
    }
    faked.set("+0");
    writer.umount();
}
