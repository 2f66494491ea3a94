//! A third-party server for one test: a process on a port of its own, with its log for messages.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The time limit until a server answers.
const START_MAX: Duration = Duration::from_secs(60);

/// A running process; ends when dropped.
pub(crate) struct Server {
    /// What it is, for messages.
    name: &'static str,
    /// The program and its arguments, to start it again.
    command: Vec<String>,
    /// Variables of its environment.
    variables: Vec<(String, String)>,
    /// The process.
    child: Child,
    /// Its address.
    address: SocketAddr,
    /// The path that is requested to see whether it answers.
    ready: &'static str,
    /// Holds its log and its files.
    directory: tempfile::TempDir,
}

impl Server {
    /// Starts what `command` makes of an address and a scratch directory, and waits until it answers to the path `ready`,
    /// whatever it answers.
    pub(crate) fn launch(
        name: &'static str,
        ready: &'static str,
        variables: &[(&str, &str)],
        command: impl FnOnce(SocketAddr, &Path) -> Vec<String>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let address = free_address();
        let command = command(address, directory.path());
        let variables: Vec<(String, String)> = variables
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let child = spawn(&command, &variables, directory.path());
        let mut server = Self {
            name,
            command,
            variables,
            child,
            address,
            ready,
            directory,
        };
        server.wait();
        server
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory of its log and its files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("wait for a child");
    }

    /// Starts it again at the same address with the same files.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.command, &self.variables, self.directory.path());
        self.wait();
    }

    /// Waits until it answers.
    fn wait(&mut self) {
        let answers = wait_until(START_MAX, || {
            let ended = self.child.try_wait().expect("wait for a child").is_some();
            assert!(!ended, "{}", self.failure("ended"));
            let answer = request(self.address, "GET", self.ready, Duration::from_secs(5));
            answer.is_ok_and(|answer| !answer.is_empty())
        });
        assert!(answers, "{}", self.failure("does not answer"));
    }

    /// A message with the end of its log.
    pub(crate) fn failure(&self, what: &str) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        format!(
            "{} at {} {what}; its log ends:\n{}",
            self.name,
            self.address,
            tail.join("\n")
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts a process that does not outlive a killed test: setpriv sets the parent-death signal.
fn spawn(command: &[String], variables: &[(String, String)], directory: &Path) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .expect("a log");
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .args(command)
        .envs(variables.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log)
        .spawn()
        .expect("setpriv (util-linux) starts the server")
}

/// A program that `scripts/setup tests` put below `target`; fails the test where it is missing.
pub(crate) fn installed(path: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target")
        .join(path);
    assert!(
        program.is_file(),
        "no {}: run `scripts/setup tests`",
        program.display()
    );
    program
}

/// Whether the servers are skipped: `REWINDFS_TEST_SKIP_S3` is set. Prints a message if so.
pub(crate) fn left_out() -> bool {
    let skip = std::env::var_os("REWINDFS_TEST_SKIP_S3").is_some();
    if skip {
        eprintln!("SKIPPED: REWINDFS_TEST_SKIP_S3 is set, no store over HTTP was tested here");
    }
    skip
}

/// A loopback address on which no process listens.
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
    request_with(to, method, path, "", limit)
}

/// The same with further header lines, each ended as HTTP ends them.
pub(crate) fn request_with(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    limit: Duration,
) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nContent-Length: 0\r\n{headers}Connection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Asks `condition` every 10 ms until it holds; false when it does not within `limit`.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
