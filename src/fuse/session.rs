//! One mount: its options, its session with the kernel, and its end.
//!
//! Life: [`Mounted::mount`] returns when the kernel has mounted; requests are served until the mount is unmounted;
//! [`Mounted::ended`] returns then; [`Mounted::finish`] waits for running requests and releases every handle, since the
//! kernel drops the RELEASEs it had queued.
//! Invariant: only the mount that this process made is unmounted. fuser's own session is therefore never dropped: its
//! drop unmounts the path again, and by then another mount may be there.

use super::adapter::Adapter;
use super::dispatcher::Dispatcher;
use super::mountpoint::{self, Changes, Mount, MountError, Unmount};
use crate::fs::{FileSystem, KernelCache};
use crate::sync::Arc;
use crate::task::Tasks;
use fuser::{BackgroundSession, Config, INodeNo, MountOption, Notifier, Session, SessionACL};
use std::ffi::OsStr;
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// Returns how many threads read requests: one per core that polls calls, and one that never does.
fn dispatch_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(1, CORES_MAX)) + 1
}

/// Number of cores beyond which more threads that read requests are not faster.
const CORES_MAX: usize = 8;

/// How far the kernel reads ahead, in KiB; hides about 20 ms of latency per request.
const READ_AHEAD_KIB: u32 = 4096;

/// Which users may use the mount; permissions are always checked in addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountAccess {
    /// Only the user who mounted; root may not either.
    Owner,
    /// Every user.
    Everyone,
}

/// A flag of mount(8) that the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the word of mount(8)")]
pub enum MountFlag {
    Exec,
    NoExec,
    Suid,
    NoSuid,
    Dev,
    NoDev,
    Atime,
    NoAtime,
    Sync,
    DirSync,
}

impl MountFlag {
    fn option(self) -> MountOption {
        match self {
            Self::Exec => MountOption::Exec,
            Self::NoExec => MountOption::NoExec,
            Self::Suid => MountOption::Suid,
            Self::NoSuid => MountOption::NoSuid,
            Self::Dev => MountOption::Dev,
            Self::NoDev => MountOption::NoDev,
            Self::Atime => MountOption::Atime,
            Self::NoAtime => MountOption::NoAtime,
            Self::Sync => MountOption::Sync,
            Self::DirSync => MountOption::DirSync,
        }
    }
}

/// How to mount.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The directory to mount on.
    pub mountpoint: PathBuf,
    /// The source that mount(8) shows; contains no secret.
    pub source: String,
    /// Which users may use it.
    pub access: MountAccess,
    /// Whether the kernel refuses every change.
    pub read_only: bool,
    /// Flags the kernel enforces; without them set-user-id bits and device files have no effect.
    pub flags: Vec<MountFlag>,
    /// After how long a call on names or attributes gets EIO; ten times as long for contents.
    pub deadline: Duration,
}

/// A mounted file system. Dropping it unmounts lazily.
pub struct Mounted {
    mountpoint: PathBuf,
    /// The kernel's name of the mount's device, which distinguishes it from another mount at the same path.
    device: Option<String>,
    ended: watch::Receiver<bool>,
    fs: Arc<FileSystem>,
    requests: Tasks,
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mounted")
            .field("mountpoint", &self.mountpoint)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl Mounted {
    /// Checks that `path` can be mounted on and returns it resolved; unmounts the stale mount of a killed daemon there. Waits
    /// up to 5 s for a mount that does not answer.
    ///
    /// # Errors
    /// [`MountError::Missing`], [`MountError::NotDirectory`], [`MountError::Busy`].
    pub fn prepare(path: &Path) -> Result<PathBuf, MountError> {
        mountpoint::prepare(path)
    }

    /// Mounts `fs` and returns when the kernel has mounted it. Requests run as members of `requests`, which must be this
    /// mount's own group; a panic in it or in `below`, the group of the rooms below, makes every later answer EIO.
    ///
    /// # Errors
    /// Those of [`Mounted::prepare`], and [`MountError::System`] when the kernel or fusermount3 refuses.
    pub fn mount(
        fs: Arc<FileSystem>,
        configuration: &Configuration,
        requests: Tasks,
        below: Tasks,
    ) -> Result<Self, MountError> {
        let mountpoint = mountpoint::prepare(&configuration.mountpoint)?;
        let dispatcher = Dispatcher::new(
            Arc::clone(&fs),
            requests.clone(),
            below,
            configuration.deadline,
            dispatch_threads(),
        );
        let (end, ended) = watch::channel(false);
        let session = Session::new(
            Adapter::new(dispatcher, end),
            &mountpoint,
            &options(configuration),
        )
        .and_then(Session::spawn)
        .map_err(|error| refused(&mountpoint, error))?;
        let device = mountpoint::top(&mountpoint)?
            .filter(|mount| mount.kind == mountpoint::TYPE)
            .map(|mount| mount.device);
        if let Some(device) = &device {
            read_ahead(device);
        }
        let kernel = session.notifier();
        fs.tell_changes(move |what| forget(&kernel, what));
        let _never_dropped: ManuallyDrop<BackgroundSession> = ManuallyDrop::new(session);
        Ok(Self {
            mountpoint,
            device,
            ended,
            fs,
            requests,
        })
    }

    /// The directory it is mounted on, resolved.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Whether the kernel refuses every change here: it was mounted or remounted read-only by mount(8).
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        let refuses = |mount: Mount| mount.changes == Changes::Refused;
        self.on_top().is_ok_and(|mount| mount.is_some_and(refuses))
    }

    /// Waits until the session has ended: after umount(8), when the last file of a lazily unmounted mount was closed, or after
    /// a failure of the session.
    pub async fn ended(&self) {
        // The session owns the sender: without a sender there is no session.
        drop(self.ended.clone().wait_for(|ended| *ended).await);
    }

    /// Unmounts, unless another mount is on top at the mountpoint.
    ///
    /// # Errors
    /// With [`Unmount::WhenIdle`], [`MountError::InUse`] when something is open; else [`MountError::System`].
    pub fn unmount(&self, how: Unmount) -> Result<(), MountError> {
        match self.is_on_top()? {
            true => mountpoint::detach(&self.mountpoint, how),
            false => Ok(()),
        }
    }

    /// Tells whether the session ended without an unmount, because fuser failed.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        *self.ended.borrow() && self.is_on_top().unwrap_or(false)
    }

    /// Waits for running requests, for `patience` at most, then releases every handle that is still open. Every later request
    /// of a lazily unmounted session gets an error.
    pub async fn finish(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.requests.join())
            .await
            .is_err()
        {
            tracing::warn!(?patience, "requests are still running");
        }
        self.fs.end_session().await;
        self.abort();
    }

    /// Aborts the connection where the kernel permits it: a caller that still waits gets its error now and not when this
    /// process exits.
    fn abort(&self) {
        let minor = self
            .device
            .as_deref()
            .and_then(|device| device.split_once(':'));
        if let Some((_, minor)) = minor {
            let switch = format!("/sys/fs/fuse/connections/{minor}/abort");
            match std::fs::write(&switch, "1") {
                Ok(()) => tracing::info!("aborted a connection to the kernel that was still open"),
                Err(error) => tracing::trace!(switch, %error, "no connection to abort"),
            }
        }
    }

    fn is_on_top(&self) -> Result<bool, MountError> {
        Ok(self.on_top()?.is_some())
    }

    /// Its line in the kernel's table of mounts, unless something else is mounted over it.
    fn on_top(&self) -> Result<Option<Mount>, MountError> {
        let top = mountpoint::top(&self.mountpoint)?;
        Ok(top.filter(|mount| Some(&mount.device) == self.device.as_ref()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.unmount(Unmount::Lazy) {
            tracing::warn!(%error, "not unmounted");
        }
    }
}

/// Makes the kernel forget a part of its caches. For attributes the kernel takes no lock that a request could hold, so this may be called
/// for them before the request that changed them is answered.
fn forget(kernel: &Notifier, what: KernelCache<'_>) {
    /// No range of the content.
    const NOTHING: i64 = -1;
    let told = match what {
        KernelCache::Attributes(number) => kernel.inval_inode(INodeNo(number), NOTHING, 0),
        KernelCache::Pages(number) => kernel.inval_inode(INodeNo(number), 0, 0),
        KernelCache::Name { parent, name } => {
            kernel.inval_entry(INodeNo(parent), OsStr::from_bytes(name))
        }
    };
    match told {
        // The kernel does not know the number or the name, or the session has ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::debug!(?what, %error, "the kernel was not notified of a change");
        }
        Ok(()) => {}
    }
}

fn options(configuration: &Configuration) -> Config {
    // fusermount3 takes its options as one list, in which a comma would start the next one.
    let source = configuration.source.replace(',', "%2C");
    let mut options = vec![
        MountOption::FSName(source),
        // fuser's own Subtype is lost on the way to mount(2).
        MountOption::CUSTOM("subtype=rewindfs".to_owned()),
        MountOption::DefaultPermissions,
    ];
    if configuration.read_only {
        options.push(MountOption::RO);
    }
    // Of two opposite flags the last one holds, as in mount(8).
    for flag in &configuration.flags {
        options.retain(|option| !opposed(option, &flag.option()));
        options.push(flag.option());
    }
    let mut config = Config::default();
    config.mount_options = options;
    config.acl = match configuration.access {
        MountAccess::Owner => SessionACL::Owner,
        MountAccess::Everyone => SessionACL::All,
    };
    config.n_threads = Some(dispatch_threads());
    config
}

fn opposed(one: &MountOption, other: &MountOption) -> bool {
    use MountOption::{Atime, Dev, Exec, NoAtime, NoDev, NoExec, NoSuid, Suid};
    matches!(
        (one, other),
        (Exec, NoExec)
            | (NoExec, Exec)
            | (Suid, NoSuid)
            | (NoSuid, Suid)
            | (Dev, NoDev)
            | (NoDev, Dev)
            | (Atime, NoAtime)
            | (NoAtime, Atime)
    ) || one == other
}

/// Adds what failed and what to do; fuser's errors lack the path.
fn refused(mountpoint: &Path, error: io::Error) -> MountError {
    let device = Path::new("/dev/fuse");
    if !device.exists() {
        let hint = io::Error::new(
            io::ErrorKind::NotFound,
            "does not exist: load the kernel's module with `modprobe fuse`",
        );
        return MountError::system(device, hint);
    }
    let opened = std::fs::File::options().read(true).write(true).open(device);
    if let Err(denied) = opened
        && denied.kind() == io::ErrorKind::PermissionDenied
    {
        let text = format!("{denied}; udev lets every user open it, `chmod 666 /dev/fuse` as well");
        return MountError::system(device, io::Error::new(denied.kind(), text));
    }
    // A refusal of fusermount3 has its text; an error number is from the attempt to run it.
    if error.raw_os_error().is_some() && !rustix::process::geteuid().is_root() {
        let text = format!(
            "not mounted: fusermount3 cannot be run ({error}); install the package fuse3, or mount as root"
        );
        return MountError::system(mountpoint, io::Error::new(error.kind(), text));
    }
    let text = format!("not mounted: {}", error.to_string().trim());
    MountError::system(mountpoint, io::Error::new(error.kind(), text))
}

/// Raises the kernel's read-ahead of `device`. Only root may; other users keep the kernel's 128 KiB.
fn read_ahead(device: &str) {
    let knob = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&knob, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(knob, %error, "the read-ahead is unchanged");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(flags: &[MountFlag]) -> Configuration {
        Configuration {
            mountpoint: PathBuf::from("/mnt"),
            source: "s3://bucket/a,b".to_owned(),
            access: MountAccess::Owner,
            read_only: false,
            flags: flags.to_vec(),
            deadline: Duration::from_secs(60),
        }
    }

    #[test]
    fn permissions_are_always_checked_and_commas_of_the_source_are_escaped() {
        let options = options(&configuration(&[])).mount_options;
        assert!(options.contains(&MountOption::DefaultPermissions));
        assert!(options.contains(&MountOption::FSName("s3://bucket/a%2Cb".to_owned())));
        assert!(options.contains(&MountOption::CUSTOM("subtype=rewindfs".to_owned())));
    }

    #[test]
    fn the_last_of_two_opposite_flags_holds() {
        let options = options(&configuration(&[
            MountFlag::NoExec,
            MountFlag::NoSuid,
            MountFlag::Exec,
            MountFlag::Exec,
        ]))
        .mount_options;
        let of_exec: Vec<&MountOption> = options
            .iter()
            .filter(|option| matches!(option, MountOption::Exec | MountOption::NoExec))
            .collect();
        assert_eq!(of_exec, [&MountOption::Exec]);
        assert!(options.contains(&MountOption::NoSuid));
    }
}
