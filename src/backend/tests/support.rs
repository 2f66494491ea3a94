//! The servers of the end-to-end tests, for tests that need no mount.
#![allow(
    dead_code,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "they serve other tests too, which judge from outside"
)]

#[path = "../../../tests/support/azure.rs"]
pub(crate) mod azure;
#[path = "../../../tests/support/place.rs"]
pub(crate) mod place;
#[path = "../../../tests/support/s3.rs"]
pub(crate) mod s3;
#[path = "../../../tests/support/server.rs"]
mod server;
