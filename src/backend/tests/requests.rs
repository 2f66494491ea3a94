//! The requests that our operations cause, seen below the library: how often they are repeated, and for the stores no
//! test can reach, what they say.

use super::wire::{Act, Asked, Wire};
use super::*;
use crate::backend::cloud::{gcs_builder, s3_builder};

fn retrying(retry: Retry) -> BackendConfig {
    let pause = Duration::from_millis(1);
    BackendConfig {
        endpoint: Some("http://nowhere.invalid".to_owned()),
        retry: Retry {
            base: pause,
            cap: pause,
            ..retry
        },
        ..BackendConfig::default()
    }
}

/// An S3 place behind `wire`.
fn s3(wire: &Wire, config: &BackendConfig) -> Backend {
    let store = s3_builder("bucket", config)
        .unwrap()
        .with_access_key_id("key")
        .with_secret_access_key("hidden")
        .with_http_connector(wire.clone())
        .build()
        .unwrap();
    Backend::over("s3://bucket", Arc::new(store), config)
}

/// A place on Google's cloud behind `wire`, without a login.
fn gcs(wire: &Wire) -> Backend {
    let config = BackendConfig {
        retry: Retry::NONE,
        ..BackendConfig::default()
    };
    let key = r#"{"gcs_base_url": "https://storage.googleapis.com", "disable_oauth": true,
        "client_email": "", "private_key": "", "private_key_id": ""}"#;
    let store = gcs_builder("bucket", &config)
        .unwrap()
        .with_service_account_key(key)
        .with_http_connector(wire.clone())
        .build()
        .unwrap();
    Backend::over("gs://bucket", Arc::new(store), &config)
}

#[tokio::test]
async fn a_failed_request_is_repeated_as_often_as_was_asked_for() {
    for failure in [Act::Instead(503), Act::Instead(429), Act::Refused] {
        let wire = Wire::new(move |_, _| failure);
        for (retry, requests) in [
            (Retry::NONE, 1),
            (
                Retry {
                    count: 3,
                    ..Retry::default()
                },
                4,
            ),
            (Retry::default(), 11),
        ] {
            let backend = s3(&wire, &retrying(retry));
            for error in [
                backend.put("k", bytes("1")).await.unwrap_err(),
                backend.get("k").await.unwrap_err(),
                backend.get_range("k", 0..1).await.unwrap_err(),
                backend.list("").await.unwrap_err(),
                backend.delete("k").await.unwrap_err(),
            ] {
                assert!(error.is_retryable(), "{error}");
                assert!(!error.to_string().contains("hidden"), "{error}");
            }
            assert_eq!(wire.asked().len(), 5 * requests, "{failure:?} {retry:?}");
            wire.forget();

            // A create is read back besides, to learn whether it happened.
            let error = backend.put_new("k", bytes("1")).await.unwrap_err();
            assert!(error.is_retryable(), "{error}");
            assert_eq!(wire.count("PUT"), requests, "{failure:?} {retry:?}");
            wire.forget();
        }
    }
}

#[tokio::test]
async fn a_refusal_is_never_repeated() {
    for status in [400, 401, 403, 404, 405, 412] {
        let wire = Wire::new(move |_, _| Act::Instead(status));
        let backend = s3(&wire, &retrying(Retry::AGGRESSIVE));
        let error = backend.put("k", bytes("1")).await.unwrap_err();
        assert!(!error.is_retryable(), "{status}: {error}");
        assert_eq!(wire.asked().len(), 1, "{status}");
    }
}

/// The only request there was.
#[track_caller]
fn only(wire: &Wire) -> Asked {
    let asked = wire.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    wire.forget();
    asked.into_iter().next().unwrap()
}

#[tokio::test]
async fn what_is_asked_of_google() {
    let headers = [
        ("etag", "\"1\""),
        ("x-goog-generation", "7"),
        ("last-modified", "Sat, 21 Nov 2026 04:00:00 GMT"),
        ("content-length", "10"),
        ("content-range", "bytes 2-5/10"),
    ];
    let wire = Wire::answering(
        |asked, _| match asked.method.as_str() {
            "GET" => Act::Instead(206),
            _ => Act::Instead(200),
        },
        &headers,
        "2345",
    );
    let backend = gcs(&wire).child("team/eu");
    let url = "https://storage.googleapis.com/bucket/team%2Feu%2Fdata%2F1";

    backend.put("data/1", bytes("12345")).await.unwrap();
    let asked = only(&wire);
    assert_eq!((asked.method.as_str(), asked.url.as_str()), ("PUT", url));
    assert_eq!(asked.length, 5);
    assert_eq!(asked.header("x-goog-if-generation-match"), None);

    backend.put_new("data/1", bytes("123")).await.unwrap();
    let asked = only(&wire);
    assert_eq!((asked.method.as_str(), asked.url.as_str()), ("PUT", url));
    assert_eq!(asked.header("x-goog-if-generation-match"), Some("0"));

    let part = backend.get_range("data/1", 2..6).await.unwrap();
    assert_eq!(part, bytes("2345"));
    let asked = only(&wire);
    assert_eq!((asked.method.as_str(), asked.url.as_str()), ("GET", url));
    assert_eq!(asked.header("range"), Some("bytes=2-5"));
}

#[tokio::test]
async fn the_probe_of_google_goes_by_generations() {
    let headers = [
        ("etag", "\"1\""),
        ("x-goog-generation", "7"),
        ("last-modified", "Sat, 21 Nov 2026 04:00:00 GMT"),
        ("content-length", "5"),
        ("content-range", "bytes 9-13/31"),
    ];
    // An honest store: the second create and the stale update conflict.
    let wire = Wire::answering(
        |asked, before| match (asked.method.as_str(), before) {
            ("PUT", 1 | 3) => Act::Instead(412),
            ("GET", _) => Act::Instead(206),
            _ => Act::Instead(200),
        },
        &headers,
        "probe",
    );
    let probe = gcs(&wire).probe(&SeededEnv::new(1)).await.unwrap();
    assert_eq!(probe.store_time_ns, 1_795_233_600_000_000_000);
    let asked = wire.asked();
    let puts = asked.iter().filter(|asked| asked.method == "PUT");
    let conditions: Vec<_> = puts
        .map(|asked| asked.header("x-goog-if-generation-match").unwrap())
        .collect();
    assert_eq!(conditions, ["0", "0", "7", "7"]);
    assert_eq!(asked.last().unwrap().method, "DELETE", "it cleans up");
}

#[tokio::test]
async fn listings_of_google_are_asked_for_by_prefix() {
    let wire = Wire::answering(
        |_, _| Act::Instead(200),
        &[],
        "<ListBucketResult><Contents><Key>team/eu/data/1</Key><Size>3</Size>\
         <LastModified>2026-11-21T04:00:00.000Z</LastModified><ETag>\"1\"</ETag></Contents></ListBucketResult>",
    );
    let listed = gcs(&wire).child("team/eu").list("data").await.unwrap();
    let expected = ObjectInfo {
        key: "data/1".to_owned(),
        size: 3,
        modified_ns: 1_795_233_600_000_000_000,
    };
    assert_eq!(listed, [expected]);
    let asked = only(&wire);
    assert_eq!(asked.method, "GET");
    let (place, query) = asked.url.split_once('?').unwrap();
    assert_eq!(place, "https://storage.googleapis.com/bucket");
    assert!(query.contains("prefix=team%2Feu%2Fdata%2F"), "{query}");
}

#[tokio::test]
async fn what_google_answers_is_understood() {
    for (status, expected) in [
        (404, Class::NotFound),
        (401, Class::Denied),
        (403, Class::Denied),
        (429, Class::Unavailable),
        (503, Class::Unavailable),
    ] {
        let wire = Wire::new(move |_, _| Act::Instead(status));
        let error = gcs(&wire).get("k").await.unwrap_err();
        let expected = std::mem::discriminant(&expected.error("", ""));
        assert_eq!(
            std::mem::discriminant(&error),
            expected,
            "{status}: {error}"
        );
    }
    // Google's word for a key that is taken: ours if the bytes are.
    for (theirs, ours) in [("ours", true), ("them", false)] {
        let headers = [
            ("etag", "\"1\""),
            ("last-modified", "Sat, 21 Nov 2026 04:00:00 GMT"),
            ("content-length", "4"),
        ];
        let wire = Wire::answering(
            |asked, _| match asked.method.as_str() {
                "PUT" => Act::Instead(412),
                _ => Act::Instead(200),
            },
            &headers,
            theirs,
        );
        let result = gcs(&wire).put_new("k", bytes("ours")).await;
        assert_eq!(result.is_ok(), ours, "{result:?}");
    }
    // A key that is not there is deleted already.
    let wire = Wire::new(|_, _| Act::Instead(404));
    gcs(&wire).delete("k").await.unwrap();
    assert_eq!(only(&wire).method, "DELETE");
}
