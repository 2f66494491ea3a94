//! The calls of mount(8) and umount(8) to their helpers in `/sbin`: this program, under the names
//! `mount.fuse.rewindfs`, `mount.rewindfs`, `umount.fuse.rewindfs` and `umount.rewindfs`.
//!
//! Invariant: nothing here calls mount(8) or umount(8) without `-i`, or they would call this program again.

use super::error::CliError;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

/// Words of mount(8) that a remount may change: those that the kernel keeps for a mount of any type.
const REMOUNTED: &[&str] = &[
    "remount",
    "ro",
    "rw",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "nosymfollow",
];

/// A call of this program.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Invocation {
    /// A command line that names its command.
    Command(Vec<OsString>),
    /// A change of an existing mount's flags, which the kernel makes.
    Remount(Remount),
}

/// A change of an existing mount's flags. The daemon is not notified of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remount {
    list: String,
    mountpoint: OsString,
}

/// Reads `arguments`, which begin with the program's name. `root`: the system's administrator calls.
///
/// # Errors
/// A usage error for a remount without a mountpoint.
pub(super) fn invocation(arguments: Vec<OsString>, root: bool) -> Result<Invocation, CliError> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    let name = name.and_then(OsStr::to_str).unwrap_or_default();
    match name {
        "mount.rewindfs" | "mount.fuse.rewindfs" => mount(arguments, root),
        "umount.rewindfs" | "umount.fuse.rewindfs" => Ok(Invocation::Command(umount(arguments))),
        _ => Ok(Invocation::Command(named(arguments))),
    }
}

impl Remount {
    /// Makes the change with mount(8).
    ///
    /// # Errors
    /// mount(8) failed, and has printed why; or it cannot be run.
    pub(super) fn run(&self) -> Result<(), CliError> {
        let mountpoint = self.mountpoint.display();
        let mut command = Command::new("mount");
        command.args(["-i", "-o", &self.list, "--"]);
        match command.arg(&self.mountpoint).status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(CliError::failure(format!(
                "{mountpoint}: not remounted with {}: mount(8): {status}",
                self.list
            ))),
            Err(error) => Err(CliError::failure(format!(
                "{mountpoint}: mount(8) cannot be run: {error}"
            ))),
        }
    }
}

/// Inserts the word `mount` where the first argument is a URL, as in a call by mount.fuse(8).
fn named(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let url = arguments
        .get(1)
        .and_then(|first| first.to_str())
        .is_some_and(|first| first.contains("://") && !first.starts_with('-'));
    if url {
        arguments.insert(1, "mount".into());
    }
    arguments
}

fn mount(arguments: Vec<OsString>, root: bool) -> Result<Invocation, CliError> {
    let (program, words) = without_foreign(arguments);
    let list = lists(&words).collect::<Vec<_>>().join(",");
    if list.split(',').any(|word| word == "remount") {
        return Ok(Invocation::Remount(remount(&words, &list)?));
    }
    let mut arguments = vec![program, "mount".into()];
    if root {
        // mount(8) consumes both words and passes on only their opposites: as with any other type of file system, an
        // administrator's mount has devices and set-user-id bits unless they are denied.
        arguments.extend(["dev", "suid"].map(|word| format!("--mount-flag={word}").into()));
    }
    arguments.extend(words);
    Ok(Invocation::Command(arguments))
}

fn remount(words: &[OsString], list: &str) -> Result<Remount, CliError> {
    let kept = list.split(',').filter(|word| REMOUNTED.contains(word));
    let plain: Vec<&OsString> = plain(words).collect();
    match plain[..] {
        [_source, mountpoint] => Ok(Remount {
            list: kept.collect::<Vec<_>>().join(","),
            mountpoint: mountpoint.clone(),
        }),
        _ => Err(CliError::usage("a remount needs a source and a mountpoint")),
    }
}

/// The command `umount` for a call of umount(8); lazy for `-l` and `-f`.
fn umount(arguments: Vec<OsString>) -> Vec<OsString> {
    let (program, words) = without_foreign(arguments);
    let mut arguments = vec![program, "umount".into(), "--helper".into()];
    for word in words {
        match word.to_str() {
            Some("-l" | "-f") => arguments.push("--lazy".into()),
            Some("-r") => {}
            _ => arguments.push(word),
        }
    }
    arguments
}

/// Removes the flags that both programs pass to every helper and that have no meaning here: sloppy, verbose, no mtab, the
/// type, the namespace.
fn without_foreign(arguments: Vec<OsString>) -> (OsString, Vec<OsString>) {
    let mut arguments = arguments.into_iter();
    let program = arguments.next().unwrap_or_default();
    let mut words = Vec::new();
    while let Some(word) = arguments.next() {
        match word.to_str() {
            Some("-s" | "-v" | "-n") => {}
            Some("-t" | "-N") => drop(arguments.next()),
            _ => words.push(word),
        }
    }
    (program, words)
}

/// The values of `-o`.
fn lists(words: &[OsString]) -> impl Iterator<Item = &str> {
    words
        .windows(2)
        .filter_map(|pair| (pair[0] == "-o").then(|| pair[1].to_str()).flatten())
}

/// The arguments that are neither a flag nor the value of `-o`.
fn plain(words: &[OsString]) -> impl Iterator<Item = &OsString> {
    let mut value = false;
    words.iter().filter(move |word| {
        let skipped = value || word.as_encoded_bytes().starts_with(b"-");
        value = !value && *word == "-o";
        !skipped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str], root: bool) -> Invocation {
        invocation(arguments.iter().map(OsString::from).collect(), root).unwrap()
    }

    fn command(words: &[&str]) -> Invocation {
        Invocation::Command(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn a_url_needs_no_command_name() {
        assert_eq!(
            of(&["/sbin/rewindfs", "s3://b/p", "/m", "-o", "rw"], true),
            command(&["/sbin/rewindfs", "mount", "s3://b/p", "/m", "-o", "rw"])
        );
        let helper = "/sbin/mount.rewindfs";
        assert_eq!(
            of(
                &[helper, "s3://b/p", "/m", "-n", "-t", "x", "-o", "ro"],
                false
            ),
            command(&[helper, "mount", "s3://b/p", "/m", "-o", "ro"])
        );
    }

    #[test]
    fn other_commands_are_unchanged() {
        let words = ["r", "status", "-n", "x"];
        assert_eq!(of(&words, true), command(&words));
    }

    #[test]
    fn the_administrator_has_flags_that_are_not_denied() {
        let helper = "/sbin/mount.fuse.rewindfs";
        assert_eq!(
            of(&[helper, "u", "/m", "-o", "rw,nodev"], true),
            command(&[
                helper,
                "mount",
                "--mount-flag=dev",
                "--mount-flag=suid",
                "u",
                "/m",
                "-o",
                "rw,nodev"
            ])
        );
    }

    #[test]
    fn a_remount_is_made_by_the_kernel() {
        let list = "ro,nosuid,remount,namespace=team/eu,user_id=0,_netdev";
        assert_eq!(
            of(&["mount.fuse.rewindfs", "u", "/m", "-v", "-o", list], true),
            Invocation::Remount(Remount {
                list: "ro,nosuid,remount".to_owned(),
                mountpoint: "/m".into(),
            })
        );
        let words = ["mount.fuse.rewindfs", "/m", "-o", "remount"].map(OsString::from);
        assert!(invocation(words.to_vec(), true).is_err());
    }

    #[test]
    fn umount_drains_and_may_be_lazy() {
        let helper = "/sbin/umount.fuse.rewindfs";
        assert_eq!(
            of(&[helper, "/m", "-n", "-r", "-t", "fuse.rewindfs"], true),
            command(&[helper, "umount", "--helper", "/m"])
        );
        assert_eq!(
            of(&[helper, "/m", "-l"], true),
            command(&[helper, "umount", "--helper", "/m", "--lazy"])
        );
    }
}
