//! A small file system in memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::shell;

/// How long mounting may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A tmpfs on a directory, unmounted when dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `None`, with a message, where this user may not mount.
    pub(crate) fn at(directory: &Path, size: &str) -> Option<Self> {
        let size = format!("size={size}");
        let words = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let ran = shell::run(Command::new("mount").args(words).arg(directory), LIMIT);
        if ran.code != Some(0) {
            eprintln!("SKIPPED: cannot mount a small disk: {ran}");
            return None;
        }
        Some(Self(directory.to_owned()))
    }

    /// Changes its size.
    pub(crate) fn resize(&self, size: &str) {
        let option = format!("remount,size={size}");
        shell::run(
            Command::new("mount").args(["-o", &option]).arg(&self.0),
            LIMIT,
        )
        .ok();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        shell::run(Command::new("umount").arg("-l").arg(&self.0), LIMIT);
    }
}
