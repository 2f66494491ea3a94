//! Store URLs: the parser, and the `ObjectStore` of a URL.
//!
//! Invariant: a URL with a user name or password is refused before it is used, and no message repeats it.

use super::cloud::Cloud;
use super::error::{BackendError, Class};
use super::limits::BackendConfig;
use super::redact::redacted;
use crate::sync::{Arc, Mutex, OnceLock, lock};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use std::collections::HashMap;
use std::path::PathBuf;
use url::Url;

/// The kind of place a URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StoreKind {
    /// A directory of this machine.
    Local(PathBuf),
    /// A store in the memory of this process.
    Memory(String),
    /// A bucket or container.
    Cloud(Cloud, String),
    /// A store that the caller passed.
    Given,
}

/// A parsed store URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) kind: StoreKind,
    pub(super) prefix: Path,
    /// The normalized URL, for messages.
    pub(super) url: String,
}

fn invalid(url: &str, reason: impl Into<String>) -> BackendError {
    Class::Invalid.error(redacted(url), reason)
}

impl Location {
    /// Parses `url`.
    ///
    /// # Errors
    /// `Invalid` says how to correct the URL.
    pub(super) fn parse(url: &str) -> Result<Self, BackendError> {
        if !url.contains("://") {
            return Err(invalid(url, no_scheme(url)));
        }
        let parsed = Url::parse(url).map_err(|e| invalid(url, format!("not a URL: {e}")))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            let reason = "a URL must not carry a name or password; set the credentials as environment variables";
            return Err(invalid(url, reason));
        }
        if parsed.port().is_some() {
            return Err(invalid(url, "a port belongs into --endpoint, not here"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(invalid(url, "a URL must end before '?' or '#'"));
        }
        match parsed.scheme() {
            "file" => Self::local(url, &parsed),
            "memory" => Self::memory(url, &parsed),
            "s3" => Self::cloud(Cloud::S3, url, &parsed),
            "gs" => Self::cloud(Cloud::Gcs, url, &parsed),
            "az" => Self::cloud(Cloud::Azure, url, &parsed),
            "http" | "https" => Err(invalid(
                url,
                "give the bucket as s3://BUCKET/PREFIX and this URL as --endpoint",
            )),
            other => Err(invalid(
                url,
                format!("unknown scheme {other}://; known are file, s3, gs, az and memory"),
            )),
        }
    }

    /// The location of a store that the caller passed.
    pub(super) fn given(url: &str) -> Self {
        Self {
            kind: StoreKind::Given,
            prefix: Path::ROOT,
            url: redacted(url),
        }
    }

    fn local(url: &str, parsed: &Url) -> Result<Self, BackendError> {
        let path = parsed.to_file_path().map_err(|()| {
            let reason = "file:// wants an absolute path, with three slashes: file:///DIR";
            invalid(url, reason)
        })?;
        // Collected from the components, so that a trailing slash makes no difference.
        let path: PathBuf = path.components().collect();
        let shown = Url::from_file_path(&path).map_or_else(|()| redacted(url), String::from);
        Ok(Self {
            kind: StoreKind::Local(path),
            prefix: Path::ROOT,
            url: shown,
        })
    }

    fn memory(url: &str, parsed: &Url) -> Result<Self, BackendError> {
        let name = parsed.host_str().unwrap_or_default().to_owned();
        let prefix = prefix_of(url, parsed)?;
        Ok(Self {
            url: spelled("memory", &name, &prefix),
            kind: StoreKind::Memory(name),
            prefix,
        })
    }

    fn cloud(cloud: Cloud, url: &str, parsed: &Url) -> Result<Self, BackendError> {
        let scheme = cloud.scheme();
        let bucket = match parsed.host_str() {
            Some(bucket) if !bucket.is_empty() => bucket.to_owned(),
            _ => {
                return Err(invalid(
                    url,
                    format!("no bucket; write {scheme}://BUCKET/PREFIX"),
                ));
            }
        };
        let prefix = prefix_of(url, parsed)?;
        Ok(Self {
            url: spelled(scheme, &bucket, &prefix),
            kind: StoreKind::Cloud(cloud, bucket),
            prefix,
        })
    }

    /// Builds the store; creates a local directory if its parent exists. Sends no request.
    ///
    /// # Errors
    /// `Invalid` for a wrong setting or directory, `Denied` if the environment has no credentials.
    pub(super) fn open(
        &self,
        config: &BackendConfig,
    ) -> Result<Arc<dyn ObjectStore>, BackendError> {
        match &self.kind {
            StoreKind::Local(path) => self.open_local(path),
            StoreKind::Memory(name) => Ok(shared_memory(name)),
            StoreKind::Cloud(cloud, bucket) => cloud.open(bucket, &self.url, config),
            StoreKind::Given => {
                Err(Class::Invalid.error(&self.url, "this store cannot be opened again"))
            }
        }
    }

    fn open_local(&self, path: &std::path::Path) -> Result<Arc<dyn ObjectStore>, BackendError> {
        make_directory(path).map_err(|(class, reason)| class.error(&self.url, reason))?;
        let store = LocalFileSystem::new_with_prefix(path)
            .map_err(|e| BackendError::from_store(&self.url, &e))?;
        Ok(Arc::new(store.with_fsync(true)))
    }
}

/// The message for a plain path, with the URL to use instead.
fn no_scheme(given: &str) -> String {
    match std::path::absolute(given).map(Url::from_file_path) {
        Ok(Ok(url)) if !given.contains('@') => {
            format!("not a URL; for this directory write {url}")
        }
        _ => "not a URL; write file:///DIR or s3://BUCKET/PREFIX".to_owned(),
    }
}

fn prefix_of(url: &str, parsed: &Url) -> Result<Path, BackendError> {
    Path::from_url_path(parsed.path()).map_err(|e| invalid(url, format!("bad prefix: {e}")))
}

fn spelled(scheme: &str, host: &str, prefix: &Path) -> String {
    match prefix.as_ref() {
        "" => format!("{scheme}://{host}"),
        prefix => format!("{scheme}://{host}/{prefix}"),
    }
}

/// Creates the directory of a `file://` backend durably, unless it exists.
fn make_directory(path: &std::path::Path) -> Result<(), (Class, String)> {
    use std::io::ErrorKind;
    match std::fs::create_dir(path) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return must_be_a_directory(path),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(path).display();
            let reason = format!("the parent directory {parent} does not exist");
            return Err((Class::Invalid, reason));
        }
        // On a read-only file system an existing directory may still be readable.
        Err(_) if path.is_dir() => return Ok(()),
        Err(e) => return Err((Class::Denied, format!("cannot make the directory: {e}"))),
    }
    let synced = path
        .parent()
        .map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all());
    synced.map_err(|e| (Class::Unavailable, format!("cannot sync the parent: {e}")))
}

fn must_be_a_directory(path: &std::path::Path) -> Result<(), (Class, String)> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err((Class::Invalid, "not a directory".to_owned())),
        Err(e) => Err((Class::Denied, format!("cannot read the directory: {e}"))),
    }
}

/// Returns the memory store called `name`, and creates it at the first call; it exists as long as the process.
fn shared_memory(name: &str) -> Arc<dyn ObjectStore> {
    static STORES: OnceLock<Mutex<HashMap<String, Arc<InMemory>>>> = OnceLock::new();
    let mut stores = lock(STORES.get_or_init(Mutex::default));
    Arc::clone(stores.entry(name.to_owned()).or_default()) as _
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        Location::parse(url).unwrap_err().to_string()
    }

    #[test]
    fn urls_are_read_into_one_spelling() {
        let cases = [
            ("file:///data/dir/", "file:///data/dir"),
            ("s3://bucket", "s3://bucket"),
            ("s3://My.bucket_1/", "s3://My.bucket_1"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("gs://bucket/a%20b", "gs://bucket/a b"),
            ("az://container/p", "az://container/p"),
            ("memory://one/p", "memory://one/p"),
        ];
        for (given, shown) in cases {
            assert_eq!(Location::parse(given).unwrap().url, shown, "{given}");
        }
        let s3 = Location::parse("s3://bucket/a/b").unwrap();
        assert_eq!(s3.kind, StoreKind::Cloud(Cloud::S3, "bucket".into()));
        assert_eq!(s3.prefix.as_ref(), "a/b");
    }

    #[test]
    fn a_plain_path_is_told_its_url() {
        let text = refusal("/data/dir");
        assert!(text.contains("write file:///data/dir"), "{text}");
        let text = refusal("dir");
        assert!(text.contains("write file:///"), "{text}");
        assert!(text.contains("/dir"), "{text}");
    }

    #[test]
    fn wrong_urls_say_what_is_wrong() {
        for (url, word) in [
            ("file://data/dir", "three slashes"),
            ("ftp://host/x", "unknown scheme"),
            ("https://s3.example/bucket", "--endpoint"),
            ("s3://", "no bucket"),
            ("s3:///prefix", "no bucket"),
            ("s3://bucket/a//b", "bad prefix"),
            ("s3://bucket:9000/a", "--endpoint"),
            ("s3://bucket/a?versionId=1", "'?'"),
            ("", "not a URL"),
        ] {
            let text = refusal(url);
            assert!(text.contains(word), "{url}: {text}");
        }
    }

    #[test]
    fn secrets_in_urls_are_refused_and_not_repeated() {
        for url in [
            "s3://AKIAX:hidden@bucket/p",
            "s3://AKIAX:hid/hidden@bucket/p",
            "s3://hidden@bucket",
            "AKIAX:hidden@bucket",
            "az://container/p?sig=hidden",
        ] {
            let text = refusal(url);
            assert!(!text.contains("hidden"), "{text}");
            assert!(!text.contains("AKIAX"), "{text}");
        }
    }

    #[test]
    fn a_local_directory_is_made_only_below_an_existing_one() {
        let dir = tempfile::tempdir().unwrap();
        let open = |path: PathBuf| {
            let url = Url::from_file_path(path).unwrap();
            Location::parse(url.as_str())
                .unwrap()
                .open(&BackendConfig::default())
                .map(|_| ())
        };
        open(dir.path().join("new")).unwrap();
        assert!(dir.path().join("new").is_dir());
        open(dir.path().join("new")).unwrap();

        let text = open(dir.path().join("no/such")).unwrap_err().to_string();
        assert!(text.contains("parent directory"), "{text}");

        std::fs::write(dir.path().join("file"), b"").unwrap();
        let text = open(dir.path().join("file")).unwrap_err().to_string();
        assert!(text.contains("not a directory"), "{text}");
    }
}
