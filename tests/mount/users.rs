//! Mounts by ordinary users, and access of other users to them.

use std::time::Duration;

use crate::support::sandbox::Sandbox;

const LIMIT: Duration = Duration::from_secs(200);

/// Shell functions of the scripts: mount as the user `tests`, run commands as other users.
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

    # /etc/fuse.conf decides whether an ordinary user may use allow_other.
    : >fuse.conf; mount --bind fuse.conf /etc/fuse.conf
    refused attach --allow-other
    grep -q user_allow_other said
    echo user_allow_other >fuse.conf
    attach --allow-other
    [ "$(cat files/f)" = mine ]
    [ "$(as nobody cat files/f)" = mine ]
    # Each user still has only his own permissions.
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
    # A mount by root allows all users.
    ./rewindfs mount "file://$sandbox/store" files --cache-dir "$sandbox/cache"
    mkdir files/d; echo secret >files/d/f; chown -R 1:1 files/d; chmod 700 files/d; chmod 600 files/d/f
    refused as 4321 cat files/d/f
    ./rewindfs umount files
    ./rewindfs mount "file://$sandbox/store" files --cache-dir "$sandbox/cache" -o uid=4321,gid=4322,umask=027
    [ "$(stat -c '%u %g %a' files/d/f)" = '4321 4322 600' ]
    [ "$(as 4321 cat files/d/f)" = secret ]
    refused as 1 cat files/d/f
    # A new file has the owner of the calling process in the store, and is shown with the owner of the options.
    as 4321 sh -c 'umask 0; echo x >files/d/new'
    [ "$(stat -c '%u %g %a' files/d/new)" = '4321 4322 640' ]
    ./rewindfs umount files
    ./rewindfs mount "file://$sandbox/store" files --cache-dir "$sandbox/cache"
    [ "$(stat -c '%u %g %a' files/d/f files/d/new)" = "$(printf '1 1 600\n4321 9999 666')" ]
    ./rewindfs umount files
    "#);
}

/// In a user namespace mount(2) is allowed, so fusermount3 and the mount helper are not used.
#[test]
fn a_user_namespace_mounts_without_fusermount3() {
    run(r#"
    cat >inside.sh <<'END'
set -eu
[ "$(id -u)" = 0 ]
./rewindfs mount "file://$sandbox/store" files --cache-dir "$sandbox/cache"
echo mine >files/f; mkfifo files/fifo; setfattr -n user.a -v b files/f; setfacl -m u:0:r files/f
[ "$(stat -c '%u %g' files/f)" = '0 0' ]
# A user without a number in the namespace cannot be an owner, and device files cannot be made.
if chown 5:5 files/f 2>/dev/null || mknod files/null c 1 3 2>/dev/null; then exit 1; fi
./rewindfs status files >/dev/null
./rewindfs umount files
END
    chmod 755 inside.sh
    mount --bind /dev/null "$(command -v fusermount3)"
    as tests unshare --user --map-root-user --mount bash inside.sh
    "#);
}
