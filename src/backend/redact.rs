//! URLs in messages and in settings that are printed: credentials are left out.

/// Makes a URL fit for a message: nothing before an `@` and nothing behind a `?` is shown.
pub(super) fn redacted(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match (url.contains('@'), url.split_once("://")) {
        (false, _) => url.to_owned(),
        (true, Some((scheme, _))) => format!("{scheme}://..."),
        (true, None) => "...".to_owned(),
    }
}
