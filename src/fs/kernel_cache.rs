//! What the kernel may keep of this file system, and has to forget when a command changes the tree beside its calls.
//!
//! A call of the kernel changes what the kernel keeps by its reply. A verb that changes has no such reply: names, attributes and
//! pages are forgotten after the change and before the command has its answer.

use crate::sync::Arc;

/// A part of the kernel's caches, by the numbers of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelCache<'a> {
    /// The attributes and access lists of a node.
    Attributes(u64),
    /// The attributes, access lists and pages of a node.
    Pages(u64),
    /// A name in a directory.
    Name {
        /// The directory.
        parent: u64,
        /// The name.
        name: &'a [u8],
    },
}

/// Makes the kernel forget.
pub(crate) type ForgetCached = Arc<dyn Fn(KernelCache<'_>) + Send + Sync>;
