//! The capabilities and limits that FUSE_INIT negotiates with the kernel.

use fuser::{InitFlags, KernelConfig};

/// The largest WRITE, in bytes; the kernel's own limit with its default settings.
const MAX_WRITE: u32 = 1 << 20;

/// The most background requests the kernel sends at once: read-ahead and RELEASE.
const MAX_BACKGROUND: u16 = 128;

/// Asks for the capabilities and limits that this file system uses; a capability that the kernel lacks is logged and left out.
pub(super) fn negotiate(config: &mut KernelConfig, follows: bool) {
    let mut wanted = InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_ATOMIC_O_TRUNC
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        | InitFlags::FUSE_POSIX_ACL
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_EXPORT_SUPPORT;
    if follows {
        // Another process changes contents: a new mtime makes the kernel drop its pages. A writer's own changes pass through
        // the kernel, and the flag would only cost.
        wanted |= InitFlags::FUSE_AUTO_INVAL_DATA;
    }
    if let Err(missing) = config.add_capabilities(wanted) {
        tracing::warn!(?missing, "this kernel lacks capabilities");
        // fuser refuses the whole set for one missing bit, so the others are requested again.
        let _ = config.add_capabilities(wanted & !missing);
    }
    if let Err(nearest) = config.set_max_write(MAX_WRITE) {
        let _ = config.set_max_write(nearest);
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        let _ = config.set_max_background(nearest);
    }
}
