//! An S3 server over HTTP for one test: moto, in memory, on a port of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::place::Place;

/// The bucket every server has.
pub(crate) const BUCKET: &str = "test";

/// A running server; ends when dropped.
pub(crate) struct S3Server {
    /// The process.
    child: Child,
    /// Where it listens.
    address: SocketAddr,
    /// Holds its log.
    directory: tempfile::TempDir,
}

impl S3Server {
    /// Starts a server with one bucket. None, said loudly, only if `REWINDFS_TEST_SKIP_S3` is set; a server that is
    /// missing otherwise fails the test.
    pub(crate) fn start() -> Option<Self> {
        if std::env::var_os("REWINDFS_TEST_SKIP_S3").is_some() {
            eprintln!("SKIPPED: REWINDFS_TEST_SKIP_S3 is set, nothing about S3 was tested here");
            return None;
        }
        let server = Self::launch(&[]);
        server.make_bucket();
        Some(server)
    }

    /// Starts a server that refuses every request after the one that makes its bucket, as a store refuses credentials
    /// it does not know. None under the same condition as [`Self::start`].
    pub(crate) fn start_refusing() -> Option<Self> {
        std::env::var_os("REWINDFS_TEST_SKIP_S3")
            .is_none()
            .then(|| {
                let server = Self::launch(&[("INITIAL_NO_AUTH_ACTION_COUNT", "1")]);
                server.make_bucket();
                server
            })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The place `prefix` in its bucket, without a proxy.
    pub(crate) fn place(&self, prefix: &str) -> Place {
        Place::s3(
            &format!("{BUCKET}/{prefix}"),
            &format!("http://{}", self.address),
        )
    }

    /// Starts the process and waits until it answers.
    fn launch(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let address = free_address();
        // The server must not outlive a test that is killed; setpriv says so to the kernel.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program())
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("setpriv (util-linux) starts the S3 server");
        let mut server = Self {
            child,
            address,
            directory,
        };
        let answers = super::wait_until(Duration::from_secs(60), || {
            assert!(
                server.child.try_wait().expect("wait for a child").is_none(),
                "{}",
                server.failure("ended")
            );
            request(address, "GET", "/moto-api/", Duration::from_secs(5)).is_ok()
        });
        assert!(answers, "{}", server.failure("does not answer"));
        server
    }

    /// Makes the bucket.
    fn make_bucket(&self) {
        let answer = request(
            self.address,
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
            self.failure("did not make the bucket")
        );
    }

    /// A message with the end of the server's log.
    fn failure(&self, what: &str) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        format!(
            "the S3 server at {} {what}; its log ends:\n{}",
            self.address,
            tail.join("\n")
        )
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
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

/// An address on loopback that nobody listens on.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address")
}

/// One request without a body, and the whole answer.
pub(crate) fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    limit: Duration,
) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
