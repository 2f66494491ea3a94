use super::*;
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::task::Tasks;
use crate::verbs::{EntryRow, PathText, RowSender, TimedPath};
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;
use tokio::runtime::Handle;

fn tasks() -> Tasks {
    Tasks::new(Handle::current())
}

/// Asks from a thread of its own, since `ask` blocks.
async fn asked(
    directory: &Path,
    mountpoint: &str,
    request: Request,
) -> Result<DaemonAnswer, ControlError> {
    let (directory, mountpoint) = (directory.to_owned(), PathBuf::from(mountpoint));
    tasks()
        .blocking("ask", move || ask(&[directory], &mountpoint, request))
        .await
        .unwrap()
}

async fn answer(request: Request, rows: RowSender) -> Response {
    match request {
        Request::Status => Response::Status(Box::new(StatusReport {
            namespace: "team/eu".to_owned(),
            ..StatusReport::default()
        })),
        Request::Drain { .. } => Response::Done,
        Request::Read { verb } => send_rows(&verb, &rows).await,
        Request::Change { verb } => Response::Failed {
            message: format!("{verb:?}"),
        },
        Request::Shutdown { lazy, .. } => Response::Failed {
            message: format!("lazy: {lazy}"),
        },
    }
}

/// The rows of the directory `many` have no end.
async fn send_rows(verb: &ReadVerb, rows: &RowSender) -> Response {
    let ReadVerb::Ls { path } = verb else {
        return Response::Failed {
            message: "not asked here".to_owned(),
        };
    };
    let row = |number: u64| {
        VerbRow::Entry(EntryRow {
            path: path.path.clone(),
            name: PathText(number.to_string().into()),
            kind: "file".to_owned(),
            mode: "0644".to_owned(),
            uid: 0,
            gid: 0,
            size: number,
            modified_ns: -1,
            stamp: String::new(),
            target: None,
        })
    };
    let count = match &path.path.0[..] {
        b"many" => u64::MAX,
        _ => 1000,
    };
    let _ending = (count == u64::MAX).then_some(Ending);
    for number in 0..count {
        if rows.put_row(row(number)).await.is_err() {
            break;
        }
        SENT.store(number, Ordering::SeqCst);
    }
    Response::Done
}

/// How many rows of the endless directory were sent.
static SENT: AtomicU64 = AtomicU64::new(0);
/// Whether it is sent no more.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Notes the end of the endless answer, also when it is dropped.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        ENDED.store(true, Ordering::SeqCst);
    }
}

/// Reads the rows of a directory until `max` have come.
async fn rows_of(
    directory: &Path,
    path: &'static str,
    max: usize,
) -> Result<(Vec<VerbRow>, Option<Response>), ControlError> {
    let directories = [directory.to_owned()];
    let verb = ReadVerb::Ls {
        path: TimedPath::parse(path.as_bytes()),
    };
    let reading = tasks().blocking("read", move || {
        let mut rows = Vec::new();
        let request = Request::Read { verb };
        let answer = ask_rows(&directories, Path::new("/mnt/a"), &request, |row| {
            rows.push(row);
            match rows.len() < max {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        Ok((rows, answer))
    });
    reading.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_before_the_answer_and_end_when_the_command_ends() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().to_owned();
    let _control =
        Control::open(&directory, Path::new("/mnt/a"), "uuid-a", &tasks(), answer).unwrap();
    let (rows, response) = rows_of(&directory, "few", usize::MAX).await.unwrap();
    assert_eq!((rows.len(), response), (1000, Some(Response::Done)));
    let sizes = rows.iter().map(|row| match row {
        VerbRow::Entry(entry) => entry.size,
        other => panic!("{other:?}"),
    });
    assert!(sizes.eq(0..1000), "in order");
    let (rows, response) = rows_of(&directory, "many", 10).await.unwrap();
    assert_eq!((rows.len(), response), (10, None));
    let start = tokio::time::Instant::now();
    while !ENDED.load(Ordering::SeqCst) {
        assert!(start.elapsed() < Duration::from_secs(20), "rows are sent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        SENT.load(Ordering::SeqCst) < 100_000,
        "{} rows were sent ahead of a command that reads 10",
        SENT.load(Ordering::SeqCst)
    );
}

#[test]
fn a_daemon_that_does_not_know_the_verbs_is_named_as_older() {
    let root = tempfile::tempdir().unwrap();
    let RuntimePaths {
        runtime_file,
        socket,
    } = RuntimePaths::new(root.path(), 1);
    let listener = UnixListener::bind(socket).unwrap();
    let text = serde_json::to_vec(&RuntimeFile::new(1, Path::new("/mnt/a"), "")).unwrap();
    std::fs::write(runtime_file, text).unwrap();
    let daemon = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The answer of a daemon before there were verbs.
        #[derive(Debug, Deserialize)]
        #[serde(tag = "command", rename_all = "lowercase")]
        enum OldRequest {
            Status,
        }
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let error = serde_json::from_str::<OldRequest>(&line).unwrap_err();
        let failed = Response::Failed {
            message: format!("not a command: {error}"),
        };
        let text = serde_json::to_string(&failed).unwrap();
        stream.write_all(format!("{text}\n").as_bytes()).unwrap();
        assert!(matches!(
            serde_json::from_str(r#"{"command":"status"}"#),
            Ok(OldRequest::Status)
        ));
    });
    let verb = ReadVerb::Versions {
        path: TimedPath::default(),
    };
    let directories = [root.path().to_owned()];
    let request = Request::Read { verb };
    let outcome = ask_rows(&directories, Path::new("/mnt/a"), &request, |_| {
        ControlFlow::Continue(())
    });
    daemon.join().unwrap();
    assert!(matches!(outcome, Err(ControlError::OlderDaemon(path)) if path == "/mnt/a"));
}

#[tokio::test]
async fn a_mount_is_found_by_its_mountpoint_and_answers() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("run");
    let group = tasks();
    let control = Control::open(&directory, Path::new("/mnt/a"), "uuid-a", &group, answer).unwrap();

    let DaemonAnswer { response, pid } =
        asked(&directory, "/mnt/a", Request::Status).await.unwrap();
    assert!(matches!(response, Response::Status(status) if status.namespace == "team/eu"));
    assert_eq!(pid, std::process::id());
    let drain = Request::Drain { timeout_ms: None };
    let DaemonAnswer { response, .. } = asked(&directory, "/mnt/a", drain).await.unwrap();
    assert_eq!(response, Response::Done);
    let shutdown = Request::Shutdown {
        lazy: true,
        keep: false,
        timeout_ms: None,
    };
    let DaemonAnswer { response, .. } = asked(&directory, "/mnt/a", shutdown).await.unwrap();
    assert!(matches!(response, Response::Failed { message } if message == "lazy: true"));
    assert!(matches!(
        asked(&directory, "/mnt/b", Request::Status).await,
        Err(ControlError::NotFound(path)) if path == "/mnt/b"
    ));

    for file in std::fs::read_dir(&directory).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let mode = directory.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    drop(control);
    group.stop();
    group.join().await;
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[tokio::test]
async fn a_line_that_is_no_command_is_answered_and_the_next_one_works() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().to_owned();
    let _control =
        Control::open(&directory, Path::new("/mnt/a"), "uuid-a", &tasks(), answer).unwrap();
    let socket = RuntimePaths::new(&directory, std::process::id()).socket;
    let lines = tasks()
        .blocking("talk", move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream
                .write_all(b"nonsense\n{\"command\":\"drain\"}\n")
                .unwrap();
            let mut read = BufReader::new(stream);
            let mut lines = [String::new(), String::new()];
            for line in &mut lines {
                read.read_line(line).unwrap();
            }
            lines
        })
        .await
        .unwrap();
    assert!(lines[0].contains("not a command"), "{}", lines[0]);
    assert_eq!(lines[1], "{\"answer\":\"done\"}\n");
}

/// A connection to the socket of this process.
fn connected(directory: &Path) -> UnixStream {
    let stream =
        UnixStream::connect(RuntimePaths::new(directory, std::process::id()).socket).unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream.set_write_timeout(limit).unwrap();
    stream
}

/// What is answered to a request for the status.
fn status_line(stream: &UnixStream) -> String {
    let (mut line, mut writer) = (String::new(), stream);
    writer.write_all(b"{\"command\":\"status\"}\n").unwrap();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_an_end_is_refused_and_the_next_connection_works() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().to_owned();
    let _control =
        Control::open(&directory, Path::new("/mnt/a"), "uuid-a", &tasks(), answer).unwrap();
    let talk = tasks().blocking("talk", move || {
        let mut stream = connected(&directory);
        let mut sent = 0;
        while sent < 64 << 20 {
            match stream.write(&[b'x'; 1 << 16]) {
                Ok(count) => sent += count,
                // The daemon has closed the connection.
                Err(_) => break,
            }
        }
        let mut line = String::new();
        let read = BufReader::new(stream).read_line(&mut line);
        (
            sent,
            line,
            read.is_ok(),
            status_line(&connected(&directory)),
        )
    });
    let (sent, line, is_answered, status) = talk.await.unwrap();
    assert!(sent < 4 << 20, "{sent} bytes were taken");
    assert!(
        is_answered && line.contains("more than 65536 bytes"),
        "{line}"
    );
    assert!(status.contains("team/eu"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn further_connections_wait_while_many_are_open() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().to_owned();
    let _control =
        Control::open(&directory, Path::new("/mnt/a"), "uuid-a", &tasks(), answer).unwrap();
    let talk = tasks().blocking("talk", move || {
        let mut silent: Vec<_> = (0..64).map(|_| connected(&directory)).collect();
        // Each has been accepted once it was answered.
        for stream in &silent {
            assert!(status_line(stream).contains("team/eu"));
        }
        let next = connected(&directory);
        next.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        (&next).write_all(b"{\"command\":\"status\"}\n").unwrap();
        let mut byte = [0];
        let waited = std::io::Read::read(&mut &next, &mut byte).is_err();
        silent.pop();
        next.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut line = String::new();
        BufReader::new(next).read_line(&mut line).unwrap();
        (waited, line)
    });
    let (waited, line) = talk.await.unwrap();
    assert!(waited, "the 65th connection was served");
    assert!(line.contains("team/eu"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_sends_nothing_is_closed() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().to_owned();
    let _control =
        Control::open(&directory, Path::new("/mnt/a"), "uuid-a", &tasks(), answer).unwrap();
    let socket = RuntimePaths::new(&directory, std::process::id()).socket;
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    let mut byte = [0];
    assert!(stream.try_read(&mut byte).is_err(), "it is open");
    let end = tokio::io::AsyncReadExt::read(&mut stream, &mut byte).await;
    assert_eq!(end.unwrap(), 0);
}

#[test]
fn files_that_are_no_runtime_files_are_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let made = std::process::Command::new("mkfifo")
        .arg(path("1.json"))
        .status();
    assert!(made.unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", path("2.json")).unwrap();
    let long = std::fs::File::create(path("3.json")).unwrap();
    long.set_len(1 << 40).unwrap();
    std::fs::create_dir(path("4.json")).unwrap();
    std::fs::write(path("5.json"), b"{\"pid\":-1}").unwrap();
    let directories = [root.path().to_owned()];
    assert!(mountpoints(&directories).is_empty());
    assert!(mounts_of(&directories, "").is_empty());
}

#[test]
fn an_answer_without_an_end_is_no_answer() {
    let root = tempfile::tempdir().unwrap();
    let RuntimePaths {
        runtime_file,
        socket,
    } = RuntimePaths::new(root.path(), 1);
    let listener = UnixListener::bind(socket).unwrap();
    let text = serde_json::to_vec(&RuntimeFile::new(1, Path::new("/mnt/a"), "")).unwrap();
    std::fs::write(runtime_file, text).unwrap();
    let daemon = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
        }
    });
    let (directories, mountpoint) = ([root.path().to_owned()], Path::new("/mnt/a"));
    let asked = ask(&directories, mountpoint, Request::Status);
    let status = status_of(&directories, mountpoint, Duration::from_secs(20));
    for error in [asked.unwrap_err(), status.unwrap_err()] {
        assert!(error.to_string().contains("does not end"), "{error}");
    }
    daemon.join().unwrap();
}

#[tokio::test]
async fn the_files_of_a_killed_daemon_are_removed() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().to_owned();
    let RuntimePaths {
        runtime_file,
        socket,
    } = RuntimePaths::new(&directory, 1);
    drop(UnixListener::bind(&socket).unwrap());
    let text = serde_json::to_vec(&RuntimeFile::new(1, Path::new("/mnt/a"), "")).unwrap();
    std::fs::write(&runtime_file, text).unwrap();
    std::fs::write(directory.join("2.json"), b"torn").unwrap();
    assert!(matches!(
        asked(&directory, "/mnt/a", Request::Status).await,
        Err(ControlError::NotFound(_))
    ));
    assert!(!runtime_file.exists() && !socket.exists());

    // The same when the next daemon starts, whichever mountpoint it has.
    drop(UnixListener::bind(&socket).unwrap());
    let text = serde_json::to_vec(&RuntimeFile::new(1, Path::new("/mnt/a"), "")).unwrap();
    std::fs::write(&runtime_file, text).unwrap();
    let _control =
        Control::open(&directory, Path::new("/mnt/b"), "uuid-b", &tasks(), answer).unwrap();
    assert!(!runtime_file.exists() && !socket.exists());
    let me = Some(std::process::id());
    assert_eq!(predecessor(&directory, Path::new("/mnt/b")), me);
    assert_eq!(predecessor(&directory, Path::new("/mnt/a")), None);
    let directories = [directory];
    let of = |uuid: &str| mounts_of(&directories, uuid);
    assert_eq!(of("uuid-b"), [Path::new("/mnt/b")]);
    assert!(of("uuid-a").is_empty());
}

#[test]
fn a_daemon_that_ends_is_no_answer() {
    let root = tempfile::tempdir().unwrap();
    let RuntimePaths {
        runtime_file,
        socket,
    } = RuntimePaths::new(root.path(), 1);
    let listener = UnixListener::bind(socket).unwrap();
    let text = serde_json::to_vec(&RuntimeFile::new(1, Path::new("/mnt/a"), "")).unwrap();
    std::fs::write(runtime_file, text).unwrap();
    let daemon = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    });
    let outcome = ask(
        &[root.path().to_owned()],
        Path::new("/mnt/a"),
        Request::Drain { timeout_ms: None },
    );
    assert_eq!(daemon.join().unwrap(), "{\"command\":\"drain\"}\n");
    assert!(matches!(outcome, Err(ControlError::NoAnswer { why, .. }) if why == "it ended"));
}

#[test]
fn a_path_that_is_not_utf8_is_unchanged() {
    let path = PathBuf::from(OsString::from_vec(b"/mnt/\xff".to_vec()));
    let text = serde_json::to_vec(&RuntimeFile::new(7, &path, "u")).unwrap();
    let runtime_file: RuntimeFile = serde_json::from_slice(&text).unwrap();
    assert_eq!(runtime_file.mountpoint(), path);
}

#[test]
fn the_end_of_a_process_is_seen() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    // The child is a zombie until it is waited for.
    assert!(wait_for_end(child.id(), Duration::from_secs(5)));
    child.wait().unwrap();
    assert!(wait_for_end(child.id(), Duration::from_secs(5)));
    assert!(!wait_for_end(std::process::id(), Duration::from_millis(30)));
}
