//! The process behind a call: the ids that the kernel sends, and what `/proc` adds to them.
//!
//! Invariant: nothing here fails. What `/proc` does not tell, because the process has ended or is in another pid namespace, is
//! empty.

use crate::store::Author;

/// The capability to keep set-id bits of a file that one changes.
const CAP_FSETID: u64 = 1 << 4;

/// The process behind a call, as the kernel names it. RELEASE and page-cache writes have zeros.
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
    /// The author of the versions that this caller makes. Reads `/proc`.
    pub(crate) fn author(&self) -> Author {
        Author {
            uid: self.uid,
            process: self.proc_file("comm").trim_end_matches('\n').to_owned(),
        }
    }

    /// Tells whether set-id bits of a file stay when the caller changes its content, as the kernel decides it: by
    /// CAP_FSETID. Only root is asked for it, because `/proc` shows the capabilities that hold in the caller's own user
    /// namespace.
    pub(crate) fn may_keep_set_ids(&self) -> bool {
        self.uid == 0 && self.capabilities().is_none_or(|all| all & CAP_FSETID != 0)
    }

    /// The caller's effective capabilities, where `/proc` tells them.
    fn capabilities(&self) -> Option<u64> {
        let status = self.proc_file("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
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

    /// The process group it belongs to; `None` if `/proc` does not tell.
    pub(crate) fn process_group(&self) -> Option<u32> {
        let stat = self.proc_file("stat");
        // The program's name is in parentheses and may have any characters, parentheses and spaces too.
        let (_, fields) = stat.rsplit_once(')')?;
        // State, parent, group.
        let group = fields.split_ascii_whitespace().nth(2)?.parse().ok()?;
        (group != 0).then_some(group)
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
    fn only_root_keeps_set_id_bits_and_only_with_the_capability() {
        assert!(!caller(0).may_keep_set_ids());
        let root = |pid| Caller {
            uid: 0,
            ..caller(pid)
        };
        assert!(root(0).may_keep_set_ids(), "nothing is known of it");
        let own = root(std::process::id());
        let has = own.capabilities().unwrap() & CAP_FSETID != 0;
        assert_eq!(own.may_keep_set_ids(), has);
    }

    #[test]
    fn the_process_group_is_that_of_the_kernel() {
        let own = rustix::process::getpgrp().as_raw_nonzero().get();
        let group = caller(std::process::id()).process_group();
        assert_eq!(group.map(i64::from), Some(i64::from(own)));
        assert_eq!(caller(0).process_group(), None);
        assert_eq!(caller(u32::MAX).process_group(), None);
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
