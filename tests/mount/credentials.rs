//! Credentials and certificates: a trailing line break, a token file that is invalid for a while, a private certificate authority.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::mount::{Cache, PROGRAM, TestMount, mount_arguments};
use crate::support::place::Place;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::s3s::S3sServer;
use crate::support::shell::{self, CommandResult};
use crate::support::wait_until;

/// Tries a mount that must fail, in directories of its own.
fn refused(place: &Place) -> CommandResult {
    let directory = tempfile::tempdir().unwrap();
    let (root, cache) = (
        directory.path().join("files"),
        directory.path().join("cache"),
    );
    fs::create_dir(&root).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .args(mount_arguments(place, &root, &cache))
        .envs(place.variables.iter().cloned());
    let ran = shell::run(&mut command, Duration::from_secs(60));
    assert_ne!(ran.code, Some(0), "{ran}");
    ran
}

/// A copy of `place` in which the value of one variable is changed by `value`.
fn changed(place: &Place, name: &str, change: impl Fn(&str) -> String) -> Place {
    let mut place = place.clone();
    for (known, value) in &mut place.variables {
        if known == name {
            *value = change(value);
        }
    }
    place
}

#[test]
fn trailing_white_space_of_a_credential_is_trimmed_and_a_line_break_inside_is_refused() {
    // A server that checks signatures.
    let Some(server) = S3sServer::start() else {
        return;
    };
    let place = server.place("credentials");
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"];
    let mut spaced = place.clone();
    for name in names {
        spaced = changed(&spaced, name, |value| format!("{value} \r\n"));
    }
    let mut mount = TestMount::start(&spaced, &[]);
    fs::write(mount.path("file"), "text\n").unwrap();
    mount.drain();
    let log = mount.log_tail();
    for name in names {
        assert!(
            log.contains(&format!("variable {name}: white space")),
            "{name}\n{log}"
        );
    }
    mount.umount();
    for name in names {
        let ran = refused(&changed(&place, name, |value| format!("{value}\nmore")));
        assert_eq!(ran.code, Some(2), "{ran}");
        assert!(ran.stderr.contains(&format!("variable {name}")), "{ran}");
        assert!(
            !ran.stderr.contains("rewindfs-test"),
            "a secret is told: {ran}"
        );
    }
    let mut command = Command::new(PROGRAM);
    let directory = tempfile::tempdir().unwrap();
    command
        .args(mount_arguments(&place, directory.path(), directory.path()))
        .args(["--region", "eu\nwest"])
        .envs(place.variables.iter().cloned());
    let ran = shell::run(&mut command, Duration::from_secs(60));
    assert_eq!(ran.code, Some(2), "{ran}");
    assert!(ran.stderr.contains("--region"), "{ran}");
}

/// The credentials that a service gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Issued {
    pub(crate) key: &'static str,
    pub(crate) secret: &'static str,
    pub(crate) session: &'static str,
}

/// A credentials service as containers have it: it gives credentials for two seconds to a request with its token.
pub(crate) struct Service {
    address: SocketAddr,
    token: Arc<Mutex<String>>,
}

impl Service {
    pub(crate) fn start(token: &str, issued: Issued) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let token = Arc::new(Mutex::new(token.to_owned()));
        let wanted = Arc::clone(&token);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut shown = String::new();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while let Some(Ok(line)) = lines.next() {
                    match line.split_once(": ") {
                        Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                            shown = value.to_owned();
                        }
                        _ if line.is_empty() => break,
                        _ => {}
                    }
                }
                let right = shown == *wanted.lock().unwrap();
                let status = if right { "200 OK" } else { "401 Unauthorized" };
                let expires = Command::new("date")
                    .args(["-u", "-d", "2 seconds", "+%Y-%m-%dT%H:%M:%SZ"])
                    .output()
                    .unwrap();
                let expires = String::from_utf8(expires.stdout).unwrap();
                let Issued {
                    key,
                    secret,
                    session,
                } = issued;
                let body = format!(
                    r#"{{"AccessKeyId":"{key}","SecretAccessKey":"{secret}","Token":"{session}","Expiration":"{}"}}"#,
                    expires.trim()
                );
                let body = if right { body } else { String::new() };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).ok();
            }
        });
        Self { address, token }
    }

    /// Accepts this token only from now on.
    pub(crate) fn expect(&self, token: &str) {
        token.clone_into(&mut self.token.lock().unwrap());
    }

    /// The variables of a client that has its token in `file`.
    pub(crate) fn variables(&self, file: &Path) -> Vec<(String, String)> {
        [
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                format!("http://{}/", self.address),
            ),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                file.display().to_string(),
            ),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

#[test]
fn a_mount_recovers_when_its_token_file_is_valid_again() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let issued = Issued {
        key: "key",
        secret: "secret",
        session: "session",
    };
    let service = Service::start("token-1", issued);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "token-1\n").unwrap();
    let mut place = server.place("token");
    place.variables = service.variables(&file);
    let mut mount = TestMount::start(&place, &["--retries", "2"]);
    fs::write(mount.path("before"), "before\n").unwrap();
    mount.drain();
    assert!(
        mount.log_tail().contains("white space at its end"),
        "{}",
        mount.log_tail()
    );

    // Renewals fail: the old token is no longer valid, and the new one cannot be sent.
    service.expect("token-2");
    fs::write(&file, "tok\nen-2").unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    fs::write(mount.path("meanwhile"), "meanwhile\n").unwrap();
    let told = wait_until(Duration::from_secs(60), || {
        mount
            .status()
            .to_string()
            .contains(&format!("token file {}", file.display()))
    });
    assert!(told, "{}\n{}", mount.status(), mount.log_tail());

    fs::write(&file, "token-2\r\n").unwrap();
    let drained = wait_until(Duration::from_secs(60), || {
        let mut command = Command::new(PROGRAM);
        command.arg("drain").arg(mount.root());
        shell::run(&mut command, Duration::from_secs(60)).code == Some(0)
    });
    assert!(drained, "{}", mount.log_tail());
    fs::write(mount.path("after"), "after\n").unwrap();
    mount.remount(Cache::Wiped);
    for name in ["before", "meanwhile", "after"] {
        let found = fs::read_to_string(mount.path(name)).unwrap();
        assert_eq!(found, format!("{name}\n"));
    }
}

/// A TLS proxy in front of a plain HTTP server; ends when dropped.
struct Tls {
    process: Child,
    port: u16,
}

const TERMINATOR: &str = r#"
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def copy(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def serve(plain):
    try:
        client = context.wrap_socket(plain, server_side=True)
    except OSError:
        return
    server = socket.create_connection(("127.0.0.1", int(sys.argv[3])))
    threading.Thread(target=copy, args=(client, server), daemon=True).start()
    copy(server, client)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

impl Tls {
    fn start(directory: &Path, upstream: SocketAddr) -> Self {
        shell::sh(
            directory,
            r#"
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=rewindfs test authority' -keyout ca.key -out ca.pem
            openssl req -newkey rsa:2048 -nodes -subj '/CN=localhost' -keyout server.key -out server.csr
            printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > extensions
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.pem
            "#,
        );
        let mut process = Command::new("python3")
            .args(["-c", TERMINATOR])
            .arg(directory.join("server.pem"))
            .arg(directory.join("server.key"))
            .arg(upstream.port().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut port = String::new();
        let mut told = BufReader::new(process.stdout.take().unwrap());
        told.read_line(&mut port).unwrap();
        let port = port.trim().parse().expect("a port");
        Self { process, port }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn a_private_certificate_authority_is_set_by_a_variable() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let tls = Tls::start(directory.path(), server.address());
    let mut place = Place::s3(
        &format!("{BUCKET}/tls"),
        &format!("https://localhost:{}", tls.port),
    );
    let ran = refused(&place);
    assert!(ran.stderr.to_lowercase().contains("certificate"), "{ran}");
    let authority = directory.path().join("ca.pem").display().to_string();
    place
        .variables
        .push(("SSL_CERT_FILE".to_owned(), authority));
    let mut mount = TestMount::start(&place, &[]);
    fs::write(mount.path("file"), "over TLS\n").unwrap();
    mount.remount(Cache::Wiped);
    let text = fs::read_to_string(mount.path("file")).unwrap();
    assert_eq!(text, "over TLS\n");
    mount.umount();
}
