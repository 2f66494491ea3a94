//! An S3 server that does not keep its word: `rclone serve s3` overwrites where it was told not to.

use super::place::Place;
use super::s3::BUCKET;
use super::server::{Server, installed, left_out};

/// The key it knows, and its secret.
const CREDENTIALS: (&str, &str) = ("rewindfs-test-key", "rewindfs-test-secret");

/// A running server; ends when dropped.
pub(crate) struct Rclone {
    /// The process.
    server: Server,
}

impl Rclone {
    /// Starts a server with one bucket. None, said loudly, only if the servers are to be left out.
    pub(crate) fn start() -> Option<Self> {
        if left_out() {
            return None;
        }
        let program = installed("rclone/bin/rclone").display().to_string();
        let server = Server::launch("rclone serve s3", "/", &[], |address, directory| {
            let root = directory.join("buckets");
            // To this server a bucket is a directory.
            std::fs::create_dir_all(root.join(BUCKET)).expect("a bucket");
            let (key, secret) = CREDENTIALS;
            let words = [
                program,
                "serve".to_owned(),
                "s3".to_owned(),
                root.display().to_string(),
                "--addr".to_owned(),
                address.to_string(),
                "--auth-key".to_owned(),
                format!("{key},{secret}"),
                "--config".to_owned(),
                "/dev/null".to_owned(),
            ];
            words.to_vec()
        });
        Some(Self { server })
    }

    /// The place `prefix` in its bucket.
    pub(crate) fn place(&self, prefix: &str) -> Place {
        let (key, secret) = CREDENTIALS;
        let bucket = format!("{BUCKET}/{prefix}");
        Place::s3(&bucket, &format!("http://{}", self.server.address())).credentials(key, secret)
    }
}
