//! What a file system serves.

use crate::fs::config::FsConfig;
use crate::fs::kernel_cache::{ForgetCached, KernelCache};
use crate::fs::past::Past;
use crate::store::Namespace;
use crate::sync::Arc;

/// A namespace, how it is shown, and its past.
pub(crate) struct Served {
    pub(crate) namespace: Namespace,
    pub(crate) config: FsConfig,
    pub(crate) past: Past,
}

impl Served {
    pub(crate) fn new(namespace: Namespace, config: FsConfig) -> Self {
        Self {
            past: Past::new(namespace.clone(), &config),
            namespace,
            config,
        }
    }

    /// Sets the function that makes the kernel forget attributes of the past.
    pub(crate) fn tell_changes(&self, forget: &ForgetCached) {
        let forget = Arc::clone(forget);
        self.past.tell_changes(Box::new(move |number| {
            forget(KernelCache::Attributes(number));
        }));
    }
}
