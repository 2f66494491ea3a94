//! What listings cost: calls into the daemon while the kernel keeps names and attributes, requests after a remount. And what a listing that
//! the kernel keeps must not hide.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::mount::{PROGRAM, TestMount};
use crate::support::place::Place;
use crate::support::proxy::{Proxy, Request, summary};
use crate::support::s3::{BUCKET, S3Server};

/// Directories of the listed tree, beside the root.
const DIRECTORIES: usize = 20;

/// Files in each of them.
const FILES: usize = 15;

/// A mount of a local store whose log has a line for each call.
fn traced(store: &tempfile::TempDir) -> TestMount {
    let mut place = Place::local(store.path());
    let filter = ("RUST_LOG".to_owned(), "rewindfs::fuse=trace".to_owned());
    place.variables.push(filter);
    TestMount::start(&place, &[])
}

fn plant(mount: &TestMount) {
    mount.sh(&format!(
        "for d in $(seq {DIRECTORIES}); do mkdir d$d; for f in $(seq {FILES}); do echo $f > d$d/f$f; done; done"
    ));
}

/// Numbers of calls by name.
type Calls = BTreeMap<String, usize>;

/// The calls that the daemon got while `script` ran, by name, without those that the kernel sends by itself.
fn calls(mount: &TestMount, script: &str) -> Calls {
    let before = mount.log().len();
    mount.sh(script);
    let log = mount.log();
    let mut calls = Calls::new();
    for line in log[before..].lines() {
        let op = line.split("op=\"").nth(1);
        if let Some(op) = op.and_then(|rest| rest.split('"').next())
            && (line.contains(" request ") || line.contains("refused at once"))
            && op != "forget"
        {
            *calls.entry(op.to_owned()).or_default() += 1;
        }
    }
    calls
}

#[test]
fn a_repeated_long_listing_asks_for_one_attribute_of_each_file_and_nothing_else() {
    let store = tempfile::tempdir().unwrap();
    let mount = traced(&store);
    plant(&mount);
    let listing = "ls -lR . > /dev/null";
    mount.sh(listing);
    let second = calls(&mount, listing);
    let third = calls(&mount, listing);
    println!("second {second:?}\nthird {third:?}");
    let count = |calls: &Calls, op: &str| calls.get(op).copied().unwrap_or(0);
    // The kernel keeps access lists but no other attribute: `ls -l` asks for security.selinux of each entry.
    let directories = DIRECTORIES + 1;
    let entries = directories + DIRECTORIES * FILES;
    for calls in [&second, &third] {
        assert!(
            count(calls, "getxattr") <= entries + 2 * directories,
            "{calls:?}"
        );
        assert!(count(calls, "opendir") <= directories, "{calls:?}");
    }
    // A listing that is not kept yet makes the kernel ask for the directory's time of access once.
    assert!(count(&second, "getattr") <= directories + 5, "{second:?}");
    assert!(count(&third, "getattr") <= 5, "{third:?}");
    let others = |calls: &Calls| {
        calls.values().sum::<usize>()
            - ["getxattr", "opendir", "getattr"]
                .map(|op| count(calls, op))
                .iter()
                .sum::<usize>()
    };
    assert!(others(&second) <= 5 && others(&third) <= 5);
}

/// What the scripts below compare: the names of a directory as readdir(3) gives them.
fn names(mount: &TestMount, directory: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(mount.path(directory))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_listing_that_the_kernel_keeps_shows_each_change() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh("mkdir d e d/sub; touch d/one d/two e/other");
    let list = |directory: &str| {
        // The second reading is that of the kernel's own copy.
        let read = names(&mount, directory);
        assert_eq!(names(&mount, directory), read);
        read
    };
    assert_eq!(list("d"), ["one", "sub", "two"]);
    mount.sh("touch d/three; touch -d 2020-01-01 d");
    assert_eq!(list("d"), ["one", "sub", "three", "two"]);
    mount.sh("mv d/one d/ONE; rm d/two");
    assert_eq!(list("d"), ["ONE", "sub", "three"]);
    mount.sh("ln e/other d/link; ln -s nowhere d/symlink; mv e/other d/other");
    assert_eq!(
        list("d"),
        ["ONE", "link", "other", "sub", "symlink", "three"]
    );
    assert_eq!(list("e"), Vec::<String>::new());
    mount.sh("rm d/link d/other d/symlink");
    assert_eq!(list("d"), ["ONE", "sub", "three"]);
    // A command changes the tree beside the kernel.
    mount.sh("rm d/three");
    assert_eq!(list("d"), ["ONE", "sub"]);
    mount.sh(&format!("{PROGRAM} undelete d/three"));
    assert_eq!(list("d"), ["ONE", "sub", "three"]);
    mount.sh("rm d/ONE");
    assert_eq!(list("d"), ["sub", "three"]);
    mount.sh("mv d/.versions/@deleted/ONE d/back");
    assert_eq!(list("d"), ["back", "sub", "three"]);
    let before = mount
        .sh("date -u +%Y-%m-%dT%H-%M-%S.%3NZ")
        .trim()
        .to_owned();
    std::thread::sleep(Duration::from_millis(20));
    mount.sh("rm -r d/back d/sub; touch d/new");
    assert_eq!(list("d"), ["new", "three"]);
    mount.sh(&format!("{PROGRAM} restore d@{before}"));
    let restored = list("d");
    assert!(
        restored.contains(&"back".to_owned()) && restored.contains(&"sub".to_owned()),
        "{restored:?}"
    );
}

#[test]
fn an_open_directory_is_read_as_posix_says_beside_the_copy_of_the_kernel() {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    mount.sh("mkdir big; cd big; seq -f 'a-name-that-fills-the-pages-%05g' 1 3000 | xargs touch");
    let program = mount.path("../walk.py");
    fs::write(&program, WALK).unwrap();
    mount.sh(&format!("python3 {} big", program.display()));
    // A removal while the directory is read, of a listing that was kept in part and as a whole.
    mount.sh("cp -r big part; ls part | head -n 5 > /dev/null; rm -rf part; test ! -e part");
    mount.sh("ls big > /dev/null; rm -rf big; test ! -e big");
    // The number of the directory above follows a move.
    mount.sh("mkdir -p p/q r; ls -a p/q > /dev/null; ls -ai p/q > /dev/null; mv p/q r/q");
    mount.sh("test \"$(ls -ai r/q | awk '$2 == \"..\" {print $1}')\" = \"$(stat -c %i r)\"");
    mount.sh("python3 -c 'import os,sys; e=[x for x in os.scandir(\"r\")]; assert [x.name for x in e]==[\"q\"]'");
}

/// Requests for tables of the index.
fn of_tables(requests: &[Request]) -> usize {
    let of_table =
        |request: &&Request| request.method == "GET" && request.target.contains("/meta/compacted/");
    requests.iter().filter(of_table).count()
}

/// The files of the index's tables in a cache directory.
fn table_files(cache: &Path) -> Vec<PathBuf> {
    let namespaces = fs::read_dir(cache).unwrap();
    let tables = namespaces.map(|entry| entry.unwrap().path().join("tables"));
    tables
        .filter_map(|tables| fs::read_dir(tables).ok())
        .flatten()
        .map(|file| file.unwrap().path())
        .collect()
}

#[test]
fn a_listing_after_a_remount_fetches_no_table_of_the_index_unless_its_file_is_damaged() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let place = Place::s3(&format!("{BUCKET}/listing"), &proxy.endpoint());
    let mut mount = TestMount::start(&place, &[]);
    plant(&mount);
    // So many objects of the engine's log make it write tables.
    let program = mount.path("../fsyncs.py");
    fs::write(&program, FSYNCS).unwrap();
    mount.sh(&format!("python3 {}", program.display()));
    let listing = "ls -lR --time-style=full-iso .";
    let before = mount.sh(listing);
    // Requests for tables from the start of a mount to the end of its first listing, and those of the listing.
    let listed = |mount: &mut TestMount| {
        let start = proxy.mark();
        mount.mount();
        let mounted = proxy.mark();
        assert_eq!(mount.sh(listing), before);
        println!("{}", summary(&proxy.since(start)));
        (
            of_tables(&proxy.since(start)),
            of_tables(&proxy.since(mounted)),
        )
    };
    mount.umount();
    fs::remove_dir_all(mount.cache()).unwrap();
    let (cold, _) = listed(&mut mount);
    mount.umount();
    let (kept, of_listing) = listed(&mut mount);
    assert_eq!(of_listing, 0, "the cache has the tables");
    assert!(kept < cold, "{kept} with the cache, {cold} without it");

    mount.umount();
    let files = table_files(&mount.cache());
    assert!(!files.is_empty());
    for file in &files {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file, bytes).unwrap();
    }
    let (damaged, _) = listed(&mut mount);
    assert!(
        damaged > kept,
        "{damaged} with damaged files, {kept} with intact ones"
    );
    mount.umount();
    let (again, of_listing) = listed(&mut mount);
    assert!(
        of_listing == 0 && again < damaged,
        "the files are written again"
    );
}

/// Makes files, each durable by itself.
const FSYNCS: &str = r#"
import os
os.mkdir("synced")
for number in range(300):
    file = os.open("synced/%d" % number, os.O_CREAT | os.O_WRONLY)
    os.write(file, b"x")
    os.fsync(file)
    os.close(file)
"#;

/// Reads a directory by telldir(3), seekdir(3) and rewinddir(3), twice: the second time from the kernel's copy.
const WALK: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
for name in ("readdir", "telldir", "rewinddir", "closedir"):
    getattr(libc, name).argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
path = sys.argv[1].encode()

def one(handle):
    entry = libc.readdir(handle)
    return ctypes.string_at(entry + 19) if entry else None

def rest(handle):
    names = []
    while (name := one(handle)) is not None:
        names.append(name)
    return names

for turn in range(3):
    handle = libc.opendir(path)
    first = [one(handle) for _ in range(1000)]
    place = libc.telldir(handle)
    after = rest(handle)
    expected = len(os.listdir(path)) + 2
    assert len(set(first + after)) == len(first + after) == expected, (turn, len(first), len(after), expected)
    libc.seekdir(handle, place)
    assert rest(handle) == after, turn
    libc.rewinddir(handle)
    assert rest(handle) == first + after, turn
    # A name that is made while the directory is open is there after a rewind.
    new = b"new-%d" % turn
    os.close(os.open(path + b"/" + new, os.O_CREAT | os.O_WRONLY))
    libc.rewinddir(handle)
    assert new in rest(handle), turn
    # A listing drawn in part, a change, and another reader.
    libc.rewinddir(handle)
    part = [one(handle) for _ in range(1500)]
    os.unlink(path + b"/" + new)
    assert new not in os.listdir(path), turn
    names = part + rest(handle)
    assert len(set(names)) == len(names), turn
    assert new not in os.listdir(path), turn
    libc.closedir(handle)

# A reader of the kernel's copy loses it on the way: it goes on at the same name.
before = os.listdir(path)
assert os.listdir(path) == before
handle = libc.opendir(path)
part = [one(handle) for _ in range(1200)]
for name in part[2:800] + before[2000:2100]:
    os.unlink(path + b"/" + name)
for number in range(100):
    os.close(os.open(path + b"/0-%03d" % number, os.O_CREAT | os.O_WRONLY))
now = os.listdir(path)
assert os.listdir(path) == now
names = part + rest(handle)
assert len(set(names)) == len(names)
missing = set(before) & set(now) - set(names)
assert not missing, sorted(missing)[:5]
libc.closedir(handle)
"#;
