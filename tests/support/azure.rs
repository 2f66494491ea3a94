//! An Azure server over HTTP for one test: Azurite's blob service, on a port of its own.
//!
//! It loses acknowledged writes when it is killed, so no test kills it.

use std::net::SocketAddr;
use std::time::Duration;

use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpRequest, HttpRequestBody};

use super::place::Place;
use super::server::{Server, installed, left_out, request_with};

/// The container every server has.
pub(crate) const CONTAINER: &str = "test";
/// The emulator's account.
const ACCOUNT: &str = "devstoreaccount1";
/// Its published key.
pub(crate) const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running server; ends when dropped.
pub(crate) struct AzureServer {
    /// The process.
    server: Server,
}

impl AzureServer {
    /// Starts a server with one container. `None`, with a message, only if the servers are skipped.
    pub(crate) fn start() -> Option<Self> {
        if left_out() {
            return None;
        }
        let program = installed("azurite/node_modules/.bin/azurite-blob")
            .display()
            .to_string();
        let server = Server::launch(
            "the Azure server Azurite",
            "/",
            &[],
            |address, directory| {
                let (host, port) = (address.ip().to_string(), address.port().to_string());
                let location = directory.join("azurite").display().to_string();
                let words = [
                    &program,
                    "--blobHost",
                    &host,
                    "--blobPort",
                    &port,
                    "--location",
                    &location,
                    "--silent",
                    "--disableTelemetry",
                ];
                words.map(str::to_owned).to_vec()
            },
        );
        let made = Self { server };
        made.make_container();
        Some(made)
    }

    /// Its address as a URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The place `prefix` in its container.
    pub(crate) fn place(&self, prefix: &str) -> Place {
        Place::azurite(&format!("{CONTAINER}/{prefix}"), &self.endpoint())
    }

    /// Makes the container with a request signed by the account's key.
    fn make_container(&self) {
        let path = format!("/{ACCOUNT}/{CONTAINER}?restype=container");
        let mut signed = HttpRequest::new(HttpRequestBody::empty());
        *signed.method_mut() = "PUT".parse().expect("a method");
        let url = format!("{}{path}", self.endpoint());
        *signed.uri_mut() = url.parse().expect("a URL");
        let key = AzureAccessKey::try_new(ACCOUNT_KEY).expect("the published key");
        AzureAuthorizer::new(&AzureCredential::AccessKey(key), ACCOUNT)
            .try_authorize(&mut signed)
            .expect("a signature");
        let headers: String = signed
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().expect("text")))
            .collect();
        let limit = Duration::from_secs(20);
        let answer = request_with(self.address(), "PUT", &path, &headers, limit);
        let made = answer
            .as_ref()
            .is_ok_and(|answer| answer.starts_with("HTTP/1.1 201"));
        assert!(
            made,
            "{}: {answer:?}",
            self.server.failure("did not make the container")
        );
    }
}
