//! The directories of this user: cache and runtime directory. Only this file reads the variables that name them.

use super::error::CliError;
use crate::store::Owner;
use std::env::var_os;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Whether this process runs as root and may write the system's directories. The root of a user namespace, which any user may
/// create, may not.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
        && rustix::fs::access("/run", rustix::fs::Access::WRITE_OK).is_ok()
}

/// The user and the group of this process.
pub(super) fn owner() -> Owner {
    Owner {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    }
}

/// The name of this machine.
pub(super) fn host() -> String {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().into_owned()
}

/// The directory for caches and journals when none is named.
///
/// # Errors
/// A usage error when this user has no home.
pub(super) fn cache_directory() -> Result<PathBuf, CliError> {
    if is_root() {
        return Ok(PathBuf::from("/var/cache/rewindfs"));
    }
    cache_of(var_os("XDG_CACHE_HOME"), var_os("HOME")).ok_or_else(|| {
        CliError::usage("--cache-dir must be given: neither XDG_CACHE_HOME nor HOME is set")
    })
}

fn cache_of(cache_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    absolute(cache_home)
        .or_else(|| absolute(home).map(|home| home.join(".cache")))
        .map(|cache| cache.join("rewindfs"))
}

/// The directory in which a mount of this user listens for commands.
pub(super) fn runtime_directory() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    runtime_of(is_root(), user, var_os("XDG_RUNTIME_DIR"))
}

fn runtime_of(root: bool, user: u32, runtime: Option<OsString>) -> PathBuf {
    // Root's variable differs between a login and a service; both use one directory.
    match (root, absolute(runtime)) {
        (true, _) => PathBuf::from("/run/rewindfs"),
        (false, Some(runtime)) => runtime.join("rewindfs"),
        (false, None) => std::env::temp_dir().join(format!("rewindfs-{user}")),
    }
}

/// The directories in which a command looks for mounts: its user's, and for root every user's.
pub(super) fn runtime_directories() -> Vec<PathBuf> {
    let mut directories = vec![runtime_directory()];
    if is_root()
        && let Ok(users) = std::fs::read_dir("/run/user")
    {
        directories.extend(users.flatten().map(|user| user.path().join("rewindfs")));
    }
    directories
}

/// The directory for temporary files, which may be large: TMPDIR, else /var/tmp, because /tmp is memory on many machines.
pub(super) fn temporary_directory() -> PathBuf {
    let usual = Path::new("/var/tmp");
    match var_os("TMPDIR").filter(|directory| !directory.is_empty()) {
        Some(directory) => directory.into(),
        None if usual.is_dir() => usual.to_owned(),
        None => std::env::temp_dir(),
    }
}

/// Makes `path` absolute, so that it means the same after a change of directory.
///
/// # Errors
/// A failure when there is no current directory.
pub(super) fn from_root(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path)
        .map_err(|error| CliError::failure(format!("{}: {error}", path.display())))
}

fn absolute(variable: Option<OsString>) -> Option<PathBuf> {
    variable
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_follows_the_variables() {
        let cache = |cache: Option<&str>, home: Option<&str>| {
            cache_of(cache.map(OsString::from), home.map(OsString::from))
        };
        assert_eq!(cache(Some("/c"), Some("/h")), Some("/c/rewindfs".into()));
        assert_eq!(
            cache(Some("c"), Some("/h")),
            Some("/h/.cache/rewindfs".into())
        );
        assert_eq!(cache(None, None), None);
    }

    #[test]
    fn root_has_one_runtime_directory() {
        let run = Some(OsString::from("/run/user/7"));
        assert_eq!(runtime_of(true, 0, run.clone()), Path::new("/run/rewindfs"));
        assert_eq!(
            runtime_of(false, 7, run.clone()),
            Path::new("/run/user/7/rewindfs")
        );
        assert_eq!(runtime_of(false, 0, run), Path::new("/run/user/7/rewindfs"));
        assert!(runtime_of(false, 7, None).ends_with("rewindfs-7"));
    }
}
