//! Credentials on their way to the library: variables of the environment, token files, what a provider's service hands out.
//!
//! The library puts them into headers and addresses and panics over a byte that cannot be there.
//! Invariant: what reaches it can be sent. White space at the end, which editors and `echo` leave, is cut with a warning;
//! anything else that cannot be sent is refused by the name of its variable or file. No value is ever part of a message.

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

/// What a value is used for, which says what may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Part of a header or an address.
    Sent,
    /// Made into signatures only, or the name of a file.
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

/// The value without white space at its end, or what is wrong with it.
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

/// The variables that begin with one of `prefixes`, fit to be sent.
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

/// A flag's value, which its user can type again.
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

/// Says once for each place that white space was cut off: clients are made more than once.
fn warn_once(place: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if lock(&SAID).insert(place.to_owned()) {
        tracing::warn!("{place}: white space at its end is left out");
    }
}

/// A token file, and a copy of it in memory without white space at its end. The library reads a token by the name of its file
/// and sends it as it is, so it is given the name of the copy.
#[derive(Debug)]
pub(super) struct TokenFile {
    source: PathBuf,
    copy: File,
    /// The state of the source that the copy shows.
    shown: Mutex<Option<TokenFileState>>,
}

/// What tells a file's states apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TokenFileState {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// Longer files hold no token.
const TOKEN_MAX: u64 = 1 << 20;

impl TokenFile {
    /// Takes `source` as it is now; what is wrong with it is told when a credential is asked for.
    ///
    /// # Errors
    /// `Unavailable` when there is no memory for the copy.
    pub(super) fn new(source: &str) -> Result<Self, BackendError> {
        let copy = rustix::fs::memfd_create("rewindfs-token", MemfdFlags::CLOEXEC)
            .map_err(|e| Class::Unavailable.error(source, format!("cannot be copied: {e}")))?;
        Ok(Self {
            source: PathBuf::from(source),
            copy: File::from(copy),
            shown: Mutex::new(None),
        })
    }

    /// The name of the copy.
    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.copy.as_raw_fd())
    }

    /// Brings the copy up to date. What cannot be sent leaves it as it was: the token before may still be good.
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

/// Why there is no credential that could be sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// Credentials of one provider.
pub(super) trait Sendable: Sized {
    /// Makes `self` fit to be sent: itself, or what it is without white space at its end.
    ///
    /// # Errors
    /// Says which part cannot be sent, and why.
    fn sendable(self: Arc<Self>) -> Result<Arc<Self>, String>;
}

/// Cleans one part of a credential that a service handed out.
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

/// Hands out what another provider has, if it can be sent.
pub(super) struct Checked<C> {
    inner: Arc<dyn CredentialProvider<Credential = C>>,
    /// The token files that `inner` reads by their copies.
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
        // Whatever else the library makes of a key file or a service's answer: a panic here would end what asked.
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
