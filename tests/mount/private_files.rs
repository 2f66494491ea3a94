//! What a mount keeps on its machine is its user's alone, whatever umask it was started with: cache directory, journal, control socket, log.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::mount::{Cache, TestMount};
use crate::support::random::Random;
use crate::support::s3s::S3sServer;
use crate::support::sandbox::Sandbox;
use crate::support::wait_until;

const LIMIT: Duration = Duration::from_secs(200);

/// The limit of the wait for files of each part of a cache directory.
const FILES_LIMIT: Duration = Duration::from_secs(20);

/// Everything below a directory, with its mode.
fn below(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // A file may be deleted meanwhile.
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        found.push((path.clone(), meta.mode() & 0o7777));
        if meta.is_dir() {
            found.extend(below(&path));
        }
    }
    found
}

/// Whether the cache directory has a file in each of its parts. Windows of tables are missing: a short session writes no table.
fn has_every_part(cache: &Path) -> bool {
    let found = below(cache);
    ["journal", "staging", "blocks"].iter().all(|part| {
        found.iter().any(|(path, _)| {
            path.is_file()
                && path
                    .parent()
                    .is_some_and(|directory| directory.ends_with(part))
        })
    })
}

#[test]
fn the_local_files_of_a_mount_are_the_users_alone_under_every_umask() {
    let Some(server) = S3sServer::start() else {
        return;
    };
    for umask in ["000", "077"] {
        let place = server.place(&format!("umask-{umask}"));
        let mut mount = TestMount::start_with_umask(umask, &place);
        fs::write(mount.path("large"), Random::new(3).bytes(3_000_000)).unwrap();
        mount.sh("for i in $(seq 300); do echo $i > file-$i; done");
        mount.remount(Cache::Kept);
        fs::read(mount.path("large")).unwrap();
        // A file with unsaved bytes in a staging file.
        let mut open = File::create(mount.path("open")).unwrap();
        open.write_all(&[7; 300_000]).unwrap();
        let whole = wait_until(FILES_LIMIT, || has_every_part(&mount.cache()));
        assert!(whole, "{:#?}", below(&mount.cache()));
        for (path, mode) in below(&mount.cache()) {
            // A staging file may become an object of a local store, so it has the permissions of such an object. Its directory is closed.
            let is_staged = path.is_file()
                && path
                    .parent()
                    .is_some_and(|directory| directory.ends_with("staging"));
            let is_private = mode & 0o077 == 0;
            assert!(
                is_private || is_staged,
                "{umask}: {} {mode:o}",
                path.display()
            );
        }
        let runtime = Path::new("/run/rewindfs");
        if rustix::process::geteuid().is_root() && runtime.is_dir() {
            let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
            assert_eq!(mode(runtime), 0o700);
            for kind in ["json", "sock"] {
                let file = runtime.join(format!("{}.{kind}", mount.daemon_id()));
                assert_eq!(mode(&file), 0o600, "{umask}: {}", file.display());
            }
        }
        drop(open);
        mount.umount();
    }
}

/// Shell functions of the scripts: mount as the user `tests`, run commands as other users.
const FUNCTIONS: &str = r#"
chown -R tests:tests store cache files
as() { local user=$1; shift; setpriv --reuid="$user" --regid=9999 --clear-groups env HOME="$sandbox/cache" TMPDIR="$sandbox/cache" "$@"; }
attach() { as tests ./rewindfs mount "file://$sandbox/store" files --cache-dir "$sandbox/cache" --log "$sandbox/cache/log" "$@"; }
refused() { if "$@" >"$sandbox/said" 2>&1; then echo "not refused: $*"; return 1; fi; }
umask 0
"#;

#[track_caller]
fn run(script: &str) {
    let sandbox = Sandbox::new();
    sandbox.run(&format!("{FUNCTIONS}\n{script}"), LIMIT).ok();
}

#[test]
fn another_user_reaches_neither_the_cache_directory_nor_the_control_socket_nor_the_log() {
    run(r#"
    attach
    as tests sh -c 'echo text >files/f'
    uuid=$(sed -n 's/.*"uuid": "\(.*\)".*/\1/p' store/main/namespace.json)
    [ -d "cache/$uuid/journal" ]
    refused as nobody ls "cache/$uuid"
    refused as nobody cat "cache/$uuid/journal/LOCK"
    refused as nobody cat cache/log
    socket=$(ls -d "$sandbox"/cache/rewindfs-*/*.sock)
    refused as nobody python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' "$socket"
    grep -q PermissionError said
    refused as nobody ./rewindfs umount files
    as tests python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' "$socket"
    as tests ./rewindfs umount files

    # The directory that another user made first is not used.
    rm -r "cache/$uuid"
    chmod 777 cache
    as nobody mkdir -m 777 "cache/$uuid"
    refused attach
    grep -q 'belongs to user' said
    [ -z "$(ls "cache/$uuid")" ]
    rmdir "cache/$uuid"

    # Nor is a link to another directory.
    mkdir elsewhere
    chown tests:tests elsewhere
    as nobody ln -s "$sandbox/elsewhere" "cache/$uuid"
    refused attach
    [ -z "$(ls elsewhere)" ]
    rm "cache/$uuid"
    attach
    [ "$(as tests cat files/f)" = text ]
    as tests ./rewindfs umount files
    "#);
}

#[test]
fn the_temporary_directory_of_a_command_is_the_users_alone() {
    run(r#"
    attach
    as tests sh -c 'head -c 3000000 /dev/zero >files/large'
    as tests ./rewindfs umount files
    mkdir -m 777 tmp
    mkfifo -m 666 pipe
    # The command waits for its reader, which reads nothing yet.
    as tests env TMPDIR="$sandbox/tmp" ./rewindfs cat "file://$sandbox/store" large >pipe &
    exec 9<pipe
    for _ in $(seq 300); do if [ -n "$(ls tmp)" ]; then break; fi; sleep 0.1; done
    [ "$(stat -c '%U %a' tmp/rewindfs-read-*)" = 'tests 700' ]
    refused as nobody ls tmp/rewindfs-read-*
    [ "$(cat <&9 | wc -c)" = 3000000 ]
    wait
    [ -z "$(ls tmp)" ]
    "#);
}
