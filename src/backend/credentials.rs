//! Checks of credentials: environment variables, token files, and the credentials that a provider's service returns.
//!
//! The library puts credentials into headers and URLs, and panics if a byte is not allowed there.
//! Invariant: credentials that the library gets can be sent. Trailing white space, which editors and `echo` add, is removed with
//! a warning. Any other byte that cannot be sent is an error, which names the variable or file. No message has a value.

use super::error::{BackendError, Class};
use crate::sync::{Arc, Mutex, lock};
use async_trait::async_trait;
use futures::FutureExt;
use object_store::aws::AwsCredential;
use object_store::azure::AzureCredential;
use object_store::gcp::GcpCredential;
use object_store::{CredentialProvider, Error};
use rustix::fs::MemfdFlags;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

/// The use of a value, which decides which bytes it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Part of a header or a URL.
    Sent,
    /// Used only for signatures, or as the name of a file.
    Kept,
    /// A document of several lines.
    Document,
}

impl Use {
    fn of(variable: &str) -> Self {
        let ends = |ends: &[&str]| ends.iter().any(|end| variable.ends_with(end));
        if variable.contains("SERVICE_ACCOUNT_KEY") {
            return Self::Document;
        }
        let kept = [
            "_FILE",
            "_PATH",
            "_SECRET",
            "SECRET_ACCESS_KEY",
            "SERVICE_ACCOUNT",
            "APPLICATION_CREDENTIALS",
        ];
        match ends(&kept) {
            true => Self::Kept,
            false => Self::Sent,
        }
    }
}

/// The value without trailing white space, or the reason why it cannot be used.
fn cleaned(value: &str, used: Use) -> Result<&str, &'static str> {
    let text = value.trim_end();
    let bad = |sign: char| match used {
        Use::Sent => !(' '..='~').contains(&sign),
        Use::Kept => sign.is_control(),
        Use::Document => false,
    };
    match text.chars().find(|sign| bad(*sign)) {
        None => Ok(text),
        Some('\n' | '\r') => Err("it has a line break in it"),
        Some(sign) if sign.is_control() => Err("it has a control character in it"),
        Some(_) => Err("it has a character in it that is not ASCII and cannot be sent"),
    }
}

/// The environment variables whose names begin with one of `prefixes`, checked.
///
/// # Errors
/// `Invalid` names the variable.
pub(super) fn variables(prefixes: &[&str]) -> Result<Vec<(String, String)>, BackendError> {
    let mut found = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            found.push((name.to_owned(), variable(name, &value)?));
        }
    }
    Ok(found)
}

fn variable(name: &str, value: &OsStr) -> Result<String, BackendError> {
    let refused = |why: &str| Class::Invalid.error(format!("variable {name}"), why);
    let value = value.to_str().ok_or_else(|| refused("it is not UTF-8"))?;
    let clean = cleaned(value, Use::of(name)).map_err(refused)?;
    if clean.len() < value.len() {
        warn_once(&format!("variable {name}"));
    }
    Ok(clean.to_owned())
}

/// Checks the value of a flag. White space at its end is an error, because the user can correct it.
///
/// # Errors
/// `Invalid` names the flag.
pub(super) fn flag(name: &str, value: &str) -> Result<(), BackendError> {
    match cleaned(value, Use::Sent) {
        Ok(clean) if clean == value => Ok(()),
        Ok(_) => Err(Class::Invalid.error(name, "it ends with white space")),
        Err(why) => Err(Class::Invalid.error(name, why)),
    }
}

/// Warns that white space was removed, once per variable or file, because clients are built more than once.
fn warn_once(place: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if lock(&SAID).insert(place.to_owned()) {
        tracing::warn!("{place}: white space at its end is left out");
    }
}

/// A token file, and a copy of it in memory without trailing white space. The library reads a token from a path and sends it
/// unchanged, so it gets the path of the copy.
#[derive(Debug)]
pub(super) struct TokenFile {
    source: PathBuf,
    copy: File,
    /// The state of the source at the time of the copy.
    shown: Mutex<Option<TokenFileState>>,
}

/// The attributes by which a change of the file is detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TokenFileState {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// The maximal size of a token file, in bytes.
const TOKEN_MAX: u64 = 1 << 20;

impl TokenFile {
    /// Creates an empty copy for `source`, which is read when a credential is requested.
    ///
    /// # Errors
    /// `Unavailable` if there is no memory for the copy.
    pub(super) fn new(source: &str) -> Result<Self, BackendError> {
        let copy = rustix::fs::memfd_create("rewindfs-token", MemfdFlags::CLOEXEC)
            .map_err(|e| Class::Unavailable.error(source, format!("cannot be copied: {e}")))?;
        Ok(Self {
            source: PathBuf::from(source),
            copy: File::from(copy),
            shown: Mutex::new(None),
        })
    }

    /// The path of the copy.
    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.copy.as_raw_fd())
    }

    /// Updates the copy. If the source cannot be sent, the copy stays unchanged, because the previous token may still be valid.
    fn refresh(&self) -> Result<(), Refused> {
        let refused = |why: String| Refused(format!("token file {}: {why}", self.source.display()));
        let unread = |e: std::io::Error| refused(format!("cannot be read: {e}"));
        let mut shown = lock(&self.shown);
        let state = state(&self.source).map_err(unread)?;
        if *shown == Some(state) {
            return Ok(());
        }
        if state.bytes > TOKEN_MAX {
            return Err(refused("it is too long for a token".to_owned()));
        }
        let text = std::fs::read(&self.source).map_err(unread)?;
        let text = String::from_utf8(text).map_err(|_| refused("it is not text".to_owned()))?;
        let clean = cleaned(&text, Use::Sent).map_err(|why| refused(why.to_owned()))?;
        if clean.is_empty() {
            return Err(refused("it is empty".to_owned()));
        }
        if clean.len() < text.len() {
            warn_once(&format!("token file {}", self.source.display()));
        }
        let written = self.copy.write_all_at(clean.as_bytes(), 0);
        written
            .and_then(|()| self.copy.set_len(clean.len() as u64))
            .map_err(|e| refused(format!("cannot be copied: {e}")))?;
        *shown = Some(state);
        Ok(())
    }
}

fn state(path: &Path) -> std::io::Result<TokenFileState> {
    let found = std::fs::metadata(path)?;
    Ok(TokenFileState {
        inode: found.ino(),
        bytes: found.len(),
        changed: (found.mtime(), found.mtime_nsec()),
    })
}

/// Why a credential cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// Credentials of one provider.
pub(super) trait Sendable: Sized {
    /// Returns the credential without trailing white space in its parts.
    ///
    /// # Errors
    /// Says which part cannot be sent, and why.
    fn sendable(self: Arc<Self>) -> Result<Arc<Self>, String>;
}

/// Checks one part of a credential that a service returned.
fn part(name: &str, value: &str) -> Result<String, String> {
    cleaned(value, Use::Sent)
        .map(str::to_owned)
        .map_err(|why| format!("the {name} that was handed out cannot be sent: {why}"))
}

impl Sendable for AwsCredential {
    fn sendable(self: Arc<Self>) -> Result<Arc<Self>, String> {
        let clean = Self {
            key_id: part("key id", &self.key_id)?,
            secret_key: self.secret_key.trim_end().to_owned(),
            token: match &self.token {
                Some(token) => Some(part("session token", token)?),
                None => None,
            },
        };
        Ok(match clean == *self {
            true => self,
            false => Arc::new(clean),
        })
    }
}

impl Sendable for GcpCredential {
    fn sendable(self: Arc<Self>) -> Result<Arc<Self>, String> {
        let bearer = part("token", &self.bearer)?;
        Ok(match bearer == self.bearer {
            true => self,
            false => Arc::new(Self { bearer }),
        })
    }
}

impl Sendable for AzureCredential {
    fn sendable(self: Arc<Self>) -> Result<Arc<Self>, String> {
        let Self::BearerToken(token) = &*self else {
            // The others are encoded by the library.
            return Ok(self);
        };
        let clean = part("token", token)?;
        Ok(match clean == *token {
            true => self,
            false => Arc::new(Self::BearerToken(clean)),
        })
    }
}

/// A credential provider that checks the credentials of another one.
pub(super) struct Checked<C> {
    inner: Arc<dyn CredentialProvider<Credential = C>>,
    /// The token files whose copies `inner` reads.
    files: Vec<TokenFile>,
}

impl<C> fmt::Debug for Checked<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl<C> Checked<C> {
    pub(super) fn new(
        inner: Arc<dyn CredentialProvider<Credential = C>>,
        files: Vec<TokenFile>,
    ) -> Self {
        Self { inner, files }
    }
}

#[async_trait]
impl<C: Sendable + fmt::Debug + Send + Sync + 'static> CredentialProvider for Checked<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        let refreshed = self.files.iter().try_for_each(TokenFile::refresh);
        // The library may still panic over a key file or the response of a service; the panic would end the calling task.
        let got = AssertUnwindSafe(self.inner.get_credential()).catch_unwind();
        let got = match got.await {
            Ok(got) => got,
            Err(_) => Err(unauthenticated(
                "the credentials cannot be made into a request, see the log".to_owned(),
            )),
        };
        match (got, refreshed) {
            (Ok(credential), _) => credential.sendable().map_err(unauthenticated),
            (Err(_), Err(Refused(why))) => Err(unauthenticated(why)),
            (Err(error), Ok(())) => Err(error),
        }
    }
}

fn unauthenticated(why: String) -> Error {
    Error::Unauthenticated {
        path: "credentials".to_owned(),
        source: Box::new(Refused(why)),
    }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
