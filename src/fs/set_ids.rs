//! The mode bits that lend a program the rights of its file's owner or group.

use crate::store::Kind;

/// The set-user-id bit.
const SETUID: u32 = 0o4000;
/// The set-group-id bit.
pub(crate) const SETGID: u32 = 0o2000;
/// The group's execute bit, without which set-group-id asks for mandatory locks and gives no rights.
const GROUP_EXECUTE: u32 = 0o0010;
/// Tells whether a program of this mode may run with rights of its file's owner or group.
pub(crate) fn lends_rights(kind: Kind, mode: u32) -> bool {
    kind == Kind::File && mode & (SETUID | SETGID) != 0
}

/// A mode without the bits that lend rights. Like the kernel (`setattr_should_drop_sgid`), it leaves set-group-id without
/// group execution to a member of the group.
pub(crate) fn without_set_ids(mode: u32, is_member: impl FnOnce() -> bool) -> u32 {
    let mode = mode & !SETUID;
    if mode & SETGID == 0 || mode & GROUP_EXECUTE == 0 && is_member() {
        mode
    } else {
        mode & !SETGID
    }
}

#[cfg(test)]
mod tests {
    use super::without_set_ids;

    #[test]
    fn setgid_without_group_execute_stays_for_members() {
        for is_member in [true, false] {
            assert_eq!(without_set_ids(0o6755, || is_member), 0o0755);
            assert_eq!(without_set_ids(0o1777, || is_member), 0o1777);
        }
        assert_eq!(without_set_ids(0o6745, || true), 0o2745);
        assert_eq!(without_set_ids(0o6745, || false), 0o0745);
    }
}
