//! An S3 server without conditional writes: `rclone serve s3` overwrites although the request forbids it.

use super::place::Place;
use super::s3::BUCKET;
use super::server::{Server, installed, left_out};

/// Its access key and secret.
const CREDENTIALS: (&str, &str) = ("rewindfs-test-key", "rewindfs-test-secret");

/// A running server; ends when dropped.
pub(crate) struct Rclone {
    /// The process.
    server: Server,
}

impl Rclone {
    /// Starts a server with one bucket. `None`, with a message, only if the servers are skipped.
    pub(crate) fn start() -> Option<Self> {
        if left_out() {
            return None;
        }
        let program = installed("rclone/bin/rclone").display().to_string();
        let server = Server::launch("rclone serve s3", "/", &[], |address, directory| {
            let root = directory.join("buckets");
            // This server stores a bucket as a directory.
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
