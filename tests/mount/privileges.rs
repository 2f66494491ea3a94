//! Set-user-id and set-group-id bits and file capabilities: which of them a change of the program clears, seen by the next exec.

use std::path::Path;
use std::time::Duration;

use crate::support::sandbox::Sandbox;

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn a_program_changed_by_another_user_loses_its_privileges_at_the_next_exec() {
    let sandbox = Sandbox::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mount/privileges.py");
    sandbox.install(&script, "privileges.py");
    let ran = sandbox.run(
        r#"
    mkdir control
    mount -t tmpfs -o suid,mode=777 none control
    mount -t fuse.rewindfs -o "cache_dir=$sandbox/cache,suid" "file://$sandbox/store" files
    python3 privileges.py "$sandbox/files" "$sandbox/control"
    # Cleared bits stay cleared, in the live tree and in the past.
    find files -maxdepth 1 -name '* *' ! -name '*mmap*' -perm /6000 >left
    stamp=$(date -u +%Y-%m-%dT%H-%M-%S)
    umount files
    mount -t fuse.rewindfs -o "cache_dir=$sandbox/cache,suid" "file://$sandbox/store" files
    find files -maxdepth 1 -name '* *' ! -name '*mmap*' -perm /6000 >>left
    find "files/.versions/$stamp/" -maxdepth 1 -name '* *' ! -name '*mmap*' -perm /6000 >>left
    [ "$(find files -maxdepth 1 -name '* *' | wc -l)" -gt 30 ]
    umount files
    cat left
    [ ! -s left ]
    "#,
        LIMIT,
    );
    ran.ok();
}
