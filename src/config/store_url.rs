//! The URL of a store, which may hold secrets.

use std::fmt;
use url::Url;

/// A store's URL; its `Display` omits a password, token or query.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// Takes `url` unchecked; the backend checks it.
    #[must_use]
    pub fn new(url: String) -> Self {
        Self(url)
    }

    /// The URL with its secrets.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(mut url) = Url::parse(&self.0) else {
            // A URL that cannot be parsed is shown, because the message is about it, unless it may have a secret.
            return match self.0.contains(['@', '?']) {
                true => f.write_str("(a URL that cannot be read)"),
                false => f.write_str(&self.0),
            };
        };
        // Both fail only for URLs that cannot carry a user at all.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_url_with_a_secret_is_not_shown() {
        let shown = StoreUrl::new("s3//key:secret@bucket".to_owned()).to_string();
        assert!(!shown.contains("secret"));
        assert_eq!(StoreUrl::new("nonsense".to_owned()).to_string(), "nonsense");
    }
}
