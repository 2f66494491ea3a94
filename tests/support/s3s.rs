//! A second S3 server over HTTP: s3s-fs, which keeps its objects as files and checks signatures.
//!
//! Its objects survive a kill; moto's do not. Its conditional writes are not atomic, so tests use one writer at a time.
//! Its keys may not exceed about 160 bytes.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::place::Place;
use super::s3::BUCKET;
use super::server::{Server, installed, left_out};

/// Its access key.
const KEY: &str = "rewindfs-test-key";
/// Its secret.
const SECRET: &str = "rewindfs-test-secret";

/// A running server; ends when dropped.
pub(crate) struct S3sServer {
    /// The process.
    server: Server,
}

impl S3sServer {
    /// Starts a server with one bucket. `None`, with a message, only if the servers are skipped.
    pub(crate) fn start() -> Option<Self> {
        if left_out() {
            return None;
        }
        let program = installed("s3s-fs/bin/s3s-fs").display().to_string();
        let server = Server::launch("the S3 server s3s-fs", "/", &[], |address, directory| {
            let root = directory.join("buckets");
            // This server stores a bucket as a directory.
            std::fs::create_dir_all(root.join(BUCKET)).expect("a bucket");
            let (host, port) = (address.ip().to_string(), address.port().to_string());
            let root = root.display().to_string();
            let words = [
                &program,
                "--host",
                &host,
                "--port",
                &port,
                "--access-key",
                KEY,
                "--secret-key",
                SECRET,
                &root,
            ];
            words.map(str::to_owned).to_vec()
        });
        Some(Self { server })
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The directory behind its bucket.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.server.directory().join("buckets").join(BUCKET)
    }

    /// The place `prefix` in its bucket, with the right credentials.
    pub(crate) fn place(&self, prefix: &str) -> Place {
        let bucket = format!("{BUCKET}/{prefix}");
        Place::s3(&bucket, &format!("http://{}", self.address())).credentials(KEY, SECRET)
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.server.kill9();
    }

    /// Starts it again at the same address with the same objects.
    pub(crate) fn restart(&mut self) {
        self.server.restart();
    }
}
