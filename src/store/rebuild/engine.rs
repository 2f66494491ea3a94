//! The configuration with which a rebuild opens an index.

use crate::backend::Backend;
use crate::meta::SlateConfig;
use crate::store::schema::merge;

/// Size of the memory cache of an index, in bytes. A small one is enough, because the index is scanned.
const INDEX_CACHE: u64 = 32 << 20;

/// Returns a configuration for the index of one namespace. Not for a second one: it keeps what an inspection has read, by names that the
/// objects of every index have.
pub(super) fn slate(place: &Backend) -> SlateConfig {
    SlateConfig {
        local: place.is_local(),
        cache_bytes: INDEX_CACHE,
        ..SlateConfig::new(merge::merge)
    }
}
