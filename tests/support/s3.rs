//! An S3 server over HTTP for one test: moto, in memory, on a port of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::place::Place;
use super::server::{Server, left_out, request};

/// The bucket every server has.
pub(crate) const BUCKET: &str = "test";

/// A running server; ends when dropped.
pub(crate) struct S3Server {
    /// The process.
    server: Server,
}

impl S3Server {
    /// Starts a server with one bucket. `None`, with a message, only if `REWINDFS_TEST_SKIP_S3` is set; otherwise a missing
    /// server fails the test.
    pub(crate) fn start() -> Option<Self> {
        (!left_out()).then(|| Self::launch(&[]))
    }

    /// Starts a server that refuses every request after the one that makes its bucket, as a store refuses unknown
    /// credentials. `None` under the same condition as [`Self::start`].
    pub(crate) fn start_refusing() -> Option<Self> {
        (!left_out()).then(|| Self::launch(&[("INITIAL_NO_AUTH_ACTION_COUNT", "1")]))
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The place `prefix` in its bucket, without a proxy.
    pub(crate) fn place(&self, prefix: &str) -> Place {
        Place::s3(
            &format!("{BUCKET}/{prefix}"),
            &format!("http://{}", self.address()),
        )
    }

    /// Starts the process and makes the bucket.
    fn launch(variables: &[(&str, &str)]) -> Self {
        let server = Server::launch(
            "the S3 server moto",
            "/moto-api/",
            variables,
            |address, _| {
                let program = program().display().to_string();
                let port = address.port().to_string();
                [&program, "-H", "127.0.0.1", "-p", &port]
                    .map(str::to_owned)
                    .to_vec()
            },
        );
        let answer = request(
            server.address(),
            "PUT",
            &format!("/{BUCKET}"),
            Duration::from_secs(20),
        );
        let made = answer
            .as_ref()
            .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"));
        assert!(
            made,
            "{}: {answer:?}",
            server.failure("did not make the bucket")
        );
        Self { server }
    }
}

/// The server's program: the one `scripts/setup` installs, else the one on the path.
fn program() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/moto/bin/moto_server");
    if own.is_file() {
        return own;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("moto_server"))
        .find(|program| program.is_file())
        .expect("no S3 server: run `scripts/setup tests`, or set REWINDFS_TEST_SKIP_S3=1 to leave S3 untested")
}
