//! ListObjectsV2, and the XML of S3.

use std::ops::Bound;
use url::form_urlencoded::byte_serialize;

use super::http::Request;
use super::objects::Objects;

/// Greater than every character of a key.
const LAST: char = char::MAX;

/// Answers a listing of `objects`; pages are of 1,000 entries at most.
pub(crate) fn list(objects: &Objects, request: &Request) -> String {
    let (prefix, delimiter) = (request.query("prefix"), request.query("delimiter"));
    let encode = |text: &str| match request.query("encoding-type") {
        "url" => byte_serialize(text.as_bytes()).collect(),
        _ => escape(text),
    };
    let limit = request
        .query("max-keys")
        .parse()
        .map_or(1000, |max: usize| max.min(1000));
    let mut from = start(request, prefix);
    let (mut entries, mut count, mut next) = (String::new(), 0, None);
    while let Some((key, object)) = objects.range::<String, _>((from, Bound::Unbounded)).next() {
        let Some(rest) = key.strip_prefix(prefix) else {
            break;
        };
        if count == limit {
            next = Some(key);
            break;
        }
        count += 1;
        let folder = rest.find(delimiter).filter(|_| !delimiter.is_empty());
        if let Some(at) = folder {
            let common = &key[..prefix.len() + at + delimiter.len()];
            entries += &format!(
                "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>",
                encode(common)
            );
            from = Bound::Excluded(format!("{common}{LAST}"));
        } else {
            entries += &format!(
                "<Contents><Key>{}</Key><LastModified>{:.3}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                encode(key),
                object.modified,
                escape(&object.etag),
                object.size()
            );
            from = Bound::Excluded(key.clone());
        }
    }
    let token = next.map_or(String::new(), |key| {
        format!(
            "<NextContinuationToken>{}</NextContinuationToken>",
            escape(key)
        )
    });
    format!(
        "<ListBucketResult><Prefix>{}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{limit}</MaxKeys><IsTruncated>{}</IsTruncated>{token}{entries}</ListBucketResult>",
        encode(prefix),
        next.is_some()
    )
}

/// The first key of a listing. A continuation token is the first key of its page.
fn start(request: &Request, prefix: &str) -> Bound<String> {
    let (token, after) = (
        request.query("continuation-token"),
        request.query("start-after"),
    );
    if !token.is_empty() {
        Bound::Included(token.to_owned())
    } else if after >= prefix && !after.is_empty() {
        Bound::Excluded(after.to_owned())
    } else {
        Bound::Included(prefix.to_owned())
    }
}

/// The texts between `<name>` and `</name>`, in order.
pub(crate) fn texts(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open)
        .skip(1)
        .filter_map(|rest| rest.split_once(&close))
        .map(|(text, _)| unescape(text))
        .collect()
}

const ESCAPES: [(&str, &str); 4] = [
    ("&", "&amp;"),
    ("<", "&lt;"),
    (">", "&gt;"),
    ("\"", "&quot;"),
];

/// Escapes text for XML.
pub(crate) fn escape(text: &str) -> String {
    ESCAPES
        .iter()
        .fold(text.to_owned(), |text, (plain, escaped)| {
            text.replace(plain, escaped)
        })
}

/// Unescapes text of XML.
fn unescape(text: &str) -> String {
    let text = text.replace("&apos;", "'").replace("&#39;", "'");
    let text = text.replace("&#34;", "\"");
    ESCAPES
        .iter()
        .rev()
        .fold(text, |text, (plain, escaped)| text.replace(escaped, plain))
}
