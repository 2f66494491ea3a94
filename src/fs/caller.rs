//! Who calls: the ids the kernel sends, and what `/proc` adds to them.
//!
//! Invariant: nothing here fails; what cannot be learnt (the process is gone, or lives in another pid namespace) is
//! empty.

use crate::store::Author;

/// The process behind a call, as the kernel names it. RELEASE and page-cache writes come with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its effective user (for file systems: fsuid).
    pub uid: u32,
    /// Its effective group (fsgid).
    pub gid: u32,
    /// Its thread id.
    pub pid: u32,
}

impl Caller {
    /// Who saved, for the versions this caller makes.
    pub(crate) fn author(&self) -> Author {
        Author {
            uid: self.uid,
            process: self.proc_file("comm").trim_end_matches('\n').to_owned(),
        }
    }

    /// Tells whether the caller may keep a set-group-id bit on something of group `gid`: root may, members may.
    pub(crate) fn may_keep_setgid(&self, gid: u32) -> bool {
        self.uid == 0
            || self.gid == gid
            || self.proc_file("status").lines().any(|line| {
                line.strip_prefix("Groups:").is_some_and(|groups| {
                    groups
                        .split_ascii_whitespace()
                        .any(|group| group.parse() == Ok(gid))
                })
            })
    }

    /// Reads a file of the caller's `/proc` directory, which is memory of the kernel and answers at once.
    fn proc_file(&self, name: &str) -> String {
        if self.pid == 0 {
            return String::new();
        }
        std::fs::read(format!("/proc/{}/{name}", self.pid))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(pid: u32) -> Caller {
        Caller {
            uid: 1000,
            gid: 1000,
            pid,
        }
    }

    #[test]
    fn the_author_is_named_by_its_process() {
        let author = caller(std::process::id()).author();
        assert_eq!(author.uid, 1000);
        assert!(!author.process.is_empty() && !author.process.contains('\n'));
        assert_eq!(caller(0).author().process, "");
        assert_eq!(caller(u32::MAX).author().process, "");
    }

    #[test]
    fn a_member_keeps_the_setgid_bit() {
        assert!(caller(0).may_keep_setgid(1000));
        assert!(!caller(0).may_keep_setgid(1001));
        let root = Caller {
            uid: 0,
            ..caller(0)
        };
        assert!(root.may_keep_setgid(1001));
    }
}
