//! mount(8), umount(8) and fstab(5) with rewindfs: the helpers `mount.fuse.rewindfs`, `mount.rewindfs` and
//! `umount.fuse.rewindfs`.

use std::time::Duration;

use crate::support::sandbox::Sandbox;

const LIMIT: Duration = Duration::from_secs(200);

/// Shell functions of the scripts: the options of a mount in the kernel's table, the running daemons.
const FUNCTIONS: &str = r#"
options() { awk -v at="$sandbox/files" '$5 == at { print "," $6 "," }' /proc/self/mountinfo; }
has() { case "$(options)" in *",$1,"*) ;; *) echo "no $1 in $(options)"; return 1 ;; esac; }
lacks() { case "$(options)" in *",$1,"*) echo "$1 in $(options)"; return 1 ;; esac; }
# Counts running daemons; zombies (state Z or X) are left out.
daemons() { cat /proc/[0-9]*/stat 2>/dev/null | grep -c '^[0-9]* (rewindfs) [^ZX]' || true; }
refused() { if "$@" 2>"$sandbox/said"; then echo "not refused: $*"; return 1; fi; }
"#;

#[track_caller]
fn run(script: &str) {
    let sandbox = Sandbox::new();
    sandbox.run(&format!("{FUNCTIONS}\n{script}"), LIMIT).ok();
}

#[test]
fn a_mount_of_root_allows_devices_set_user_id_and_noatime() {
    run(r#"
    mount -t fuse.rewindfs -o "cache_dir=$sandbox/cache,dev,suid,noatime" "file://$sandbox/store" files
    lacks nodev; lacks nosuid; has noatime
    cp /bin/id files/id; chown 4321 files/id; chmod 4755 files/id
    [ "$(setpriv --reuid=tests --clear-groups files/id -u)" = 4321 ]
    mknod files/null c 1 3
    echo gone >files/null
    umount files

    mount -t fuse.rewindfs -o "cache_dir=$sandbox/cache,nodev,nosuid,noexec" "file://$sandbox/store" files
    has nodev; has nosuid; has noexec
    refused files/id -u
    refused tee files/null </dev/null
    umount files
    "#);
}

#[test]
fn a_line_in_fstab_mounts_and_umount_waits_for_the_bucket() {
    run(r#"
    echo "file://$sandbox/store $sandbox/files rewindfs _netdev,nofail,x-systemd.automount,namespace=team/eu,cache_dir=$sandbox/cache 0 0" >fstab
    for round in 1 2 3; do
        mount -T fstab files
        mountpoint -q files
        [ "$(ls files | wc -l)" = $((round - 1)) ]
        head -c 3000000 /dev/urandom >files/$round
        umount files
        # The daemon has ended, and the cache is no longer needed.
        [ "$(daemons)" = 0 ]
        rm -r cache/*
    done
    [ -e store/team/eu/namespace.json ]
    "#);
}

#[test]
fn a_remount_makes_it_read_only_and_back() {
    run(r#"
    mount -t fuse.rewindfs -o "cache_dir=$sandbox/cache,nosuid,namespace=a" "file://$sandbox/store" files
    echo one >files/f
    mount -o remount,ro files
    has ro; has nosuid
    "$sandbox/rewindfs" status files >said
    grep -q 'mode  *read-write, mounted read-only' said
    refused sh -c 'echo two >files/f'
    grep -q 'Read-only file system' said
    [ "$(cat files/f)" = one ]
    mount -o remount,rw,noexec files
    has rw; has nosuid; has noexec
    "$sandbox/rewindfs" status files >said
    grep -q 'mode  *read-write, sync' said
    echo three >files/f
    [ "$(daemons)" = 1 ]
    umount files
    [ "$(daemons)" = 0 ]
    "#);
}

#[test]
fn umount_refuses_while_a_file_is_open_unless_it_is_lazy() {
    run(r#"
    mount -t rewindfs -o "_netdev,cache_dir=$sandbox/cache" "file://$sandbox/store" files
    exec 9>files/f
    echo kept >&9
    refused umount files
    mountpoint -q files
    umount -l files
    refused mountpoint -q files
    exec 9>&-
    # No process has the file open any more: the daemon ends, and the next mount waits for that.
    mount -t rewindfs -o "cache_dir=$sandbox/cache" "file://$sandbox/store" files
    [ "$(cat files/f)" = kept ]
    umount files
    "#);
}

#[test]
fn the_next_mount_waits_for_the_previous_daemon() {
    run(r#"
    for round in 1 2 3 4 5; do
        mount -t rewindfs -o "cache_dir=$sandbox/cache" "file://$sandbox/store" files
        [ "$(ls files | wc -l)" = $((round - 1)) ]
        head -c 3000000 /dev/urandom >files/$round
        # umount(8) calls a helper only if mount(8) has stored a helper's name in its table.
        umount files
    done
    "#);
}

#[test]
fn the_mount_helper_names_an_unknown_option() {
    run(r#"
    refused mount -t fuse.rewindfs -o frobnicate "file://$sandbox/store" files
    grep -q frobnicate said
    refused mountpoint -q files
    "#);
}
