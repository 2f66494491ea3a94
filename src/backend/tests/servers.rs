//! The contract on the servers of the end-to-end tests, and what our conditional writes make of a spoilt connection.

use super::support::azure::{ACCOUNT_KEY, AzureServer};
use super::support::place::Place;
use super::support::s3::{BUCKET, S3Server};
use super::wire::{Act, Asked, Wire};
use super::*;
use crate::backend::cloud::s3_builder;

/// Tells the child where the server is.
const PLACE: &str = "REWINDFS_TEST_PLACE";
const ENDPOINT: &str = "REWINDFS_TEST_ENDPOINT";

/// Runs the contract on a place, in a process that has its variables.
fn contract_on<S>(name: &str, start: impl FnOnce() -> Option<(S, Place)>) {
    in_child(
        &format!("{}::{name}", module_path!()),
        || {
            let (server, place) = start()?;
            let mut variables = place.variables;
            variables.push((PLACE.to_owned(), place.url));
            variables.extend(place.endpoint.map(|at| (ENDPOINT.to_owned(), at)));
            Some((server, variables))
        },
        || async {
            let config = BackendConfig {
                endpoint: std::env::var(ENDPOINT).ok(),
                ..BackendConfig::default()
            };
            let url = std::env::var(PLACE).unwrap();
            let backend = Backend::open(&url, &config).unwrap();
            let creation = match url.starts_with("s3://") {
                true => contract::Creation::TwoSteps,
                false => contract::Creation::Atomic,
            };
            contract::all(&backend, creation).await;
            let nowhere = url.replace("://test/", "://no-such-place-here/");
            let nowhere = Backend::open(&nowhere, &config).unwrap();
            let error = nowhere.check().await.unwrap_err();
            assert!(matches!(error, BackendError::Invalid { .. }), "{error}");
        },
    );
}

#[test]
fn contract_on_moto() {
    contract_on("contract_on_moto", || {
        let server = S3Server::start()?;
        let place = server.place("contract");
        Some((server, place))
    });
}

#[test]
fn contract_on_azurite() {
    contract_on("contract_on_azurite", || {
        let server = AzureServer::start()?;
        let place = server.place("contract");
        Some((server, place))
    });
}

/// As an account behind an endpoint, not declared an emulator: then it lists everything behind an offset.
#[test]
fn contract_on_azurite_undeclared() {
    contract_on("contract_on_azurite_undeclared", || {
        let server = AzureServer::start()?;
        let variables = [
            ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1"),
            ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY),
        ];
        let place = Place {
            endpoint: Some(format!("{}/devstoreaccount1", server.endpoint())),
            variables: variables
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .to_vec(),
            ..server.place("contract")
        };
        Some((server, place))
    });
}

/// A backend on `server` behind `wire`, with short pauses.
fn behind(wire: &Wire, server: &S3Server) -> Backend {
    let config = BackendConfig {
        endpoint: Some(format!("http://{}", server.address())),
        retry: Retry {
            count: 3,
            base: Duration::from_millis(1),
            cap: Duration::from_millis(5),
        },
        ..BackendConfig::default()
    };
    let store = s3_builder(BUCKET, &config)
        .unwrap()
        .with_access_key_id("testing")
        .with_secret_access_key("testing")
        .with_http_connector(wire.clone())
        .build()
        .unwrap();
    Backend::over("s3://test", Arc::new(store), &config)
}

/// Every way a write may go wrong once: twice before the server has it, then behind its back.
const SPOILT: [Act; 6] = [
    Act::Instead(503),
    Act::Refused,
    Act::Reset,
    Act::Late,
    Act::After(503),
    Act::After(500),
];

/// What S3 says while another conditional write of the same key is going on.
const UNDECIDED: &str = "<Error><Code>ConditionalRequestConflict</Code></Error>";

/// A place on a server whose conditional writes go wrong in turns, for the rooms above. A write that goes wrong behind the
/// server's back was applied.
pub(crate) struct Spoilt {
    _server: S3Server,
    wire: Wire,
    pub(crate) backend: Backend,
}

impl Spoilt {
    /// Starts it; of every two conditional writes one goes wrong. None if the servers are to be left out.
    pub(crate) fn start() -> Option<Self> {
        let server = S3Server::start()?;
        let kinds = [&SPOILT[..], &[Act::Instead(409), Act::After(409)]].concat();
        let turn = crate::sync::AtomicUsize::new(0);
        let rule = move |asked: &Asked, _: usize| {
            if asked
                .header("if-none-match")
                .or(asked.header("if-match"))
                .is_none()
            {
                return Act::Pass;
            }
            let turn = turn.fetch_add(1, crate::sync::Ordering::Relaxed);
            match turn % 2 {
                0 => kinds[turn / 2 % kinds.len()],
                _ => Act::Pass,
            }
        };
        let wire = Wire::answering(rule, &[], UNDECIDED);
        Some(Self {
            backend: behind(&wire, &server),
            _server: server,
            wire,
        })
    }

    /// How many writes there were.
    pub(crate) fn writes(&self) -> usize {
        self.wire.count("PUT")
    }
}

#[tokio::test]
async fn writes_that_were_applied_are_recognised_as_our_own() {
    let Some(server) = S3Server::start() else {
        return;
    };
    for (number, act) in SPOILT.into_iter().enumerate() {
        let wire = Wire::new(move |asked, before| match (asked.method.as_str(), before) {
            ("PUT", 0) => act,
            _ => Act::Pass,
        });
        let backend = behind(&wire, &server).child(&format!("own-{number}"));
        backend.put_new("new", bytes("ours")).await.unwrap();
        assert_eq!(backend.get("new").await.unwrap(), bytes("ours"), "{act:?}");
        // Whatever the library makes of it: one request where no answer came, else a second one.
        let expected = match act {
            Act::Reset | Act::Late => 1,
            _ => 2,
        };
        assert_eq!(wire.count("PUT"), expected, "{act:?}");

        wire.forget();
        backend.put("old", bytes("ours")).await.unwrap();
        assert_eq!(backend.get("old").await.unwrap(), bytes("ours"), "{act:?}");
        assert_eq!(wire.count("PUT"), 2, "{act:?}");
    }
}

#[tokio::test]
async fn an_object_of_another_writer_is_never_taken_for_an_own_one() {
    let Some(server) = S3Server::start() else {
        return;
    };
    for (number, act) in SPOILT.into_iter().enumerate() {
        let wire = Wire::new(move |asked, before| match (asked.method.as_str(), before) {
            ("PUT", 0) => act,
            _ => Act::Pass,
        });
        let honest = Wire::new(|_, _| Act::Pass);
        let place = format!("theirs-{number}");
        let theirs = behind(&honest, &server).child(&place);
        theirs.put("k", bytes("them")).await.unwrap();
        let ours = behind(&wire, &server).child(&place);
        let error = ours.put_new("k", bytes("ours")).await.unwrap_err();
        assert!(
            matches!(error, BackendError::AlreadyExists { .. }),
            "{act:?}: {error}"
        );
        assert_eq!(theirs.get("k").await.unwrap(), bytes("them"), "{act:?}");
    }
}

#[tokio::test]
async fn a_conflict_without_an_object_is_not_an_object_of_another_writer() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let once = |asked: &Asked, before| match (asked.method.as_str(), before) {
        ("PUT", 0) => Act::Instead(409),
        _ => Act::Pass,
    };
    for (key, body) in [("bare", ""), ("worded", UNDECIDED)] {
        let backend = behind(&Wire::answering(once, &[], body), &server);
        backend.put_new(key, bytes("ours")).await.unwrap();
        assert_eq!(backend.get(key).await.unwrap(), bytes("ours"));
    }

    // A server that dies again and again, with the request under way; the readings die like the writings.
    let dying = Wire::new(|_, before| match before {
        0..=2 => Act::Vague,
        _ => Act::Pass,
    });
    let backend = behind(&dying, &server);
    backend.put_new("dying", bytes("ours")).await.unwrap();
    assert_eq!(backend.get("dying").await.unwrap(), bytes("ours"));

    let always = Wire::new(|asked, _| match asked.method.as_str() {
        "PUT" => Act::Instead(409),
        _ => Act::Pass,
    });
    let backend = behind(&always, &server);
    let error = backend.put_new("never", bytes("ours")).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(always.count("PUT"), 4, "three retries");
}

#[tokio::test]
async fn a_spoilt_connection_says_nothing_against_a_store() {
    let Some(server) = S3Server::start() else {
        return;
    };
    // The probe's first create and its update, each of which must succeed.
    for spoilt in [0, 2] {
        for act in SPOILT {
            let wire = Wire::new(move |asked, before| match asked.method.as_str() {
                "PUT" if before == spoilt => act,
                _ => Act::Pass,
            });
            let backend = behind(&wire, &server).child("probed");
            let probed = backend.probe(&SeededEnv::new(1)).await;
            assert!(probed.is_ok(), "request {spoilt}, {act:?}: {probed:?}");
            assert_eq!(backend.list("").await.unwrap(), [], "{act:?}");
        }
    }
}
