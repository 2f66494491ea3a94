//! A namespace without its index is rebuilt from its log and its segments: the mounted tree, its past, its labels and its policies are the
//! same, and a cache directory of the old namespace still has its changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::mount::{PROGRAM, TestMount, force_unmount, is_mounted, mount_arguments};
use crate::support::place::Place;
use crate::support::s3s::S3sServer;
use crate::support::shell::{self, CommandResult};
use crate::support::tree;

const LIMIT: Duration = Duration::from_secs(120);

/// A store whose objects are local files.
struct Bucket {
    place: Place,
    /// The directory of its namespaces.
    root: PathBuf,
}

impl Bucket {
    fn local(directory: &Path) -> Self {
        let root = directory.join("store");
        fs::create_dir(&root).unwrap();
        Self {
            place: Place::local(&root),
            root,
        }
    }

    fn s3(server: &S3sServer, prefix: &str) -> Self {
        Self {
            place: server.place(prefix),
            root: server.bucket().join(prefix),
        }
    }

    /// Deletes the whole index of a namespace.
    fn lose_index(&self, namespace: &str) {
        fs::remove_dir_all(self.root.join(namespace).join("meta")).unwrap();
    }

    /// Runs a command on the store's URL.
    fn command(&self, words: &[&str], more: &[&str]) -> CommandResult {
        let mut all: Vec<&str> = words.to_vec();
        all.push(&self.place.url);
        all.extend(more);
        if let Some(endpoint) = &self.place.endpoint {
            all.extend(["--endpoint", endpoint]);
        }
        let words: Vec<String> = all.into_iter().map(str::to_owned).collect();
        self.rewindfs(&words)
    }

    fn rewindfs(&self, words: &[String]) -> CommandResult {
        let mut command = Command::new(PROGRAM);
        command.args(words).envs(self.place.variables.clone());
        shell::run(&mut command, LIMIT)
    }

    /// Mounts a namespace with the directories of `mount`.
    fn mount_with(&self, mount: &TestMount, namespace: &str) -> CommandResult {
        let mut words = mount_arguments(&self.place, &mount.root(), &mount.cache());
        words.extend(["--namespace", namespace].map(str::to_owned));
        self.rewindfs(&words)
    }
}

/// Versions, links, a copy, attributes, labels, policies, and what was removed.
const WORK: &str = r#"
mkdir -p dir/sub gone
for v in 1 2 3; do for f in a dir/b; do echo "$f $v" > $f; done; done
head -c 3000000 /dev/urandom > large
printf changed | dd of=large bs=1 seek=1000000 conv=notrunc status=none
cp --reflink=auto large dir/copy
ln a dir/sub/linked; ln -s ../a dir/symbolic; mkfifo dir/fifo
chmod 640 dir/b; chown 1:2 large; setfattr -n user.mark -v early dir/b
touch -d 2020-02-02T02:02:02 a
mkdir dir/.versions/before
echo more >> dir/b
rm dir/copy
echo removed > gone/file; rm -r gone
seq 100000 > dir/sub/numbers; sync dir/sub/numbers; echo end >> dir/sub/numbers
"#;

/// The policies of the namespace and of a directory, and a hold.
fn policies(mount: &TestMount) {
    let root = mount.root().display().to_string();
    mount.sh(&format!(
        "{PROGRAM} policy set {root} keep-last=7 --now > /dev/null
         {PROGRAM} policy set {root} --path dir/sub keep-within=10d > /dev/null
         {PROGRAM} label hold {root}/dir before 2100-01-01 > /dev/null"
    ));
}

/// What the past of a mount shows, and what the commands tell about it.
fn past(mount: &TestMount) -> String {
    let root = mount.root().display().to_string();
    let script = format!(
        r#"
        for d in . dir dir/sub; do
            find $d/.versions/@files -type f -print0 | sort -z | xargs -0 sha256sum
            find $d/.versions/@files -type f -print0 | sort -z | xargs -0 stat -c '%n %s %y %a %u %g'
            ls $d/.versions/@deleted
        done
        find dir/.versions/before -type f -print0 | sort -z | xargs -0 sha256sum
        getfattr -n user.mark dir/b
        for f in a dir/b large dir/copy dir/sub/linked dir/sub/numbers; do
            {PROGRAM} versions {root}/$f --json
        done
        {PROGRAM} label list -r {root} --json
        {PROGRAM} policy show {root} --json
        {PROGRAM} policy show {root} --path dir/sub --json
        "#
    );
    // The mountpoint is part of no answer that is compared.
    mount.sh(&script).replace(&root, "MNT")
}

fn a_lost_index_is_rebuilt(bucket: &Bucket) {
    let mut mount = TestMount::start(&bucket.place, &[]);
    mount.sh(WORK);
    policies(&mount);
    mount.drain();
    mount.umount();
    mount.mount();
    mount.sh("echo second writer > dir/second");
    let busy = bucket.command(&["rebuild"], &["--to", "new"]);
    assert_eq!(busy.code, Some(1), "{busy}");
    assert!(busy.stderr.contains("rewindfs umount"), "{busy}");
    let (before, past_before) = (tree::read_tree(&mount.root()), past(&mount));
    mount.umount();

    bucket.lose_index("main");
    let segments = shell::sh(&bucket.root, "find main/data -type f | sort");
    let refused = bucket.mount_with(&mount, "main");
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("rewindfs rebuild"), "{refused}");

    let told = bucket
        .command(&["rebuild"], &["--to", "new", "--json"])
        .ok();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&told["complete"], &told["rows_of"], &told["labels"]),
        (&true.into(), &"log".into(), &1.into()),
        "{told:#}"
    );
    assert_eq!(told["lost"]["log_objects"], 0, "{told:#}");
    assert_eq!(
        shell::sh(&bucket.root, "find main/data -type f | sort"),
        segments,
        "segments were copied"
    );

    let mut rebuilt = TestMount::start(&bucket.place, &["--namespace", "new"]);
    tree::assert_equal("rebuilt", &before, &tree::read_tree(&rebuilt.root()));
    assert_eq!(past(&rebuilt), past_before);
    rebuilt.sh("echo later > dir/later; rm large");
    rebuilt.umount();
    rebuilt.check_log("new");
    rebuilt.mount();
    rebuilt.sh(
        "test $(cat dir/later) = later; test ! -e large; ls .versions/@deleted | grep -qx large",
    );
    rebuilt.umount();

    let listed = bucket.command(&["namespace", "list"], &[]).ok();
    assert!(listed.contains("main  (rebuilt as new)"), "{listed}");
    let refused = bucket.mount_with(&mount, "main");
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("--namespace new"), "{refused}");
    let kept = bucket.command(&["namespace", "delete"], &["main", "--yes"]);
    assert_eq!(kept.code, Some(1), "{kept}");
    assert!(kept.stderr.contains("namespace new"), "{kept}");
    let again = bucket.command(&["rebuild"], &["--to", "new"]);
    assert_eq!(again.code, Some(2), "{again}");
    assert!(again.stderr.contains("mount it with"), "{again}");
}

/// The writer is killed right after its last changes were acknowledged; the index is lost; its cache directory is still there.
fn an_old_cache_directory_still_has_its_changes(bucket: &Bucket) {
    let mut mount = TestMount::start(&bucket.place, &[]);
    mount.sh("mkdir dir; for v in 1 2; do echo $v > dir/file; done");
    mount.drain();
    mount.sh("echo 3 > dir/file; mkdir made; echo new > made/new; mv dir/file made/moved; echo 4 > dir/file");
    mount.kill9();
    force_unmount(&mount.root());
    bucket.lose_index("main");

    let refused = bucket.command(&["rebuild"], &["--to", "new"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("--no-writer"), "{refused}");
    let made = ["--to", "new", "--no-writer"];
    bucket.command(&["rebuild"], &made).ok();
    let mounted = bucket.mount_with(&mount, "new");
    assert_eq!(mounted.code, Some(0), "{mounted}");
    let found = mount.sh(
        "cat made/new made/moved dir/file; ls .versions/ > /dev/null; \
         find dir/.versions/@files made/.versions/@files -type f | xargs getfattr --only-values -n user.versions.op | sort | uniq -c",
    );
    assert!(found.starts_with("new\n3\n4\n"), "{found}");
    assert!(
        !found.contains("conflict") && !found.contains("recovered"),
        "{found}"
    );
    let point = mount.root().display().to_string();
    bucket.rewindfs(&["umount", &point].map(str::to_owned)).ok();
    assert!(!is_mounted(&mount.root()));
    mount.check_log("new");
}

/// A lost log object: the rebuild stops before it replaces anything, and says what is lost.
fn losses_are_named_and_have_to_be_accepted(bucket: &Bucket) {
    let mut mount = TestMount::start(&bucket.place, &[]);
    for round in 0..3 {
        mount.sh(&format!("mkdir d{round}; echo {round} > d{round}/file"));
        mount.drain();
    }
    mount.umount();
    bucket.lose_index("main");
    let log = shell::sh(&bucket.root, "find main/log -type f | sort");
    let lost = log.lines().nth(1).unwrap();
    fs::remove_file(bucket.root.join(lost)).unwrap();
    let refused = bucket.command(&["rebuild"], &["--to", "new"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    let name = lost.strip_prefix("main/").unwrap();
    assert!(
        refused
            .stdout
            .contains(&format!("lost: object {name}: is missing")),
        "{refused}"
    );
    assert!(
        refused.stdout.contains("lost: changes between 2"),
        "{refused}"
    );
    assert!(refused.stderr.contains("--accept-losses"), "{refused}");
    let listed = bucket.command(&["namespace", "list"], &[]).ok();
    assert!(listed.contains("new  (half-made"), "{listed}");

    let told = bucket.command(&["rebuild"], &["--to", "new", "--accept-losses"]);
    assert!(told.stdout.contains("rewindfs mount"), "{told}");
    told.ok();
    let mut rebuilt = TestMount::start(&bucket.place, &["--namespace", "new"]);
    let found = rebuilt.sh("cat */file");
    assert!(found.lines().count() >= 2, "{found}");
    rebuilt.umount();
}

fn everything(bucket: impl Fn(&str) -> Bucket) {
    a_lost_index_is_rebuilt(&bucket("rebuild-all"));
    an_old_cache_directory_still_has_its_changes(&bucket("rebuild-cache"));
    losses_are_named_and_have_to_be_accepted(&bucket("rebuild-losses"));
}

#[test]
fn a_namespace_on_a_local_directory_is_rebuilt_without_its_index() {
    let directory = tempfile::tempdir().unwrap();
    everything(|name| {
        let own = directory.path().join(name);
        fs::create_dir(&own).unwrap();
        Bucket::local(&own)
    });
}

#[test]
fn a_namespace_on_s3_is_rebuilt_without_its_index() {
    let Some(server) = S3sServer::start() else {
        return;
    };
    everything(|name| Bucket::s3(&server, name));
}
