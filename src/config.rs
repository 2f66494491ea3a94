//! The settings of a mount, checked once and divided into the configuration of each layer.
//!
//! Invariant: every [`Config`] is valid, and its `Debug` output has no secret. This file does not read the environment.

use crate::backend::{BackendConfig, Retry};
use crate::fs::past::stamp::SPELLINGS;
use crate::fs::{FsConfig, SyncOn};
use crate::fuse::{Configuration, MountAccess, MountFlag};
use crate::store::{
    CheckpointLimits, DRAIN_TIMEOUT, FollowConfig, GRACE, GcMode, LeaseTimes, Linger, MEMORY_MIN,
    NamespaceConfig, OnDamage, Owner, StoreError, Takeover, WaitProgress, check_name,
};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

mod error;
mod mount_time;
mod retries;
mod store_url;

pub use error::ConfigError;
pub use mount_time::MountTime;
pub(crate) use mount_time::MountTimeMeaning;
pub use store_url::StoreUrl;

use error::at_least;
use retries::retry;

/// The namespace that is mounted by default.
pub const DEFAULT_NAMESPACE: &str = "main";

/// The default name of the directory that shows the past.
pub const DEFAULT_VERSIONS_NAME: &str = ".versions";

/// The default interval at which a read-only mount polls the bucket for newer states.
const REFRESH: Duration = Duration::from_secs(1);

/// The same for a mount at a time, in which nothing changes but attributes of states that have not ended. It is far below a minute, the
/// age at which objects of the index's log are deleted.
const REFRESH_AT: Duration = Duration::from_secs(10);

/// How long the kernel may cache attributes and names on a writing mount, which notifies the kernel of all changes that the
/// kernel did not request.
const LIVE_TTL: Duration = Duration::from_secs(60);

/// How long the kernel may cache attributes and names of the past that are final.
const PAST_TTL: Duration = Duration::from_secs(24 * 3600);

/// What a user may set, as he said it; `None` leaves the choice to [`Config::new`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// The URL of the store.
    pub url: StoreUrl,
    /// The directory to mount on, absolute.
    pub mountpoint: PathBuf,
    /// The namespace's name, `team/eu`.
    pub namespace: Option<String>,
    /// Refuse every change, and show what another process writes.
    pub read_only: bool,
    /// Show the whole tree as it was at this time; the mount is then read-only.
    pub at: Option<OsString>,
    /// With `read_only`, how often the bucket is asked for something newer.
    pub refresh: Option<Duration>,
    /// With `read_only`, show a damaged index too.
    pub damaged: bool,
    /// What the mount does about another writer that may be alive.
    pub takeover: Option<Takeover>,
    /// Follow the writer, and be the writer after it.
    pub standby: bool,
    /// Let every user in; root's mounts do so anyway.
    pub allow_other: bool,
    /// Flags for the kernel.
    pub flags: Vec<MountFlag>,
    /// When close(2) returns.
    pub sync_on: Option<SyncOn>,
    /// With [`SyncOn::Interval`], how long a saved file may stay here alone.
    pub sync_interval: Option<Duration>,
    /// Where the cache and the journal lie, absolute.
    pub cache_dir: PathBuf,
    /// Bytes of the cache on disk.
    pub cache_bytes: Option<u64>,
    /// Bytes of the caches in memory.
    pub memory_bytes: Option<u64>,
    /// Bytes written and not yet in the bucket, before writers wait.
    pub dirty_bytes_max: Option<u64>,
    /// How long an object stays in the bucket that nothing shows any more.
    pub grace: Option<Duration>,
    /// How the store is reached.
    pub connection: ConnectionOptions,
    /// The name of the directory that shows the past.
    pub versions_name: Option<OsString>,
    /// Owner shown for every file.
    pub uid: Option<u32>,
    /// Group shown for every file.
    pub gid: Option<u32>,
    /// Permission bits taken from every file.
    pub umask: Option<u32>,
    /// How long a caller waits before it gets EIO.
    pub deadline: Option<Duration>,
    /// How long a drain waits while nothing moves.
    pub drain_timeout: Option<Duration>,
    /// How long a writer waits for room while nothing reaches the bucket.
    pub backend_timeout: Option<Duration>,
    /// This machine's name, for the authors of versions.
    pub host: String,
    /// The user and group who mount: a namespace that is made belongs to them, and root lets every user in.
    pub owner: Owner,
}

/// The connection options of a store, from the command line.
#[derive(Debug, Clone, Default)]
pub struct ConnectionOptions {
    /// Another server than the provider's own.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// The retries of a failed request and their pauses.
    pub retry: Option<Retry>,
    /// The first pause, instead of that of `retry`.
    pub retry_base: Option<Duration>,
    /// The longest pause, instead of that of `retry`.
    pub retry_cap: Option<Duration>,
}

impl ConnectionOptions {
    /// Checks the options, and converts them into the configuration of the backend.
    ///
    /// # Errors
    /// [`ConfigError`] names the first invalid flag.
    pub fn backend(self) -> Result<BackendConfig, ConfigError> {
        Ok(BackendConfig {
            endpoint: self.endpoint,
            region: self.region,
            retry: retry(self.retry, self.retry_base, self.retry_cap)?,
            ..BackendConfig::default()
        })
    }
}

/// The settings of a standby for the time when it is the writer.
#[derive(Debug, Clone)]
pub struct StandbyConfig {
    /// How to keep the namespace.
    pub store: NamespaceConfig,
    /// How files behave.
    pub fs: FsConfig,
}

impl StandbyConfig {
    /// Derives them from those of the time when it follows.
    fn of(store: &NamespaceConfig, fs: &FsConfig) -> Self {
        Self {
            store: NamespaceConfig {
                reclaim: GcMode::Always,
                ..store.clone()
            },
            fs: FsConfig {
                live_ttl: LIVE_TTL,
                read_only: false,
                ..fs.clone()
            },
        }
    }
}

/// The configuration of a mount, by layer.
#[derive(Debug, Clone)]
pub struct Config {
    /// The URL of the store.
    pub url: StoreUrl,
    /// The namespace's name.
    pub namespace: String,
    /// The connection to the store.
    pub backend: BackendConfig,
    /// How to keep a namespace.
    pub store: NamespaceConfig,
    /// How files behave.
    pub fs: FsConfig,
    /// How a read-only mount follows the writer.
    pub follow: FollowConfig,
    /// The time whose whole tree is shown, instead of the live one.
    pub at: Option<MountTime>,
    /// What a mount that follows the writer becomes when that one ends or dies.
    pub standby: Option<StandbyConfig>,
    /// How long a drain waits while nothing moves.
    pub drain_timeout: Duration,
    /// How to mount.
    pub mount: Configuration,
}

impl Config {
    /// Checks `settings`, and divides them by layer.
    ///
    /// # Errors
    /// [`ConfigError`] names the first invalid setting.
    pub fn new(settings: Settings) -> Result<Self, ConfigError> {
        let namespace = namespace_name(settings.namespace.as_deref())?;
        let second = Duration::from_secs(1);
        let deadline = settings.deadline.unwrap_or(Duration::from_secs(60));
        at_least("deadline", deadline, second)?;
        let drain_timeout = settings.drain_timeout.unwrap_or(DRAIN_TIMEOUT);
        at_least("drain-timeout", drain_timeout, second)?;
        at_least(
            "backend-timeout",
            settings.backend_timeout.unwrap_or(second),
            second,
        )?;
        let (sync_on, linger) = sync(settings.sync_on, settings.sync_interval)?;
        let at = mount_time(settings.at.clone())?;
        let shows_only = settings.read_only || at.is_some();
        check_standby(settings.standby, shows_only)?;
        // A standby follows until it is the writer.
        let read_only = shows_only || settings.standby;
        let refresh = refreshing(read_only, at.as_ref(), settings.refresh)?;
        let on_damage = on_damage(shows_only, settings.damaged)?;
        let fs = FsConfig {
            live_ttl: match read_only {
                true => refresh,
                false => LIVE_TTL,
            },
            sync_on,
            read_only,
            ..shown_as(&settings)?
        };
        let store = NamespaceConfig {
            cache_dir: settings.cache_dir,
            cache_bytes: bytes("cache-size", settings.cache_bytes, 10 << 30, 8 << 20)?,
            memory_bytes: bytes("memory", settings.memory_bytes, 256 << 20, MEMORY_MIN)?,
            dirty_bytes_max: bytes("dirty-max", settings.dirty_bytes_max, 4 << 30, 1 << 20)?,
            linger,
            host: settings.host,
            owner: settings.owner,
            reclaim: gc_mode(read_only),
            grace: settings.grace.unwrap_or(GRACE),
            checkpoints: CheckpointLimits::default(),
            takeover: takeover(read_only, settings.takeover)?,
            lease: LeaseTimes::default(),
            backend_timeout: settings.backend_timeout,
        };
        let standby = settings.standby.then(|| StandbyConfig::of(&store, &fs));
        let backend = settings.connection.backend()?;
        let mount = Configuration {
            mountpoint: settings.mountpoint,
            source: settings.url.to_string(),
            access: access(settings.allow_other, settings.owner),
            read_only: shows_only,
            flags: settings.flags,
            deadline,
        };
        Ok(Self {
            url: settings.url,
            namespace,
            backend,
            store,
            fs,
            follow: FollowConfig {
                every: refresh,
                on_damage,
            },
            at,
            standby,
            drain_timeout,
            mount,
        })
    }
}

/// How files are shown, by any mount.
fn shown_as(settings: &Settings) -> Result<FsConfig, ConfigError> {
    Ok(FsConfig {
        past_ttl: PAST_TTL,
        versions_name: versions_name(settings.versions_name.clone())?,
        // Resolved when the namespace is open.
        shown_at: None,
        uid: settings.uid,
        gid: settings.gid,
        umask: umask(settings.umask)?,
        ..FsConfig::default()
    })
}

fn gc_mode(read_only: bool) -> GcMode {
    match read_only {
        true => GcMode::OnRequest,
        false => GcMode::Always,
    }
}

fn access(allow_other: bool, owner: Owner) -> MountAccess {
    match allow_other || owner.uid == 0 {
        true => MountAccess::Everyone,
        false => MountAccess::Owner,
    }
}

fn namespace_name(name: Option<&str>) -> Result<String, ConfigError> {
    let name = name.unwrap_or(DEFAULT_NAMESPACE);
    match check_name(name) {
        Ok(()) => Ok(name.to_owned()),
        Err(StoreError::Invalid(why)) => Err(ConfigError::new("namespace", name, why)),
        Err(error) => Err(ConfigError::new("namespace", name, error.to_string())),
    }
}

fn versions_name(name: Option<OsString>) -> Result<Vec<u8>, ConfigError> {
    let name = name.unwrap_or_else(|| DEFAULT_VERSIONS_NAME.into());
    let bytes = name.as_bytes();
    if bytes.is_empty()
        || bytes.len() > 255
        || bytes.contains(&b'/')
        || bytes == b"."
        || bytes == b".."
    {
        return Err(ConfigError::new(
            "versions-dir",
            name.display(),
            "must be the name of one directory, at most 255 bytes",
        ));
    }
    Ok(bytes.to_vec())
}

fn mount_time(time: Option<OsString>) -> Result<Option<MountTime>, ConfigError> {
    let Some(time) = time else { return Ok(None) };
    match MountTime::parse(&time) {
        Some(at) => Ok(Some(at)),
        None => {
            let why = format!(
                "is no time between 1970 and 2554, and no name of a label; times are {SPELLINGS}"
            );
            Err(ConfigError::new("at", time.display(), why))
        }
    }
}

/// The polling interval of a read-only mount, which is also how long the kernel may cache its answers.
fn refreshing(
    read_only: bool,
    at: Option<&MountTime>,
    every: Option<Duration>,
) -> Result<Duration, ConfigError> {
    let default = match at {
        Some(_) => REFRESH_AT,
        None => REFRESH,
    };
    let every = match every {
        Some(every) if !read_only => {
            let why = "has a meaning only with --read-only or --at";
            return Err(ConfigError::new("refresh", format!("{every:?}"), why));
        }
        every => every.unwrap_or(default),
    };
    at_least("refresh", every, Duration::from_millis(100))?;
    Ok(every)
}

fn on_damage(read_only: bool, damaged: bool) -> Result<OnDamage, ConfigError> {
    match (damaged, read_only) {
        (false, _) => Ok(OnDamage::Refuse),
        (true, true) => Ok(OnDamage::Show),
        (true, false) => {
            let why = "has a meaning only with --read-only or --at: nothing is written over a damaged index";
            Err(ConfigError::new("damaged", "", why))
        }
    }
}

fn check_standby(standby: bool, shows_only: bool) -> Result<(), ConfigError> {
    match (standby, shows_only) {
        (true, true) => {
            let why = "contradicts --read-only and --at: a standby becomes the writer";
            Err(ConfigError::new("standby", "", why))
        }
        _ => Ok(()),
    }
}

fn takeover(read_only: bool, takeover: Option<Takeover>) -> Result<Takeover, ConfigError> {
    match takeover {
        Some(_) if read_only => {
            let why = "has a meaning only for a mount that writes at once: a read-only one takes the namespace from no writer, and a standby waits";
            Err(ConfigError::new("takeover", "", why))
        }
        takeover => Ok(takeover.unwrap_or_else(|| Takeover::Wait(WaitProgress::default()))),
    }
}

fn sync(on: Option<SyncOn>, interval: Option<Duration>) -> Result<(SyncOn, Linger), ConfigError> {
    let on = on.unwrap_or(SyncOn::Release);
    match (on, interval) {
        (SyncOn::Interval, interval) => {
            let interval = interval.unwrap_or(Duration::from_secs(30));
            at_least("sync-interval", interval, Duration::from_millis(100))?;
            Ok((on, Linger::For(interval)))
        }
        (_, None) => Ok((on, Linger::AtOnce)),
        (_, Some(interval)) => Err(ConfigError::new(
            "sync-interval",
            format!("{interval:?}"),
            "has a meaning only with --sync-on interval",
        )),
    }
}

fn umask(umask: Option<u32>) -> Result<Option<u32>, ConfigError> {
    match umask {
        Some(bits) if bits > 0o777 => Err(ConfigError::new(
            "umask",
            format!("{bits:o}"),
            "must be at most 777",
        )),
        other => Ok(other),
    }
}

fn bytes(
    flag: &'static str,
    value: Option<u64>,
    default: u64,
    least: u64,
) -> Result<u64, ConfigError> {
    let value = value.unwrap_or(default);
    if value < least {
        let why = format!("must be at least {} MiB", least >> 20);
        return Err(ConfigError::new(flag, value, why));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            url: StoreUrl::new("s3://key:secret@bucket/prefix?token=hidden".to_owned()),
            mountpoint: "/mnt".into(),
            namespace: None,
            read_only: false,
            at: None,
            refresh: None,
            damaged: false,
            takeover: None,
            standby: false,
            allow_other: false,
            flags: Vec::new(),
            sync_on: None,
            sync_interval: None,
            cache_dir: "/var/cache/rewindfs".into(),
            cache_bytes: None,
            memory_bytes: None,
            dirty_bytes_max: None,
            grace: None,
            connection: ConnectionOptions::default(),
            versions_name: None,
            uid: None,
            gid: None,
            umask: None,
            deadline: None,
            drain_timeout: None,
            backend_timeout: None,
            host: "here".to_owned(),
            owner: Owner {
                uid: 1000,
                gid: 1000,
            },
        }
    }

    fn refused(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = settings();
        change(&mut settings);
        Config::new(settings).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_show_no_secret() {
        let config = Config::new(settings()).unwrap();
        assert_eq!(config.namespace, DEFAULT_NAMESPACE);
        assert_eq!(config.mount.access, MountAccess::Owner);
        let shown = format!("{config:?}");
        assert!(shown.contains("s3://bucket/prefix"), "{shown}");
        for secret in ["secret", "hidden", "key"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(config.url.secret().contains("secret"));
    }

    #[test]
    fn a_mount_by_root_admits_all_users() {
        let mut root = settings();
        root.owner = Owner::default();
        let config = Config::new(root).unwrap();
        assert_eq!(config.mount.access, MountAccess::Everyone);
    }

    #[test]
    fn the_store_checks_the_name_of_a_namespace() {
        assert_eq!(namespace_name(Some("team/eu")).unwrap(), "team/eu");
        let message = namespace_name(Some("a/../b")).unwrap_err().to_string();
        assert!(message.starts_with("--namespace a/../b: "), "{message}");
    }

    #[test]
    fn a_mount_at_a_time_is_read_only() {
        let mut past = settings();
        past.at = Some("-1h".into());
        let mut often = past.clone();
        often.refresh = Some(REFRESH);
        assert_eq!(Config::new(often).unwrap().follow.every, REFRESH);
        let config = Config::new(past).unwrap();
        assert!(config.fs.read_only && config.mount.read_only);
        assert_eq!(config.follow.every, REFRESH_AT);
        assert_eq!(config.fs.live_ttl, REFRESH_AT);
        assert_eq!(config.store.reclaim, GcMode::OnRequest);
        assert_eq!(config.at.unwrap().to_string(), "-1h");
        for wrong in ["", ".yesterday", "2026-13", "-1"] {
            let message = refused(|s| s.at = Some(wrong.into()));
            let start = format!("--at {wrong}: is no time");
            assert!(message.starts_with(&start), "{message}");
        }
    }

    #[test]
    fn an_invalid_setting_is_named_by_its_flag() {
        assert!(refused(|s| s.umask = Some(0o1000)).contains("--umask 1000"));
        assert!(refused(|s| s.memory_bytes = Some(1)).contains("--memory 1"));
        assert!(refused(|s| s.deadline = Some(Duration::ZERO)).contains("--deadline"));
        assert!(refused(|s| s.versions_name = Some("a/b".into())).contains("--versions-dir a/b"));
        let lonely = refused(|s| s.sync_interval = Some(Duration::from_secs(1)));
        assert!(lonely.contains("--sync-on interval"), "{lonely}");
        let lonely = refused(|s| s.refresh = Some(Duration::from_secs(1)));
        assert!(lonely.contains("--read-only"), "{lonely}");
        let writing = refused(|s| s.damaged = true);
        assert!(writing.contains("--damaged"), "{writing}");
        let both = refused(|s| (s.read_only, s.standby) = (true, true));
        assert!(both.starts_with("--standby"), "{both}");
        let damaged = refused(|s| (s.damaged, s.standby) = (true, true));
        assert!(damaged.starts_with("--damaged"), "{damaged}");
        let follower = refused(|s| (s.read_only, s.takeover) = (true, Some(Takeover::Now)));
        assert!(follower.starts_with("--takeover"), "{follower}");
        let often = refused(|s| (s.read_only, s.refresh) = (true, Some(Duration::ZERO)));
        assert!(often.contains("--refresh"), "{often}");
    }
}
