//! Programs that use a file system heavily: databases, repositories, builds, archives.

use std::path::Path;
use std::time::Duration;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::{scale, shell, tree};

/// The time limit of a program.
const LIMIT: Duration = Duration::from_secs(900);

/// A fresh namespace on a local directory, mounted.
fn mounted() -> (tempfile::TempDir, TestMount) {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), &[]);
    (store, mount)
}

#[test]
fn two_processes_share_a_database() {
    let (_store, mut mount) = mounted();
    let transactions = scale(60, 1000);
    for mode in ["delete", "truncate", "wal"] {
        let printed = mount.sh_within(
            &format!(
                r#"
                db={mode}.db
                sqlite3 $db 'PRAGMA journal_mode={mode};
                    CREATE TABLE log(who TEXT, n INTEGER); CREATE TABLE sum(total INTEGER); INSERT INTO sum VALUES (0);' > /dev/null
                worker() {{
                    echo '.timeout 60000'
                    for n in $(seq {transactions}); do
                        echo "BEGIN IMMEDIATE; INSERT INTO log VALUES ('$1', $n);
                              UPDATE sum SET total = total + 1; COMMIT;"
                    done
                    echo 'SELECT changes();'
                }}
                worker one | sqlite3 -bail $db > one.out & one=$!
                worker two | sqlite3 -bail $db > two.out & two=$!
                wait $one; wait $two; rm one.out two.out
                sqlite3 $db 'PRAGMA integrity_check; SELECT total FROM sum; SELECT count(*) FROM log;
                    SELECT count(*) FROM (SELECT DISTINCT who, n FROM log);'
                "#
            ),
            LIMIT,
        );
        let both = 2 * transactions;
        assert_eq!(printed, format!("ok\n{both}\n{both}\n{both}\n"), "{mode}");
    }
    mount.remount(Cache::Wiped);
    for mode in ["delete", "truncate", "wal"] {
        let checked = mount.sh(&format!(
            "sqlite3 {mode}.db 'PRAGMA integrity_check; SELECT count(*) FROM log;'"
        ));
        assert_eq!(checked, format!("ok\n{}\n", 2 * transactions), "{mode}");
    }
}

#[test]
fn a_git_repository_of_many_commits_passes_fsck() {
    let (_store, mut mount) = mounted();
    let commits = scale(100, 1000);
    mount.sh_within(
        &format!(
            r#"
            git init -q work; cd work; git config gc.auto 300; git config gc.autoDetach false
            for n in $(seq {commits}); do
                mkdir -p part-$((n % 7)); echo "line $n" >> part-$((n % 7))/file-$((n % 13)); echo $n > counter
                git add -A; git commit -qm "commit $n"
                if [ $((n % 25)) = 0 ]; then git checkout -q -b side-$n; git commit -q --allow-empty -m side; git checkout -q -; git merge -q side-$n; fi
            done
            "#
        ),
        LIMIT,
    );
    let sound = |mount: &TestMount| {
        let told = mount.sh_within(
            "export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'; cd work
             git fsck --strict --no-progress 2>&1; git status --porcelain; cat counter; git rev-list --no-merges --count HEAD",
            LIMIT,
        );
        let sides = commits / 25;
        assert_eq!(told, format!("{commits}\n{}\n", commits + sides));
    };
    sound(&mount);
    mount.sh_within("cd work; git gc -q", LIMIT);
    sound(&mount);
    mount.remount(Cache::Wiped);
    sound(&mount);
}

#[test]
fn cargo_builds_runs_and_rebuilds_a_crate() {
    let (_store, mount) = mounted();
    // The tool chain that builds these tests, which needs no home directory.
    let cargo = std::env::var("CARGO").expect("the tests run under cargo");
    let tools = Path::new(&cargo).parent().unwrap().display().to_string();
    let printed = mount.sh_within(
        &format!(
            r#"
            export PATH={tools}:$PATH CARGO_HOME=$PWD/home; unset CARGO_TARGET_DIR RUSTFLAGS RUSTC_WRAPPER || true
            mkdir -p app/src part/src
            printf '[package]\nname = "part"\nversion = "0.1.0"\nedition = "2021"\n' > part/Cargo.toml
            echo 'pub fn number() -> u32 {{ 41 }}' > part/src/lib.rs
            printf '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\npart = {{ path = "../part" }}\n' > app/Cargo.toml
            echo 'fn main() {{ println!("{{}}", part::number() + 1); }}' > app/src/main.rs
            cd app
            cargo build --offline -q; ./target/debug/app
            cargo build --offline 2>&1 | grep -c Compiling || true
            echo 'pub fn number() -> u32 {{ 1 }}' > ../part/src/lib.rs
            cargo build --offline -q; ./target/debug/app
            cargo test --offline -q > /dev/null
            "#
        ),
        LIMIT,
    );
    assert_eq!(
        printed, "42\n0\n2\n",
        "built, nothing to do, built again after a change"
    );
}

#[test]
fn pip_installs_packages_into_a_virtual_environment() {
    let (_store, mut mount) = mounted();
    mount.sh_within(
        r"
        python3 - <<'END'
import base64, hashlib, zipfile
files = {f'small/part_{n}.py': f'NUMBER = {n}\n' for n in range(200)}
files['small/__init__.py'] = ''
info = 'small-1.0.dist-info/'
files[info + 'METADATA'] = 'Metadata-Version: 2.1\nName: small\nVersion: 1.0\n'
files[info + 'WHEEL'] = 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
files[info + 'entry_points.txt'] = '[console_scripts]\nsmall = small.part_7:__doc__\n'
def line(name, text):
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()
    return f'{name},sha256={digest},{len(text)}\n'
files[info + 'RECORD'] = ''.join(line(*f) for f in files.items()) + info + 'RECORD,,\n'
with zipfile.ZipFile('small-1.0-py3-none-any.whl', 'w') as wheel:
    for name, text in files.items():
        wheel.writestr(name, text)
END
        python3 -m venv environment
        environment/bin/pip install --quiet --disable-pip-version-check --no-index ./small-1.0-py3-none-any.whl
        ",
        LIMIT,
    );
    let sound = |mount: &TestMount| {
        let told = mount.sh_within(
            "environment/bin/python -c 'import small.part_199 as p; print(p.NUMBER)'
             environment/bin/pip check --disable-pip-version-check
             environment/bin/pip show --disable-pip-version-check -f small | grep -c 'part_.*py$'",
            LIMIT,
        );
        assert_eq!(told, "199\nNo broken requirements found.\n200\n");
    };
    sound(&mount);
    mount.remount(Cache::Wiped);
    sound(&mount);
    let left = mount.sh_within(
        "environment/bin/pip uninstall --quiet --yes small; find environment -name 'part_*' | wc -l",
        LIMIT,
    );
    assert_eq!(left, "0\n");
}

/// A tree with everything an archive can hold, in `source` of a directory outside any mount. No file has two attributes:
/// file systems list them in orders of their own.
fn varied(outside: &Path) {
    tree::plant(&outside.join("source"), 120, 3000, 31);
    shell::sh(
        outside,
        r#"
        cd source
        ln 'part-00/file 00001.bin' part-00/again; ln 'part-00/file 00001.bin' third; ln -s nowhere dangling; mkdir empty; mkfifo pipe
        truncate -s 3M sparse; printf x | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none
        printf 'caf\303\251\n' > "$(printf 'not \377 text')"; chmod 4751 third; chmod 1777 empty; chmod 000 part-00/again
        [ $(id -u) != 0 ] || { mknod device c 5 1; chown 1234:5678 sparse; chown -h 12:34 dangling; }
        setfattr -n user.colour -v green "$(printf 'not \377 text')"; setfattr -n user.empty part-01
        setfattr -n user.large -v "$(head -c 2000 /dev/zero | tr '\0' v)" third
        setfacl -m u:4321:rwx,g:99:r--,m:rw- sparse; setfacl -d -m u:4321:r-x,o::--- empty; setfacl -m g:77:-wx empty
        touch -d '1969-07-20 20:17:40.123456789 UTC' sparse; touch -h -d '2038-01-20 00:00:00.987654321 UTC' dangling
        touch -d '2001-02-03 04:05:06.5 UTC' empty part-00
        "#,
    );
}

#[test]
fn archives_are_unpacked_byte_for_byte() {
    let (_store, mut mount) = mounted();
    let outside = tempfile::tempdir().unwrap();
    varied(outside.path());
    let (outside, files) = (outside.path().display(), mount.root());
    let files = files.display();
    let archive = "tar --sort=name --format=posix --pax-option=exthdr.name=%d/%f.pax,delete=atime,delete=ctime \
                   --numeric-owner --xattrs '--xattrs-include=user.*' '--xattrs-include=trusted.*' --acls";
    mount.sh(&format!(
        "cd {outside}; {archive} -cf first.tar -C source .; mkdir {files}/tree
         {archive} -xpf first.tar -C {files}/tree; cp first.tar {files}/copy.tar"
    ));
    for _ in 0..2 {
        mount.sh(&format!(
            "cd {outside}; {archive} -cf second.tar -C {files}/tree .; cmp first.tar second.tar
             cmp first.tar {files}/copy.tar"
        ));
        mount.remount(Cache::Wiped);
    }
}

#[test]
fn rsync_sees_no_difference_either_way() {
    let (_store, mut mount) = mounted();
    let outside = tempfile::tempdir().unwrap();
    varied(outside.path());
    shell::sh(
        &outside.path().join("source"),
        "for n in 1 2 3 4 5; do setfattr -n user.number-$n -v $n sparse empty third; done",
    );
    let (outside, files) = (outside.path().display(), mount.root());
    let files = files.display();
    let copy = "rsync -aHAX --checksum --numeric-ids";
    mount.sh(&format!(
        "cd {outside}; {copy} source/ {files}/tree/; {copy} {files}/tree/ back/"
    ));
    for _ in 0..2 {
        for (from, to) in [
            (format!("{outside}/source"), format!("{files}/tree")),
            (format!("{files}/tree"), format!("{outside}/source")),
            (format!("{outside}/back"), format!("{files}/tree")),
            (format!("{outside}/source"), format!("{outside}/back")),
        ] {
            let told = mount.sh(&format!("{copy} -ni --delete {from}/ {to}/"));
            assert_eq!(told, "", "{from} and {to}");
        }
        mount.remount(Cache::Wiped);
    }
}
