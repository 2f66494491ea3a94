//! Mounts that ordinary users make, and whom they let in.

use std::time::Duration;

use crate::support::sandbox::Sandbox;

const LIMIT: Duration = Duration::from_secs(200);

/// What the scripts share: the mount of the user `tests`, and other users.
const FUNCTIONS: &str = r#"
chown -R tests:tests "$sandbox/store" "$sandbox/cache" "$sandbox/files"
as() { local user=$1; shift; setpriv --reuid="$user" --regid=9999 --clear-groups env HOME="$sandbox/cache" TMPDIR="$sandbox/cache" "$@"; }
attach() { as tests ./rewindfs mount "file://$sandbox/store" files --cache-dir "$sandbox/cache" "$@"; }
refused() { if "$@" >"$sandbox/said" 2>&1; then echo "not refused: $*"; return 1; fi; }
"#;

#[track_caller]
fn run(script: &str) {
    let sandbox = Sandbox::new();
    sandbox.run(&format!("{FUNCTIONS}\n{script}"), LIMIT).ok();
}

#[test]
fn other_users_are_refused_without_allow_other() {
    run(r#"
    attach
    as tests sh -c 'echo mine >files/f'
    refused cat files/f
    refused as nobody cat files/f
    as tests ./rewindfs umount files

    # The system's administrator decides whether a user may let others in.
    : >fuse.conf; mount --bind fuse.conf /etc/fuse.conf
    refused attach --allow-other
    grep -q user_allow_other said
    echo user_allow_other >fuse.conf
    attach --allow-other
    [ "$(cat files/f)" = mine ]
    [ "$(as nobody cat files/f)" = mine ]
    # Each with his own rights, all the same.
    as tests chmod 600 files/f
    refused as nobody cat files/f
    grep -q 'Permission denied' said
    refused as nobody touch files/g
    as tests ./rewindfs umount files
    "#);
}

#[test]
fn uid_gid_and_umask_options_decide_permissions() {
    run(r#"
    # Root's mount lets everybody in.
    ./rewindfs mount "file://$sandbox/store" files --cache-dir "$sandbox/cache"
    mkdir files/d; echo secret >files/d/f; chown -R 1:1 files/d; chmod 700 files/d; chmod 600 files/d/f
    refused as 4321 cat files/d/f
    ./rewindfs umount files
    ./rewindfs mount "file://$sandbox/store" files --cache-dir "$sandbox/cache" -o uid=4321,gid=4322,umask=027
    [ "$(stat -c '%u %g %a' files/d/f)" = '4321 4322 600' ]
    [ "$(as 4321 cat files/d/f)" = secret ]
    refused as 1 cat files/d/f
    # What a program makes is its own in the store, and shown as everything else is.
    as 4321 sh -c 'umask 0; echo x >files/d/new'
    [ "$(stat -c '%u %g %a' files/d/new)" = '4321 4322 640' ]
    ./rewindfs umount files
    ./rewindfs mount "file://$sandbox/store" files --cache-dir "$sandbox/cache"
    [ "$(stat -c '%u %g %a' files/d/f files/d/new)" = "$(printf '1 1 600\n4321 9999 666')" ]
    ./rewindfs umount files
    "#);
}

/// In a user namespace mount(2) itself is allowed: no fusermount3, and root's helper is not asked.
#[test]
fn a_user_namespace_mounts_without_fusermount3() {
    run(r#"
    cat >inside.sh <<'END'
set -eu
[ "$(id -u)" = 0 ]
./rewindfs mount "file://$sandbox/store" files --cache-dir "$sandbox/cache"
echo mine >files/f; mkfifo files/fifo; setfattr -n user.a -v b files/f; setfacl -m u:0:r files/f
[ "$(stat -c '%u %g' files/f)" = '0 0' ]
# Who has no number inside is nobody's owner, and the host's devices stay the host's.
if chown 5:5 files/f 2>/dev/null || mknod files/null c 1 3 2>/dev/null; then exit 1; fi
./rewindfs status files >/dev/null
./rewindfs umount files
END
    chmod 755 inside.sh
    mount --bind /dev/null "$(command -v fusermount3)"
    as tests unshare --user --map-root-user --mount bash inside.sh
    "#);
}
