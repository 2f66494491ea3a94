//! A bucket that has lost objects: the commands name the loss, no further data is lost, and restoring the objects repairs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::mount::{
    Cache, PROGRAM, TestMount, force_unmount, is_mounted, mount_arguments,
};
use crate::support::place::Place;
use crate::support::s3s::S3sServer;
use crate::support::shell::{self, CommandResult};

const LIMIT: Duration = Duration::from_secs(60);

/// A store whose objects are local files.
struct Store {
    place: Place,
    /// The namespace's directory in it.
    namespace: PathBuf,
}

impl Store {
    /// A new local store in `directory`.
    fn local(directory: &Path) -> Self {
        let root = directory.join("store");
        fs::create_dir(&root).unwrap();
        Self {
            place: Place::local(&root),
            namespace: root.join("main"),
        }
    }

    /// A store below `prefix` in the server's bucket.
    fn s3(server: &S3sServer, prefix: &str) -> Self {
        Self {
            place: server.place(prefix),
            namespace: server.bucket().join(prefix).join("main"),
        }
    }

    /// Moves an object or folder of the namespace out of the store. Returns where it was moved to.
    fn lose(&self, name: &str, attic: &Path) -> PathBuf {
        let to = attic.join(name.replace('/', "-"));
        fs::rename(self.namespace.join(name), &to).unwrap();
        to
    }

    fn put_back(&self, name: &str, from: &Path) {
        fs::rename(from, self.namespace.join(name)).unwrap();
    }

    /// All files below a part of the namespace, sorted.
    fn files(&self, part: &str) -> Vec<PathBuf> {
        let listed = shell::sh(
            &self.namespace,
            &format!("if [ -d {part} ]; then find {part} -type f | sort; fi"),
        );
        listed.lines().map(PathBuf::from).collect()
    }

    /// Makes every segment older than the grace period.
    fn age(&self) {
        let old = SystemTime::now() - Duration::from_secs(3 * 3600);
        for segment in self.files("data") {
            let file = fs::File::options()
                .write(true)
                .open(self.namespace.join(segment))
                .unwrap();
            file.set_modified(old).unwrap();
        }
    }
}

fn rewindfs(words: &[String], place: &Place) -> CommandResult {
    let mut command = Command::new(PROGRAM);
    command.args(words).envs(place.variables.clone());
    shell::run(&mut command, LIMIT)
}

fn check(place: &Place) -> CommandResult {
    let mut words = vec!["check".to_owned(), place.url.clone()];
    if let Some(endpoint) = &place.endpoint {
        words.extend(["--endpoint".to_owned(), endpoint.clone()]);
    }
    rewindfs(&words, place)
}

/// Fails unless the mount is refused with status 1 and a message with all of `words`, and nothing stays mounted.
#[track_caller]
fn refused(store: &Store, mount: &TestMount, flags: &[&str], words: &[&str]) {
    let mut arguments = mount_arguments(&store.place, &mount.root(), &mount.cache());
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let ran = rewindfs(&arguments, &store.place);
    assert!(!is_mounted(&mount.root()), "{ran}");
    assert_eq!(ran.code, Some(1), "{ran}");
    for word in words {
        assert!(ran.stderr.contains(word), "no {word:?} in {ran}");
    }
}

const SAVED: &str = "for v in 1 2 3; do for f in a b c; do echo \"$f $v\" > $f; done; sleep 1; done; head -c 300000 /dev/zero > large";
const READ: &str = "cat a b c; cat .versions/@files/a/previous; wc -c < large; ls .versions/@files/b | grep -c '^2'";

/// Makes a namespace whose writer was killed after all uploads. Returns the files that can be read in it.
fn killed(store: &Store) -> (TestMount, String) {
    let mut mount = TestMount::start(&store.place, &[]);
    mount.sh(SAVED);
    mount.drain();
    let expected = mount.sh(READ);
    // An unmount may move the rows of the write-ahead log into tables, so the writer is killed instead.
    mount.kill9();
    force_unmount(&mount.root());
    store.age();
    (mount, expected)
}

fn check_fails(place: &Place, word: &str) {
    let told = check(place);
    assert_eq!(told.code, Some(1), "{told}");
    assert!(told.stderr.contains(word), "{told}");
}

fn a_lost_or_outdated_index_is_refused(store: &Store) {
    let attic = tempfile::tempdir().unwrap();
    let (mut mount, expected) = killed(store);
    let segments = store.files("data");
    assert!(!segments.is_empty());

    // The whole index.
    let index = store.lose("meta", attic.path());
    let lost = [
        "the index of",
        "is missing",
        "log objects",
        "segments are there",
        "Put",
    ];
    refused(store, &mount, &[], &lost);
    refused(store, &mount, &["--read-only"], &lost);
    refused(store, &mount, &["--read-only", "--damaged"], &lost);
    fs::remove_dir_all(mount.cache()).unwrap();
    fs::create_dir(mount.cache()).unwrap();
    refused(store, &mount, &[], &lost);
    check_fails(&store.place, "is missing");
    assert!(store.files("meta").is_empty(), "no index was made");
    assert_eq!(store.files("data"), segments);
    store.put_back("meta", &index);

    // namespace.json, beside the index.
    let identity = store.lose("namespace.json", attic.path());
    refused(store, &mount, &[], &["namespace.json is missing", "meta"]);
    assert!(!store.namespace.join("namespace.json").exists());
    store.put_back("namespace.json", &identity);

    lose_newest_rows(store, &mount, attic.path());
    assert_eq!(store.files("data"), segments);
    mount.recover(Cache::Wiped);
    assert_eq!(mount.sh(READ), expected);
    mount.umount();
    assert_eq!(check(&store.place).code, Some(0));
}

/// The newest objects of the index's write-ahead log are removed and restored.
fn lose_newest_rows(store: &Store, mount: &TestMount, attic: &Path) {
    let wal = store.files("meta/wal");
    let len = |path: &PathBuf| fs::metadata(store.namespace.join(path)).unwrap().len();
    let newest = wal.iter().rposition(|path| len(path) > 0).unwrap();
    let mut gone = Vec::new();
    for path in &wal[newest..] {
        let name = path.display().to_string();
        let from = store.lose(&name, attic);
        gone.push((name, from));
    }
    refused(store, mount, &[], &["is behind", "log/"]);
    refused(store, mount, &["--read-only"], &["is behind", "log/"]);
    check_fails(&store.place, "is behind");
    let mut reader = TestMount::start(&store.place, &["--read-only", "--damaged"]);
    reader.sh("ls");
    let status = reader.status().to_string();
    assert!(status.contains("is behind"), "{status}");
    reader.umount();
    for (name, from) in &gone {
        store.put_back(name, from);
    }
}

/// Kinds of damage to an object, each a script with the object's path in `$object`.
const HARMS: [&str; 4] = [
    "rm $object",
    ": > $object",
    "truncate -s $(($(stat -c %s $object) / 2)) $object",
    "at=$(($(stat -c %s $object) / 3)); \
     byte=$(od -An -tu1 -j $at -N 1 $object); \
     printf \"\\\\x$(printf %x $((byte ^ 32)))\" | dd of=$object bs=1 seek=$at conv=notrunc status=none",
];

/// Damages the newest object of each kind in turn: a mount is refused, serves correct data, or fails only the calls that need
/// the object.
fn a_damaged_object_affects_only_the_files_it_holds(store: &Store) {
    let (mut mount, expected) = killed(store);
    let mut objects = vec![PathBuf::from("namespace.json")];
    for kind in ["meta/manifest", "meta/wal", "epochs", "log", "data"] {
        let full = |path: &PathBuf| fs::metadata(store.namespace.join(path)).unwrap().len() > 0;
        let newest = store.files(kind).into_iter().rfind(full);
        objects.push(newest.unwrap_or_else(|| panic!("no object below {kind}")));
    }
    for object in objects {
        for harm in HARMS {
            let path = store.namespace.join(&object);
            let whole = fs::read(&path).unwrap();
            let segments = store.files("data");
            shell::sh(
                &store.namespace,
                &format!("object={}; {harm}", path.display()),
            );
            let what = format!("{}: {harm}", object.display());
            fs::remove_dir_all(mount.cache()).unwrap();
            fs::create_dir(mount.cache()).unwrap();
            match served(store, &mount) {
                Ok(read) => assert!(
                    read.code != Some(0) || read.stdout == expected,
                    "{what}: {read}"
                ),
                Err(refused) => assert!(
                    refused.code == Some(1)
                        && ["Put", "put it back", "restore"]
                            .iter()
                            .any(|word| refused.stderr.contains(word)),
                    "{what}: {refused}"
                ),
            }
            fs::write(&path, whole).unwrap();
            let left = store.files("data");
            for segment in segments {
                assert!(left.contains(&segment), "{what}: {}", segment.display());
            }
            mount.recover(Cache::Wiped);
            assert_eq!(mount.sh(READ), expected, "{what}, put back");
            mount.kill9();
            force_unmount(&mount.root());
            store.age();
        }
    }
}

/// Mounts and reads. Returns the data read, or the refusal of the mount.
fn served(store: &Store, mount: &TestMount) -> Result<CommandResult, CommandResult> {
    let mut arguments = mount_arguments(&store.place, &mount.root(), &mount.cache());
    arguments.extend(["--takeover", "now"].map(str::to_owned));
    let mounted = rewindfs(&arguments, &store.place);
    if mounted.code != Some(0) {
        assert!(!is_mounted(&mount.root()), "{mounted}");
        return Err(mounted);
    }
    let read = shell::sh_within(&mount.root(), READ, LIMIT);
    let point = mount.root().display().to_string();
    let lazily = ["umount", &point, "--lazy"].map(str::to_owned);
    let ended = rewindfs(&lazily, &store.place);
    assert!(!is_mounted(&mount.root()), "{ended}");
    Ok(read)
}

#[test]
fn a_lost_or_outdated_index_on_a_local_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::local(directory.path());
    a_lost_or_outdated_index_is_refused(&store);
}

#[test]
fn a_lost_or_outdated_index_on_s3_is_refused() {
    let Some(server) = S3sServer::start() else {
        return;
    };
    let store = Store::s3(&server, "damage");
    a_lost_or_outdated_index_is_refused(&store);
}

#[test]
fn a_damaged_object_of_a_local_directory_affects_only_the_files_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::local(directory.path());
    a_damaged_object_affects_only_the_files_it_holds(&store);
}

#[test]
fn a_damaged_object_of_an_s3_server_affects_only_the_files_it_holds() {
    let Some(server) = S3sServer::start() else {
        return;
    };
    let store = Store::s3(&server, "harmed");
    a_damaged_object_affects_only_the_files_it_holds(&store);
}
