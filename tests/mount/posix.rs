//! POSIX behaviour that common programs rely on, by call; pjdfstest and fsx check the rest.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::tree;

/// A fresh namespace on a local directory, mounted.
fn mounted() -> (tempfile::TempDir, TestMount) {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    (store, mount)
}

/// The content of a file as text.
#[track_caller]
fn text(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

#[test]
fn rename_replaces_atomically_and_keeps_open_files() {
    let (_store, mount) = mounted();
    let (old, new) = (mount.path("old"), mount.path("new"));
    fs::write(&old, "old content").unwrap();
    fs::write(&new, "new content").unwrap();
    let mut open = File::open(&new).unwrap();
    fs::rename(&old, &new).unwrap();
    assert_eq!(text(&new), "old content");
    assert_eq!(fs::metadata(&old).unwrap_err().kind(), ErrorKind::NotFound);
    let mut replaced = String::new();
    open.read_to_string(&mut replaced).unwrap();
    assert_eq!(
        replaced, "new content",
        "the replaced file lives as long as it is open"
    );

    let other = mount.path("other");
    fs::write(&other, "other").unwrap();
    let refused = renameat_with(CWD, &other, CWD, &new, RenameFlags::NOREPLACE).unwrap_err();
    assert_eq!(refused, rustix::io::Errno::EXIST);
    renameat_with(CWD, &other, CWD, &new, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        (text(&other), text(&new)),
        ("old content".to_owned(), "other".to_owned())
    );

    fs::create_dir_all(mount.path("d/e/f")).unwrap();
    fs::write(mount.path("d/e/f/x"), "deep").unwrap();
    let into_itself = fs::rename(mount.path("d"), mount.path("d/e/d")).unwrap_err();
    assert_eq!(into_itself.kind(), ErrorKind::InvalidInput, "{into_itself}");
    fs::create_dir(mount.path("empty")).unwrap();
    fs::rename(mount.path("d"), mount.path("empty")).unwrap();
    assert_eq!(text(&mount.path("empty/e/f/x")), "deep");
    fs::create_dir(mount.path("again")).unwrap();
    let full = fs::rename(mount.path("again"), mount.path("empty")).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::DirectoryNotEmpty, "{full}");
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let (_store, mount) = mounted();
    let path = mount.path("gone");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all(b"before").unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(b" and after").unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "before and after");
    fs::write(&path, "another file of that name").unwrap();
    drop(file);
    assert_eq!(text(&path), "another file of that name");
    assert_eq!(fs::read_dir(mount.root()).unwrap().count(), 1);
}

#[test]
fn hard_links_are_one_file_with_two_names() {
    let (_store, mut mount) = mounted();
    fs::create_dir(mount.path("d")).unwrap();
    let (one, two) = (mount.path("one"), mount.path("d/two"));
    fs::write(&one, "first").unwrap();
    fs::hard_link(&one, &two).unwrap();
    let number = fs::metadata(&one).unwrap().ino();
    fs::write(&two, "through the other name").unwrap();
    fs::set_permissions(&two, fs::Permissions::from_mode(0o640)).unwrap();
    for path in [&one, &two] {
        let stat = fs::metadata(path).unwrap();
        assert_eq!(
            (stat.nlink(), stat.ino(), stat.mode() & 0o7777),
            (2, number, 0o640),
            "{}",
            path.display()
        );
        assert_eq!(text(path), "through the other name");
    }
    mount.remount(Cache::Wiped);
    assert_eq!(
        fs::metadata(&two).unwrap().ino(),
        number,
        "inode numbers are stable across mounts"
    );
    fs::remove_file(&one).unwrap();
    assert_eq!(fs::metadata(&two).unwrap().nlink(), 1);
    assert_eq!(text(&two), "through the other name");
}

#[test]
fn symbolic_links_keep_their_targets() {
    let (_store, mount) = mounted();
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/target"), "reached").unwrap();
    symlink("d/target", mount.path("link")).unwrap();
    symlink("nowhere", mount.path("dangling")).unwrap();
    let long = "x".repeat(4000);
    symlink(&long, mount.path("long")).unwrap();
    assert_eq!(text(&mount.path("link")), "reached");
    assert_eq!(
        fs::metadata(mount.path("dangling")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        fs::read_link(mount.path("long")).unwrap().as_os_str().len(),
        4000
    );
    let stat = fs::symlink_metadata(mount.path("link")).unwrap();
    assert!(stat.is_symlink());
    assert_eq!(stat.size(), 8);
    fs::remove_file(mount.path("link")).unwrap();
    assert_eq!(text(&mount.path("d/target")), "reached");
}

#[test]
fn extended_attributes_survive_a_remount() {
    let (_store, mut mount) = mounted();
    mount.sh(r#"
        echo x > f; mkdir d
        setfattr -n user.colour -v green f
        setfattr -n user.empty f
        setfattr -n user.large -v "$(head -c 3000 /dev/zero | tr '\0' v)" d
        setfattr -n user.gone -v x f; setfattr -x user.gone f
        if setfattr -x user.gone f 2>/dev/null; then echo 'removed twice'; exit 1; fi
        setfacl -m u:12345:rw- f
    "#);
    for _ in 0..2 {
        let listed = mount
            .sh("getfattr -d f; getfattr --only-values -n user.large d | wc -c; getfacl -cn f");
        for expected in [
            "user.colour=\"green\"",
            "user.empty",
            "3000",
            "user:12345:rw-",
        ] {
            assert!(listed.contains(expected), "no {expected} in:\n{listed}");
        }
        assert!(!listed.contains("user.gone"), "{listed}");
        mount.remount(Cache::Wiped);
    }
}

#[test]
fn truncate_shortens_and_lengthens() {
    let (_store, mut mount) = mounted();
    let path = mount.path("f");
    fs::write(&path, vec![b'a'; 300_000]).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(100_000).unwrap();
    file.set_len(400_000).unwrap();
    file.write_all_at(b"end", 399_997).unwrap();
    drop(file);
    mount.sh("truncate -s 450000 f");
    let mut expected = vec![b'a'; 100_000];
    expected.resize(450_000, 0);
    expected[399_997..400_000].copy_from_slice(b"end");
    for _ in 0..2 {
        let found = fs::read(&path).unwrap();
        assert_eq!(found.len(), expected.len());
        let differs = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(differs, None, "first byte that differs");
        mount.remount(Cache::Wiped);
    }
    // A large hole uses no space and reads as zeros.
    let sparse = File::create(mount.path("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"far", 1 << 39).unwrap();
    drop(sparse);
    let sparse = File::open(mount.path("sparse")).unwrap();
    let mut bytes = [1; 5];
    sparse.read_exact_at(&mut bytes, (1 << 39) - 1).unwrap();
    assert_eq!(&bytes, b"\0far\0");
    assert!(
        sparse.metadata().unwrap().blocks() < 4096,
        "a hole takes no blocks"
    );
}

#[test]
fn appends_of_many_processes_lose_no_data() {
    let (_store, mount) = mounted();
    mount.sh(
        "for p in 1 2 3 4; do (for i in $(seq 100); do echo \"$p $i\" >> log; done) & done; wait",
    );
    let content = text(&mount.path("log"));
    let lines: Vec<&str> = content.lines().collect();
    assert_eq!(lines.len(), 400, "lines of 4 x 100 appends");
    for process in 1..=4 {
        let own: Vec<&str> = lines
            .iter()
            .copied()
            .filter(|line| line.starts_with(&format!("{process} ")))
            .collect();
        let expected: Vec<String> = (1..=100).map(|i| format!("{process} {i}")).collect();
        assert_eq!(own, expected, "the appends of process {process}, in order");
    }
}

#[test]
fn stores_through_mmap_are_kept() {
    let (_store, mut mount) = mounted();
    mount.sh(r"
        python3 - <<'P'
import mmap, os
fd = os.open('mapped', os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
shared = mmap.mmap(fd, 1 << 20)
shared[0:5] = b'first'
shared[700000:700006] = b'second'
shared.flush()
os.close(fd)                      # stores through the mapping after the close are kept
shared[4096:4101] = b'third'
other = os.open('mapped', os.O_RDONLY)
assert os.pread(other, 5, 4096) == b'third', os.pread(other, 5, 4096)
shared.close()
private = mmap.mmap(other, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
assert private[700000:700006] == b'second'
P
    ");
    for _ in 0..2 {
        let bytes = fs::read(mount.path("mapped")).unwrap();
        assert_eq!(bytes.len(), 1 << 20);
        for (at, expected) in [(0, "first"), (4096, "third"), (700_000, "second")] {
            assert_eq!(
                String::from_utf8_lossy(&bytes[at..at + expected.len()]),
                expected,
                "at {at}"
            );
        }
        mount.remount(Cache::Wiped);
    }
}

#[test]
fn modes_owners_times_and_special_files_survive_a_remount() {
    let (_store, mut mount) = mounted();
    mount.sh(r#"
        umask 027
        echo x > f; mkdir d; mkfifo pipe; ln -s f link
        chmod 4751 f; chmod 1777 d
        touch -d '2001-02-03 04:05:06.123456789' f
        touch -h -d '1969-01-01 00:00:00' link
        [ $(id -u) != 0 ] || { mknod null c 1 3; chown 1234:5678 d; }
        python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('sock')"
    "#);
    let mode = |name: &str| fs::symlink_metadata(mount.path(name)).unwrap().mode();
    assert_eq!(
        (mode("f"), mode("d"), mode("pipe")),
        (0o104_751, 0o041_777, 0o010_640)
    );
    assert_eq!(
        fs::metadata(mount.path("f")).unwrap().mtime_nsec(),
        123_456_789
    );
    let before = tree::read_tree(&mount.root());
    mount.remount(Cache::Wiped);
    tree::assert_equal(
        "after a remount with an empty cache",
        &before,
        &tree::read_tree(&mount.root()),
    );
}

#[test]
fn a_name_has_up_to_255_arbitrary_bytes() {
    let (_store, mut mount) = mounted();
    let longest = "n".repeat(255);
    let names: [&[u8]; 7] = [
        b"plain",
        b"with space",
        b"new\nline",
        b"\xff\xfe not utf-8",
        "\u{e4}\u{1f600}".as_bytes(),
        b"UPPER",
        longest.as_bytes(),
    ];
    for name in names {
        fs::write(mount.path(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(mount.path("upper"), "lower").unwrap();
    let too_long = fs::write(mount.path("n".repeat(256)), "").unwrap_err();
    assert_eq!(
        too_long.raw_os_error(),
        Some(rustix::io::Errno::NAMETOOLONG.raw_os_error())
    );
    for _ in 0..2 {
        for name in names {
            assert_eq!(
                fs::read(mount.path(std::ffi::OsStr::from_bytes(name))).unwrap(),
                name
            );
        }
        assert_eq!(fs::read_dir(mount.root()).unwrap().count(), names.len() + 1);
        mount.remount(Cache::Wiped);
    }
}

#[test]
fn a_large_directory_lists_every_name_once() {
    let (_store, mount) = mounted();
    fs::create_dir(mount.path("many")).unwrap();
    for number in 0..3000 {
        File::create(mount.path(format!("many/{number:05}"))).unwrap();
    }
    let names = || -> Vec<String> {
        let entries = fs::read_dir(mount.path("many")).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let expected: Vec<String> = (0..3000).map(|number| format!("{number:05}")).collect();
    assert_eq!(names(), expected);
    // A listing is a snapshot: removing names while listing skips none.
    for entry in fs::read_dir(mount.path("many")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(names(), Vec::<String>::new());
    fs::remove_dir(mount.path("many")).unwrap();
}

#[test]
fn flock_excludes_and_rmdir_of_a_full_directory_fails() {
    let (_store, mount) = mounted();
    mount.sh(r"
        touch lock; mkdir -p d/e
        flock lock sh -c '! flock -n lock true'
        flock -n lock true
        if rmdir d 2>/dev/null; then echo 'rmdir of a full directory'; exit 1; fi
        if rm d 2>/dev/null; then echo 'rm of a directory'; exit 1; fi
        if rmdir lock 2>/dev/null; then echo 'rmdir of a file'; exit 1; fi
        rmdir d/e d
        stat -f . > /dev/null; df . > /dev/null
        fallocate -l 100000 room; test $(stat -c %s room) = 100000
        dd if=/dev/urandom of=odd bs=777 count=100 status=none
        cp --sparse=never odd copy; cmp odd copy
    ");
}
