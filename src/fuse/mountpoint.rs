//! The kernel's table of mounts: stale and busy mountpoints, unmounting.
//!
//! Invariant: nothing here touches a path *inside* a mount of this process, which could wait for itself. A mountpoint is
//! resolved through its parent; the table of mounts, not stat(2), says what is on it.

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The type of a rewindfs mount in the kernel's table.
pub(super) const TYPE: &str = "fuse.rewindfs";

/// How long a mount may take to show that its daemon is alive.
const PROBE: Duration = Duration::from_secs(5);

/// Why something could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The mountpoint does not exist: create it.
    #[error("mountpoint {0} does not exist")]
    Missing(String),
    /// The mountpoint is something else than a directory: choose another.
    #[error("mountpoint {0} is not a directory")]
    NotDirectory(String),
    /// A rewindfs is mounted there: unmount it first.
    #[error("mountpoint {0} is busy: a rewindfs is already mounted there")]
    Busy(String),
    /// Something in the mount is still open: close it, or unmount lazily.
    #[error("{0} is busy: a file in it is open or a process works in it")]
    InUse(String),
    /// No rewindfs is mounted there.
    #[error("no rewindfs is mounted at {0}")]
    NotMounted(String),
    /// A system call failed.
    #[error("{path}: {source}")]
    System {
        /// The mountpoint, or the device.
        path: String,
        /// Its error.
        source: io::Error,
    },
}

impl MountError {
    pub(super) fn system(path: &Path, source: io::Error) -> Self {
        Self::System {
            path: path.display().to_string(),
            source,
        }
    }
}

/// How to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmount {
    /// Fail while a file or directory in it is open.
    WhenIdle,
    /// Detach it from the tree now; the mount ends when its last file is closed.
    Lazy,
}

/// One line of the kernel's table of mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// `major:minor`, the name of its device.
    pub(super) device: String,
    pub(super) mountpoint: PathBuf,
    pub(super) kind: String,
    pub(super) changes: Changes,
}

/// What the kernel does with a call that would change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    Passed,
    Refused,
}

/// Makes `path` absolute and free of symlinks without looking at what is mounted on it.
///
/// # Errors
/// [`MountError::Missing`] when its parent does not exist, else [`MountError::System`].
pub fn resolve(path: &Path) -> Result<PathBuf, MountError> {
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => MountError::Missing(path.display().to_string()),
        _ => MountError::system(path, error),
    };
    let absolute = std::path::absolute(path).map_err(missing)?;
    // A stale mount refuses even readlink(2), so a path in the table of mounts is used as it is.
    if top(&absolute)?.is_some() {
        return Ok(absolute);
    }
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return absolute.canonicalize().map_err(missing);
    };
    let resolved = parent.canonicalize().map_err(missing)?.join(name);
    if top(&resolved)?.is_some() {
        return Ok(resolved);
    }
    // Only the last name may still be a symlink.
    resolved.canonicalize().map_err(missing)
}

/// Returns the topmost mount at exactly `mountpoint`, which must be resolved.
///
/// # Errors
/// [`MountError::System`] when the table cannot be read.
pub(super) fn top(mountpoint: &Path) -> Result<Option<Mount>, MountError> {
    let table = "/proc/self/mountinfo";
    let text = std::fs::read(table).map_err(|error| MountError::system(Path::new(table), error))?;
    Ok(parse(&text)
        .filter(|mount| mount.mountpoint == mountpoint)
        .last())
}

/// Reads the kernel's table of mounts, in the order of mounting.
fn parse(text: &[u8]) -> impl Iterator<Item = Mount> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = fields.nth(2)?;
        let mountpoint = fields.nth(1)?;
        let own = fields.next()?;
        // Any number of optional fields, then a dash, then the type.
        let mut rest = fields.skip_while(|field| *field != b"-");
        let kind = rest.nth(1)?;
        // The mount's own options, and those of all mounts of the file system.
        let options = [own, rest.nth(1).unwrap_or_default()];
        let mut words = options.iter().flat_map(|o| o.split(|byte| *byte == b','));
        let changes = match words.any(|word| word == b"ro") {
            true => Changes::Refused,
            false => Changes::Passed,
        };
        Some(Mount {
            device: String::from_utf8_lossy(device).into_owned(),
            mountpoint: PathBuf::from(OsString::from_vec(unescape(mountpoint))),
            kind: String::from_utf8_lossy(kind).into_owned(),
            changes,
        })
    })
}

/// Returns how many mounts a table has.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn count(text: &[u8]) -> usize {
    parse(text).count()
}

/// Decodes the kernel's octal escapes, such as `\040` for a space.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// Checks that `path` is a directory, unmounts the stale mount of a killed daemon there, and returns the resolved path.
///
/// # Errors
/// [`MountError::Missing`], [`MountError::NotDirectory`], [`MountError::Busy`] when a rewindfs serves it.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    let mountpoint = resolve(path)?;
    while let Some(mount) = top(&mountpoint)? {
        if mount.kind != TYPE {
            break;
        }
        match life(&mountpoint) {
            Life::Dead => {
                tracing::warn!(mountpoint = %mountpoint.display(), "unmounting the stale mount of a daemon that has ended");
                detach(&mountpoint, Unmount::Lazy)?;
            }
            Life::Alive | Life::Silent => {
                return Err(MountError::Busy(mountpoint.display().to_string()));
            }
        }
    }
    match std::fs::metadata(&mountpoint) {
        Ok(metadata) if metadata.is_dir() => Ok(mountpoint),
        Ok(_) => Err(MountError::NotDirectory(path.display().to_string())),
        Err(error) => Err(MountError::system(path, error)),
    }
}

/// Whether a rewindfs mount is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    /// Its daemon has ended.
    Dead,
    /// It did not answer in time.
    Silent,
}

/// Calls statfs(2) on `mountpoint` to learn whether a daemon serves it; waits for [`PROBE`] at most.
fn life(mountpoint: &Path) -> Life {
    let (sender, receiver) = mpsc::channel();
    let path = mountpoint.to_owned();
    // statfs(2) is never answered from the kernel's cache; a daemon that does not answer would block this thread, so another one asks.
    let asking = std::thread::Builder::new()
        .name("probe".to_owned())
        .spawn(move || {
            let _ = sender.send(rustix::fs::statfs(&path).map(drop));
        });
    if asking.is_err() {
        return Life::Silent;
    }
    match receiver.recv_timeout(PROBE) {
        Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)) => Life::Dead,
        Ok(_) => Life::Alive,
        Err(_) => Life::Silent,
    }
}

/// Waits until the rewindfs mounted at `path` answers, for 5 s at most; returns whether it did.
///
/// # Errors
/// [`MountError`] when `path` cannot be resolved.
pub fn serving(path: &Path) -> Result<bool, MountError> {
    let mountpoint = resolve(path)?;
    Ok(match top(&mountpoint)? {
        Some(mount) if mount.kind == TYPE => life(&mountpoint) == Life::Alive,
        _ => false,
    })
}

/// Unmounts the rewindfs at `path`, whichever process serves it.
///
/// # Errors
/// [`MountError::NotMounted`], [`MountError::InUse`], or [`MountError::System`].
pub fn unmount(path: &Path, how: Unmount) -> Result<(), MountError> {
    let mountpoint = resolve(path)?;
    match top(&mountpoint)? {
        Some(mount) if mount.kind == TYPE => detach(&mountpoint, how),
        _ => Err(MountError::NotMounted(path.display().to_string())),
    }
}

/// Unmounts the topmost mount at `mountpoint`, by umount(2) or, without the right to that, by the setuid helper.
pub(super) fn detach(mountpoint: &Path, how: Unmount) -> Result<(), MountError> {
    let flags = match how {
        Unmount::WhenIdle => UnmountFlags::NOFOLLOW,
        Unmount::Lazy => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(mountpoint, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(MountError::InUse(mountpoint.display().to_string())),
        Err(Errno::PERM) => fusermount(mountpoint, how),
        Err(errno) => Err(MountError::system(mountpoint, errno.into())),
    }
}

/// Unmounts with `fusermount3`, which may do so for the user who mounted.
fn fusermount(mountpoint: &Path, how: Unmount) -> Result<(), MountError> {
    let mode = match how {
        Unmount::WhenIdle => OsStr::new("-u"),
        Unmount::Lazy => OsStr::new("-uz"),
    };
    let output = ["fusermount3", "fusermount"]
        .into_iter()
        .map(|program| {
            // The environment may have credentials, which this program does not need.
            let path = std::env::vars_os().filter(|(name, _)| name == "PATH");
            Command::new(program)
                .args([mode, OsStr::new("--"), mountpoint.as_os_str()])
                .env_clear()
                .envs(path)
                .stdin(Stdio::null())
                .output()
        })
        .find(|output| !matches!(output, Err(error) if error.kind() == io::ErrorKind::NotFound));
    match output {
        None => Err(MountError::system(
            mountpoint,
            io::Error::new(
                io::ErrorKind::PermissionDenied,
                "unmounting needs fusermount3",
            ),
        )),
        Some(Err(error)) => Err(MountError::system(mountpoint, error)),
        Some(Ok(output)) if output.status.success() => Ok(()),
        Some(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if said.contains("busy") {
                return Err(MountError::InUse(mountpoint.display().to_string()));
            }
            Err(MountError::system(mountpoint, io::Error::other(said)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    const TABLE: &[u8] = b"22 1 0:20 / / rw,relatime - ext4 /dev/vda rw\n\
        30 22 0:41 / /mnt/a\\040b\\134c ro,nosuid shared:7 master:1 - fuse.rewindfs file:///x rw,user_id=0\n\
        31 30 0:42 / /mnt/a\\040b\\134c rw,root - tmpfs none ro\n\
        broken line\n";

    #[test]
    fn the_table_of_mounts_is_read() {
        let mounts: Vec<Mount> = parse(TABLE).collect();
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[1].mountpoint, Path::new("/mnt/a b\\c"));
        assert_eq!(mounts[1].kind, TYPE);
        assert_eq!(mounts[1].device, "0:41");
        assert_eq!(mounts[2].kind, "tmpfs");
        let changes: Vec<Changes> = mounts.iter().map(|mount| mount.changes).collect();
        assert_eq!(
            changes,
            [Changes::Passed, Changes::Refused, Changes::Refused]
        );
    }

    #[test]
    fn an_incomplete_escape_is_unchanged() {
        assert_eq!(unescape(b"a\\b\\04"), b"a\\b\\04");
        assert_eq!(unescape(b"\\011\\012"), b"\t\n");
    }

    #[test]
    fn the_root_is_mounted_and_a_fresh_directory_is_not() {
        assert!(top(Path::new("/proc")).unwrap().is_some());
        let fresh = tempfile::tempdir().unwrap();
        assert_eq!(top(fresh.path()).unwrap(), None);
        assert!(matches!(
            unmount(fresh.path(), Unmount::WhenIdle),
            Err(MountError::NotMounted(_))
        ));
    }

    #[test]
    fn a_mountpoint_is_a_directory_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let missing = dir.path().join("missing");
        assert!(
            matches!(prepare(&missing), Err(MountError::Missing(name)) if name.contains("missing"))
        );
        assert!(matches!(prepare(&file), Err(MountError::NotDirectory(_))));
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let resolved = dir.path().canonicalize().unwrap();
        assert_eq!(prepare(&link).unwrap(), resolved);
        assert_eq!(prepare(&resolved.join("sub/../.")).unwrap(), resolved);
    }

    #[test]
    fn a_mountpoint_need_not_be_utf8() {
        let name = OsStr::from_bytes(b"/mnt/\xff");
        assert_eq!(unescape(b"/mnt/\xff"), name.as_bytes());
    }
}
