//! Scripts in mount and process namespaces of their own: `/sbin` has rewindfs's helpers of mount(8), `/run` is empty, and every
//! user may open `/dev/fuse`. The namespaces end with the script. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::mount::PROGRAM;
use super::shell::{self, CommandResult};

/// Directories of one script: `$sandbox` in it, the place for everything, where every user can go.
pub(crate) struct Sandbox {
    /// Below `/tmp`, because root's own scratch directory is closed to other users.
    directory: tempfile::TempDir,
}

/// The script that sets the namespaces up.
const SYSTEM: &str = r#"
mount -t tmpfs -o mode=755 none /run
mkdir -p "$sandbox/over" "$sandbox/store" "$sandbox/cache" "$sandbox/files"
mount -t tmpfs none "$sandbox/over"
mkdir "$sandbox/over/upper" "$sandbox/over/work"
sbin=$(readlink -f /sbin)
mount -t overlay -o "lowerdir=$sbin,upperdir=$sandbox/over/upper,workdir=$sandbox/over/work" none "$sbin"
# With the permissions that udev sets; not every machine has udev.
mknod -m 666 "$sandbox/over/fuse" c 10 229
mount --bind "$sandbox/over/fuse" /dev/fuse
for name in mount.fuse.rewindfs mount.rewindfs umount.fuse.rewindfs; do
    ln -s "$sandbox/rewindfs" "/sbin/$name"
done
"#;

impl Sandbox {
    /// Makes the directory, with a copy of the program that every user can run.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir_in("/tmp").expect("a scratch directory");
        let sandbox = Self { directory };
        shell::sh(sandbox.path(), "chmod 777 .");
        sandbox.install(Path::new(PROGRAM), "rewindfs");
        sandbox
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts a copy of `program` there under `name`.
    pub(crate) fn install(&self, program: &Path, name: &str) -> PathBuf {
        let place = self.path().join(name);
        std::fs::copy(program, &place).expect("a copy of a program");
        place
    }

    /// Runs `script` by `bash -eu` in the sandbox, as root, in a system of its own.
    pub(crate) fn run(&self, script: &str, limit: Duration) -> CommandResult {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["bash", "-euo", "pipefail", "-c"])
            .arg(format!("{SYSTEM}\n{script}"))
            .current_dir(self.path())
            .env("sandbox", self.path())
            .env("LC_ALL", "C")
            .env("NO_COLOR", "1");
        shell::run(&mut command, limit)
    }
}
