//! Secrets: wherever credentials come from and whatever fails, nothing that a mount logs, prints, stores or uploads has them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::credentials::{Issued, Service};
use crate::support::mount::{PROGRAM, TestMount, mount_arguments};
use crate::support::place::Place;
use crate::support::proxy::{Failure, Proxy};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::s3s::S3sServer;
use crate::support::shell::{self, CommandResult};
use crate::support::wait_until;

const LIMIT: Duration = Duration::from_secs(120);

/// A session token, which the servers of the tests do not look at.
const SESSION: &str = "SessionTokenThatIsNeverShown0123456789";

/// The answer of a server that has failed.
const BROKEN: Failure = Failure {
    methods: &[],
    status: "500 Internal Server Error",
    code: "InternalError",
};

/// The answer of a server that refuses.
const DENIED: Failure = Failure {
    methods: &[],
    status: "403 Forbidden",
    code: "AccessDenied",
};

/// Texts that are searched for secrets.
struct Search {
    secrets: Vec<String>,
    searched: u64,
}

impl Search {
    fn new(secrets: &[&str]) -> Self {
        Self {
            secrets: secrets.iter().map(|secret| (*secret).to_owned()).collect(),
            searched: 0,
        }
    }

    /// Fails if `text` has a secret, as it is or encoded for a URL, and shows what is around it.
    #[track_caller]
    fn bytes(&mut self, what: &str, text: &[u8]) {
        self.searched += text.len() as u64;
        let text = String::from_utf8_lossy(text);
        for secret in &self.secrets {
            let encoded = secret.replace('/', "%2F").replace('+', "%2B");
            for form in [secret, &encoded] {
                if let Some((before, _)) = text.split_once(form.as_str()) {
                    let before: Vec<char> = before.chars().rev().take(300).collect();
                    let before: String = before.into_iter().rev().collect();
                    panic!("{what} has {form} behind: {before}");
                }
            }
        }
    }

    #[track_caller]
    fn result(&mut self, ran: &CommandResult) {
        self.bytes("standard output", ran.stdout.as_bytes());
        self.bytes("standard error", ran.stderr.as_bytes());
    }

    /// Searches every file below `directory`, and its name.
    #[track_caller]
    fn files(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            self.bytes("a name", path.as_os_str().as_encoded_bytes());
            match path.is_dir() {
                true => self.files(&path),
                // A file may be deleted meanwhile.
                false => {
                    let text = fs::read(&path).unwrap_or_default();
                    self.bytes(&path.display().to_string(), &text);
                }
            }
        }
    }

    /// Searches the command lines of the daemon and of its children, as `ps` shows them, and the environment of each child.
    #[track_caller]
    fn processes(&mut self, daemon: u32) {
        for entry in fs::read_dir("/proc").unwrap() {
            let directory = entry.unwrap().path();
            let status = fs::read_to_string(directory.join("status")).unwrap_or_default();
            let has = |field: &str| {
                let line = format!("{field}:\t{daemon}");
                status.lines().any(|other| other == line)
            };
            let is_child = has("PPid");
            if is_child || has("Pid") {
                let line = fs::read(directory.join("cmdline")).unwrap_or_default();
                self.bytes("a command line", &line);
            }
            if is_child {
                let environment = fs::read(directory.join("environ")).unwrap_or_default();
                self.bytes("the environment of a child", &environment);
            }
        }
    }
}

/// Runs a command of the program with the variables of a place.
fn run(place: &Place, words: &[&str]) -> CommandResult {
    let mut command = Command::new(PROGRAM);
    command.args(words).envs(place.variables.clone());
    shell::run(&mut command, LIMIT)
}

/// A session with failures: saves, then 500, then 403 for each request, then an unmount. Searches everything that it leaves.
fn session(search: &mut Search, place: &Place, proxy: &Proxy) {
    let mut mount = TestMount::start(place, &["--retries", "1"]);
    let root = mount.root().display().to_string();
    mount.sh("mkdir d; echo first > d/small; head -c 3000000 /dev/urandom > large; sync large");
    mount.drain();
    for failure in [BROKEN, DENIED] {
        proxy.fail(Some(failure));
        mount.sh("echo again > d/small; echo new > d/new");
        let told = wait_until(LIMIT, || mount.status().to_string().contains(failure.code));
        assert!(told, "{}", mount.status());
        search.result(&run(place, &["status", &root]));
        search.result(&run(place, &["status", &root, "--json"]));
        // One that has to wait and fails.
        search.result(&run(place, &["drain", &root, "--drain-timeout", "2s"]));
        search.processes(mount.daemon_id());
        proxy.fail(None);
        let drained = wait_until(LIMIT, || run(place, &["drain", &root]).code == Some(0));
        assert!(drained, "{}", mount.log_tail());
    }
    search.result(&run(place, &["log", &format!("{root}/d"), "-r"]));
    let endpoint = place.endpoint.clone().unwrap();
    for words in [
        &["check", &place.url, "--endpoint", &endpoint][..],
        &[
            "namespace",
            "show",
            &place.url,
            "main",
            "--endpoint",
            &endpoint,
        ],
        &["ls", &place.url, "--endpoint", &endpoint],
    ] {
        search.result(&run(place, words));
    }
    search.files(&mount.cache());
    mount.umount();
    search.files(&mount.cache());
    let log = mount.log();
    assert!(log.contains("TRACE"), "the log is as detailed as it can be");
    search.bytes("the log", log.as_bytes());
}

#[test]
fn credentials_of_the_environment_are_in_no_log_message_file_object_or_process_list() {
    let Some(server) = S3sServer::start() else {
        return;
    };
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let mut place = server.place("secrets");
    place.endpoint = Some(proxy.endpoint());
    let secret = place
        .variables
        .iter()
        .find(|(name, _)| name == "AWS_SECRET_ACCESS_KEY")
        .map(|(_, value)| value.clone())
        .unwrap();
    for (name, value) in [("AWS_SESSION_TOKEN", SESSION), ("RUST_LOG", "trace")] {
        place.variables.push((name.to_owned(), value.to_owned()));
    }
    let mut search = Search::new(&[&secret, SESSION]);
    session(&mut search, &place, &proxy);
    search.files(&server.bucket());

    // A wrong secret: the server's 403, with the text of the server in the log.
    let wrong = "WrongSecretThatIsNeverShown/+0123456789";
    let mut search = Search::new(&[wrong, SESSION]);
    for (name, value) in &mut place.variables {
        if name == "AWS_SECRET_ACCESS_KEY" {
            wrong.clone_into(value);
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let (root, cache) = (scratch.path().join("files"), scratch.path().join("cache"));
    fs::create_dir(&root).unwrap();
    let log = scratch.path().join("log").display().to_string();
    for format in ["text", "json"] {
        let mut words = mount_arguments(&place, &root, &cache);
        words.extend(["--log", &log, "--log-format", format].map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = run(&place, &words);
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stderr.contains("403"), "{ran}");
        search.result(&ran);
        search.files(scratch.path());
    }
}

#[test]
fn credentials_of_a_service_and_of_its_token_file_are_in_no_log_message_or_file() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let issued = Issued {
        key: "ASIAKEYOFTHESERVICE",
        secret: "ServiceSecretThatIsNeverShown0123456789",
        session: "ServiceSessionThatIsNeverShown0123456789",
    };
    let tokens = [
        "FirstTokenThatIsNeverShown0123",
        "OtherTokenThatIsNeverShown4567",
    ];
    let service = Service::start(tokens[0], issued);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, tokens[0]).unwrap();
    let proxy = Proxy::start(server.address(), Duration::ZERO);
    let mut place = Place::s3(&format!("{BUCKET}/service"), &proxy.endpoint());
    place.variables = service.variables(&file);
    place
        .variables
        .push(("RUST_LOG".to_owned(), "trace".to_owned()));
    let mut search = Search::new(&[issued.secret, issued.session, tokens[0], tokens[1]]);
    session(&mut search, &place, &proxy);

    // The service refuses the token, which cannot be sent either: both are told without the token.
    service.expect(tokens[1]);
    for text in [tokens[0].to_owned(), format!("{}\nmore", tokens[1])] {
        fs::write(&file, text).unwrap();
        let ran = run(&place, &["ls", &place.url, "--endpoint", &proxy.endpoint()]);
        assert_eq!(ran.code, Some(1), "{ran}");
        search.result(&ran);
    }
}

#[test]
fn a_password_in_a_url_or_an_endpoint_is_refused_and_not_repeated() {
    let secret = "PasswordThatIsNeverShown0123456789";
    let mut search = Search::new(&[secret]);
    let scratch = tempfile::tempdir().unwrap();
    let (root, log) = (
        scratch.path().display().to_string(),
        scratch.path().join("log").display().to_string(),
    );
    let mut place = Place::s3("bucket/prefix", "http://127.0.0.1:1");
    place
        .variables
        .push(("RUST_LOG".to_owned(), "trace".to_owned()));
    let (url, endpoint) = (
        format!("s3://AKIAX:{secret}@bucket/prefix"),
        format!("http://AKIAX:{secret}@127.0.0.1:1"),
    );
    let option = format!("endpoint={endpoint}");
    let query = format!("s3://bucket/prefix?sig={secret}");
    for words in [
        &["mount", &url, &root, "--log", &log][..],
        &["mount", &url, &root, "--foreground"],
        &["mount", &query, &root],
        &["mount", &place.url, &root, "--endpoint", &endpoint],
        &["mount", &place.url, &root, "-o", &option],
        &["check", &url],
        &["check", &place.url, "--endpoint", &endpoint],
        &["namespace", "list", &url],
        &["log", &url, "file"],
        &["ls", &query],
    ] {
        let ran = run(&place, words);
        assert_eq!(ran.code, Some(2), "{words:?}: {ran}");
        search.result(&ran);
    }
    search.files(scratch.path());
    assert!(search.searched > 0);
}
