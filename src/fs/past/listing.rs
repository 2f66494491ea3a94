//! Names of a directory of the past with the numbers of their nodes.

use super::node::{DrawnNames, Found};
use crate::store::Kind;
use bytes::Bytes;

/// A name in a listing.
#[derive(Debug, Clone)]
pub(crate) struct ListedName {
    /// The number of the node.
    pub(crate) ino: u64,
    /// Its kind.
    pub(crate) kind: Kind,
    /// The name.
    pub(crate) name: Bytes,
    /// Of the past: what the listing found there, until it is given. Without it the name is looked up.
    pub(crate) found: Option<Found>,
}

/// The names in a node.
pub(crate) enum Listing {
    /// All of them.
    Whole(Vec<ListedName>),
    /// Read as they are asked for.
    Drawn(DrawnListing),
}

/// The rest of a listing that is read as it is asked for.
pub(crate) struct DrawnListing {
    /// The number of the node that shows it.
    pub(super) number: u64,
    /// The names.
    pub(super) names: Box<dyn DrawnNames>,
}
