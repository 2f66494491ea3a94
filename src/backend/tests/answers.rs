//! Answers that no object store gives, in place of a real server's: every wrong kind of them to every kind of request.

use super::support::s3::{BUCKET, S3Server};
use super::*;
use crate::backend::answer::{Connector, Peer};
use crate::backend::cloud::s3_builder;
use crate::sync::AtomicUsize;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};

/// A kind of wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// A login page, status 200; the request does not arrive.
    Page,
    /// The same without a type.
    PlainPage,
    /// Status 200 and nothing; the request does not arrive.
    Empty,
    /// The real answer with half its body, and a length to match.
    Cut,
    /// The real answer with more behind it, and a length to match.
    Long,
    /// The answer to the read or listing before.
    Other,
    /// The real answer without its entity tag.
    NoTag,
    /// The real answer without its dates, which nothing needs.
    NoDates,
    /// A page that says 404.
    PageNotFound,
    /// 404 and nothing.
    BareNotFound,
    /// What is no HTTP.
    Noise,
}

impl Lie {
    pub(crate) const ALL: [Self; 11] = [
        Self::Page,
        Self::PlainPage,
        Self::Empty,
        Self::Cut,
        Self::Long,
        Self::Other,
        Self::NoTag,
        Self::NoDates,
        Self::PageNotFound,
        Self::BareNotFound,
        Self::Noise,
    ];
}

const PAGE: &str =
    "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Welcome</body></html>";

/// Stands between a client and its server, and lies when told to. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Liar(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    lie: Mutex<Option<Lie>>,
    /// How many lies are left.
    left: AtomicUsize,
    told: AtomicUsize,
    /// The addresses of objects and listings that were read, newest last.
    seen: Mutex<Vec<String>>,
}

impl Liar {
    /// From here on the next `times` answers are lies.
    pub(crate) fn lie(&self, lie: Lie, times: usize) {
        *lock(&self.0.lie) = Some(lie);
        self.0.left.store(times, crate::sync::Ordering::SeqCst);
    }

    /// The truth again.
    pub(crate) fn stop(&self) {
        *lock(&self.0.lie) = None;
    }

    /// How many answers were lies.
    pub(crate) fn told(&self) -> usize {
        self.0.told.load(crate::sync::Ordering::SeqCst)
    }

    /// The lie for the next request, if one is due.
    fn next(&self) -> Option<Lie> {
        let lie = (*lock(&self.0.lie))?;
        let order = crate::sync::Ordering::SeqCst;
        let taken = self
            .0
            .left
            .fetch_update(order, order, |left| left.checked_sub(1));
        taken.ok()?;
        self.0.told.fetch_add(1, order);
        Some(lie)
    }
}

impl HttpConnector for Liar {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let server = ReqwestConnector::default().connect(options)?;
        let liar = self.clone();
        Ok(HttpClient::new(Service { liar, server }))
    }
}

#[derive(Debug)]
struct Service {
    liar: Liar,
    server: HttpClient,
}

fn made(status: u16, kind: Option<&str>, body: &str) -> HttpResponse {
    let mut answer = HttpResponse::new(HttpResponseBody::from(body.as_bytes().to_vec()));
    *answer.status_mut() = status.try_into().unwrap();
    let length = body.len().to_string();
    answer
        .headers_mut()
        .insert("content-length", length.parse().unwrap());
    if let Some(kind) = kind {
        answer
            .headers_mut()
            .insert("content-type", kind.parse().unwrap());
    }
    answer
}

async fn with_body(
    answer: HttpResponse,
    change: impl Fn(&[u8]) -> Vec<u8> + Send + Sync,
) -> HttpResponse {
    let (parts, body) = answer.into_parts();
    let body = body.bytes().await.unwrap();
    let body = change(&body);
    let length = body.len().to_string();
    let mut answer = HttpResponse::from_parts(parts, body.into());
    answer
        .headers_mut()
        .insert("content-length", length.parse().unwrap());
    answer
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let reads = request.method() == "GET" || request.method() == "HEAD";
        let has_body = request.method() != "HEAD";
        let url = request.uri().to_string();
        let lie = self.liar.next();
        match lie {
            Some(Lie::Page) => return Ok(made(200, Some("text/html; charset=utf-8"), PAGE)),
            Some(Lie::PlainPage) => return Ok(made(200, None, PAGE)),
            Some(Lie::Empty) => return Ok(made(200, None, "")),
            Some(Lie::PageNotFound) => return Ok(made(404, Some("text/html"), PAGE)),
            Some(Lie::BareNotFound) if request.method() == "GET" => {
                return Ok(made(404, None, ""));
            }
            Some(Lie::Noise) if reads => {
                let noise = std::io::Error::other("invalid HTTP version parsed");
                return Err(HttpError::new(HttpErrorKind::Unknown, noise));
            }
            Some(Lie::Other) if reads => {
                let listing = url.contains("list-type");
                let seen = lock(&self.liar.0.seen).clone();
                let other = |old: &&String| **old != url && old.contains("list-type") == listing;
                if let Some(other) = seen.iter().rev().find(other) {
                    *request.uri_mut() = other.parse().unwrap();
                }
            }
            _ => {}
        }
        if lie.is_none() && reads {
            lock(&self.liar.0.seen).push(url);
        }
        let mut answer = self.server.execute(request).await?;
        let success = answer.status().is_success();
        match lie {
            Some(Lie::Cut) if has_body && success => {
                Ok(with_body(answer, |body| body[..body.len() / 2].to_vec()).await)
            }
            Some(Lie::Long) if has_body && success => {
                Ok(with_body(answer, |body| [body, b"and more"].concat()).await)
            }
            Some(Lie::NoTag) => {
                answer.headers_mut().remove("etag");
                Ok(answer)
            }
            Some(Lie::NoDates) => {
                answer.headers_mut().remove("last-modified");
                answer.headers_mut().remove("date");
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }
}

/// A place on `server` behind `liar`.
pub(crate) fn behind(liar: &Liar, server: &S3Server) -> Backend {
    let config = BackendConfig {
        endpoint: Some(format!("http://{}", server.address())),
        retry: Retry {
            count: 5,
            base: Duration::from_millis(1),
            cap: Duration::from_millis(20),
        },
        ..BackendConfig::default()
    };
    let store = s3_builder(BUCKET, &config)
        .unwrap()
        .with_access_key_id("testing")
        .with_secret_access_key("testing")
        .with_http_connector(Connector::over(Arc::new(liar.clone()), Peer::Store))
        .build()
        .unwrap();
    Backend::over("s3://test", Arc::new(store), &config)
}

/// One that says which it is.
fn check(bytes: &Bytes, wanted: &str) -> Result<(), String> {
    match *bytes == *wanted.as_bytes() {
        true => Ok(()),
        false => Err(format!("{bytes:?}")),
    }
}

#[tokio::test]
async fn no_request_is_content_with_what_is_no_stores_answer() {
    let Some(server) = S3Server::start() else {
        return;
    };
    for lie in Lie::ALL {
        let liar = Liar::default();
        let backend = behind(&liar, &server).child(&format!("{lie:?}").to_lowercase());
        let far = backend.child("far");
        far.put("other", bytes("something else")).await.unwrap();
        backend.put("a/1", bytes("first")).await.unwrap();
        let seen = far.get("other").await.unwrap();
        assert_eq!(seen, bytes("something else"));
        assert_eq!(far.list("").await.unwrap().len(), 1);
        let again = || liar.lie(lie, 2);

        again();
        backend.put("a/2", bytes("second")).await.unwrap();
        again();
        backend.put_new("a/3", bytes("third")).await.unwrap();
        again();
        let taken = backend.put_new("a/3", bytes("fourth")).await.unwrap_err();
        assert!(
            matches!(taken, BackendError::AlreadyExists { .. }),
            "{lie:?}: {taken}"
        );
        for (key, text) in [("a/1", "first"), ("a/2", "second"), ("a/3", "third")] {
            again();
            let read = backend.get_as(key, 100, |bytes| check(bytes, text)).await;
            read.unwrap_or_else(|e| panic!("{lie:?}: {e}"));
            again();
            assert_eq!(backend.get(key).await.unwrap(), bytes(text), "{lie:?}");
        }
        {
            again();
            assert_eq!(
                backend.get_range("a/1", 1..3).await.unwrap(),
                bytes("ir"),
                "{lie:?}"
            );
        }
        again();
        let keys: Vec<String> = backend
            .list("a")
            .await
            .unwrap()
            .into_iter()
            .map(|o| o.key)
            .collect();
        assert_eq!(keys, ["a/1", "a/2", "a/3"], "{lie:?}");
        again();
        backend.delete("a/1").await.unwrap();
        liar.stop();
        let gone = backend.get("a/1").await.unwrap_err();
        assert!(
            matches!(gone, BackendError::NotFound { .. }),
            "{lie:?}: {gone}"
        );
        assert!(liar.told() >= 10, "{lie:?}: {} lies", liar.told());
    }
}

#[tokio::test]
async fn the_same_wrong_bytes_each_time_are_damage_and_named() {
    let (_dir, local) = local();
    for backend in [open("memory://damage"), local] {
        backend
            .put("main/namespace.json", bytes("{\"form"))
            .await
            .unwrap();
        let begun = tokio::time::Instant::now();
        let read = backend
            .get_as("main/namespace.json", 100, |bytes| check(bytes, "{}"))
            .await;
        let error = read.unwrap_err();
        assert!(matches!(error, BackendError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("main/namespace.json"), "{error}");
        assert!(!error.is_retryable());
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn wrong_bytes_that_change_are_no_damage() {
    let backend = open("memory://changes");
    backend.put("k", bytes("a")).await.unwrap();
    let turn = AtomicUsize::new(0);
    let writer = backend.clone();
    let (read, ()) = tokio::join!(
        backend.get_as("k", 100, |bytes| {
            turn.fetch_add(1, crate::sync::Ordering::SeqCst);
            check(bytes, "right")
        }),
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            writer.put("k", bytes("b")).await.unwrap();
        }
    );
    let error = read.unwrap_err();
    assert!(matches!(error, BackendError::Unavailable { .. }), "{error}");
    assert!(turn.into_inner() > 2);
}
