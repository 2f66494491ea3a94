//! A path in a mount: which mount, and which path in its namespace.
//!
//! Only what is above the mount is looked up; the path in it is taken as it is written, so that a mount that does not answer does not
//! block the command. Symbolic links in a mount are therefore not followed.

use crate::verbs::{PathText, TimedPath};
use bytes::Bytes;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A path in a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct MountPath {
    pub(in crate::cli) mountpoint: PathBuf,
    pub(in crate::cli) path: TimedPath,
}

impl MountPath {
    /// Finds the mount of an absolute path among the resolved `mountpoints`; `None` if it is in none.
    pub(super) fn find(absolute: &Path, mountpoints: &[PathBuf]) -> Option<Self> {
        let mut at = PathBuf::from("/");
        let mut inside: Vec<OsString> = Vec::new();
        for component in absolute.components() {
            let is_mount = mountpoints.iter().any(|mount| at.starts_with(mount));
            match component {
                Component::Normal(name) if is_mount => inside.push(name.to_owned()),
                Component::ParentDir if is_mount && inside.pop().is_some() => {}
                Component::Normal(name) => {
                    let next = at.join(name);
                    at = match mountpoints.contains(&next) {
                        true => next,
                        false => next.canonicalize().ok()?,
                    };
                }
                Component::ParentDir => {
                    at.pop();
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        at.extend(inside);
        // A link outside may lead into a mount, and a mount may be inside another one.
        let holding = mountpoints.iter().filter(|mount| at.starts_with(mount));
        let mountpoint = holding.max_by_key(|mount| mount.as_os_str().len())?;
        let path = at.strip_prefix(mountpoint).ok()?.as_os_str().as_bytes();
        Some(Self {
            mountpoint: mountpoint.clone(),
            path: TimedPath {
                path: PathText(Bytes::copy_from_slice(path)),
                time: None,
            },
        })
    }

    /// The same path at `time`.
    pub(super) fn at(mut self, time: Option<String>) -> Self {
        self.path.time = time;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_a_path_is_found_and_its_links_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        for directory in ["mnt", "mnt/sub", "other", "nested"] {
            std::fs::create_dir(root.join(directory)).unwrap();
        }
        std::os::unix::fs::symlink("/", root.join("mnt/away")).unwrap();
        std::os::unix::fs::symlink("mnt", root.join("to-mount")).unwrap();
        std::os::unix::fs::symlink("mnt/sub", root.join("into-mount")).unwrap();
        let mounts = [root.join("mnt"), root.join("mnt/sub/inner")];
        for (path, expected) in [
            ("mnt", Some((0, ""))),
            ("mnt/", Some((0, ""))),
            ("mnt/d/f", Some((0, "d/f"))),
            ("mnt/d/../f", Some((0, "f"))),
            ("mnt/../mnt/f", Some((0, "f"))),
            ("mnt/away/etc", Some((0, "away/etc"))),
            ("to-mount/f", Some((0, "f"))),
            ("into-mount/f", Some((0, "sub/f"))),
            ("mnt/sub/inner/f", Some((1, "f"))),
            ("other", None),
            ("mnt/../other", None),
            ("missing/f", None),
        ] {
            let found = MountPath::find(&root.join(path), &mounts);
            let found = found.map(|found| (found.mountpoint, found.path.path.to_string()));
            let expected = expected.map(|(mount, path)| (mounts[mount].clone(), path.to_owned()));
            assert_eq!(found, expected, "{path}");
        }
    }
}
