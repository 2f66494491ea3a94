//! An HTTP connector for tests, below the retries and the signatures: it notes each request and answers it, lets it pass,
//! or spoils what became of it.

use crate::sync::{Arc, Mutex, lock};
use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use std::fmt;
use std::io::{Error as IoError, ErrorKind};

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// It reaches the server, and the answer comes back.
    Pass,
    /// It does not reach the server, which seems to answer with this status.
    Instead(u16),
    /// The connection is refused: the port has no listener.
    Refused,
    /// It reaches the server, and the connection breaks before the answer comes.
    Reset,
    /// It does not reach the server, and the library does not classify the failure: the connection ended while the request
    /// waited for it.
    Vague,
    /// It reaches the server, and the answer takes too long.
    Late,
    /// It reaches the server, and something between answers with this status.
    After(u16),
}

/// A request as it was sent.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) url: String,
    headers: Vec<(String, String)>,
    pub(super) length: usize,
}

impl Asked {
    /// The header `name`, in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Decides on a request by what it is and by how many of its method came before it.
type Rule = Box<dyn Fn(&Asked, usize) -> Act + Send + Sync>;

/// The connector and what it noted. Clones are the same one.
#[derive(Clone)]
pub(super) struct Wire {
    shared: Arc<Shared>,
}

struct Shared {
    rule: Rule,
    asked: Mutex<Vec<Asked>>,
    /// What is sent with the statuses of [`Act::Instead`].
    answer: (Vec<(&'static str, String)>, &'static str),
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    /// A connector that follows `rule`.
    pub(super) fn new(rule: impl Fn(&Asked, usize) -> Act + Send + Sync + 'static) -> Self {
        Self::answering(rule, &[], "")
    }

    /// The same, with headers and a body for the answers it gives by itself.
    pub(super) fn answering(
        rule: impl Fn(&Asked, usize) -> Act + Send + Sync + 'static,
        headers: &[(&'static str, &str)],
        body: &'static str,
    ) -> Self {
        let headers = headers.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        Self {
            shared: Arc::new(Shared {
                rule: Box::new(rule),
                asked: Mutex::default(),
                answer: (headers, body),
            }),
        }
    }

    /// Every request so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// How many requests of `method` there were.
    pub(super) fn count(&self, method: &str) -> usize {
        let asked = lock(&self.shared.asked);
        asked.iter().filter(|asked| asked.method == method).count()
    }

    /// Forgets what was noted; counting begins anew.
    pub(super) fn forget(&self) {
        lock(&self.shared.asked).clear();
    }
}

impl HttpConnector for Wire {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service {
            wire: self.clone(),
            server: ReqwestConnector::default().connect(options)?,
        }))
    }
}

#[derive(Debug)]
struct Service {
    wire: Wire,
    server: HttpClient,
}

impl Service {
    /// Notes a request and decides on it.
    fn judge(&self, request: &HttpRequest) -> Act {
        let headers = request.headers().iter();
        let asked = Asked {
            method: request.method().to_string(),
            url: request.uri().to_string(),
            headers: headers
                .map(|(key, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    (key.as_str().to_owned(), value)
                })
                .collect(),
            length: request.body().content_length(),
        };
        let before = self.wire.count(&asked.method);
        let act = (self.wire.shared.rule)(&asked, before);
        lock(&self.wire.shared.asked).push(asked);
        act
    }

    fn answer(&self, status: u16) -> HttpResponse {
        let (headers, body) = &self.wire.shared.answer;
        let mut answer = HttpResponse::new(HttpResponseBody::from(body.as_bytes().to_vec()));
        *answer.status_mut() = status.try_into().unwrap();
        for (key, value) in headers {
            answer.headers_mut().insert(*key, value.parse().unwrap());
        }
        answer
    }
}

fn broken(kind: HttpErrorKind, cause: ErrorKind) -> HttpError {
    HttpError::new(kind, IoError::from(cause))
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let act = self.judge(&request);
        match act {
            Act::Instead(status) => return Ok(self.answer(status)),
            Act::Refused => {
                return Err(broken(HttpErrorKind::Connect, ErrorKind::ConnectionRefused));
            }
            Act::Vague => {
                return Err(broken(HttpErrorKind::Unknown, ErrorKind::BrokenPipe));
            }
            Act::Pass | Act::Reset | Act::Late | Act::After(_) => {}
        }
        let answer = self.server.execute(request).await?;
        match act {
            Act::Reset => Err(broken(
                HttpErrorKind::Interrupted,
                ErrorKind::ConnectionReset,
            )),
            Act::Late => Err(broken(HttpErrorKind::Timeout, ErrorKind::TimedOut)),
            Act::After(status) => Ok(self.answer(status)),
            Act::Pass | Act::Instead(_) | Act::Refused | Act::Vague => Ok(answer),
        }
    }
}
