//! The daemon's side: listens, answers, removes its files.

use super::{ControlError, Request, Response, RuntimeFile, RuntimePaths, client};
use crate::sync::Arc;
use crate::task::Tasks;
use crate::verbs::RowSender;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// The longest line a command may send, in bytes: two paths of 4096 bytes, each byte written as a number.
const LINE_MAX: u64 = 64 << 10;

/// How long a connection may take to send a line.
const LINE_WAIT: Duration = Duration::from_secs(60);

/// The most connections at a time; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 64;

/// How many rows wait for a command that reads slowly.
const ROWS_AHEAD: usize = 16;

/// The control socket of one mount. Dropping it removes its files.
#[derive(Debug)]
pub struct Control {
    paths: RuntimePaths,
}

impl Control {
    /// Listens in `directory`, which is created if it does not exist, for commands about `mountpoint`, where the namespace with the id
    /// `uuid` is mounted. A task of `tasks` sends
    /// each command the rows that `answer` sends and what it returns. Needs a runtime.
    ///
    /// # Errors
    /// [`ControlError::Runtime`] when the directory belongs to another user or cannot be written.
    pub fn open<A, F>(
        directory: &Path,
        mountpoint: &Path,
        uuid: &str,
        tasks: &Tasks,
        answer: A,
    ) -> Result<Self, ControlError>
    where
        A: Fn(Request, RowSender) -> F + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        own(directory).map_err(|error| ControlError::runtime(directory, error))?;
        client::sweep(directory);
        let pid = std::process::id();
        let paths = RuntimePaths::new(directory, pid);
        let socket = &paths.socket;
        // A socket of an ended process that had the same number.
        std::fs::remove_file(socket).ok();
        let listener =
            UnixListener::bind(socket).map_err(|error| ControlError::runtime(socket, error))?;
        // From here on an error drops this, which removes the files.
        let control = Self { paths };
        control.publish(&RuntimeFile::new(pid, mountpoint, uuid))?;
        tasks.spawn("control", listen(listener, tasks.clone(), Arc::new(answer)));
        Ok(control)
    }

    fn publish(&self, runtime_file: &RuntimeFile) -> Result<(), ControlError> {
        let RuntimePaths {
            runtime_file: path,
            socket,
        } = &self.paths;
        let private = Permissions::from_mode(0o600);
        let text =
            serde_json::to_vec(runtime_file).map_err(|error| ControlError::runtime(path, error))?;
        // Written under another name and renamed, so that no command reads a part of it.
        let aside = path.with_extension("new");
        std::fs::set_permissions(socket, private.clone())
            .and_then(|()| std::fs::write(&aside, text))
            .and_then(|()| std::fs::set_permissions(&aside, private))
            .and_then(|()| std::fs::rename(&aside, path))
            .map_err(|error| ControlError::runtime(path, error))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        for file in [&self.paths.runtime_file, &self.paths.socket] {
            if let Err(error) = std::fs::remove_file(file)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(file = %file.display(), %error, "the runtime file was not removed");
            }
        }
    }
}

/// Creates `directory` for this user alone, or checks that it is this user's and removes the rights of others.
fn own(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let metadata = std::fs::symlink_metadata(directory)?;
    let me = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || metadata.uid() != me {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "is not a directory of this user",
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

async fn listen<A, F>(listener: UnixListener, tasks: Tasks, answer: Arc<A>)
where
    A: Fn(Request, RowSender) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepting = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = tasks.stopped() => return,
            accepted = accepting => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let answer = Arc::clone(&answer);
                tasks.spawn("control request", async move {
                    let _permit = permit;
                    if let Err(error) = serve(stream, &*answer).await {
                        tracing::debug!(%error, "a command ended its connection");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket does not accept a connection");
                // Most likely the process has no free descriptor: do not spin.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Answers the lines of one command until it closes the connection, sends a line that is too long, or sends none for a time.
async fn serve<A, F>(stream: UnixStream, answer: &A) -> io::Result<()>
where
    A: Fn(Request, RowSender) -> F + Sync,
    F: Future<Output = Response> + Send,
{
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut read).take(LINE_MAX);
        let reading = limited.read_until(b'\n', &mut line);
        if tokio::time::timeout(LINE_WAIT, reading).await?? == 0 {
            return Ok(());
        }
        if line.len() as u64 == LINE_MAX && !line.ends_with(b"\n") {
            let message = format!("not a command: it has more than {LINE_MAX} bytes");
            return send(&mut write, &Response::Failed { message }).await;
        }
        let (sender, mut rows) = RowSender::channel(ROWS_AHEAD);
        let request = serde_json::from_slice(&line);
        let answering = async {
            match request {
                Ok(request) => answer(request, sender).await,
                Err(error) => Response::Failed {
                    message: format!("not a command: {error}"),
                },
            }
        };
        let mut answering = std::pin::pin!(answering);
        let response = loop {
            let row = tokio::select! {
                biased;
                Some(row) = rows.recv() => row,
                response = &mut answering => break response,
                () = closed(&mut read), if !rows.is_closed() => {
                    // A request that sends rows ends when their receiver is closed; every other one is completed.
                    rows.close();
                    continue;
                }
            };
            let row = Box::new(row);
            send(&mut write, &Response::Row { row }).await?;
        };
        while let Ok(row) = rows.try_recv() {
            let row = Box::new(row);
            send(&mut write, &Response::Row { row }).await?;
        }
        send(&mut write, &response).await?;
    }
}

async fn send(
    write: &mut (impl tokio::io::AsyncWrite + Unpin + Send),
    response: &Response,
) -> io::Result<()> {
    let mut text = serde_json::to_vec(response)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// Waits until the command has closed the connection; does not return while further lines of it wait.
async fn closed(read: &mut BufReader<OwnedReadHalf>) {
    if let Ok([_, ..]) = read.fill_buf().await {
        std::future::pending::<()>().await;
    }
}
