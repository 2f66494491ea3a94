//! The tasks of a mount, in the groups in which they end.

use crate::task::Tasks;
use tokio::runtime::Handle;

/// The tasks of a mount, one group for those that end together.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    /// Requests of the kernel.
    pub(super) requests: Tasks,
    /// Everything from the file system down.
    pub(super) below: Tasks,
    /// The namespace that a standby follows until it has taken it.
    pub(super) followed: Tasks,
    /// The opening of the namespace by a standby.
    pub(super) standby: Tasks,
    /// The control socket.
    pub(super) commands: Tasks,
    /// System calls that block.
    pub(super) blocking: Tasks,
}

impl Groups {
    /// Makes empty groups. Needs a runtime.
    pub(super) fn new() -> Self {
        let group = || Tasks::new(Handle::current());
        Self {
            requests: group(),
            below: group(),
            followed: group(),
            standby: group(),
            commands: group(),
            blocking: group(),
        }
    }

    /// Names the task that panicked and made every call EIO.
    pub(super) fn poisoned(&self) -> Option<&'static str> {
        [&self.below, &self.followed, &self.standby, &self.requests]
            .into_iter()
            .find_map(Tasks::poisoned)
    }
}
