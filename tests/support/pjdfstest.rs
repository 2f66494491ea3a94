//! pjdfstest, the file system test suite of FreeBSD's authors, as `scripts/setup tests` installs it.

use std::path::{Path, PathBuf};

use super::server::installed;

/// The summary of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tests that failed, or passed where they should not have.
    pub(crate) failed: u32,
    /// Tests that cannot be run here.
    pub(crate) skipped: u32,
    /// Tests that passed.
    pub(crate) passed: u32,
    /// Tests that failed as expected.
    pub(crate) expected: u32,
}

/// Whether the suite may mount again with other flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remounts {
    Refused,
    Allowed,
}

/// The program.
pub(crate) fn program() -> PathBuf {
    installed("pjdfstest/bin/pjdfstest")
}

/// Writes the configuration of a whole run to `path`.
pub(crate) fn configure(path: &Path, remounts: Remounts) {
    let allowed = remounts == Remounts::Allowed;
    let text = format!(
        r#"
[features]
posix_fallocate = {{}}
rename_ctime = {{}}
utime_now = {{}}
utimensat = {{}}

[settings]
naptime = 0.01
allow_remount = {allowed}
expected_failures = []

[dummy_auth]
entries = [ ["nobody", "nogroup"], ["tests", "tests"] ]
"#
    );
    std::fs::write(path, text).expect("a configuration");
}

/// Parses the summary at the end of an output; `None` when the suite was ended early.
pub(crate) fn counts(output: &str) -> Option<Counts> {
    let line = output
        .lines()
        .rev()
        .find(|line| line.starts_with("Summary: "))?;
    let number = |what: &str| {
        let (before, _) = line.split_once(what)?;
        before.trim_end().rsplit(' ').next()?.parse().ok()
    };
    Some(Counts {
        failed: number(" failed,")?,
        skipped: number(" skipped,")?,
        passed: number(" passed,")?,
        expected: number(" expected failures,")?,
    })
}

/// The lines of an output that name failures.
pub(crate) fn complaints(output: &str) -> String {
    let wrong = |line: &&str| !line.ends_with(" ok") && !line.ends_with(" skipped");
    output.lines().filter(wrong).collect::<Vec<_>>().join("\n")
}
