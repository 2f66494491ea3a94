//! Work with common tools on a local directory, on S3 and on Azure; then the same tree in a mount with an empty cache.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::support::azure::AzureServer;
use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::random::Random;
use crate::support::s3::S3Server;
use crate::support::{scale, tree};

/// The amount of work.
struct Amount {
    /// Files in a tree: a multiple of 100, at least 2,000.
    files: usize,
    /// Size of the large file, MiB.
    mebibytes: usize,
}

/// The size of the large file in MiB: `usual`, unless a variable sets another one.
fn large_mebibytes(usual: usize) -> usize {
    let wanted = std::env::var("REWINDFS_TEST_LARGE_MIB").ok();
    wanted.map_or_else(
        || scale(usual, 1024),
        |text| text.parse().expect("REWINDFS_TEST_LARGE_MIB is a number"),
    )
}

/// The full amount.
fn everything() -> Amount {
    Amount {
        files: 5000,
        mebibytes: large_mebibytes(192),
    }
}

/// Every kind of work, but less of each: enough to find differences between providers.
fn less() -> Amount {
    Amount {
        files: scale(2000, 5000),
        mebibytes: large_mebibytes(48),
    }
}

#[test]
fn common_tools_work_on_a_local_directory() {
    let store = tempfile::tempdir().unwrap();
    work_through(&Place::local(store.path()), &everything());
}

#[test]
fn common_tools_work_on_an_s3_server() {
    let Some(server) = S3Server::start() else {
        return;
    };
    work_through(&server.place("end/to/end"), &everything());
}

#[test]
fn common_tools_work_on_an_azure_server() {
    let Some(server) = AzureServer::start() else {
        return;
    };
    work_through(&server.place("end/to/end"), &less());
}

/// One kind of work in a mount.
type Step<'a> = &'a dyn Fn(&TestMount);

/// Runs every kind of work, then compares the tree after a remount with an empty cache.
fn work_through(place: &Place, amount: &Amount) {
    let source = tempfile::tempdir().unwrap();
    tree::plant(source.path(), amount.files, 2000, 21);
    let mut mount = TestMount::start(place, &["--namespace", "team/eu"]);
    let steps: [(&str, Step<'_>); 8] = [
        ("sh and coreutils", &shell_and_coreutils),
        ("editors", &editors),
        ("git", &git),
        ("tar", &|mount| tar(mount, source.path(), amount)),
        ("rsync", &|mount| rsync(mount, source.path())),
        ("sqlite3", &sqlite),
        ("a large file", &|mount| large_file(mount, amount)),
        ("renames of trees", &|mount| renames(mount, amount)),
    ];
    for (name, step) in steps {
        let start = std::time::Instant::now();
        step(&mount);
        println!("{name}: {:.1} s", start.elapsed().as_secs_f64());
    }
    mount.drain();
    println!("status after drain: {}", mount.status());
    let before = tree::read_tree(&mount.root());
    assert!(before.len() > 2 * amount.files, "{} entries", before.len());
    for cache in [Cache::Wiped, Cache::Kept] {
        mount.remount(cache);
        tree::assert_equal(
            &format!("after a remount, cache {cache:?}"),
            &before,
            &tree::read_tree(&mount.root()),
        );
    }
    // The mount with an empty cache shows the versions too.
    let states = mount.sh("ls editors/.versions/@files/sed.txt/ | grep -c txt; cat editors/.versions/@files/sed.txt/previous");
    assert_eq!(
        states, "3\none\ntwo!\nthree\n",
        "the states of a file edited twice by sed -i"
    );
    mount.umount();
    let told = mount.check_log("team/eu");
    println!("{told}");
    assert!(
        told.contains(", 0 differ from the index, 0 counts are wrong"),
        "{told}"
    );
    let told: usize = told.split(' ').next().and_then(|n| n.parse().ok()).unwrap();
    assert!(told > 0, "log objects");
}

/// Shell redirections, pipes and loops; find, sort, cmp.
fn shell_and_coreutils(mount: &TestMount) {
    mount.sh(r#"
        mkdir shell; cd shell
        echo first > a; echo second >> a; test "$(cat a)" = "$(printf 'first\nsecond')"
        cp a b; cmp a b; mv b c; ln c d; ln -s c e; test "$(cat e)" = "$(cat d)"
        seq 100000 > numbers; sort -r numbers | sort -n | cmp - numbers
        split -l 10000 numbers part-; cat part-* | cmp - numbers
        dd if=numbers of=patched bs=1000 count=10 status=none
        dd if=/dev/zero of=patched bs=1 seek=500 count=100 conv=notrunc status=none
        test $(stat -c %s patched) = 10000
        mkdir -p deep/er/still; touch deep/er/still/x; rm -r deep; test ! -e deep
        chmod 600 a; test $(stat -c %a a) = 600
        touch -d '2020-01-02 03:04:05 UTC' a; test $(stat -c %Y a) = 1577934245
        test $(find . -name 'part-*' | wc -l) = 10
        head -c 100000 /dev/urandom | tee t1 t2 > t3; cmp t1 t2; cmp t2 t3
        for i in $(seq 200); do echo $i > loop; done; test $(cat loop) = 200
        du -s . > /dev/null; df . > /dev/null
    "#);
}

/// vim, ed and sed -i, each of which saves in another way.
fn editors(mount: &TestMount) {
    mount.sh(r#"
        mkdir editors; cd editors
        printf 'one\ntwo\nthree\n' > vim.txt; cp vim.txt ed.txt; cp vim.txt sed.txt
        vim -es -u NONE -i NONE -c '%s/two/2/' -c 'wq' vim.txt < /dev/null
        printf ',s/two/2/\nw\nq\n' | ed -s ed.txt
        printf 'one\n2\nthree\n' > expected
        cmp vim.txt expected; cmp ed.txt expected
        sed -i 's/two/two!/' sed.txt; sed -i 's/two!/2/' sed.txt; cmp sed.txt expected
        vim -u NONE -i NONE -es -c 'set backup writebackup backupcopy=no' -c 'normal Gofour' -c 'wq' vim.txt < /dev/null
        test "$(tail -n 1 vim.txt)" = four
        test "$(ls -a | grep -c '\.sw.$' || true)" = 0
    "#);
}

/// A git repository: clone, commit, status, gc, fsck.
fn git(mount: &TestMount) {
    let outside = tempfile::tempdir().unwrap();
    tree::plant(outside.path(), 300, 4000, 22);
    crate::support::shell::sh(
        outside.path(),
        "git init -q .; git add .; git commit -qm 'from outside'",
    );
    let printed = mount.sh(&format!(
        r#"
        git config --file config safe.directory '*'; export GIT_CONFIG_GLOBAL=$PWD/config
        git init -q made; cd made; echo x > x; git add x; git commit -qm first; cd ..
        git clone -q file://{} cloned; cd cloned
        test -z "$(git status --porcelain)"
        echo changed > part-00/new; git add -A; git commit -qm changed
        git mv part-01 renamed; rm 'part-02/file 00201.bin'; git commit -qam more
        git checkout -q -b branch HEAD~1; git checkout -q -; git stash list
        git gc -q; git fsck --strict 2>&1 | grep -v '^dangling' || true
        git status --porcelain
        git log --oneline | wc -l
    "#,
        outside.path().display()
    ));
    assert_eq!(
        printed.trim(),
        "3",
        "a clean status, a sound repository and three commits"
    );
}

/// Unpacks an archive with thousands of files and packs them again.
fn tar(mount: &TestMount, source: &Path, amount: &Amount) {
    let (source, files) = (source.display(), amount.files);
    mount.sh(&format!(
        r"
        mkdir tar; cd tar
        tar cf - -C {source} . | tar xf -
        diff -r {source} .
        tar cf - . | tar df - -C {source}
        test $(find . -type f | wc -l) = {files}
    "
    ));
}

/// Copies the files with rsync; the second run copies none.
fn rsync(mount: &TestMount, source: &Path) {
    let source = source.display();
    let second = mount.sh(&format!(
        "rsync -a {source}/ rsync/; rsync -ai {source}/ rsync/"
    ));
    assert_eq!(second, "", "files that the second rsync copied");
    let compared = mount.sh(&format!("rsync -anic --delete {source}/ rsync/"));
    assert_eq!(compared, "", "files with another checksum");
}

/// SQLite: inserts in both journal modes, and its integrity check.
fn sqlite(mount: &TestMount) {
    for mode in ["delete", "wal"] {
        let printed = mount.sh(&format!(r#"
            mkdir -p sqlite; cd sqlite
            sqlite3 {mode}.db 'PRAGMA journal_mode={mode}; CREATE TABLE t(n INTEGER PRIMARY KEY, text TEXT);' > /dev/null
            for i in $(seq 10); do
                sqlite3 {mode}.db "INSERT INTO t(text) VALUES (hex(randomblob(500)));"
            done
            (echo 'BEGIN;'; for i in $(seq 1000); do
                echo "INSERT INTO t(text) VALUES ('row $i');"; done; echo 'COMMIT;') | sqlite3 {mode}.db
            sqlite3 {mode}.db "UPDATE t SET text = text || '!' WHERE n % 3 = 0; DELETE FROM t WHERE n % 7 = 0;"
            sqlite3 {mode}.db 'VACUUM; PRAGMA integrity_check; SELECT count(*) FROM t;'
        "#));
        assert_eq!(printed, "ok\n866\n", "journal_mode={mode}");
    }
}

/// Writes a large file sequentially and reads it back.
fn large_file(mount: &TestMount, amount: &Amount) {
    let mebibytes = amount.mebibytes;
    let path = mount.path("large");
    let mut file = fs::File::create(&path).unwrap();
    let (mut random, mut hasher) = (Random::new(23), blake3::Hasher::new());
    for _ in 0..mebibytes {
        let bytes = random.bytes(1 << 20);
        hasher.update(&bytes);
        file.write_all(&bytes).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(fs::metadata(&path).unwrap().len(), (mebibytes as u64) << 20);
    let expected = hasher.finalize().to_hex().to_string();
    assert_eq!(
        tree::hash_file(&path).unwrap(),
        expected,
        "the bytes of {mebibytes} MiB"
    );
    mount.sh_within(
        "cp large copy; cmp large copy; rm copy",
        Duration::from_secs(600),
    );
}

/// Renames of directories with many files.
fn renames(mount: &TestMount, amount: &Amount) {
    // Each directory has a hundred files; one directory is moved out, ten are removed.
    let left = amount.files / 100 - 11;
    mount.sh(&format!(
        r"
        cp -a tar renamed; mv renamed moved; diff -r tar moved
        mkdir -p x/y; mv moved x/y/; diff -r tar x/y/moved
        mv x/y/moved/part-00 x/part; test ! -e x/y/moved/part-00
        diff -r tar/part-00 x/part
        rm -r x/y/moved/part-1*; test $(ls x/y/moved | wc -l) = {left}
    "
    ));
}
