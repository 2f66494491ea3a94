//! The errors of requests, classified by what the caller can do.
//!
//! Invariant: every error names its object or URL and has the store's own message, shortened and without query strings, which
//! may hold secrets.

use object_store::client::HttpError;
use std::error::Error as StdError;
use std::io::ErrorKind;

/// Why a request to a backend failed. Kinds for which [`BackendError::is_retryable`] holds are temporary, `NotFound` and
/// `AlreadyExists` are answers, and the others are permanent. `place` is the object or the URL, `reason` the message of the
/// store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// There is no such object.
    #[error("{place}: not found: {reason}")]
    NotFound {
        /// The object that is not there.
        place: String,
        /// The message of the store.
        reason: String,
    },
    /// Another writer's object has this key.
    #[error("{place}: exists already: {reason}")]
    AlreadyExists {
        /// The key that is taken.
        place: String,
        /// The message of the store.
        reason: String,
    },
    /// The credentials are missing, wrong or lack permissions; the user has to change them.
    #[error("{place}: access refused, check the credentials: {reason}")]
    Denied {
        /// The object or URL that was refused.
        place: String,
        /// The message of the store, or the name of the missing variable.
        reason: String,
    },
    /// The store gave no usable answer in time, retries included. A later attempt may succeed.
    #[error("{place}: the store is unavailable: {reason}")]
    Unavailable {
        /// The object or URL that was asked for.
        place: String,
        /// The last failure, or the deadline that passed.
        reason: String,
    },
    /// The store lacks a feature that this program needs.
    #[error("{place}: the store cannot be used: {reason}")]
    Unsupported {
        /// The object or URL that was asked for.
        place: String,
        /// What the store cannot do.
        reason: String,
    },
    /// The object exists, and repeated reads return the same bytes, which are not those that were written.
    #[error("{place}: the object is damaged: {reason}")]
    Damaged {
        /// The object.
        place: String,
        /// How it differs.
        reason: String,
    },
    /// The URL, a flag, or the bucket in the URL is wrong; the user has to change it.
    #[error("{place}: {reason}")]
    Invalid {
        /// The URL, flag or key as given, without secrets.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// No read of an object returned the bytes that were written.
#[derive(Debug, thiserror::Error)]
#[error("what came is not this object: {why}")]
pub(super) struct ContentMismatch {
    pub(super) why: String,
    /// Every read returned the same bytes.
    pub(super) same: bool,
}

impl From<ContentMismatch> for object_store::Error {
    fn from(mismatch: ContentMismatch) -> Self {
        Self::Generic {
            store: "answer",
            source: Box::new(mismatch),
        }
    }
}

/// The variants of [`BackendError`] without their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    NotFound,
    AlreadyExists,
    Denied,
    Unavailable,
    Unsupported,
    Damaged,
    Invalid,
}

impl Class {
    /// Makes the error of this class.
    pub(super) fn error(self, place: impl Into<String>, reason: impl Into<String>) -> BackendError {
        let (place, reason) = (place.into(), reason.into());
        match self {
            Self::NotFound => BackendError::NotFound { place, reason },
            Self::AlreadyExists => BackendError::AlreadyExists { place, reason },
            Self::Denied => BackendError::Denied { place, reason },
            Self::Unavailable => BackendError::Unavailable { place, reason },
            Self::Unsupported => BackendError::Unsupported { place, reason },
            Self::Damaged => BackendError::Damaged { place, reason },
            Self::Invalid => BackendError::Invalid { place, reason },
        }
    }
}

impl BackendError {
    /// Tells whether the same request may succeed later without an action of the user. After such a failure of a write, the
    /// object may have been written.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::NotFound { .. }
            | Self::AlreadyExists { .. }
            | Self::Denied { .. }
            | Self::Unsupported { .. }
            | Self::Damaged { .. }
            | Self::Invalid { .. } => false,
        }
    }

    /// Translates an error of `object_store` about `place`.
    pub(super) fn from_store(place: impl Into<String>, error: &object_store::Error) -> Self {
        let full = chain(error);
        classify(error, &full).error(place, shorten(&full))
    }
}

/// Tells whether `error` means that a range begins at or behind the end of its object.
pub(super) fn is_past_end(error: &object_store::Error) -> bool {
    let full = chain(error);
    status(&full) == Some(416) || full.contains("Wanted range starting at")
}

/// Tells whether `error` means that a store sent the whole object instead of a range. Some stores do so for an empty object,
/// which has no range.
pub(super) fn is_whole(error: &object_store::Error) -> bool {
    chain(error).contains(WHOLE)
}

/// Tells whether `error` means that the library or the store does not support this kind of request.
pub(super) fn is_unknown(error: &object_store::Error) -> bool {
    use object_store::Error;
    matches!(
        error,
        Error::NotSupported { .. } | Error::NotImplemented { .. }
    )
}

/// Replaces the library's "already exists" by an unknown outcome if the store has not decided yet: while another conditional
/// write of the key is under way, such as this request's own first attempt, S3 answers 409 with a code of its own, which the
/// library takes for a conflict.
pub(super) fn undecided(error: object_store::Error) -> object_store::Error {
    match error {
        object_store::Error::AlreadyExists { source, .. } if names_undecided(&chain(&*source)) => {
            object_store::Error::Generic {
                store: "S3",
                source,
            }
        }
        other => other,
    }
}

/// Tells whether `error` has one of the codes in [`UNDECIDED`].
pub(super) fn is_undecided(error: &object_store::Error) -> bool {
    names_undecided(&chain(error))
}

fn names_undecided(text: &str) -> bool {
    UNDECIDED.iter().any(|code| text.contains(code))
}

/// The codes of S3's 409 while another write of the same key is under way.
const UNDECIDED: [&str; 2] = ["ConditionalRequestConflict", "OperationAborted"];

/// Tells whether the library does not repeat a request that failed with `error`: the connection was lost after the request
/// had been sent, so that its outcome is unknown; another write of the same key was under way; or the library does not
/// classify the failure.
pub(super) fn is_unrepeated(error: &object_store::Error) -> bool {
    use object_store::client::HttpErrorKind as Kind;
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(http) = cause.downcast_ref::<HttpError>() {
            return !matches!(http.kind(), Kind::Connect | Kind::Request);
        }
        next = cause.source();
    }
    status(&chain(error)) == Some(409)
}

/// The message of `object_store` for a response that is not the requested range.
const WHOLE: &str = "non-partial response";

fn classify(error: &object_store::Error, full: &str) -> Class {
    use object_store::Error;
    match error {
        // A missing bucket must never be reported as a missing object.
        Error::NotFound { .. } if names_a_missing_bucket(full) => Class::Invalid,
        Error::NotFound { .. } => Class::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => {
            Class::AlreadyExists
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Class::Denied,
        _ if is_unknown(error) => Class::Unsupported,
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => Class::Invalid,
        Error::Generic { source, .. } => classify_cause(source.as_ref(), full),
        _ => Class::Unavailable,
    }
}

/// Classifies an error that `object_store` does not classify: by the first cause of a known type, then by the HTTP status,
/// which is only in the text.
fn classify_cause(cause: &(dyn StdError + 'static), full: &str) -> Class {
    let mut next = Some(cause);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return classify_io(io.kind());
        }
        if cause.is::<HttpError>() {
            return Class::Unavailable;
        }
        if let Some(mismatch) = cause.downcast_ref::<ContentMismatch>() {
            return match mismatch.same {
                true => Class::Damaged,
                false => Class::Unavailable,
            };
        }
        next = cause.source();
    }
    if full.contains("redirect without LOCATION") {
        return Class::Invalid;
    }
    if full.contains(WHOLE) {
        return Class::Unsupported;
    }
    match status(full) {
        Some(400) if full.contains("ExpiredToken") || full.contains("InvalidToken") => {
            Class::Denied
        }
        Some(401 | 403) => Class::Denied,
        Some(408 | 409 | 429) => Class::Unavailable,
        Some(405 | 501) => Class::Unsupported,
        Some(300..=499) => Class::Invalid,
        // An unknown failure counts as temporary: another attempt loses no data, while giving up may.
        _ => Class::Unavailable,
    }
}

fn classify_io(kind: ErrorKind) -> Class {
    match kind {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Class::Denied,
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidFilename => {
            Class::Invalid
        }
        ErrorKind::Unsupported => Class::Unsupported,
        _ => Class::Unavailable,
    }
}

fn names_a_missing_bucket(text: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"]
        .iter()
        .any(|code| text.contains(code))
}

/// The HTTP status in a message of `object_store`.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// Joins the messages of `error` and of its causes, without those that an earlier message already contains.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// The longest reason, in characters.
const REASON_CHARS_MAX: usize = 300;

/// Shortens a message to one line: an XML body becomes its code and message, and query strings are removed.
fn shorten(full: &str) -> String {
    let mut text = match (between(full, "<Code>", "</Code>"), status(full)) {
        (Some(code), status) => {
            let message = between(full, "<Message>", "</Message>").unwrap_or_default();
            let number = status.map(|s| format!("{s} ")).unwrap_or_default();
            format!("{number}{code}: {message}")
        }
        (None, _) => full.to_owned(),
    };
    text = text
        .split_whitespace()
        .map(without_query)
        .collect::<Vec<_>>()
        .join(" ")
        // A terminal would obey them.
        .replace(char::is_control, "");
    if text.contains("redirect without LOCATION") {
        text.push_str(" (is the region right?)");
    }
    // A bucket with object lock accepts no object without a checksum.
    if ["Content-MD5", "x-amz-checksum"]
        .iter()
        .any(|header| text.contains(header))
    {
        text.push_str(" (set AWS_CHECKSUM_ALGORITHM=SHA256)");
    }
    match text.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(open)?;
    Some(rest.split_once(close)?.0)
}

/// A word without the query string if it is a URL: some stores put a signature there.
fn without_query(word: &str) -> &str {
    match word.split_once('?') {
        Some((url, _)) if url.contains("://") => url,
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::client::HttpErrorKind;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: source.into(),
        }
    }

    fn class_of(error: &object_store::Error) -> Class {
        classify(error, &chain(error))
    }

    #[test]
    fn http_statuses_in_messages_are_classified() {
        let cases = [
            ("400 Bad Request: ExpiredToken", Class::Denied),
            ("400 Bad Request: MalformedXML", Class::Invalid),
            ("403 Forbidden", Class::Denied),
            ("404 Not Found: NoSuchBucket", Class::Invalid),
            ("405 Method Not Allowed", Class::Unsupported),
            ("409 Conflict: OperationAborted", Class::Unavailable),
            ("429 Too Many Requests", Class::Unavailable),
            ("500 Internal Server Error", Class::Unavailable),
            ("501 Not Implemented", Class::Unsupported),
            ("503 Slow Down", Class::Unavailable),
        ];
        for (text, class) in cases {
            let error = generic(format!("Server returned non-2xx status code: {text}"));
            assert_eq!(class_of(&error), class, "{text}");
        }
        assert_eq!(class_of(&generic("who knows")), Class::Unavailable);
    }

    #[test]
    fn an_error_is_classified_by_its_causes() {
        let refused = std::io::Error::from(ErrorKind::ConnectionRefused);
        let http = HttpError::new(HttpErrorKind::Connect, refused);
        assert_eq!(class_of(&generic(http)), Class::Unavailable);
        for (kind, class) in [
            (ErrorKind::PermissionDenied, Class::Denied),
            (ErrorKind::StorageFull, Class::Unavailable),
            (ErrorKind::NotADirectory, Class::Invalid),
        ] {
            assert_eq!(class_of(&generic(std::io::Error::from(kind))), class);
        }
    }

    #[test]
    fn a_conflict_with_a_write_under_way_is_undecided() {
        let conflict = |body: &str| object_store::Error::AlreadyExists {
            path: "k".into(),
            source: format!("Server returned non-2xx status code: 409 Conflict: {body}").into(),
        };
        for (body, class) in [
            (
                "<Code>ConditionalRequestConflict</Code>",
                Class::Unavailable,
            ),
            ("<Code>OperationAborted</Code>", Class::Unavailable),
            // Azurite's word for a key that is taken.
            ("<Code>BlobAlreadyExists</Code>", Class::AlreadyExists),
            ("", Class::AlreadyExists),
        ] {
            let error = undecided(conflict(body));
            assert_eq!(class_of(&error), class, "{body}");
            assert!(is_unrepeated(&error), "{body}");
        }
    }

    #[test]
    fn what_the_library_repeats_is_told_from_what_it_passes_on() {
        for (kind, unrepeated) in [
            (HttpErrorKind::Connect, false),
            (HttpErrorKind::Request, false),
            (HttpErrorKind::Timeout, true),
            (HttpErrorKind::Interrupted, true),
            (HttpErrorKind::Unknown, true),
        ] {
            let cause = std::io::Error::from(ErrorKind::ConnectionReset);
            let error = generic(HttpError::new(kind, cause));
            assert_eq!(is_unrepeated(&error), unrepeated, "{kind:?}");
        }
        assert!(!is_unrepeated(&generic("status code: 503")));
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        let not_found = |body: &str| object_store::Error::NotFound {
            path: "a".into(),
            source: body.into(),
        };
        assert_eq!(class_of(&not_found("NoSuchKey")), Class::NotFound);
        assert_eq!(class_of(&not_found("NoSuchBucket")), Class::Invalid);
        assert_eq!(class_of(&not_found("ContainerNotFound")), Class::Invalid);
    }

    #[test]
    fn reasons_are_short_and_keep_signatures_to_themselves() {
        let error = generic(
            "Server returned non-2xx status code: 403 Forbidden: <Error><Code>AccessDenied</Code>\n<Message>Access Denied</Message></Error>",
        );
        let told = BackendError::from_store("s3://b/k", &error).to_string();
        assert_eq!(
            told,
            "s3://b/k: access refused, check the credentials: 403 AccessDenied: Access Denied"
        );

        let error = generic("GET https://a.example/c/k?sv=1&sig=SECRET failed");
        let told = BackendError::from_store("az://c/k", &error).to_string();
        assert!(told.contains("https://a.example/c/k failed"), "{told}");
        assert!(!told.contains("SECRET"), "{told}");

        let told = BackendError::from_store("k", &generic("x".repeat(5000))).to_string();
        assert!(told.len() < 400);

        let told = BackendError::from_store("k", &generic("a\u{1b}[2J \u{9b}b")).to_string();
        assert!(told.ends_with("a[2J b"), "{told:?}");
    }

    #[test]
    fn a_bucket_that_wants_checksums_is_told_how_to_get_them() {
        let error = generic(
            "Server returned non-2xx status code: 400 Bad Request: <Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters</Message></Error>",
        );
        let told = BackendError::from_store("s3://b/k", &error).to_string();
        assert!(told.contains("AWS_CHECKSUM_ALGORITHM=SHA256"), "{told}");
    }

    #[test]
    fn the_deepest_cause_is_told() {
        let refused = std::io::Error::new(ErrorKind::ConnectionRefused, "no listener");
        let error = generic(HttpError::new(HttpErrorKind::Connect, refused));
        let told = BackendError::from_store("s3://b", &error).to_string();
        assert!(told.contains("no listener"), "{told}");
    }
}
