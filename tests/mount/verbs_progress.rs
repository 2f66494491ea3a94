//! What a verb says while it waits: nothing on standard output, and nothing at all where it is quick.

use std::time::Duration;

use crate::support::mount::PROGRAM;
use crate::support::place::Place;
use crate::support::shell;
use crate::verbs::AskedMount;

#[test]
fn a_verb_that_waits_says_so_beside_its_rows() {
    let store = tempfile::tempdir().unwrap();
    let asked = AskedMount::start(
        Place::local(store.path()),
        "echo one > f; sleep 0.1; echo two > f",
    );
    let script = format!(
        r#"
        daemon={daemon} f={f}
        # On a terminal, a line that is cleared. `script` runs a command on one.
        paused() {{ kill -STOP $daemon; (sleep $1; kill -CONT $daemon) & shift; "$@"; wait; }}
        on_terminal() {{ script -qec "$1" /dev/null < /dev/null; }}
        stamp=$({PROGRAM} versions $f --json | head -1 | sed 's/.*"stamp":"\([^"]*\)".*/\1/')
        paused 3 on_terminal "{PROGRAM} grep one $f --json > rows" > told
        grep -q 'searching the versions of f' told
        grep -q '^{{.*"matches":1.*}}$' rows; test $(wc -l < rows) = 1
        paused 3 on_terminal "{PROGRAM} restore $f@$stamp --json > rows" > told
        grep -q 'restoring f@' told
        grep -q '^{{.*"path":"f".*}}$' rows; test $(wc -l < rows) = 1
        on_terminal "{PROGRAM} grep one $f --json > rows" > told
        grep 'searching' told && exit 1
        # Else a line from time to time.
        paused 12 {PROGRAM} grep one $f --json > rows 2> told
        test "$(cat told)" = 'rewindfs: searching the versions of f for 10 s'
        {PROGRAM} prune $f --json > rows 2> told || true
        grep 'dropping' told && exit 1
        true
        "#,
        daemon = asked.mount.daemon_id(),
        f = asked.mount.path("f").display(),
    );
    let scratch = tempfile::tempdir().unwrap();
    let ran = shell::sh_within(scratch.path(), &script, Duration::from_secs(60));
    assert_eq!(ran.code, Some(0), "{ran}");
}
