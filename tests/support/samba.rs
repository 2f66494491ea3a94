//! Samba's server for one test: a share on loopback with the settings of docs/SAMBA.md, and its client.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::server::free_address;
use super::shell::{self, CommandResult};

/// The time limit until the server answers, and of a command of the client.
const LIMIT: Duration = Duration::from_secs(60);

/// The page that has the settings of the share.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SAMBA.md");

/// A running server of one share, `files`; it ends when dropped.
pub(crate) struct Samba {
    /// The server, which leads a process group of its own.
    child: Child,
    /// Its port on loopback.
    port: u16,
    /// Its configuration, its state and its log.
    directory: tempfile::TempDir,
}

impl Samba {
    /// Serves `share` to guests, with the settings of the share on the page docs/SAMBA.md, and waits until the server answers.
    pub(crate) fn start(share: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let port = free_address().port();
        let text = configuration(directory.path(), share, port);
        let path = directory.path().join("smb.conf");
        std::fs::write(&path, text).expect("a configuration");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        // setpriv sets the parent-death signal: the server must not outlive a killed test. Its processes for connections end with it.
        let child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "smbd",
                "--foreground",
                "--no-process-group",
            ])
            .args(["--debug-stdout", "--configfile"])
            .arg(&path)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("setpriv (util-linux) starts smbd");
        let mut server = Self {
            child,
            port,
            directory,
        };
        let answers = super::wait_until(LIMIT, || {
            let ended = server.child.try_wait().expect("wait for a child").is_some();
            assert!(
                !ended,
                "smbd ended: run `scripts/setup tests`\n{}",
                server.log()
            );
            server.client("ls").code == Some(0)
        });
        assert!(answers, "smbd does not answer\n{}", server.log());
        server
    }

    /// Runs `commands` of smbclient on the share as a guest, in the server's scratch directory.
    pub(crate) fn client(&self, commands: &str) -> CommandResult {
        let mut command = Command::new("smbclient");
        command
            .args(["//127.0.0.1/files", "--no-pass", "--configfile"])
            .arg(self.directory.path().join("smb.conf"))
            .arg(format!("--port={}", self.port))
            .args(["--command", commands])
            .current_dir(self.directory.path())
            .env("LC_ALL", "C");
        shell::run(&mut command, LIMIT)
    }

    /// The content of a file of the share, by any path that the client takes.
    #[track_caller]
    pub(crate) fn fetch(&self, path: &str) -> String {
        let fetched: PathBuf = self.directory.path().join("fetched");
        std::fs::remove_file(&fetched).ok();
        let ran = self.client(&format!("get \"{path}\" fetched"));
        assert!(ran.code == Some(0), "{path}: {ran}\n{}", self.log());
        std::fs::read_to_string(&fetched).expect("the fetched file")
    }

    /// The addresses on which the server's processes listen, as ss(8) prints them.
    pub(crate) fn listening(&self) -> String {
        let mut command = Command::new("ss");
        command.args(["-Hltn", "sport", "=", &format!(":{}", self.port)]);
        shell::run(&mut command, LIMIT).ok()
    }

    /// The server's log, for messages.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(40).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        format!("-- the log of smbd ends:\n{}", tail.join("\n"))
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        for signal in [Signal::TERM, Signal::KILL] {
            if let Some(group) = group {
                kill_process_group(group, signal).ok();
            }
            let limit = Duration::from_secs(5);
            if super::wait_until(limit, || !matches!(self.child.try_wait(), Ok(None))) {
                return;
            }
        }
    }
}

/// The whole configuration: the share from the page, everything else in `directory` and on loopback only.
fn configuration(directory: &Path, share: &Path, port: u16) -> String {
    let mut text = format!(
        "[global]\n\
         server role = standalone\n\
         interfaces = 127.0.0.1\n\
         bind interfaces only = yes\n\
         smb ports = {port}\n\
         disable netbios = yes\n\
         disable spoolss = yes\n\
         load printers = no\n\
         printcap name = /dev/null\n\
         rpc start on demand helpers = no\n\
         usershare max shares = 0\n\
         map to guest = Bad User\n"
    );
    for kind in [
        "private dir",
        "lock directory",
        "state directory",
        "cache directory",
        "pid directory",
        "ncalrpc dir",
    ] {
        let place = directory.join(kind.replace(' ', "-"));
        std::fs::create_dir(&place).expect("a directory for smbd");
        text.push_str(&format!("{kind} = {}\n", place.display()));
    }
    let page = std::fs::read_to_string(PAGE).expect("docs/SAMBA.md");
    let share_settings = page
        .split("```")
        .find_map(|block| block.strip_prefix("ini\n"))
        .expect("a configuration in docs/SAMBA.md");
    assert!(
        share_settings.contains("path = /srv/files\n"),
        "{share_settings}"
    );
    text.push_str(&share_settings.replace("/srv/files", &share.display().to_string()));
    text.push_str("guest ok = yes\n");
    text
}
